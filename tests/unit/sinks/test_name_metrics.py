"""Names in batches, metrics out: exact sums, few series, and nothing where names are off."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from wiremeter.errors import InputError
from wiremeter.flows import by_name
from wiremeter.flows.batch import FlowBatch, Health
from wiremeter.flows.columns import CONNECTIONS, FLOW
from wiremeter.names.records import (
    NAMELESS,
    DnsTransaction,
    FlowKey,
    FlowName,
    HttpTransaction,
    QuicHandshake,
    TlsHandshake,
    Transactions,
)
from wiremeter.sinks import name_totals
from wiremeter.sinks.families import OF_NAMES
from wiremeter.sinks.listed import HALF_LIFE_SECONDS
from wiremeter.sinks.prometheus import PrometheusSink

from ..fabricated import fabricate_batch, fabricate_transactions

SERVER = "192.0.2.53"
KEY = FlowKey(bytes(16), 1, bytes(10) + b"\xff\xff\xc0\0\2\x35", 53, 17, 4)
SITE = FlowName("tls", "site.example", "sni")
SITE_BY_QUIC = FlowName("quic", "site.example", "quic_sni")
CACHE = FlowName("redis")


@pytest.fixture
def sink() -> PrometheusSink:
    return PrometheusSink()


def named_batch(
    flows: Collection[tuple[int, ...]],
    names: Sequence[FlowName] = (NAMELESS, SITE, SITE_BY_QUIC, CACHE),
    connections: Iterable[tuple[int, ...]] = (),
    **more: Any,
) -> FlowBatch:
    """flows: (attachment, name, packets, bytes); attachment 0 is rx, 1 is tx. connections: as in CONNECTIONS."""
    rows = np.zeros(len(flows), FLOW)
    for column, values in zip(("attachment", None, "packets", "bytes"), zip(*flows, strict=True), strict=False):
        if column:
            rows[column] = values
    return fabricate_batch(
        flows=rows,
        names=names,
        flow_names=np.array([name for _, name, *_ in flows], np.uint32),
        connections=np.array(list(connections), CONNECTIONS),
        **more,
    )


def transactions_batch(**kinds: Any) -> FlowBatch:
    """All of eth0."""
    if "dns" in kinds:
        kinds["dns"] = tuple(one._replace(device="eth0") for one in kinds["dns"])
    others = {kind: tuple(replace(one, device="eth0") for one in seen) for kind, seen in kinds.items() if kind != "dns"}
    return fabricate_batch(flow_names=np.zeros(0, np.uint32), transactions=Transactions(**kinds | others))


def samples(sink: PrometheusSink, name: str) -> dict[tuple[str, ...], float]:
    """Label values and value of every sample called `name`."""
    return {
        tuple(sample.labels.values()): sample.value
        for metric in sink.collect()
        for sample in metric.samples
        if sample.name == name
    }


def test_traffic_is_summed_by_domain_and_direction_whatever_else_the_names_say(sink: PrometheusSink) -> None:
    for _ in range(2):
        sink.write(named_batch([(0, 1, 10, 1000), (1, 1, 5, 500), (0, 2, 1, 60), (0, 3, 7, 700), (1, 0, 2, 120)]))
    assert samples(sink, "network_domain_bytes_total") == {
        ("eth0", "site.example", "said", "rx"): 2120,
        ("eth0", "site.example", "said", "tx"): 1000,
        ("eth0", "other", "none", "rx"): 1400,
        ("eth0", "other", "none", "tx"): 240,
    }
    assert samples(sink, "network_domain_packets_total")["eth0", "site.example", "said", "rx"] == 22


def test_what_dns_let_guess_is_told_apart_from_what_clients_said(sink: PrometheusSink) -> None:
    names = (
        NAMELESS,
        SITE,
        *(FlowName("ssh", "site.example", source) for source in ("dns_answer", "ptr", "http_host")),
    )
    sink.write(named_batch([(0, number, 1, 10**number) for number in range(5)], names))
    by_evidence = samples(sink, "network_domain_bytes_total")
    assert {key[1:3]: value for key, value in by_evidence.items() if value} == {
        ("site.example", "said"): 10_010,
        ("site.example", "dns"): 1_100,
        ("other", "none"): 1,
    }


def test_each_device_has_its_own(sink: PrometheusSink) -> None:
    batch = named_batch([(0, 1, 1, 100), (1, 1, 1, 50), (1, 0, 1, 7)], connections=[(0, 1, 3)])
    first, second = batch.attachments
    asked = DnsTransaction(0, KEY, "a.example", "A", rcode=0, latency_ns=10**6, device="eth1")
    request = HttpTransaction(0, KEY, "1.1", "GET", None, status=200, latency_ns=10**6, device="eth0")
    sink.write(
        replace(
            batch,
            attachments=(first, replace(second, device="eth1")),
            transactions=Transactions(dns=(asked,), http=(request,)),
        )
    )
    assert {key: value for key, value in samples(sink, "network_domain_bytes_total").items() if value} == {
        ("eth0", "site.example", "said", "rx"): 100,
        ("eth1", "site.example", "said", "tx"): 50,
        ("eth1", "other", "none", "tx"): 7,
    }
    assert samples(sink, "network_application_bytes_total")["eth1", "tls", "tx"] == 50
    assert samples(sink, "network_dns_queries_total") == {("eth1", SERVER, "A"): 1}
    assert samples(sink, "network_http_requests_total") == {("eth0", "GET", "2xx"): 1}
    assert samples(sink, "network_http_latency_seconds_count") == {("eth0",): 1, ("eth1",): 0}
    assert samples(sink, "network_dns_latency_seconds_count") == {
        ("eth0", "other"): 0,
        ("eth1", "other"): 0,
        ("eth1", SERVER): 1,
    }


def test_connections_count_in_the_direction_of_their_first_packet(sink: PrometheusSink) -> None:
    sink.write(named_batch([(0, 1, 1, 100)], connections=[(0, 1, 3), (1, 1, 2), (1, 2, 1), (1, 3, 5)]))
    assert samples(sink, "network_domain_connections_total") == {
        ("eth0", "site.example", "said", "rx"): 3,
        ("eth0", "site.example", "said", "tx"): 3,
        ("eth0", "other", "none", "rx"): 0,
        ("eth0", "other", "none", "tx"): 5,
    }


def test_traffic_is_summed_by_application(sink: PrometheusSink) -> None:
    sink.write(named_batch([(0, 1, 10, 1000), (1, 2, 5, 500), (0, 3, 1, 60), (0, 0, 2, 120), (0, 0, 2, 120)]))
    bytes_by_application = samples(sink, "network_application_bytes_total")
    assert {key: value for key, value in bytes_by_application.items() if value} == {
        ("eth0", "tls", "rx"): 1000,
        ("eth0", "quic", "tx"): 500,
        ("eth0", "redis", "rx"): 60,
        ("eth0", "unknown", "rx"): 240,
    }
    assert sum(samples(sink, "network_application_packets_total").values()) == 20


FLOWS = st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(1, 2**20), st.integers(1, 2**40))
MANY = tuple(FlowName("tls", f"{n}.example") for n in range(5))


@settings(max_examples=30)
@given(st.integers(0, 3), st.lists(st.lists(FLOWS, max_size=30), max_size=10))
def test_the_families_sums_are_all_traffic_after_each_batch(domains: int, batches: list[list[tuple[int, ...]]]) -> None:
    sink = PrometheusSink(domains=domains)
    total = {"packets": 0, "bytes": 0}
    for flows in batches:
        batch = named_batch(flows, (NAMELESS, *MANY))
        sink.write(replace(batch, end_ns=batch.start_ns + int(HALF_LIFE_SECONDS * 1e9)))
        total["packets"] += sum(flow[2] for flow in flows)
        total["bytes"] += sum(flow[3] for flow in flows)
        for measure, amount in total.items():
            by_domain = samples(sink, f"network_domain_{measure}_total")
            assert sum(by_domain.values()) == amount
            assert len({key[1] for key in by_domain} - {"other", "former"}) <= domains
            assert sum(samples(sink, f"network_application_{measure}_total").values()) == amount


def test_many_flows_are_added_step_by_step_and_exactly(sink: PrometheusSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_name, "_ROWS_AT_A_TIME", 7)
    flows = [(n % 2, n % 4, n, 2**53 + n) for n in range(100)]
    batch = named_batch(flows)
    gains = by_name.sums_by_name(batch, name_totals.MEASURES)
    attachments, names, sums = by_name.sums_by_attachment(batch, name_totals.MEASURES)
    together = {
        (at, name): each.tolist() for at, name, each in zip(attachments.tolist(), names.tolist(), sums, strict=True)
    }
    for name in range(4):
        for direction in range(2):
            mine = [flow for flow in flows if flow[:2] == (direction, name)]
            amounts = [sum(flow[2] for flow in mine), sum(flow[3] for flow in mine)]
            assert gains[name, :2, direction].tolist() == amounts
            assert together.pop((direction, name), [0, 0, 0]) == [*amounts, 0]
    assert not together


def test_the_number_of_domains_is_the_sinks(sink: PrometheusSink) -> None:
    names = (NAMELESS, *(FlowName("tls", f"{n}.example") for n in range(200)))
    batch = named_batch([(0, n, 1, 100 + n) for n in range(201)], names)
    sink.write(batch)
    assert len({domain for _, domain, *_ in samples(sink, "network_domain_bytes_total")}) == 101
    none = PrometheusSink(domains=0)
    none.write(batch)
    assert {domain for _, domain, *_ in samples(none, "network_domain_bytes_total")} == {"other"}
    with pytest.raises(InputError):
        PrometheusSink(domains=-1)


def test_dns_counts_questions_by_type_and_answers_by_code(sink: PrometheusSink) -> None:
    asked = [DnsTransaction(0, KEY, "a.example", "A", rcode=0, latency_ns=10**6)] * 2
    asked += [
        DnsTransaction(0, KEY, "a.example", "HTTPS", rcode=3, latency_ns=10**6),
        DnsTransaction(0, KEY, "a.example", "A", retry=True),
        DnsTransaction(0, KEY, "a.example", "TYPE65280", rcode=4095),
        DnsTransaction(0, KEY, "a.example", "AAAA", rcode=2, has_query=False),
    ]
    sink.write(transactions_batch(dns=tuple(asked)))
    assert samples(sink, "network_dns_queries_total") == {
        ("eth0", SERVER, "A"): 3,
        ("eth0", SERVER, "HTTPS"): 1,
        ("eth0", SERVER, "other"): 1,
    }
    assert samples(sink, "network_dns_responses_total") == {
        ("eth0", SERVER, "NOERROR"): 2,
        ("eth0", SERVER, "NXDOMAIN"): 1,
        ("eth0", SERVER, "other"): 1,
        ("eth0", SERVER, "SERVFAIL"): 1,
    }
    assert samples(sink, "network_dns_timeouts_total") == {("eth0", "other"): 0, ("eth0", SERVER): 1}


def test_mdns_among_hosts_never_times_out(sink: PrometheusSink) -> None:
    among_hosts = KEY._replace(src_port=5353, dst_port=5353)
    one_shot = KEY._replace(src_port=40000, dst_port=5353)
    asked = tuple(DnsTransaction(0, flow, "a.local", "A") for flow in (among_hosts, among_hosts, one_shot))
    sink.write(transactions_batch(dns=asked))
    assert samples(sink, "network_dns_timeouts_total")["eth0", SERVER] == 1


def test_slow_servers_are_told_apart_and_their_number_is_bounded() -> None:
    sink = PrometheusSink(dns_servers=2)
    for asked in ({1: 100, 2: 50, 3: 1}, {1: 100, 2: 50}, {1: 1, 3: 400}):
        dns = [
            DnsTransaction(0, KEY._replace(dst_addr=bytes(15) + bytes([n])), "a.example", "A", 0, 10**6 * 4**n)
            for n, count in asked.items()
            for _ in range(count)
        ]
        sink.write(transactions_batch(dns=tuple(dns)))
    counts = samples(sink, "network_dns_latency_seconds_count")
    assert counts == {("eth0", "::1"): 201, ("eth0", "::3"): 400, ("eth0", "former"): 100, ("eth0", "other"): 1}
    assert samples(sink, "network_dns_latency_seconds_sum")["eth0", "::3"] == pytest.approx(400 * 0.064)
    assert sum(samples(sink, "network_dns_queries_total").values()) == 702


def test_only_what_was_measured_is_in_the_histograms(sink: PrometheusSink) -> None:
    dns = [DnsTransaction(0, KEY, "a.example", "A", rcode=0, latency_ns=ns) for ns in (2 * 10**6, 3 * 10**9, None)]
    http = [HttpTransaction(0, KEY, "1.1", "GET", None, latency_ns=ns) for ns in (10**7, None)]
    sink.write(transactions_batch(dns=tuple(dns), http=tuple(http)))
    buckets = samples(sink, "network_dns_latency_seconds_bucket")
    counts = {bound: value for (_, server, bound), value in buckets.items() if server == SERVER}
    assert (counts["0.001"], counts["0.0025"], counts["2.5"], counts["+Inf"]) == (0, 1, 1, 2)
    assert samples(sink, "network_dns_latency_seconds_sum")["eth0", SERVER] == 3.002
    assert samples(sink, "network_http_latency_seconds_count") == {("eth0",): 1}


def test_http_counts_requests_by_method_and_class_of_status(sink: PrometheusSink) -> None:
    seen = [("GET", 200), ("GET", 204), ("BREW", 418), ("PATCH", None), (None, 500), ("GET", 999)]
    sink.write(transactions_batch(http=tuple(HttpTransaction(0, KEY, "1.1", m, None, status=s) for m, s in seen)))
    assert samples(sink, "network_http_requests_total") == {
        ("eth0", "GET", "2xx"): 2,
        ("eth0", "other", "4xx"): 1,
        ("eth0", "PATCH", "none"): 1,
        ("eth0", "none", "5xx"): 1,
        ("eth0", "GET", "other"): 1,
    }


def test_handshakes_count_by_version(sink: PrometheusSink) -> None:
    tls = tuple(TlsHandshake(0, KEY, None, version) for version in ("1.3", "1.3", "1.2", "7a7a", None))
    quic = tuple(QuicHandshake(0, KEY, None, version) for version in ("1", "2", "0xbabababa"))
    sink.write(transactions_batch(tls=tls, quic=quic))
    assert samples(sink, "network_tls_handshakes_total") == {
        ("eth0", "1.3"): 2,
        ("eth0", "1.2"): 1,
        ("eth0", "other"): 2,
    }
    assert samples(sink, "network_quic_handshakes_total") == {("eth0", "1"): 1, ("eth0", "2"): 1, ("eth0", "other"): 1}


def test_peers_that_send_anything_make_a_bounded_number_of_series(sink: PrometheusSink) -> None:
    sink.write(
        transactions_batch(
            dns=tuple(DnsTransaction(0, KEY, f"{n}", f"TYPE{n}", rcode=n) for n in range(4096)),
            tls=tuple(TlsHandshake(0, KEY, None, hex(n)) for n in range(1000)),
            quic=tuple(QuicHandshake(0, KEY, None, hex(n)) for n in range(1000)),
            http=tuple(HttpTransaction(0, KEY, "1.1", f"M{n}", None, status=n) for n in range(1000)),
        )
    )
    of_names = {family.name for family in OF_NAMES}
    assert sum(len(metric.samples) for metric in sink.collect() if metric.name in of_names) < 100


def test_events_are_those_since_the_start_and_never_fall(sink: PrometheusSink) -> None:
    for payloads, lost in (
        ({"dns": 10, "tls": 2}, {"dns": 1, "tls": 0}),
        ({"dns": 30, "tls": 1}, {"dns": 1, "tls": 5}),
    ):
        sink.write(fabricate_batch(health=Health(payloads=payloads, lost_payloads=lost)))
    assert samples(sink, "wiremeter_payload_events_total") == {("dns",): 30, ("tls",): 2}
    assert samples(sink, "wiremeter_lost_events_total") == {("dns",): 1, ("tls",): 5}


def test_with_names_off_there_is_no_metric_of_names(sink: PrometheusSink) -> None:
    sink.write(fabricate_batch(flows=np.ones(3, FLOW)[:0]))
    shown = {metric.name for metric in sink.collect()}
    assert not shown & {family.name for family in OF_NAMES}
    assert not any("events" in name for name in shown)


def test_with_names_on_histograms_and_other_begin_at_zero(sink: PrometheusSink) -> None:
    sink.write(fabricate_batch(flow_names=np.zeros(0, np.uint32)))
    assert samples(sink, "network_dns_latency_seconds_count") == {("eth0", "other"): 0}
    nothing = {("eth0", "other", "none", "rx"): 0, ("eth0", "other", "none", "tx"): 0}
    assert samples(sink, "network_domain_bytes_total") == nothing


def test_simulated_names_say_so() -> None:
    sink = PrometheusSink(mode="simulated")
    sink.write(replace(named_batch([(0, 1, 1, 100)]), mode="simulated", transactions=fabricate_transactions()))
    registry = CollectorRegistry()
    registry.register(sink)
    labels = {"mode": "simulated", "device": "eth0", "domain": "site.example", "evidence": "said", "direction": "rx"}
    assert registry.get_sample_value("network_domain_bytes_total", labels) == 100
    assert (
        registry.get_sample_value(
            "network_dns_latency_seconds_count", {"mode": "simulated", "device": "eth0", "server": "::2"}
        )
        == 1
    )


def test_no_label_tells_of_an_address_a_path_or_a_port_but_of_dns_servers() -> None:
    allowed = {
        "device",
        "server",
        "evidence",
        "domain",
        "direction",
        "application",
        "qtype",
        "rcode",
        "method",
        "status_class",
        "version",
    }
    assert {label for family in OF_NAMES for label in family.labels} == allowed
