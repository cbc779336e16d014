"""What `wiremeter top`, `flows` and `query` share: the server that is asked, and how its answer is printed."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TextIO, TypeVar

from wiremeter.cli.streams import say
from wiremeter.client.connection import DEFAULT_URL, Connection, connect, read_token
from wiremeter.errors import InputError
from wiremeter.settings.catalogue import Asking

_WIDTH_MAX = 60
#: Seconds after which a terminal is told how far an answer is, and how often.
_PATIENCE_SECONDS, _AGAIN_SECONDS = 0.5, 0.2
_Row = TypeVar("_Row", bound=Mapping[str, Any])


def opened(settings: Asking) -> Connection:
    """The server of the settings. Raises InputError."""
    return connect(
        settings.server or DEFAULT_URL,
        token=read_token(settings.token_file) if settings.token_file else None,
        ca=settings.server_ca,
        cert=settings.client_cert,
        key=settings.client_key,
    )


def ago(time: str) -> str:
    """A time as the server reads it. A length alone is so long ago, since a word that begins with - would be a flag.

    >>> ago("5m"), ago("now")
    ('-5m', 'now')
    """
    return f"-{time}" if re.fullmatch(r"[0-9.]+[smhdw]", time) else time


def answer(settings: Asking, question: str, parameters: Mapping[str, object]) -> int:
    """Asks, and writes the answer to standard output as it comes. On a terminal it says how far it is."""
    with opened(settings) as server, Waiting(sys.stderr) as waiting:
        if settings.format == "text":
            if not _print_table(waiting.until_first(server.rows(question, parameters, waiting.read))):
                say("wiremeter: the answer has no rows: nothing that was stored fits")
            return 0
        if settings.format in ("arrow", "parquet") and sys.stdout.isatty():
            raise InputError(f"{settings.format} is nothing for a terminal; redirect it to a file")
        size = 0
        for piece in server.stream(question, parameters, settings.format):
            sys.stdout.buffer.write(piece)
            size += len(piece)
            if not sys.stdout.isatty():
                waiting.show(f"{size / 1e6:,.1f} MB")
    return 0


class Waiting:
    """A line on a terminal that says how far an answer is, and is gone when it is there; nothing elsewhere.

    What takes less than a moment says nothing.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._next = clock() + _PATIENCE_SECONDS
        self._width = 0

    def read(self, rows: int, total: int) -> None:
        """How many rows the server has read, of how many, 0 where that is not known."""
        share = f" of {total:,} ({min(rows / total, 1):.0%})" if total else ""
        self.show(f"{rows:,}{share} rows read")

    def show(self, text: str) -> None:
        """Some words, in place of those before."""
        if self._is_terminal and self._clock() >= self._next:
            self._next = self._clock() + _AGAIN_SECONDS
            self._stream.write(f"\r{text.ljust(self._width)}")
            self._stream.flush()
            self._width = len(text)

    def until_first(self, rows: Iterator[_Row]) -> Iterator[_Row]:
        """The rows; before the first of them the line is taken away."""
        for row in rows:
            self.clear()
            yield row

    def clear(self) -> None:
        """Takes it away."""
        if self._width:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._stream.flush()
            self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


def _print_table(rows: Iterator[Mapping[str, Any]]) -> bool:
    """Columns as wide as what is in them; of long answers as wide as the first rows need. Whether there was a row."""
    widths: dict[str, int] = {}
    waiting: list[Mapping[str, Any]] = []
    for row in rows:
        if widths:
            _print_row(row, widths)
            continue
        waiting.append(row)
        if len(waiting) == 1000:
            widths = _print_first(waiting)
    if not widths and waiting:
        widths = _print_first(waiting)
    return bool(widths)


def _print_first(rows: list[Mapping[str, Any]]) -> dict[str, int]:
    names = [name for name in rows[0] if name != "other"]
    widths = {name: max(len(name), *(len(_cell(row, name)) for row in rows)) for name in names}
    widths = {name: min(width, _WIDTH_MAX) for name, width in widths.items()}
    numbers = {name for name in names if all(isinstance(row[name], int | float | None) for row in rows)}
    print("  ".join(name.rjust(w) if name in numbers else name.ljust(w) for name, w in widths.items()).rstrip())
    for row in rows:
        _print_row(row, widths)
    return widths


def _print_row(row: Mapping[str, Any], widths: Mapping[str, int]) -> None:
    cells = []
    for place, (name, width) in enumerate(widths.items()):
        text = "(other)" if row.get("other") and not place and row[name] is None else _cell(row, name)
        is_number = isinstance(row[name], int | float) and not isinstance(row[name], bool)
        cells.append(text.rjust(width) if is_number else text.ljust(width))
    print("  ".join(cells).rstrip())


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
