"""A `wiremeter server` of a benchmark's own, in a process, on a port that was free."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.memory import cpu_seconds, family, resident_mb

_READY = "the server is at "


class Server(NamedTuple):
    """One that is ready. engine: the process of its store, 0 where the store is elsewhere."""

    url: str
    pid: int
    engine: int

    def cpu_seconds(self) -> tuple[float, float]:
        """Of the server, and of its engine with what that merges."""
        return cpu_seconds(self.pid), cpu_seconds(self.engine) if self.engine else 0.0

    def resident_mb(self) -> tuple[float, float]:
        """The same in MB."""
        return resident_mb(self.pid)[0], resident_mb(self.engine)[0] if self.engine else 0.0


@contextlib.contextmanager
def served(directory: Path, *arguments: str) -> Iterator[Server]:
    """Ends it after the block. directory: for what it stores and for its log."""
    command = [sys.executable, "-m", "wiremeter", "server", "--listen", "127.0.0.1:0", "--data-dir"]
    log = directory / "log"
    with log.open("wb") as said:
        running = subprocess.Popen([*command, str(directory / "data"), *arguments], stdout=said, stderr=said)
    try:
        while _READY not in log.read_text():
            if running.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        url = log.read_text().split(_READY)[1].split()[0]
        yield Server(url, running.pid, next(iter(family(running.pid)[1:]), 0))
    finally:
        running.terminate()
        running.wait()
