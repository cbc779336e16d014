"""Running on a CPU of one's choice, or on all of them at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

USABLE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Keep the calling thread on one CPU for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def on_every_cpu(work: Callable[[int, threading.Event], int]) -> Iterator[list[Future[int]]]:
    """Run `work(cpu, stop)` in a thread on each CPU until the block ends; then each future has its answer."""
    stop = threading.Event()

    def run(cpu: int) -> int:
        with pinned(cpu):
            return work(cpu, stop)

    with ThreadPoolExecutor(len(USABLE)) as pool:
        running = [pool.submit(run, cpu) for cpu in USABLE]
        try:
            yield running
        finally:
            stop.set()
