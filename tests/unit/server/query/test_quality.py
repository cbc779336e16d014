"""Counts, failures and latencies of transactions, against Python's arithmetic over the transactions themselves."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from wiremeter.errors import InputError
from wiremeter.names.records import DnsTransaction, FlowKey, HttpTransaction, TlsHandshake, Transactions
from wiremeter.server.query.conditions import where
from wiremeter.server.query.quality import KINDS, QualityQuestion, quality, read_quality_dimensions
from wiremeter.server.query.search import WORDS
from wiremeter.server.query.times import Span
from wiremeter.server.store import Store

from ...live_batches import make_batch, packed
from .stored import EPOCH_NS, store_batch

S_NS = 10**9
SPAN = Span(EPOCH_NS, EPOCH_NS + 3600 * S_NS)
SERVERS = ("198.51.100.1", "198.51.100.2", "2001:db8::53")


def key(server: str, port: int) -> FlowKey:
    version = 6 if ":" in server else 4
    return FlowKey(packed("2001:db8::9" if version == 6 else "10.0.0.5"), 40000, packed(server), port, 17, version)


def make_dns(count: int = 900) -> list[DnsTransaction]:
    chance = random.Random(3)
    found = []
    for number in range(count):
        server = chance.choice(SERVERS)
        rcode = chance.choice([0, 0, 0, 0, 2, 3, 5, None])
        latency = None if rcode is None else round(chance.lognormvariate(15, 1.5))
        name = f"Name-{chance.randrange(4)}.example"
        found.append(
            DnsTransaction(
                EPOCH_NS + number * S_NS, key(server, 53), name, "A", rcode, latency, retry=chance.random() < 0.1
            )
        )
    return found


def make_http(count: int = 300) -> list[HttpTransaction]:
    chance = random.Random(4)
    return [
        HttpTransaction(
            EPOCH_NS + number * S_NS,
            key(chance.choice(SERVERS), 80),
            "1.1",
            "GET",
            "site.example",
            "/",
            status := chance.choice([200, 200, 404, 500, 503, None]),
            None if status is None else chance.randrange(10**9),
        )
        for number in range(count)
    ]


DNS, HTTP = make_dns(), make_http()


@pytest.fixture(scope="module")
def store(opened: Store) -> Store:
    tls = tuple(
        TlsHandshake(EPOCH_NS, key(SERVERS[0], 443), "a.example", version, cipher=cipher, ech=cipher is None)
        for version, cipher in (("1.3", "TLS_AES_128_GCM_SHA256"), ("1.3", None), ("1.2", "X"))
    )
    batch = make_batch([], transactions=Transactions(dns=tuple(DNS), http=tuple(HTTP), tls=tls))
    store_batch(opened, batch, "asks")
    return opened


def ask(store: Store, kind: Any, step: int = 0, **more: Any) -> list[dict[str, Any]]:
    more = {"span": SPAN, "condition": where("agent asks", WORDS[kind]), **more}
    return list(quality(store, QualityQuestion(kind=kind, **more), step).table().to_pylist())


def percentile(values: Sequence[int], share: float) -> int:
    """By nearest rank, lower."""
    return sorted(values)[math.floor(share * (len(values) - 1))]


def check_latencies(row: dict[str, Any], latencies: Sequence[int]) -> None:
    assert row["latencies"] == len(latencies)
    assert row["latency_max_ns"] == max(latencies)
    assert row["latency_mean_ns"] == pytest.approx(sum(latencies) / len(latencies), abs=1)
    for each in (50, 90, 95, 99):
        near = [percentile(latencies, each / 100), sorted(latencies)[math.ceil(each / 100 * (len(latencies) - 1))]]
        assert near[0] * 0.99 - 1 <= row[f"latency_p{each}_ns"] <= near[1] * 1.01 + 1


def test_each_server_has_its_counts_failures_and_latencies(store: Store) -> None:
    by_server: dict[str, list[DnsTransaction]] = defaultdict(list)
    for one in DNS:
        by_server[next(server for server in SERVERS if packed(server) == one.flow.dst_addr)].append(one)
    rows = ask(store, "dns", by=("server_addr",))
    assert [row["server_addr"] for row in rows] == sorted(by_server, key=lambda server: -len(by_server[server]))
    for row in rows:
        of = by_server[row["server_addr"]]
        answered = [one for one in of if one.rcode is not None]
        errors = sum(one.rcode in (2, 5) for one in of)
        assert row["transactions"] == len(of)
        assert row["unanswered"] == len(of) - len(answered)
        assert (row["errors"], row["nxdomain"]) == (errors, sum(one.rcode == 3 for one in of))
        assert row["retries"] == sum(one.retry for one in of)
        assert row["error_ratio"] == pytest.approx(errors / len(answered))
        check_latencies(row, [one.latency_ns for one in of if one.latency_ns is not None])


@pytest.mark.parametrize("step", [0, 60, 3600])
def test_counts_add_up_and_percentiles_of_the_rest_are_of_all_the_rest(store: Store, step: int) -> None:
    rows = ask(store, "dns", step, by=("domain",), limit=1)
    assert sum(row["transactions"] for row in rows) == len(DNS)
    assert sum(row["errors"] for row in rows) == sum(one.rcode in (2, 5) for one in DNS)
    (largest,) = {row["domain"] for row in rows if not row["other"]}
    if not step:
        rest = [one.latency_ns for one in DNS if one.query.lower() != largest and one.latency_ns is not None]
        check_latencies(rows[-1], rest)
    else:
        for row in rows:
            begins = row["time"].timestamp() * S_NS
            of = [one for one in DNS if begins <= one.time_ns < begins + step * S_NS]
            assert row["transactions"] == sum((one.query.lower() != largest) == row["other"] for one in of)


def test_the_slowest_are_told_of_those_that_had_enough_to_do(store: Store) -> None:
    latencies: dict[str, list[int]] = defaultdict(list)
    for one in HTTP:
        if one.latency_ns is not None:
            latencies[next(server for server in SERVERS if packed(server) == one.flow.dst_addr)].append(one.latency_ns)
    rows = ask(store, "http", by=("server_addr",), sort="latency")
    slow = [row["latency_p95_ns"] for row in rows]
    assert slow == sorted(slow, reverse=True)
    assert {row["server_addr"] for row in rows} == set(latencies)
    counts = sorted(sum(packed(server) == one.flow.dst_addr for one in HTTP) for server in SERVERS)
    few = ask(store, "http", by=("server_addr",), sort="latency", least=counts[-1])
    assert [row["transactions"] for row in few] == [counts[-1], sum(counts[:-1])]


def test_http_failures_are_the_servers_and_the_clients(store: Store) -> None:
    (row,) = ask(store, "http")
    assert row["errors"] == sum(one.status in (500, 503) for one in HTTP)
    assert row["client_errors"] == sum(one.status == 404 for one in HTTP)
    assert row["unanswered"] == sum(one.status is None for one in HTTP)


def test_handshakes_are_told_by_version_and_cipher(store: Store) -> None:
    rows = ask(store, "tls", by=("version",))
    assert [(row["version"], row["transactions"], row["unanswered"]) for row in rows] == [("1.3", 2, 1), ("1.2", 1, 0)]
    (row,) = ask(store, "tls", by=("domain",))
    assert (row["domain"], row["encrypted_names"]) == ("a.example", 1)


def test_nothing_is_no_rows_and_a_total_of_zero(store: Store) -> None:
    for kind in KINDS:
        answer = quality(store, QualityQuestion(kind=kind, span=Span(0, S_NS), by=("domain",)))
        assert (answer.table().num_rows, set(answer.about["total"].values())) == (0, {0})


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_dimension_and_every_order_can_be_asked(store: Store, kind: Any) -> None:
    for name in KINDS[kind].dimensions:
        for sort in KINDS[kind].sorts:
            assert ask(store, kind, by=(name,), sort=sort, limit=1) or kind == "quic"


def test_what_a_kind_does_not_tell_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="those are transactions"):
        ask(store, "tls", sort="latency")
    with pytest.raises(InputError, match="no dimension of dns"):
        read_quality_dimensions("dns", ["status"])
