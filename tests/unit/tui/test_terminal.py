"""The live view on a real terminal, when it is stopped, goes on, and when the terminal hangs up."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from wiremeter.tui.terminal import Screen

#: The view over made-up batches, five a second.
_VIEW = """
import asyncio, sys
from tests.unit.live_batches import make_batch
from wiremeter.tui.app import LiveApp

class Source:
    async def __aiter__(self):
        while True:
            yield make_batch([])
            await asyncio.sleep(0.2)

app = LiveApp(Source())
app.run()
sys.exit(app.return_code or 0)
"""
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"  # the terminal's second screen


class View:
    """The view in a process of its own, and our end of its terminal."""

    def __init__(self, *, controls: bool) -> None:
        """controls: whether the terminal is the process's controlling one, which sends SIGHUP when it hangs up."""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        take = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" if controls else ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", take + _VIEW],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(slave)
        os.set_blocking(self.master, False)
        self.shown = b""

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            while more := os.read(self.master, 1 << 16):
                self.shown += more

    def until(self, comes: Callable[[], bool], seconds: float = 60) -> bool:
        """Whether it comes in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            if comes():
                return True
            time.sleep(0.05)
        return False

    def sees(self, text: bytes) -> bool:
        return self.until(lambda: text in self.shown)

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, as shells want it."""
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def is_stopped(self) -> bool:
        with open(f"/proc/{self.process.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"


@contextlib.contextmanager
def view(*, controls: bool = True) -> Iterator[View]:
    made = View(controls=controls)
    try:
        assert made.sees(b"wiremeter"), made.shown
        assert made.until(lambda: not made.echoes())
        yield made
    finally:
        with contextlib.suppress(OSError):
            os.close(made.master)
        made.process.kill()
        made.process.wait()


@pytest.mark.parametrize("how", ["key", "signal"])
def test_ctrl_z_gives_the_terminal_back_and_fg_returns(how: str) -> None:
    with view() as it:
        if how == "key":
            os.write(it.master, b"\x1a")
        else:
            it.process.send_signal(signal.SIGTSTP)
        assert it.until(it.is_stopped)
        assert it.shown.endswith(LEAVE) or LEAVE in it.shown
        assert it.echoes()
        it.shown = b""
        it.process.send_signal(signal.SIGCONT)
        assert it.sees(ENTER)
        assert it.until(lambda: not it.echoes())
        os.write(it.master, b"q")
        assert it.until(lambda: it.process.poll() is not None)
        assert it.process.returncode == 0
        assert it.echoes()
        assert b"Traceback" not in it.shown


@pytest.mark.parametrize("controls", [True, False])
def test_a_terminal_that_hangs_up_ends_the_view(controls: bool) -> None:
    with view(controls=controls) as it:
        os.close(it.master)
        assert it.process.wait(20) == 0


def test_a_terminal_that_takes_no_more_does_not_stop_the_writing() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "w") as broken:
        screen = Screen(broken)
        for _ in range(2):
            screen.write("shown to nobody")
            screen.flush()
        assert screen.fileno() == theirs
        with contextlib.suppress(OSError):
            broken.close()
