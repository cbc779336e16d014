"""What only a process may do whose one business is metering: never a library for the process that imports it."""

from __future__ import annotations

import contextlib
import ctypes
import gc

#: Objects that are made before the youngest are searched for cycles (Python's own: some hundreds or thousands). An
#: interval may bring 131,072 transactions, and each search looks through all of them for cycles that are not there:
#: reading 80,000 DNS messages took 3.1 s with Python's own thresholds, 2.3 s with these.
_THRESHOLDS = (100_000, 50, 1000)


#: glibc's M_ARENA_MAX (mallopt(3)).
_ARENA_MAX = -8


def dedicate_process() -> None:
    """Has Python search for garbage in cycles less often, and the C library keep one heap.

    glibc gives each thread a heap of its own, of 64 MiB of address space: where that is limited (`ulimit -v`) no room
    for tables and rings was left. Threads here hardly ever allocate at once.
    """
    gc.set_threshold(*_THRESHOLDS)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)
