"""The terminal that keys come from and the view is drawn on."""

from __future__ import annotations

import contextlib
import os
import select
from typing import Any, TextIO

from textual.drivers.linux_driver import LinuxDriver


class Terminal:
    """Standard input, if it is a terminal. One that hangs up without SIGHUP leaves a view to go on unseen."""

    def __init__(self) -> None:
        self._poll = select.poll()
        if os.isatty(0):
            self._poll.register(0, 0)

    def is_gone(self) -> bool:
        """Whether it has hung up."""
        return bool(self._poll.poll(0))


class Screen:
    """A terminal to write to; what it no longer takes since it hung up is left out."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Writes, if there is still a terminal."""
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Flushes, if there is still a terminal."""
        with contextlib.suppress(OSError):
            self._file.flush()

    def fileno(self) -> int:
        """The file's own."""
        return self._file.fileno()


class TerminalDriver(LinuxDriver):
    """Textual's driver. Its writing thread ends at the first error, and then the view waits for it for ever."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._file: Any = Screen(self._file)
