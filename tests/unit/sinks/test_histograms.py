"""Latencies in classic and exponential buckets."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.sinks.histograms import SCHEMA, ZERO_THRESHOLD, Histogram, NativeBuckets

MS = 10**6


def bounds_and_counts(native: NativeBuckets) -> list[tuple[float, float, int]]:
    """Lower bound, upper bound and count of each native bucket, decoded as Prometheus decodes them."""
    indices: list[int] = []
    end = 0
    for offset, length in native.spans:
        indices += range(end + offset, end + offset + length)
        end += offset + length
    counts = list(accumulate(native.deltas))
    return [(2.0 ** ((i - 1) / 2**SCHEMA), 2.0 ** (i / 2**SCHEMA), n) for i, n in zip(indices, counts, strict=True)]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_every_duration_is_in_the_bucket_that_holds_it(durations: list[int]) -> None:
    histogram = Histogram((0.001, 1.0))
    histogram.observe(durations[:20])
    histogram.observe(durations[20:])
    state = histogram.state()
    seconds = np.array(durations, np.uint64) / 1e9
    assert state.sum == sum(durations) / 1e9
    assert dict(state.buckets) == {
        "0.001": np.count_nonzero(seconds <= 0.001),
        "1.0": np.count_nonzero(seconds <= 1),
        "+Inf": len(durations),
    }
    assert state.native.zero_count == np.count_nonzero(seconds <= ZERO_THRESHOLD)
    buckets = bounds_and_counts(state.native)
    assert state.native.zero_count + sum(count for *_, count in buckets) == len(durations)
    for lower, upper, count in buckets:
        inside = (seconds > lower * (1 + 1e-12)) & (seconds <= upper * (1 - 1e-12))
        assert np.count_nonzero(inside) <= count
        assert count > 0


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    histogram = Histogram((0.005, 0.01))
    histogram.observe([5 * MS, 5 * MS + 1, 500 * MS, 500 * MS + 1])
    state = histogram.state()
    assert state.buckets == (("0.005", 1), ("0.01", 2), ("+Inf", 4))
    assert bounds_and_counts(state.native)[-2:] == [(2**-1.125, 0.5, 1), (0.5, 2**-0.875, 1)]


def test_without_observations_all_is_there_and_zero() -> None:
    assert Histogram((1.0,)).state() == ((("1.0", 0), ("+Inf", 0)), 0.0, (0, (), ()))


def test_runs_of_buckets_are_spans_and_counts_are_deltas() -> None:
    histogram = Histogram((1.0,))
    histogram.observe([10**9] * 3 + [int(1.05e9)] * 5 + [2 * 10**9])  # 1 s is index 0, 2 s is index 8
    native = histogram.state().native
    assert native.spans == ((0, 2), (6, 1))
    assert native.deltas == (3, 2, -4)


def test_any_durations_make_a_bounded_number_of_buckets() -> None:
    histogram = Histogram((1.0,))
    histogram.observe([*np.geomspace(1, 2**63, 100_000).astype(np.uint64).tolist(), 2**64 - 1])
    native = histogram.state().native
    assert len(native.deltas) < 55 * 2**SCHEMA
    assert native.spans[0][1] == len(native.deltas) - 1 or len(native.spans) == 1


def test_a_negative_duration_counts_as_none() -> None:
    histogram = Histogram((1.0,))
    histogram.observe([-5, 10**9])
    assert histogram.state().sum == 1.0
    assert histogram.state().native.zero_count == 1
