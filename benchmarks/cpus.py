"""Which CPUs a benchmark runs on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def measured_cpu() -> int:
    """The CPU that packets are metered on: the second one, since the first takes most interrupts."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[1] if len(allowed) > 1 else allowed[0]


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """The calling thread on one CPU for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
