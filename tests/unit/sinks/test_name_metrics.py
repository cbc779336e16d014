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
from wiremeter.sinks.domains import HALF_LIFE_SECONDS
from wiremeter.sinks.families import OF_NAMES
from wiremeter.sinks.prometheus import PrometheusSink

from ..fabricated import fabricate_batch, fabricate_transactions

KEY = FlowKey(bytes(16), 1, bytes(16), 2, 17, 6)
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
    return fabricate_batch(flow_names=np.zeros(0, np.uint32), transactions=Transactions(**kinds))


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
        ("site.example", "rx"): 2120,
        ("site.example", "tx"): 1000,
        ("other", "rx"): 1400,
        ("other", "tx"): 240,
    }
    assert samples(sink, "network_domain_packets_total")["site.example", "rx"] == 22


def test_connections_count_in_the_direction_of_their_first_packet(sink: PrometheusSink) -> None:
    sink.write(named_batch([(0, 1, 1, 100)], connections=[(0, 1, 3), (1, 1, 2), (1, 2, 1), (1, 3, 5)]))
    assert samples(sink, "network_domain_connections_total") == {
        ("site.example", "rx"): 3,
        ("site.example", "tx"): 3,
        ("other", "rx"): 0,
        ("other", "tx"): 5,
    }


def test_traffic_is_summed_by_application(sink: PrometheusSink) -> None:
    sink.write(named_batch([(0, 1, 10, 1000), (1, 2, 5, 500), (0, 3, 1, 60), (0, 0, 2, 120), (0, 0, 2, 120)]))
    bytes_by_application = samples(sink, "network_application_bytes_total")
    assert {key: value for key, value in bytes_by_application.items() if value} == {
        ("tls", "rx"): 1000,
        ("quic", "tx"): 500,
        ("redis", "rx"): 60,
        ("unknown", "rx"): 240,
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
            assert len(by_domain) <= 2 * (domains + 1)
            assert sum(samples(sink, f"network_application_{measure}_total").values()) == amount


def test_many_flows_are_added_step_by_step_and_exactly(sink: PrometheusSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_name, "_ROWS_AT_A_TIME", 7)
    flows = [(n % 2, n % 4, n, 2**53 + n) for n in range(100)]
    batch = named_batch(flows)
    gains = by_name.sums_by_name(batch, name_totals.MEASURES)
    for name in range(4):
        for direction in range(2):
            mine = [flow for flow in flows if flow[:2] == (direction, name)]
            assert gains[name, :2, direction].tolist() == [sum(flow[2] for flow in mine), sum(flow[3] for flow in mine)]


def test_the_number_of_domains_is_the_sinks(sink: PrometheusSink) -> None:
    names = (NAMELESS, *(FlowName("tls", f"{n}.example") for n in range(200)))
    batch = named_batch([(0, n, 1, 100 + n) for n in range(201)], names)
    sink.write(batch)
    assert len({domain for domain, _ in samples(sink, "network_domain_bytes_total")}) == 101
    none = PrometheusSink(domains=0)
    none.write(batch)
    assert {domain for domain, _ in samples(none, "network_domain_bytes_total")} == {"other"}
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
    assert samples(sink, "network_dns_queries_total") == {("A",): 3, ("HTTPS",): 1, ("other",): 1}
    assert samples(sink, "network_dns_responses_total") == {
        ("NOERROR",): 2,
        ("NXDOMAIN",): 1,
        ("other",): 1,
        ("SERVFAIL",): 1,
    }


def test_only_what_was_measured_is_in_the_histograms(sink: PrometheusSink) -> None:
    dns = [DnsTransaction(0, KEY, "a.example", "A", rcode=0, latency_ns=ns) for ns in (2 * 10**6, 3 * 10**9, None)]
    http = [HttpTransaction(0, KEY, "1.1", "GET", None, latency_ns=ns) for ns in (10**7, None)]
    sink.write(transactions_batch(dns=tuple(dns), http=tuple(http)))
    buckets = samples(sink, "network_dns_latency_seconds_bucket")
    assert buckets["0.001",] == 0
    assert buckets["0.0025",] == 1
    assert buckets["2.5",] == 1
    assert buckets["+Inf",] == 2
    assert samples(sink, "network_dns_latency_seconds_sum") == {(): 3.002}
    assert samples(sink, "network_http_latency_seconds_count") == {(): 1}


def test_http_counts_requests_by_method_and_class_of_status(sink: PrometheusSink) -> None:
    seen = [("GET", 200), ("GET", 204), ("BREW", 418), ("PATCH", None), (None, 500), ("GET", 999)]
    sink.write(transactions_batch(http=tuple(HttpTransaction(0, KEY, "1.1", m, None, status=s) for m, s in seen)))
    assert samples(sink, "network_http_requests_total") == {
        ("GET", "2xx"): 2,
        ("other", "4xx"): 1,
        ("PATCH", "none"): 1,
        ("none", "5xx"): 1,
        ("GET", "other"): 1,
    }


def test_handshakes_count_by_version(sink: PrometheusSink) -> None:
    tls = tuple(TlsHandshake(0, KEY, None, version) for version in ("1.3", "1.3", "1.2", "7a7a", None))
    quic = tuple(QuicHandshake(0, KEY, None, version) for version in ("1", "2", "0xbabababa"))
    sink.write(transactions_batch(tls=tls, quic=quic))
    assert samples(sink, "network_tls_handshakes_total") == {("1.3",): 2, ("1.2",): 1, ("other",): 2}
    assert samples(sink, "network_quic_handshakes_total") == {("1",): 1, ("2",): 1, ("other",): 1}


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
    assert samples(sink, "network_dns_latency_seconds_count") == {(): 0}
    assert samples(sink, "network_domain_bytes_total") == {("other", "rx"): 0, ("other", "tx"): 0}


def test_simulated_names_say_so() -> None:
    sink = PrometheusSink(mode="simulated")
    sink.write(replace(named_batch([(0, 1, 1, 100)]), mode="simulated", transactions=fabricate_transactions()))
    registry = CollectorRegistry()
    registry.register(sink)
    labels = {"mode": "simulated", "domain": "site.example", "direction": "rx"}
    assert registry.get_sample_value("network_domain_bytes_total", labels) == 100
    assert registry.get_sample_value("network_dns_latency_seconds_count", {"mode": "simulated"}) == 1


def test_no_label_tells_of_an_address_a_path_or_a_port() -> None:
    allowed = {"domain", "direction", "application", "qtype", "rcode", "method", "status_class", "version"}
    assert {label for family in OF_NAMES for label in family.labels} == allowed
