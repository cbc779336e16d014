"""How much one principal may send: a bucket that fills with time, for each."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

#: Principals whose buckets are remembered; of more, the one unused for longest begins with a full one again.
_REMEMBERED = 65_536


class Rates:
    """Token buckets by name. For one thread."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        """per_second: what flows in. burst: what a bucket holds."""
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, amount: float) -> float:
        """Takes so much out of a bucket: 0, or the seconds after which to try again, with nothing taken.

        More than a bucket holds is taken once it is full, and is a debt then.

        >>> rates = Rates(10, 20, clock=lambda: 0.0)
        >>> rates.take("a", 15), rates.take("a", 15), rates.take("b", 30), rates.take("b", 1)
        (0.0, 1.0, 0.0, 1.1)
        """
        now = self._clock()
        left, since = self._left.pop(name, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        missing = min(amount, self._burst) - left
        self._left[name] = (left - amount if missing <= 0 else left, now)
        if len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)
        return max(0.0, missing / self._per_second)
