"""Early flips: a thread that serves tables as they fill, whatever the monitor is busy with.

A table that asks for a flip has room for some tens of milliseconds of new flows. Merging a million flows, or a sink
that takes its time, is longer; so who waits for the requests does nothing else.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator
from typing import Self

from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import LiveEngine

_NICE = -15
#: Of the thread that takes the drains, for CALM_SECONDS after an early flip: while others have the CPU, and it the
#: interpreter's lock, no table is read.
_TAKERS_NICE = -10
CALM_SECONDS = 10.0


class EarlyFlips:
    """Flips an engine whenever it asks. A context manager; `fileno()` is readable while drains wait to be taken."""

    def __init__(self, engine: LiveEngine, *, urgent: bool = False) -> None:
        """urgent: the thread goes before others on a busy CPU, if this process may raise priorities (CAP_SYS_NICE).

        So does the thread that takes the drains, while tables fill up.
        """
        self._engine = engine
        self._urgent = urgent
        self._taker = threading.get_native_id()
        self._raised: tuple[int, int] | None = None  # a thread, and its nice value before
        self._calm_at = 0.0
        self._in_use = threading.Lock()
        self._turn = threading.Lock()
        #: How many there were.
        self.count = 0
        self._drains: list[Drain] = []
        self._failure: BaseException | None = None
        self._wake = self._stop = -1
        self._thread = threading.Thread(target=self._serve, name="wiremeter-flips", daemon=True)

    def __enter__(self) -> Self:
        self._wake, self._stop = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2))
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._calm()
        os.close(self._wake)
        os.close(self._stop)

    def fileno(self) -> int:
        """For select and epoll."""
        return self._wake

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No early flip happens in the block: for whatever else is done with the engine.

        Who waits for it comes next, however busy the engine is: a lock alone would let the thread take it again.
        """
        with self._turn, self._in_use:
            yield

    def take(self) -> list[Drain]:
        """The drains since the last call, oldest first; while paused. Raises what an early flip raised."""
        if self._failure:
            raise self._failure
        if self._raised and time.monotonic() >= self._calm_at:
            self._calm()
        self._taker = threading.get_native_id()
        drains, self._drains = self._drains, []
        if drains:
            os.eventfd_read(self._wake)
        return drains

    def _serve(self) -> None:
        if self._urgent:  # it does little, and what it does cannot wait for its turn on a busy CPU
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        waiting = select.poll()  # needs no file of its own, as epoll does: nothing can fail before the loop
        waiting.register(self._engine.flip_requests.fileno(), select.POLLIN)
        waiting.register(self._stop, select.POLLIN)
        while self._stop not in (ready for ready, _ in waiting.poll()):
            try:
                with self._turn:
                    pass
                with self._in_use:
                    self._flip_if_asked()
            except BaseException as failure:
                self._failure = failure
                os.eventfd_write(self._wake, 1)
                return

    def _flip_if_asked(self) -> None:
        if self._engine.flip_requests.take():
            if self._urgent:
                self._hurry()
            self._drains.append(self._engine.flip())
            self.count += 1
            os.eventfd_write(self._wake, 1)

    def _hurry(self) -> None:
        self._calm_at = time.monotonic() + CALM_SECONDS
        if not self._raised:
            with contextlib.suppress(OSError):
                before = os.getpriority(os.PRIO_PROCESS, self._taker)
                os.setpriority(os.PRIO_PROCESS, self._taker, min(before, _TAKERS_NICE))
                self._raised = self._taker, before

    def _calm(self) -> None:
        if self._raised:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, *self._raised)
            self._raised = None
