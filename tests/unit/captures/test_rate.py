"""The rate of a capture over time: bins add up to the whole, whatever its length."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.captures.file import Frames
from wiremeter.captures.rate import RateHistory

T0 = 1_700_000_000_000_000_000


def frames(times_ns: list[int], wire: int = 100) -> Frames:
    n = len(times_ns)
    zeros = np.zeros(n, np.uint32)
    sizes = np.full(n, wire, np.uint32)
    return Frames(memoryview(b""), np.zeros(n, np.uint64), zeros, sizes, np.array(times_ns, np.uint64), zeros)


def test_bins_are_a_millisecond_at_first() -> None:
    history = RateHistory()
    history.add(frames([T0, T0 + 2_500_000]))
    assert history.bin_ns == 1_000_000
    assert history.bytes_per_second.tolist() == [100_000, 0, 100_000]


def test_bins_double_until_the_capture_fits() -> None:
    history = RateHistory()
    history.add(frames([T0 + n * 1_000_000 for n in range(128)]))
    assert (history.bin_ns, len(history.bytes_per_second)) == (1_000_000, 128)
    history.add(frames([T0 + 128_000_000]))
    assert (history.bin_ns, len(history.bytes_per_second)) == (2_000_000, 65)
    assert set(history.bytes_per_second[:64].tolist()) == {100_000.0}


def test_nothing() -> None:
    history = RateHistory()
    history.add(frames([]))
    assert len(history.bytes_per_second) == 0


@given(st.lists(st.lists(st.integers(-10, 1 << 40), min_size=1, max_size=5), min_size=1, max_size=10))
def test_no_byte_is_lost(parts: list[list[int]]) -> None:
    history = RateHistory()
    for part in parts:
        history.add(frames([T0 + at for at in part]))
    whole = float(history.bytes_per_second.sum()) * history.bin_ns / 1e9
    assert round(whole) == 100 * sum(map(len, parts))
    assert len(history.bytes_per_second) <= 128
