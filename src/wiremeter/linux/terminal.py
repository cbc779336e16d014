"""The terminal that a process was started from."""

from __future__ import annotations

import os
import signal


class Terminal:
    """Tells whether the controlling terminal was closed since this was made, and with it whoever looked on."""

    def __init__(self) -> None:
        # Under nohup(1) nothing is to end with the terminal.
        self._counts = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _is_there()

    def is_gone(self) -> bool:
        """False without one from the beginning on, as of a service, and under nohup."""
        return self._counts and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:  # ENXIO: none; EIO: it hung up
        return False
    return True
