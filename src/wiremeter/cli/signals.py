"""The signals that ask a command to end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stopping(stop: Callable[[], object]) -> Iterator[list[signal.Signals]]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP call `stop`, so that what was begun is told.

    Gives the list of those that came. A second one does what it did before: whoever cannot wait need not.
    """
    came: list[signal.Signals] = []

    def handle(number: int, frame: object) -> None:
        came.append(signal.Signals(number))
        restore()
        stop()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    except ValueError:  # not in the main thread: who runs us there handles signals
        before = {}
    try:
        yield came
    finally:
        restore()
