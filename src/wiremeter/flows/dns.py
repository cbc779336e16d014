"""DNS transactions added up by question: how often, with which answers, how fast."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, NamedTuple, get_args

from wiremeter.flows.batch import FlowBatch
from wiremeter.names.records import DnsTransaction

#: What questions can be sorted by; numbers begin with the largest (latency is the median), text with the first of the
#: alphabet.
DnsSort = Literal["queries", "name", "type", "unanswered", "latency"]
DNS_SORTS: tuple[DnsSort, ...] = get_args(DnsSort)

#: IANA's registry "DNS RCODEs", with those of EDNS.
RCODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    6: "YXDOMAIN",
    7: "YXRRSET",
    8: "NXRRSET",
    9: "NOTAUTH",
    10: "NOTZONE",
    11: "DSOTYPENI",
    16: "BADVERS",
    23: "BADCOOKIE",
}


def rcode_name(rcode: int) -> str:
    """The mnemonic of a DNS response code, or its number where it has no usual one.

    >>> rcode_name(3), rcode_name(4000)
    ('NXDOMAIN', '4000')
    """
    return RCODES.get(rcode, str(rcode))


@dataclass(frozen=True, slots=True)
class DnsTotal:
    """What became of one question, or of many.

    queries: questions that were seen, retries among them. unanswered: queries no response to which was seen.
    rcodes: responses by the mnemonic of their code, most frequent first. median_ns, max_ns: nanoseconds from query to
    response, None if none could be measured.
    """

    query: str = ""
    qtype: str = ""
    queries: int = 0
    retries: int = 0
    unanswered: int = 0
    rcodes: Mapping[str, int] = field(default_factory=dict)
    median_ns: int | None = None
    max_ns: int | None = None

    @property
    def name(self) -> str:
        """What was asked for; the root, whose name is empty, is "."."""
        return self.query or "."


def dns_total(transactions: Iterable[DnsTransaction], query: str = "", qtype: str = "") -> DnsTotal:
    """All of `transactions` in one.

    query, qtype: what they have in common, if anything.
    """
    seen = list(transactions)
    asked = [one for one in seen if one.has_query]
    latencies = [one.latency_ns for one in seen if one.latency_ns is not None]
    rcodes = Counter(rcode_name(one.rcode) for one in seen if one.rcode is not None)
    return DnsTotal(
        query,
        qtype,
        queries=len(asked),
        retries=sum(one.retry for one in asked),
        unanswered=sum(one.rcode is None for one in asked),
        rcodes=dict(rcodes.most_common()),
        median_ns=round(statistics.median(latencies)) if latencies else None,
        max_ns=max(latencies, default=None),
    )


def dns_totals(
    transactions: Iterable[DnsTransaction], by: DnsSort = "queries", *, reverse: bool = False
) -> list[DnsTotal]:
    """One total for each name and type that was asked for, in the order of `by`; equal ones by name and type.

    reverse: begin at the other end of the order. What was never answered has no latency and comes last in its order.
    """
    groups: dict[tuple[str, str], list[DnsTransaction]] = {}
    for one in transactions:
        groups.setdefault((one.query, one.qtype), []).append(one)
    totals = [dns_total(group, query, qtype) for (query, qtype), group in sorted(groups.items())]
    match by:
        case "name":
            totals.sort(key=lambda total: total.query, reverse=reverse)
        case "type":
            totals.sort(key=lambda total: total.qtype, reverse=reverse)
        case "latency":
            totals.sort(key=lambda total: total.median_ns or 0, reverse=not reverse)
            totals.sort(key=lambda total: total.median_ns is None)
        case "queries":
            totals.sort(key=lambda total: total.queries, reverse=not reverse)
        case "unanswered":
            totals.sort(key=lambda total: total.unanswered, reverse=not reverse)
    return totals


class _Interval(NamedTuple):
    start_ns: int
    end_ns: int
    seen: int
    kept: Sequence[DnsTransaction]


@dataclass(frozen=True, slots=True)
class RecentDns:
    """The DNS transactions of the last intervals, bounded: of more than `limit` transactions the oldest are left out,
    whole intervals first."""

    length: int = 60
    limit: int = 20_000
    intervals: tuple[_Interval, ...] = ()

    def plus(self, batch: FlowBatch) -> RecentDns:
        """With one interval more."""
        dns = batch.transactions.dns
        latest = _Interval(batch.start_ns, batch.end_ns, len(dns), dns[-self.limit :])
        kept, room = [latest], self.limit - len(latest.kept)
        for interval in self.intervals[: -self.length : -1]:
            room -= len(interval.kept)
            if room < 0:
                break
            kept.append(interval)
        return RecentDns(self.length, self.limit, tuple(reversed(kept)))

    def __iter__(self) -> Iterator[DnsTransaction]:
        return chain.from_iterable(interval.kept for interval in self.intervals)

    @property
    def seen(self) -> int:
        """How many there were in these intervals, those left out of the last one included."""
        return sum(interval.seen for interval in self.intervals)

    @property
    def kept(self) -> int:
        """How many there are."""
        return sum(len(interval.kept) for interval in self.intervals)

    @property
    def seconds(self) -> float:
        """From the beginning of the first interval to the end of the last."""
        return (self.intervals[-1].end_ns - self.intervals[0].start_ns) / 1e9 if self.intervals else 0.0
