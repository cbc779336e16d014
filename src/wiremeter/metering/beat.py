"""The beat of a meter: when intervals end, when devices are looked at again, and how long names may take meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

#: Devices are looked at again when the kernel says that one changed, and this often besides (default routes move).
REFRESH_SECONDS = 5.0
#: The most of the time that goes into looking at devices: with a thousand of them one look takes a third of a second,
#: and each that comes brings several messages.
REFRESH_SHARE = 0.1
#: The most of an interval that goes into reading payloads. What is left in the rings then waits, and may be lost, which
#: is counted: names must not keep the meter from its tables.
NAMES_SHARE = 0.5
#: The most of an interval that its end waits for payloads that are still in the rings.
LAST_LOOK_SHARE = 0.1
#: The same for the last interval: what it leaves in the rings, nobody reads.
CLOSING_SECONDS = 5.0
#: Payloads are taken at least this often; programs wake the reader only when a ring fills.
LOOK_SECONDS = 0.2


class Beat:
    """Times of one meter. All in seconds of `clock`, which stands still while the meter does something else."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        """interval: seconds from one end to the next. The first interval begins now."""
        self._interval = interval
        self._clock = clock
        self._ends_at = clock() + interval
        self._names_left = NAMES_SHARE * interval
        self._may_refresh_at = clock()
        self._refresh_at = clock() + REFRESH_SECONDS

    @property
    def left(self) -> float:
        """Seconds to the end of the interval; 0 when it is over."""
        return max(0.0, self._ends_at - self._clock())

    @property
    def left_to_refresh(self) -> float:
        """Seconds until devices must be looked at again; 0 when it is time."""
        return max(0.0, self._refresh_at - self._clock())

    def devices_changed(self) -> None:
        """They should be looked at soon."""
        self._refresh_at = min(self._refresh_at, max(self._clock(), self._may_refresh_at))

    def refreshed(self, seconds: float) -> None:
        """Devices have been looked at, which took so long."""
        now = self._clock()
        self._refresh_at = now + REFRESH_SECONDS
        self._may_refresh_at = now + min(REFRESH_SECONDS, seconds * (1 / REFRESH_SHARE - 1))

    def names_have_time(self) -> bool:
        """Whether payloads may be read."""
        return self._names_left > 0

    @contextlib.contextmanager
    def reading_names(self) -> Iterator[None]:
        """The block's time is taken from what names have."""
        began = self._clock()
        yield
        self._names_left -= self._clock() - began

    def last_look(self, *, is_last: bool) -> None:
        """The interval is over: from now on names have what is left, within bounds; more where no other follows."""
        self._names_left = CLOSING_SECONDS if is_last else min(self._names_left, LAST_LOOK_SHARE * self._interval)

    def next(self) -> None:
        """The next interval begins. The beat is kept; ends that were missed altogether are not made up for."""
        missed = max(0.0, (self._clock() - self._ends_at) // self._interval)
        self._ends_at += self._interval * (1 + missed)
        self._names_left = NAMES_SHARE * self._interval
