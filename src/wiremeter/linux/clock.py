"""Times of day for times of the monotonic clock, by one offset that moves only when it is told to.

The monotonic clock runs at the pace of the system's clock, corrections by NTP included, and is never set. So the two
lie apart by a constant, until somebody sets the system's clock: then durations must stay what they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: A smaller difference may come from reading the two clocks one after the other on a busy machine.
STEP_NS = 10_000_000
_TRIES = 5


class WallClock:
    """The system's clock as it was set when this was made, or last followed."""

    def __init__(
        self, monotonic_ns: Callable[[], int] = time.monotonic_ns, time_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._time_ns = time_ns
        #: Time of day, in nanoseconds since the Unix epoch, when the monotonic clock stood at 0.
        self.offset_ns = self._measured()

    def now_ns(self) -> int:
        """The time of day, nanoseconds since the Unix epoch."""
        return self._monotonic_ns() + self.offset_ns

    def step_ns(self) -> int:
        """By how much the system's clock was set since; 0 if it was not. Behind the monotonic clock: negative."""
        moved = self._measured() - self.offset_ns
        return moved if abs(moved) >= STEP_NS else 0

    def follow(self, step_ns: int) -> None:
        """From now on the time of day is later by so much."""
        self.offset_ns += step_ns

    def _measured(self) -> int:
        return best_offset(self._monotonic_ns, self._time_ns)


def best_offset(near_ns: Callable[[], int], far_ns: Callable[[], int]) -> int:
    """far − near, in nanoseconds: of some readings, the one that took the least time.

    >>> best_offset(iter([0, 90, 100, 110, 200, 280, 300, 380, 400, 480]).__next__, iter([45, 1105, 9, 9, 9]).__next__)
    1000
    """
    best_width, best = -1, 0
    for _ in range(_TRIES):
        before = near_ns()
        there = far_ns()
        after = near_ns()
        if best_width < 0 or after - before < best_width:
            best_width, best = after - before, there - (before + after) // 2
    return best
