"""Grace periods of RCU, shorter for as long as many of them are waited for one after the other.

A tcx program is put on a hook, and taken off, by synchronize_rcu() under the lock of all network configuration
(tcx_entry_sync() in net/tcx.h): 12 to 24 ms each, in which nobody else on the host can change a device. What the rest
of the kernel's networking does under this lock is expedited (synchronize_net()): microseconds, for an interrupt to each
CPU that is not idle. `rcu_expedited` asks for the same here; it is the host's, so it is set for these moments only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

#: So many fewer are waited for as they are.
MANY = 8
SWITCH = Path("/sys/kernel/rcu_expedited")


class GracePeriods:
    """Where this process may not write the kernel's switch (rights, a read-only /sys), waiting takes as long as ever.

    A context manager: what it opens when it is made, it keeps, for a process that gives up its rights later.
    """

    def __init__(self, switch: Path = SWITCH) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(switch, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextlib.contextmanager
    def expedited(self, count: int) -> Iterator[None]:
        """In the block some `count` grace periods are waited for. A switch that somebody has set stays as it is."""
        is_ours = count >= MANY and self._is_off() and self._set(b"1")
        try:
            yield
        finally:
            if is_ours:
                self._set(b"0")

    def _is_off(self) -> bool:
        return self._fd >= 0 and os.pread(self._fd, 16, 0).strip() == b"0"

    def _set(self, value: bytes) -> bool:
        with contextlib.suppress(OSError):
            return bool(os.pwrite(self._fd, value, 0))
        return False
