"""Batches in, metrics out: true totals, few labels, nothing that goes backwards."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from wiremeter.errors import InputError
from wiremeter.flows.batch import Attachment, Drop, FlowBatch, Health, KernelCounters, ProgramStats, Tally
from wiremeter.flows.columns import ETHERTYPE_LLC, ETHERTYPE_OTHER, FLOW, PROTOCOL_UNKNOWN, Mode
from wiremeter.sinks import prometheus
from wiremeter.sinks.prometheus import PrometheusSink

from ..clocks import Clock
from ..fabricated import ETH0_RX, ETH0_TX, fabricate_audit, fabricate_batch, fabricate_transactions

RX = {"device": "eth0", "direction": "rx"}
TX = {"device": "eth0", "direction": "tx"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sink(clock: Clock) -> PrometheusSink:
    return PrometheusSink("1.2.3", clock=clock)


def value(sink: PrometheusSink, name: str, **labels: str) -> float | None:
    """The sample's value; None if there is no such sample."""
    registry = CollectorRegistry()
    registry.register(sink)
    return registry.get_sample_value(name, labels)


def samples(sink: PrometheusSink, name: str) -> dict[tuple[str, ...], float]:
    """Every sample called `name`: labels without device and direction, and value."""
    return {
        tuple(v for k, v in sample.labels.items() if k not in ("device", "direction")): sample.value
        for metric in sink.collect()
        for sample in metric.samples
        if sample.name == name
    }


def full_batch(**more: Any) -> FlowBatch:
    """A batch with a value for every metric."""
    audit = [
        fabricate_audit(
            flows=Tally(10, 1000, 8),
            non_ip=Tally(3, 180, 3),
            unattributed={"table_full": Tally(1, 60, 1), "truncated_l3": Tally()},
            kernel=KernelCounters(13, 1200, 1, "super-packets, with Ethernet header"),
            remainders={"qdisc_drops": 0, "unexplained": -1},
            drops=(Drop("device", "dropped", 1),),
        ),
        fabricate_audit(direction="tx", capture_dropped=2, drops=(Drop("qdisc", "fq", 3),)),
    ]
    health = Health(
        flips=5,
        early_flips=1,
        table_lines=65536,
        table_peak_lines=1234,
        table_bytes=2**24,
        regions=2,
        drain_seconds=0.25,
        grace_seconds=0.5,
        displaced=("eth0 tx",),
        programs=(ProgramStats("eth0", "rx", 2_000_000_000, 100),),
        payloads={"dns": 7},
        lost_payloads={"dns": 0},
    )
    parts: dict[str, Any] = {
        "audit": audit,
        "health": health,
        "flows": np.zeros(4, FLOW),
        "flow_names": np.zeros(4, np.uint32),
        "transactions": fabricate_transactions(),
    }
    return fabricate_batch(
        [(0, 4, 6, 10, 1000, 8), (0, 0, 0, 3, 180, 3)],
        [(0, 0x0806, 2, 120, 2), (0, 0x88CC, 1, 60, 1)],
        **parts | more,
    )


def test_what_a_capture_lost_is_a_counter_where_there_is_a_capture(sink: PrometheusSink) -> None:
    attachments = [replace(attachment, mode="capture") for attachment in (ETH0_RX, ETH0_TX)]
    audit = [fabricate_audit(capture_dropped=7), fabricate_audit(direction="tx")]
    for _ in range(2):
        sink.write(fabricate_batch(audit=audit, attachments=attachments))
    assert value(sink, "network_capture_dropped_skbs_total", **RX) == 14
    assert value(sink, "network_capture_dropped_skbs_total", **TX) == 0


def test_drops_are_counters_with_their_cause_and_no_gauge(sink: PrometheusSink) -> None:
    drops = (Drop("qdisc", "tbf", 8), Drop("device", "dropped", 1))
    remainders = {"qdisc_drops": -8, "device_drops": -1, "queued": -2, "unexplained": 0}
    for _ in range(2):
        sink.write(fabricate_batch(audit=[fabricate_audit(direction="tx", drops=drops, remainders=remainders)]))
    assert samples(sink, "network_qdisc_drops_total") == {("tbf",): 16}
    assert samples(sink, "network_device_drops_total") == {("dropped",): 2}
    assert samples(sink, "network_kernel_difference_packets") == {("queued",): -4, ("unexplained",): 0}


def test_a_place_that_dropped_nothing_is_a_counter_at_zero(sink: PrometheusSink) -> None:
    sink.write(fabricate_batch(audit=[fabricate_audit(direction="tx", drops=(Drop("qdisc", "fq", 0),))]))
    assert samples(sink, "network_qdisc_drops_total") == {("fq",): 0}


def test_a_batch_of_no_device_leaves_the_time_of_the_last_batch_as_it_was(sink: PrometheusSink) -> None:
    name = "wiremeter_last_batch_timestamp_seconds"
    sink.write(fabricate_batch(attachments=(), second=1_700_000_000))
    assert value(sink, name) == 0
    sink.write(fabricate_batch(second=1_700_000_010))
    sink.write(fabricate_batch(attachments=(), second=1_700_000_020))
    assert value(sink, name) == 1_700_000_011


def test_traffic_is_summed_by_device_direction_family_and_protocol(sink: PrometheusSink) -> None:
    for _ in range(2):
        sink.write(
            fabricate_batch([(0, 4, 6, 10, 1000, 2), (1, 6, 58, 3, 300, 3), (0, 4, 6, 1, 1, 1), (0, 4, 200, 1, 60, 1)])
        )
    tcp = {"family": "ipv4", "protocol": "tcp"}
    assert value(sink, "network_packets_total", **RX, **tcp) == 22
    assert value(sink, "network_bytes_total", **RX, **tcp) == 2002
    assert value(sink, "network_skbs_total", **RX, **tcp) == 6
    assert value(sink, "network_packets_total", **TX, family="ipv6", protocol="icmpv6") == 6
    assert value(sink, "network_packets_total", **RX, family="ipv4", protocol="200") == 2


def test_an_ip_packet_too_damaged_for_a_protocol_is_of_protocol_unknown(sink: PrometheusSink) -> None:
    sink.write(fabricate_batch([(0, 4, PROTOCOL_UNKNOWN, 1, 20, 1)]))
    assert samples(sink, "network_packets_total") == {("ipv4", "unknown"): 1}


def test_non_ip_frames_go_by_ethertype_and_unnamed_ones_together(sink: PrometheusSink) -> None:
    ethertypes = [
        (0, 0x0806, 2, 120, 2),
        (0, 0x1234, 1, 60, 1),
        (0, 0x4321, 1, 60, 1),
        (0, ETHERTYPE_OTHER, 1, 60, 1),
        (0, ETHERTYPE_LLC, 3, 180, 3),
    ]
    sink.write(fabricate_batch([(0, 0, 0, 8, 480, 8)], ethertypes))
    assert samples(sink, "network_packets_total") == {
        ("non_ip", "arp"): 2,
        ("non_ip", "other"): 3,
        ("non_ip", "llc"): 3,
    }
    assert samples(sink, "network_bytes_total")[("non_ip", "other")] == 180


def test_non_ip_frames_without_detail_are_counted_all_the_same(sink: PrometheusSink) -> None:
    sink.write(fabricate_batch([(0, 0, 0, 8, 480, 8)], [(0, 0x0806, 2, 120, 2)]))
    assert samples(sink, "network_packets_total") == {("non_ip", "arp"): 2, ("non_ip", "other"): 6}


def test_every_protocol_and_any_ethertype_make_a_bounded_number_of_series(sink: PrometheusSink) -> None:
    counters = [(0, family, protocol, 1, 60, 1) for family in (4, 6) for protocol in range(257)]
    ethertypes = [(0, ethertype, 1, 60, 1) for ethertype in range(0x0600, 0x10003)]
    sink.write(fabricate_batch(counters, ethertypes))
    series = samples(sink, "network_packets_total")
    assert len(series) < 2 * 257 + 30
    assert sum(series.values()) == len(counters) + len(ethertypes)


def test_seen_is_attributed_and_unattributed_and_nothing_is_unaccounted(sink: PrometheusSink) -> None:
    sink.write(full_batch())
    seen = value(sink, "network_seen_packets_total", **RX)
    attributed = samples(sink, "network_attributed_packets_total")
    reasons = samples(sink, "network_unattributed_packets_total")
    assert reasons == {("table_full",): 1, ("truncated_l3",): 0}
    assert seen == 14
    assert value(sink, "network_attributed_packets_total", **RX, part="flows") == seen - 3 - 1
    assert set(attributed) == {("flows",), ("non_ip",)}
    assert value(sink, "network_unaccounted_packets_total", **RX) == 0
    assert value(sink, "network_unaccounted_bytes_total", **RX) == 0
    assert value(sink, "network_unaccounted_packets_total", **TX) == 0


@pytest.mark.parametrize("seen", [Tally(12, 1100, 9), Tally(8, 900, 7)])
def test_what_is_missing_or_counted_twice_is_unaccounted(sink: PrometheusSink, seen: Tally) -> None:
    audit = fabricate_audit(flows=Tally(10, 1000, 8), seen=seen)
    for _ in range(2):
        sink.write(fabricate_batch(audit=(audit,)))
    assert value(sink, "network_unaccounted_packets_total", **RX) == 4
    assert value(sink, "network_unaccounted_bytes_total", **RX) == 200
    assert value(sink, "network_unaccounted_skbs_total", **RX) == 2


def test_the_difference_to_the_kernels_counter_may_fall_and_its_counters_may_not(sink: PrometheusSink) -> None:
    for packets, difference in ((10, 5), (-1000, -8)):
        audit = fabricate_audit(
            kernel=KernelCounters(packets, 600, 0, "wire"), remainders={"bypassed_stack": difference}
        )
        sink.write(fabricate_batch(audit=(audit,)))
    assert value(sink, "network_kernel_difference_packets", **RX, cause="bypassed_stack") == -3
    assert value(sink, "network_kernel_packets_total", **RX) == 10
    assert value(sink, "network_kernel_info", **RX, convention="wire") == 1


def test_a_device_that_vanishes_and_returns_goes_on_from_its_totals(sink: PrometheusSink, clock: Clock) -> None:
    tcp = {"family": "ipv4", "protocol": "tcp"}
    sink.write(fabricate_batch([(0, 4, 6, 10, 1000, 2)]))
    clock.now += prometheus.GONE_SECONDS
    sink.write(fabricate_batch(attachments=()))
    assert value(sink, "network_packets_total", **RX, **tcp) == 10, "what came last must still be scraped"
    clock.now += 1
    sink.write(fabricate_batch(attachments=()))
    assert value(sink, "network_packets_total", **RX, **tcp) is None
    sink.write(fabricate_batch([(0, 4, 6, 1, 100, 1)], attachments=(Attachment(9, "eth0", 77, "rx", "tcx"),)))
    assert value(sink, "network_packets_total", **RX, **tcp) == 11


def test_attachments_and_displacement_are_those_of_the_last_batch(sink: PrometheusSink) -> None:
    sink.write(full_batch())
    assert value(sink, "wiremeter_displaced", **TX) == 1
    assert value(sink, "wiremeter_displaced", **RX) == 0
    sink.write(fabricate_batch(attachments=(ETH0_RX, Attachment(3, "eth1", 5, "rx", "xdp-generic"))))
    assert samples(sink, "wiremeter_attachment_info") == {("tcx", "wire"): 1, ("xdp-generic", "skb"): 1}
    assert value(sink, "wiremeter_displaced", **TX) is None


def test_devices_that_come_and_go_without_end_do_not_fill_the_memory(
    sink: PrometheusSink, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "MAX_DEVICES", 10)
    for number in range(100):
        clock.now += 1
        here = (ETH0_RX, Attachment(number + 2, f"veth{number}", number, "rx", "tcx"))
        sink.write(fabricate_batch([(0, 4, 6, 1, 100, 1), (1, 4, 6, 1, 100, 1)], attachments=here))
    assert len(sink._devices) == 10
    assert value(sink, "network_packets_total", **RX, family="ipv4", protocol="tcp") == 100


def test_devices_that_are_here_are_never_forgotten(sink: PrometheusSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MAX_DEVICES", 2)
    here = tuple(Attachment(n, f"eth{n}", n, "rx", "tcx") for n in range(5))
    for _ in range(2):
        sink.write(fabricate_batch([(n, 4, 6, 1, 100, 1) for n in range(5)], attachments=here))
    registry = CollectorRegistry()
    registry.register(sink)
    for n in range(5):
        labels = {"device": f"eth{n}", "direction": "rx", "family": "ipv4", "protocol": "tcp"}
        assert registry.get_sample_value("network_packets_total", labels) == 2


def test_two_attachments_of_one_device_and_direction_are_one_series(sink: PrometheusSink) -> None:
    twins = (ETH0_RX, Attachment(7, "eth0", 44, "rx", "tcx"))
    sink.write(fabricate_batch([(0, 4, 6, 1, 100, 1), (1, 4, 6, 2, 200, 2)], attachments=twins))
    assert samples(sink, "network_packets_total") == {("ipv4", "tcp"): 3}
    names = [(s.name, *s.labels.items()) for metric in sink.collect() for s in metric.samples]
    assert len(names) == len(set(names))


def with_programs(run_ns: int, runs: int, attachment: Attachment = ETH0_RX) -> FlowBatch:
    health = Health(programs=(ProgramStats("eth0", "rx", run_ns, runs),))
    return fabricate_batch(attachments=(attachment,), health=health)


def test_program_statistics_go_on_when_a_program_is_loaded_again(sink: PrometheusSink) -> None:
    sink.write(with_programs(2_000_000_000, 100))
    sink.write(with_programs(3_000_000_000, 150))
    sink.write(with_programs(1_000_000_000, 10, Attachment(5, "eth0", 9, "rx", "tcx")))
    assert value(sink, "wiremeter_program_run_seconds_total", **RX) == 4
    assert value(sink, "wiremeter_program_runs_total", **RX) == 160


def test_without_bpf_statistics_there_are_no_program_metrics(sink: PrometheusSink) -> None:
    sink.write(fabricate_batch([(0, 4, 6, 1, 100, 1)]))
    assert not any(metric.name.startswith("wiremeter_program") for metric in sink.collect())


def test_the_meters_health_is_shown(sink: PrometheusSink) -> None:
    sink.write(full_batch())
    sink.write(full_batch())
    expected = {
        "wiremeter_flips_total": 5,
        "wiremeter_early_flips_total": 1,
        "wiremeter_table_lines": 65536,
        "wiremeter_table_peak_lines": 1234,
        "wiremeter_table_bytes": 2**24,
        "wiremeter_table_regions": 2,
        "wiremeter_drain_seconds_total": 0.5,
        "wiremeter_grace_seconds_total": 1.0,
        "wiremeter_intervals_total": 2,
        "wiremeter_flows_total": 8,
        "wiremeter_last_batch_timestamp_seconds": 1_700_000_001,
    }
    assert {name: value(sink, name) for name in expected} == expected
    assert value(sink, "wiremeter_build_info", version="1.2.3") == 1


def test_simulated_traffic_says_so_and_never_joins_live_totals(sink: PrometheusSink) -> None:
    simulated = PrometheusSink(mode="simulated")
    with pytest.raises(InputError, match="metrics are of live traffic, and this batch is simulated"):
        sink.write(fabricate_batch(mode="simulated"))
    simulated.write(fabricate_batch([(0, 4, 17, 1, 100, 1)], audit=(fabricate_audit(),), mode="simulated"))
    labels = {**RX, "family": "ipv4", "protocol": "udp", "mode": "simulated"}
    assert value(simulated, "network_packets_total", **labels) == 1
    assert value(simulated, "network_seen_packets_total", **RX, mode="simulated") == 0


def exposition(sink: PrometheusSink, encoder: Callable[[CollectorRegistry], bytes]) -> bytes:
    registry = CollectorRegistry()
    registry.register(sink)
    return encoder(registry)


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian package prometheus)")
@pytest.mark.parametrize("mode", ["live", "simulated"])
def test_promtool_has_no_complaint(mode: Mode) -> None:
    sink = PrometheusSink("1", mode)
    sink.write(full_batch(mode=mode))
    text = exposition(sink, generate_latest)
    assert text.count(b"# TYPE") == len(sink.describe()), "every metric should be in what is checked"
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_openmetrics_reads_back(sink: PrometheusSink) -> None:
    sink.write(full_batch())
    families = {
        family.name: family.type for family in parse_openmetrics(exposition(sink, generate_openmetrics).decode())
    }
    assert families["network_packets"] == "counter"
    assert families["wiremeter_attachment"] == "info"
    assert families["network_kernel_difference_packets"] == "gauge"


def test_before_the_first_batch_there_is_only_the_version(sink: PrometheusSink) -> None:
    assert [metric.name for metric in sink.collect()] == ["wiremeter_build"]


def test_a_scrape_can_ask_for_some_metrics_only(sink: PrometheusSink) -> None:
    sink.write(full_batch())
    registry = CollectorRegistry()
    registry.register(sink)
    text = generate_latest(registry.restricted_registry(["network_skbs_total"])).decode()
    assert "network_skbs_total{" in text
    assert "wiremeter" not in text


def test_scrapes_meanwhile_see_totals_that_only_grow(sink: PrometheusSink) -> None:
    done = threading.Event()

    def write() -> None:
        for _ in range(500):
            sink.write(full_batch())
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    last = 0.0
    while not done.is_set():
        packets = value(sink, "network_packets_total", **RX, family="ipv4", protocol="tcp") or 0.0
        seen = sum(samples(sink, "network_seen_packets_total").values())
        assert packets >= last
        assert seen % 14 == 0, "a scrape saw half a batch"
        last = packets
    writer.join()
    assert value(sink, "network_packets_total", **RX, family="ipv4", protocol="tcp") == 5000


def test_an_unused_direction_still_has_its_attachment(sink: PrometheusSink) -> None:
    sink.write(fabricate_batch(attachments=(ETH0_TX,)))
    assert value(sink, "wiremeter_attachment_info", **TX, mode="tcx", counts="wire") == 1
