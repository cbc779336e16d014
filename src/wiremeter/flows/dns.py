"""DNS transactions added up by question: how often, with which answers, how fast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, NamedTuple, get_args, overload

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch
from wiremeter.names.records import DnsTransaction, column

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


class DnsTotals(Sequence[DnsTotal]):
    """What became of each question, in some order. Each is made an object when it is asked for.

    >>> len(dns_totals(()))
    0
    """

    __slots__ = ("_order", "_questions", "_seen", "_sums")

    def __init__(self, seen: _Seen, questions: Sequence[tuple[str, str]], sums: _Sums, order: NDArray[np.intp]) -> None:
        """questions: name and type of each question of `seen`. sums: of each. order: numbers of questions."""
        self._seen, self._questions, self._sums, self._order = seen, questions, sums, order

    def together(self) -> DnsTotal:
        """All of them in one, without a question."""
        is_one = np.zeros(len(self._questions), np.bool_)
        is_one[self._order] = True
        seen = self._seen.chosen(is_one[self._seen.questions])
        return _Sums.of(seen, np.zeros(len(seen.rcodes), np.intp), 1).total(0)

    @property
    def questions(self) -> Sequence[tuple[str, str]]:
        """Name and type of each."""
        return [self._questions[number] for number in self._order.tolist()]

    def numbers(self, name: Literal["queries", "retries", "unanswered", "medians", "longest"]) -> NDArray[np.int64]:
        """Of each: median_ns and max_ns as `medians` and `longest`, -1 where there is none."""
        values: NDArray[np.int64] = getattr(self._sums, name)[self._order]
        return values

    @property
    def rcodes(self) -> Sequence[Mapping[str, int]]:
        """Responses of each, as DnsTotal has them."""
        return [self._sums.rcodes_of(number) for number in self._order.tolist()]

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, at: int) -> DnsTotal: ...
    @overload
    def __getitem__(self, at: slice) -> DnsTotals: ...
    def __getitem__(self, at: int | slice) -> DnsTotal | DnsTotals:
        if isinstance(at, slice):
            return DnsTotals(self._seen, self._questions, self._sums, self._order[at])
        number = int(self._order[at])
        return self._sums.total(number, *self._questions[number])


def dns_total(transactions: Iterable[DnsTransaction]) -> DnsTotal:
    """All of `transactions` in one."""
    return dns_totals(transactions).together()


def dns_totals(transactions: Iterable[DnsTransaction], by: DnsSort = "queries", *, reverse: bool = False) -> DnsTotals:
    """One total for each name and type that was asked for, in the order of `by`; equal ones by name and type.

    reverse: begin at the other end of the order. What was never answered has no latency and comes last in its order.
    """
    given = transactions if isinstance(transactions, Sequence) else tuple(transactions)
    pairs = list(zip(column(given, "query"), column(given, "qtype"), strict=True))
    questions = sorted(set(pairs))
    number = {question: at for at, question in enumerate(questions)}
    seen = _Seen.of(given, np.fromiter(map(number.__getitem__, pairs), np.intp, len(pairs)))
    sums = _Sums.of(seen, seen.questions, len(questions))
    match by:
        case "name" | "type":
            words = [question[by == "type"] for question in questions]
            place = {word: at for at, word in enumerate(sorted(set(words)))}
            values = np.fromiter(map(place.__getitem__, words), np.int64, len(words)) * (-1 if reverse else 1)
        case "latency":
            values = np.where(sums.medians < 0, _LAST, sums.medians * (1 if reverse else -1))
        case "queries" | "unanswered":
            values = (sums.queries if by == "queries" else sums.unanswered) * (1 if reverse else -1)
    return DnsTotals(seen, questions, sums, np.argsort(values, kind="stable"))


_LAST = np.iinfo(np.int64).max


class _Seen(NamedTuple):
    """Transactions in columns: the number of their question, their response's code and their latency, -1 for none."""

    questions: NDArray[np.intp]
    rcodes: NDArray[np.int64]
    latencies: NDArray[np.int64]
    has_query: NDArray[np.bool_]
    is_retry: NDArray[np.bool_]

    @classmethod
    def of(cls, seen: Sequence[DnsTransaction], questions: NDArray[np.intp]) -> _Seen:
        rcodes, latencies = (
            np.array([-1 if value is None else value for value in column(seen, name)], np.int64)
            for name in ("rcode", "latency_ns")
        )
        has_query, is_retry = (np.array(column(seen, name), np.bool_) for name in ("has_query", "retry"))
        return cls(questions, rcodes, latencies, has_query, is_retry)

    def chosen(self, mask: NDArray[np.bool_]) -> _Seen:
        return _Seen(
            self.questions[mask],
            self.rcodes[mask],
            self.latencies[mask],
            self.has_query[mask],
            self.is_retry[mask],
        )


class _Sums(NamedTuple):
    """Sums of groups of transactions, by the group's number. medians, longest: -1 where there are none.

    codes, responses: which response codes there were and how often, those of a group from `starts` of it on, most
    frequent first.
    """

    queries: NDArray[np.int64]
    retries: NDArray[np.int64]
    unanswered: NDArray[np.int64]
    medians: NDArray[np.int64]
    longest: NDArray[np.int64]
    codes: NDArray[np.int64]
    responses: NDArray[np.int64]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, seen: _Seen, groups: NDArray[np.intp], count: int) -> _Sums:
        """groups: the number of each transaction's, below `count`."""

        def how_many(which: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.bincount(groups[which], minlength=count).astype(np.int64)

        (answered,) = np.nonzero(seen.rcodes >= 0)
        pairs, first, responses = np.unique(
            groups[answered] << 16 | seen.rcodes[answered], return_index=True, return_counts=True
        )
        order = np.lexsort((first, -responses, pairs >> 16))
        return cls(
            how_many(seen.has_query),
            how_many(seen.has_query & seen.is_retry),
            how_many(seen.has_query & (seen.rcodes < 0)),
            *_medians_and_longest(groups, seen.latencies, count),
            pairs[order] & 0xFFFF,
            responses[order],
            np.searchsorted(pairs >> 16, np.arange(count + 1)),
        )

    def rcodes_of(self, group: int) -> dict[str, int]:
        """How often each code came."""
        part = slice(self.starts[group], self.starts[group + 1])
        return dict(zip(map(rcode_name, self.codes[part].tolist()), self.responses[part].tolist(), strict=True))

    def total(self, group: int, query: str = "", qtype: str = "") -> DnsTotal:
        """Of one group."""
        median_ns, max_ns = int(self.medians[group]), int(self.longest[group])
        return DnsTotal(
            query,
            qtype,
            queries=int(self.queries[group]),
            retries=int(self.retries[group]),
            unanswered=int(self.unanswered[group]),
            rcodes=self.rcodes_of(group),
            median_ns=None if median_ns < 0 else median_ns,
            max_ns=None if max_ns < 0 else max_ns,
        )


def _medians_and_longest(
    groups: NDArray[np.intp], values: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each group's values, -1 where there are none; a median between two is the nearest even number.

    groups: the number of each value's. Values of -1 are none.
    """
    known = np.flatnonzero(values >= 0)
    known = known[np.lexsort((values[known], groups[known]))]
    sizes = np.bincount(groups[known], minlength=count)
    ends = np.cumsum(sizes)
    found = np.flatnonzero(sizes)
    begin, size = (ends - sizes)[found], sizes[found]
    medians, longest = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    in_order = values[known]
    medians[found] = np.rint((in_order[begin + (size - 1) // 2] + in_order[begin + size // 2]) / 2)
    longest[found] = in_order[ends[found] - 1]
    return medians, longest


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
