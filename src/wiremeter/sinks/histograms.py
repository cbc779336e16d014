"""Histograms with classic and with exponential ("native") buckets, filled from arrays of nanoseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import HistogramMetricFamily

#: Native buckets in each power of two: 2**SCHEMA, so a bucket's bounds are 9 % apart.
SCHEMA = 3
#: Upper bound of the bucket for what is too short to tell apart, in seconds. Above 0, it also marks a native
#: histogram without observations as native.
ZERO_THRESHOLD = 2.0**-20

#: The native bucket of index i is for values above 2**((i - 1) / 2**SCHEMA), up to 2**(i / 2**SCHEMA). These bounds
#: are of indices from that of the threshold on; 2**64 nanoseconds are less than 2**35 seconds.
_NATIVE_BOUNDS = 2.0 ** (np.arange(-20 * 2**SCHEMA, 35 * 2**SCHEMA + 1) / 2**SCHEMA)
_PLACE_OF_INDEX_0 = 20 * 2**SCHEMA

#: Names and values of labels, in order.
LabelsKey = tuple[tuple[str, str], ...]


class NativeBuckets(NamedTuple):
    """Counts by exponential bucket, as the protobuf format has them.

    spans: (distance from the end of the one before, length) of each run of buckets in use, the first's from index 0.
    deltas: each of these buckets' count less that of the one before.
    """

    zero_count: int
    spans: tuple[tuple[int, int], ...]
    deltas: tuple[int, ...]


class HistogramState(NamedTuple):
    """A histogram at one moment. buckets: upper bound as text and cumulative count; sum in seconds."""

    buckets: tuple[tuple[str, int], ...]
    sum: float
    native: NativeBuckets


class Histogram:
    """Durations by length, twice: in the buckets given, and in exponential ones."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """bounds: upper bounds of the classic buckets but the last, +Inf; seconds, ascending."""
        self._bounds = np.array(bounds, np.float64)
        self._labels = [*map(str, bounds), "+Inf"]
        self._classic = np.zeros(len(self._labels), np.int64)
        self._native = np.zeros(len(_NATIVE_BOUNDS), np.int64)  # [0]: up to ZERO_THRESHOLD
        self._sum_ns = 0

    def observe(self, durations_ns: Sequence[int] | NDArray[np.int64]) -> None:
        """Adds durations in nanoseconds, below 2**64. One below 0, from a clock that was set, counts as 0."""
        if isinstance(durations_ns, np.ndarray):
            durations_ns = durations_ns.tolist()
        lengths_ns = [max(0, duration) for duration in durations_ns]
        self._sum_ns += sum(lengths_ns)
        seconds = np.array(lengths_ns, np.uint64) / 1e9
        _count(self._classic, self._bounds, seconds)
        _count(self._native, _NATIVE_BOUNDS, seconds)

    def absorb(self, other: Histogram) -> None:
        """Adds what another of the same bounds has observed."""
        self._classic += other._classic
        self._native += other._native
        self._sum_ns += other._sum_ns

    def kept(self) -> list[Any]:
        """All that was observed, as plain values for `restore`."""
        used = np.flatnonzero(self._native).tolist()
        return [self._sum_ns, self._classic.tolist(), [[at, int(self._native[at])] for at in used]]

    def restore(self, kept: list[Any]) -> None:
        """Goes on from what was observed in an earlier life. Raises ValueError or TypeError if it had other buckets."""
        sum_ns, classic, native = kept
        if len(classic) != len(self._classic):
            raise ValueError(f"a histogram of {len(classic)} buckets")
        self._sum_ns = int(sum_ns)
        self._classic[:] = classic
        for at, count in native:
            self._native[at] = count

    def state(self) -> HistogramState:
        """What was observed until now."""
        cumulative = zip(self._labels, np.cumsum(self._classic).tolist(), strict=True)
        return HistogramState(tuple(cumulative), self._sum_ns / 1e9, self._native_buckets())

    def _native_buckets(self) -> NativeBuckets:
        used = np.flatnonzero(self._native[1:]) + 1
        runs = np.split(used, np.flatnonzero(np.diff(used) > 1) + 1) if len(used) else []
        spans = []
        end = _PLACE_OF_INDEX_0
        for run in runs:
            spans.append((int(run[0]) - end, len(run)))
            end = int(run[-1]) + 1
        deltas = np.diff(self._native[used], prepend=0).tolist()
        return NativeBuckets(int(self._native[0]), tuple(spans), tuple(deltas))


class HistogramFamily(HistogramMetricFamily):
    """A histogram for a registry. Text formats show its samples, the classic buckets; `natives` is for protobuf."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help, labels=labels)
        self.natives: dict[LabelsKey, NativeBuckets] = {}

    def add_state(self, labels: Sequence[str], state: HistogramState) -> None:
        """Adds a histogram with these label values."""
        self.add_metric(labels, state.buckets, state.sum)
        self.natives[labels_key(dict(zip(self._labelnames, labels, strict=True)))] = state.native


def labels_key(labels: Mapping[str, str]) -> LabelsKey:
    """Labels as a key: their names and values in order.

    >>> labels_key({"b": "1", "a": "2"})
    (('a', '2'), ('b', '1'))
    """
    return tuple(sorted(labels.items()))


def _count(counts: NDArray[np.int64], bounds: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Adds how many values are in each bucket, whose upper bounds are part of it; the last has none."""
    counts += np.bincount(np.searchsorted(bounds, values), minlength=len(counts))
