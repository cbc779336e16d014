"""Traffic by domain for a bounded number of domains: the sum stays exact while those that are listed change."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from wiremeter.errors import InputError
from wiremeter.sinks.heavy_hitters import HeavyHitters

#: All traffic that is of no listed domain, or of none that is known.
OTHER = "other"
#: What domains had counted that are listed no more.
FORMER = "former"

#: Seconds in which traffic loses half its say in who is listed.
HALF_LIFE_SECONDS = 600.0
#: A newcomer needs this many times the recent bytes of the one whose place it takes, or two of like size would take
#: turns without end.
LEAD = 1.5
#: Domains whose recent bytes are known, to find newcomers among: at least so many.
LEAST_ROOM = 16_384
#: Longest name in the DNS (RFC 1035, 2.3.4, without the last dot); a longer one is nobody's.
_LONGEST = 253


class TopDomains:
    """Counters of the domains with most traffic lately, of `other`, and of `former`.

    A domain that is listed counts from that batch on; what it had before stays in `other`. One that leaves hands its
    counts to `former` and begins at 0 if it returns. So what was counted is never taken back: each series grows for
    as long as it is there, and all of them together are all traffic. The first that leaves makes `former`, which
    keeps its place; the number of series never exceeds places + 1.
    """

    def __init__(self, places: int, shape: tuple[int, ...]) -> None:
        """places: most series besides `other`. shape: of the counters of each. Raises InputError if places < 0."""
        if places < 0:
            raise InputError(f"{places} domains cannot be listed: 0 or more can")
        self._values = np.zeros((places + 1, *shape), np.uint64)
        self._other = places  # a row of _values
        self._former: int | None = None
        self._rows: dict[str, int] = {}  # of the listed domains
        self._free = list(reversed(range(places)))
        self._recent = HeavyHitters[str](max(LEAST_ROOM, 4 * places), HALF_LIFE_SECONDS)
        # Each change ends one series in every scraper's database and begins another, so they are rationed: in a
        # half-life as many as there are places, and few at once.
        self._changes_per_second = places / HALF_LIFE_SECONDS
        self._most_changes = max(1.0, places / 20)
        self._changes = self._most_changes

    def add(
        self, domains: Sequence[str | None], gains: NDArray[np.uint64], weights: NDArray[np.uint64], seconds: float
    ) -> None:
        """Counts one interval.

        domains: shape (n,), each once; None for traffic without a name. gains: shape (n, *shape). weights: shape (n,),
        what decides who is listed. seconds: the interval's length.
        """
        weighed = [
            (domain, weight)
            for domain, weight in zip(domains, weights.tolist(), strict=True)
            if weight and _may_be_listed(domain)
        ]
        self._recent.age(seconds)
        self._recent.add(weighed)
        self._changes = min(self._most_changes, self._changes + seconds * self._changes_per_second)
        self._list_newcomers([domain for domain, _ in weighed if domain not in self._rows])
        rows = np.fromiter((self._rows.get(domain or "", self._other) for domain in domains), np.intp, len(domains))
        is_other = rows == self._other
        self._values[rows[~is_other]] += gains[~is_other]  # each row at most once
        self._values[self._other] += gains[is_other].sum(axis=0, dtype=np.uint64)

    def series(self) -> Iterator[tuple[str, NDArray[np.uint64]]]:
        """Label and counters of each."""
        values = self._values.copy()
        for domain, row in self._rows.items():
            yield domain, values[row]
        yield OTHER, values[self._other]
        if self._former is not None:
            yield FORMER, values[self._former]

    def _list_newcomers(self, domains: list[str]) -> None:
        """Only a domain with traffic in this interval can have risen, so others need no look."""
        most = len(self._free) + int(self._changes)
        for domain in heapq.nlargest(most, domains, key=self._recent.weight):
            if not self._free:
                if self._changes < 1 or not self._make_place(self._recent.weight(domain)):
                    return
                self._changes -= 1
            self._rows[domain] = self._free.pop()

    def _make_place(self, weight: float) -> bool:
        """Whether those with least traffic had to leave for a newcomer of that weight."""
        leaving = 1 if self._former is not None else 2
        weakest = heapq.nsmallest(leaving, self._rows, key=self._recent.weight)
        if len(weakest) < leaving or weight <= LEAD * self._recent.weight(weakest[-1]):
            return False
        for domain in weakest:
            row = self._rows.pop(domain)
            if self._former is None:
                self._former = row  # with the counts that are there
            else:
                self._values[self._former] += self._values[row]
                self._values[row] = 0
                self._free.append(row)
        return True


def _may_be_listed(domain: str | None) -> TypeGuard[str]:
    """Whether a name can be a label: no client can send one that passes for ours, or that would break a scrape."""
    return bool(domain and domain not in (OTHER, FORMER) and len(domain) <= _LONGEST and domain.isprintable())
