"""Waiting for a store."""

from __future__ import annotations

import time
from collections.abc import Callable

from wiremeter.server.store import Unavailable


def until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until it is so; Unavailable meanwhile is no more than not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if is_so():
                return
        except Unavailable:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)
