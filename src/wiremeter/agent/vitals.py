"""Whether the agent is alive and whether it is ready, for /healthz and /readyz."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

#: Batches that may be late before the loop counts as stuck, and the least time to allow for that.
INTERVALS_ALLOWED = 3
LEAST_SECONDS_ALLOWED = 1.0


class Verdict(NamedTuple):
    """Yes or no, and why."""

    good: bool
    why: str


class Vitals:
    """What the loop reports and HTTP threads ask; safe from any thread.

    It goes from starting (the tables are being made, programs attached), to attached, to running with the first
    batch, to stopping.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        """interval: seconds between batches."""
        self._patience = max(INTERVALS_ALLOWED * interval, LEAST_SECONDS_ALLOWED)
        self._clock = clock
        self._lock = threading.Lock()
        self._attachments: int | None = None
        self._batches = 0
        self._stopping = False
        self._beat = clock()

    def attached(self, attachments: int) -> None:
        """Programs are attached; the first batch is due in an interval."""
        with self._lock:
            self._attachments, self._beat = attachments, self._clock()

    def batch_arrived(self, attachments: int) -> None:
        """A batch was handed to every sink; `attachments` as it says."""
        with self._lock:
            self._attachments, self._beat = attachments, self._clock()
            self._batches += 1

    def stopping(self) -> None:
        """The loop was asked to end."""
        with self._lock:
            self._stopping = True

    def healthy(self) -> Verdict:
        """Good while starting and while batches come; bad means that only a restart helps."""
        with self._lock:
            silence = self._clock() - self._beat
            if self._attachments is None:
                return Verdict(True, "starting: not attached yet")
            if silence > self._patience:
                return Verdict(False, f"no batch for {silence:.1f} s, at most {self._patience:g} s are allowed")
            return Verdict(True, "ok")

    def ready(self) -> Verdict:
        """Good once attached and the first batch has come, and until the loop is asked to end."""
        healthy = self.healthy()
        with self._lock:
            if self._stopping:
                return Verdict(False, "stopping")
            if self._attachments is None:
                return Verdict(False, healthy.why)
            if not self._batches:
                return Verdict(False, "attached, waiting for the first batch")
            if not self._attachments:
                return Verdict(False, "not attached to any device at the moment")
            return healthy
