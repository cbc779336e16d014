"""Traffic by device and domain for a bounded number of them: sums stay exact while those that are listed change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from wiremeter.sinks.listed import FORMER, LEAST_ROOM, OTHER, Listed

#: Longest name in the DNS (RFC 1035, 2.3.4, without the last dot); a longer one is nobody's.
_LONGEST = 253

#: A device, and a domain on it.
Place = tuple[str, str]


class TopDomains:
    """Counters of the domains with most traffic lately, each on its device, and of each device's `other` and `former`.

    A domain that is listed counts from that batch on; what it had before stays in `other`. One that leaves hands its
    counts to `former` and begins at 0 if it returns. So what was counted is never taken back: each series grows for
    as long as it is there, and all of a device together are all its traffic.
    """

    def __init__(self, places: int, shape: tuple[int, ...]) -> None:
        """places: most that are listed, of all devices together. shape: of the counters of each. Raises InputError if
        places < 0."""
        self._shape = shape
        self._listed = Listed[Place](places)
        self._values: dict[Place, NDArray[np.uint64]] = {}  # OTHER and FORMER among them

    def add(
        self,
        devices: Sequence[str],
        domains: Sequence[str | None],
        pairs: NDArray[np.intp],
        gains: NDArray[np.uint64],
        weights: NDArray[np.uint64],
        seconds: float,
    ) -> None:
        """Counts one interval.

        devices, domains: each once; a domain None for traffic without a name. pairs: shape (n, 2), indexes into them,
        each pair once. gains: shape (n, *shape). weights: shape (n,), what decides who is listed. seconds: the
        interval's length.
        """
        rows = self._candidates(devices, domains, pairs, weights)
        self._hand_over(self._listed.elect(((place, int(weights[row])) for place, row in rows.items()), seconds))
        is_other = np.ones(len(pairs), np.bool_)
        for place, row in rows.items():
            if place in self._listed:
                self._at(place)[...] += gains[row]
                is_other[row] = False
        others = np.zeros((len(devices), *self._shape), np.uint64)
        np.add.at(others, pairs[is_other, 0], gains[is_other])
        for device, gain in zip(devices, others, strict=True):
            self._at((device, OTHER))[...] += gain

    def _candidates(
        self,
        devices: Sequence[str],
        domains: Sequence[str | None],
        pairs: NDArray[np.intp],
        weights: NDArray[np.uint64],
    ) -> dict[Place, int]:
        """The rows that can be listed, or are: with ever so many, only the heaviest, since others cannot rise."""
        may_be = np.array([_may_be_listed(domain) for domain in domains], np.bool_)
        rows = np.flatnonzero(may_be[pairs[:, 1]])
        if len(rows) > LEAST_ROOM:
            heaviest = rows[np.argpartition(weights[rows], -LEAST_ROOM)[-LEAST_ROOM:]]
            rows = np.union1d(heaviest, self._rows_listed(devices, domains, pairs))
        return {
            (devices[device], str(domains[domain])): row
            for row, (device, domain) in zip(rows.tolist(), pairs[rows].tolist(), strict=True)
        }

    def _rows_listed(
        self, devices: Sequence[str], domains: Sequence[str | None], pairs: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        of_device, of_domain = ({word: number for number, word in enumerate(words)} for words in (devices, domains))
        listed = [
            of_device[device] * len(domains) + of_domain[domain]
            for device, domain in self._listed
            if device in of_device and domain in of_domain
        ]
        return np.flatnonzero(np.isin(pairs[:, 0] * len(domains) + pairs[:, 1], listed))

    def _hand_over(self, leaving: Iterable[Place]) -> None:
        for device, domain in leaving:
            self._at((device, FORMER))[...] += self._values.pop((device, domain))

    def know(self, device: str) -> None:
        """Has `other` of a device begin at 0, if it has not begun yet."""
        self._at((device, OTHER))

    def forget(self, devices: Collection[str]) -> None:
        """Drops all that was counted of devices that are no more."""
        gone = [place for place in self._values if place[0] in devices]
        self._listed.remove(gone)
        for place in gone:
            del self._values[place]

    def kept(self) -> list[Any]:
        """All counters, as plain values for `restore`."""
        return [[*place, values.reshape(-1).tolist()] for place, values in self._values.items()]

    def restore(self, kept: list[Any]) -> None:
        """Goes on from an earlier life. Raises ValueError or TypeError for what does not fit."""
        for device, domain, values in kept:
            self._at((device, domain))[...] = np.array(values, np.uint64).reshape(self._shape)
        self._hand_over(self._listed.restore(place for place in self._values if place[1] not in (OTHER, FORMER)))

    def series(self) -> Iterator[tuple[Place, NDArray[np.uint64]]]:
        """Labels and counters of each."""
        for place, values in self._values.items():
            yield place, values.copy()

    def _at(self, place: Place) -> NDArray[np.uint64]:
        values = self._values.get(place)
        if values is None:
            values = self._values[place] = np.zeros(self._shape, np.uint64)
        return values


def _may_be_listed(domain: str | None) -> TypeGuard[str]:
    """Whether a name can be a label: no client can send one that passes for ours, or that would break a scrape."""
    return bool(domain and domain not in (OTHER, FORMER) and len(domain) <= _LONGEST and domain.isprintable())
