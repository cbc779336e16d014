"""DNS transactions added up."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from wiremeter.flows.dns import DNS_SORTS, DnsSort, DnsTotal, RecentDns, dns_total, dns_totals, rcode_name
from wiremeter.names.records import DnsTransaction, Transactions

from ..live_batches import SECOND_NS, START_NS, asked, make_batch

SEEN = (
    asked("www.example.com", milliseconds=1),
    asked("www.example.com", milliseconds=9),
    asked("www.example.com", milliseconds=2),
    asked("www.example.com", "AAAA", milliseconds=4),
    asked("nosuch.example.com", rcode=3, milliseconds=20),
    asked("slow.example", rcode=None),
    asked("slow.example", rcode=None, retry=True),
)


def test_question_has_its_count_its_answers_and_how_long_they_took() -> None:
    first = dns_totals(SEEN)[0]
    assert (first.query, first.qtype, first.queries, first.unanswered) == ("www.example.com", "A", 3, 0)
    assert first.rcodes == {"NOERROR": 3}
    assert (first.median_ns, first.max_ns) == (2_000_000, 9_000_000)


def test_question_that_was_never_answered_has_no_latency() -> None:
    (slow,) = [total for total in dns_totals(SEEN) if total.query == "slow.example"]
    assert (slow.queries, slow.retries, slow.unanswered) == (2, 1, 2)
    assert (slow.rcodes, slow.median_ns, slow.max_ns) == ({}, None, None)


def test_response_without_a_query_is_no_query() -> None:
    total = dns_total([asked("www.example.com", has_query=False)])
    assert (total.queries, total.unanswered, total.rcodes) == (0, 0, {"NOERROR": 1})


def test_all_together_are_one_total() -> None:
    total = dns_total(SEEN)
    assert (total.queries, total.unanswered, total.rcodes) == (7, 2, {"NOERROR": 4, "NXDOMAIN": 1})


@pytest.mark.parametrize(
    ("by", "first", "last"),
    [
        ("queries", ("www.example.com", "A"), ("www.example.com", "AAAA")),
        ("name", ("nosuch.example.com", "A"), ("www.example.com", "AAAA")),
        ("type", ("nosuch.example.com", "A"), ("www.example.com", "AAAA")),
        ("unanswered", ("slow.example", "A"), ("www.example.com", "AAAA")),
        ("latency", ("nosuch.example.com", "A"), ("slow.example", "A")),
    ],
)
def test_order_is_as_asked_for(by: DnsSort, first: tuple[str, str], last: tuple[str, str]) -> None:
    found = [(total.query, total.qtype) for total in dns_totals(SEEN, by)]
    assert (found[0], found[-1]) == (first, last)
    assert len(found) == 4


def test_sums_are_those_of_plain_code() -> None:
    rcodes, latencies = (None, 0, 0, 3, 4000), (None, 0, 5, 6, 7, 12_000_000_001)
    chance = random.Random(11)
    for size in range(60):
        seen = [
            asked(
                f"host-{chance.randrange(6)}.example", chance.choice(["A", "AAAA"]), rcode=chance.choice(rcodes)
            )._replace(
                latency_ns=chance.choice(latencies), has_query=chance.random() < 0.8, retry=chance.random() < 0.3
            )
            for _ in range(size)
        ]
        totals = dns_totals(seen, "name")
        assert list(totals) == [plain_total(seen, total.query, total.qtype) for total in totals]
        part = totals[1:4]
        kept = {(total.query, total.qtype) for total in part}
        assert part.together() == plain_total([one for one in seen if (one.query, one.qtype) in kept])


def plain_total(seen: Sequence[DnsTransaction], query: str = "", qtype: str = "") -> DnsTotal:
    """The sum of one question's transactions, or of all, one by one."""
    mine = [one for one in seen if not query or (one.query, one.qtype) == (query, qtype)]
    queries = [one for one in mine if one.has_query]
    latencies = [one.latency_ns for one in mine if one.latency_ns is not None]
    return DnsTotal(
        query,
        qtype,
        len(queries),
        sum(one.retry for one in queries),
        sum(one.rcode is None for one in queries),
        dict(Counter(rcode_name(one.rcode) for one in mine if one.rcode is not None).most_common()),
        round(statistics.median(latencies)) if latencies else None,
        max(latencies, default=None),
    )


@pytest.mark.parametrize("by", DNS_SORTS)
def test_reversed_order_loses_nothing(by: DnsSort) -> None:
    assert {total.query for total in dns_totals(SEEN, by, reverse=True)} == {total.query for total in dns_totals(SEEN)}


def recent(*counts: int, **bounds: Any) -> RecentDns:
    """After intervals with so many transactions each, which bear the number of their interval."""
    kept = RecentDns(**bounds)
    for at, count in enumerate(counts):
        dns = tuple(asked(f"{at}.example") for _ in range(count))
        kept = kept.plus(make_batch([], start_ns=START_NS + at * SECOND_NS, transactions=Transactions(dns=dns)))
    return kept


def test_recent_transactions_are_those_of_the_last_intervals() -> None:
    kept = recent(1, 2, 3, 4, length=3)
    assert [one.query for one in kept] == ["1.example"] * 2 + ["2.example"] * 3 + ["3.example"] * 4
    assert kept.seconds == 3.0
    assert (kept.kept, kept.seen) == (9, 9)


def test_flood_pushes_out_whole_intervals_and_then_says_what_it_left_out() -> None:
    assert [one.query for one in recent(5, 5, 6, limit=12)] == ["1.example"] * 5 + ["2.example"] * 6
    flood = recent(5, 50, limit=12)
    assert (flood.kept, flood.seen, flood.seconds) == (12, 50, 1.0)


def test_nothing_seen_yet_is_nothing() -> None:
    assert (list(RecentDns()), RecentDns().seconds) == ([], 0.0)
