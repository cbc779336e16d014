"""Times of day that stay by the monotonic clock until they are told to follow the system's."""

from __future__ import annotations

import time

from wiremeter.linux.clock import STEP_NS, WallClock, best_offset

HOUR = 3600 * 10**9


class Clocks:
    """A monotonic clock and the system's, both standing still unless moved."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 5_000, 10**18

    def monotonic_ns(self) -> int:
        return self.monotonic

    def wall_ns(self) -> int:
        return self.wall

    def pass_by(self, nanoseconds: int) -> None:
        self.monotonic += nanoseconds
        self.wall += nanoseconds


def test_time_passes_at_the_pace_of_the_monotonic_clock() -> None:
    clocks = Clocks()
    clock = WallClock(clocks.monotonic_ns, clocks.wall_ns)
    assert clock.now_ns() == 10**18
    clocks.pass_by(700)
    assert clock.now_ns() == 10**18 + 700
    assert clock.step_ns() == 0


def test_a_clock_that_is_set_is_followed_only_when_told_to() -> None:
    clocks = Clocks()
    clock = WallClock(clocks.monotonic_ns, clocks.wall_ns)
    for step in (HOUR, -3 * HOUR):
        began = clock.now_ns()
        clocks.wall += step
        clocks.pass_by(10**9)
        assert clock.now_ns() - began == 10**9
        assert clock.step_ns() == step
        clock.follow(clock.step_ns())
        assert clock.now_ns() == clocks.wall
        assert clock.step_ns() == 0


def test_what_may_come_from_reading_two_clocks_is_no_step() -> None:
    clocks = Clocks()
    clock = WallClock(clocks.monotonic_ns, clocks.wall_ns)
    clocks.wall += STEP_NS - 1
    assert clock.step_ns() == 0
    clocks.wall += 1
    assert clock.step_ns() == STEP_NS


def test_of_several_readings_the_quickest_counts() -> None:
    """A reading that was interrupted for a second tells nothing."""
    ticks = iter([0, 10**9, 10**9, 10**9 + 100, *[2 * 10**9, 3 * 10**9] * 3])
    there = iter([10**9 + 7000, 10**9 + 7050, 0, 0, 0])
    assert best_offset(lambda: next(ticks), lambda: next(there)) == 7000


def test_the_real_clocks_agree() -> None:
    clock = WallClock()
    assert abs(clock.now_ns() - time.time_ns()) < STEP_NS
    assert clock.step_ns() == 0
