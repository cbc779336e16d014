"""Standard streams as a process may find them: closed, full, on a terminal that went away, in any locale."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer


class OutputLost(OSError):
    """Standard output took no more; errno and strerror say why."""


class _Output(io.FileIO):
    """Standard output whose errors are told from those of files and sockets."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error.errno, error.strerror) from error


class _Text(io.TextIOWrapper):
    """Text that people see: names that came over the wire, or from files, must not act on their terminal."""

    def write(self, text: str, /) -> int:
        return super().write(shown(text))


def prepare() -> None:
    """Has all three streams exist, and no text that the locale cannot write end the process.

    What was closed is opened so that its use fails as before, and no file or socket of ours becomes standard output by
    taking a number that is free. Standard error alone becomes a place where text may go: whoever closes it wants none.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)  # the lowest number that is free, so this one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    sys.stdin = sys.stdin or open(0, errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stdout = _Text(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding=sys.stdout.encoding if sys.stdout else None,
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )


def write_utf8() -> None:
    """JSON is UTF-8 (RFC 8259, section 8.1), whatever the locale."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def finish() -> None:
    """Lets Python end without complaints about what could not be written and was reported, or could not be."""
    for stream in (sys.stdout, sys.stderr):
        if is_lost(stream):
            give_up(stream)


def is_lost(stream: TextIO) -> bool:
    """Whether text still waits in it and cannot be written."""
    try:
        stream.flush()
    except (OSError, ValueError):
        return True
    return False


def give_up(stream: TextIO) -> None:
    """Throws away what waits in it: it would fail again when Python exits."""
    with contextlib.suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, stream.fileno())
        os.close(sink)


def say(message: str) -> None:
    """A message on standard error, whatever state that is in: metering goes on when nobody can be told."""
    with contextlib.suppress(OSError, ValueError):
        print(shown(message), file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """`text` with letters escaped that would move a terminal's cursor or turn the direction of text.

    >>> print(shown("a\\x1b[2J\\u202eb"))
    a\\x1b[2J\\u202eb
    """
    return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)


#: Control and format characters (categories Cc, Cf, Zl and Zp of Unicode) but line feed and tab.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
