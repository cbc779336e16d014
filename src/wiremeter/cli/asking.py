"""What `wiremeter top`, `flows` and `query` share: the server that is asked, and how its answer is printed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from wiremeter.cli.streams import say
from wiremeter.client.connection import DEFAULT_URL, Connection, connect, read_token
from wiremeter.errors import InputError
from wiremeter.settings.catalogue import Asking

_WIDTH_MAX = 60


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
    """Asks, and writes the answer to standard output as it comes."""
    with opened(settings) as server:
        if settings.format == "text":
            pieces = server.stream(question, parameters, "jsonl")
            if not _print_table(json.loads(line) for line in _lines(pieces)):
                say("wiremeter: the answer has no rows: nothing that was stored fits")
            return 0
        if settings.format in ("arrow", "parquet") and sys.stdout.isatty():
            raise InputError(f"{settings.format} is nothing for a terminal; redirect it to a file")
        for piece in server.stream(question, parameters, settings.format):
            sys.stdout.buffer.write(piece)
    return 0


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, lines)
    if rest:
        yield rest


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
