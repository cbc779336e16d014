"""Rows of a document, written as JSON by columns: no row becomes an object on the way. In C: json_rows.c."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from wiremeter.errors import InputError

try:
    from wiremeter.reports._json_rows import ffi, lib  # type: ignore[import-not-found,unused-ignore]
except ImportError as error:  # pragma: no cover - only without a build
    raise InputError(f"the writer of JSON is not built ({error}): run `make build`, or `pip install .`") from error

#: Rows are written into this much at a time; one that is longer gets more.
_ROOM_BYTES = 1 << 20

Row = TypeVar("Row", bound=Struct)


def to_json(value: Any) -> str:
    """JSON that a terminal can show: what could move its cursor or turn the direction of text is escaped.

    >>> to_json({"domain": "a\\x9b\\u202eb.example"})
    '{"domain":"a\\\\u009b\\\\u202eb.example"}'
    """
    text = msgspec.json.encode(value).decode()
    return text if text.isascii() and "\x7f" not in text else _NOT_ASCII.sub(_escaped, text)


_NOT_ASCII = re.compile("[^\x20-\x7e]")


def _escaped(found: re.Match[str]) -> str:
    letter = found[0]
    if letter.isprintable():
        return letter
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


@dataclass(frozen=True, slots=True)
class Words:
    """Values as JSON, one behind the other, which columns name by their numbers. starts: shape (n + 1,)."""

    text: bytes
    starts: NDArray[np.uint64]

    @classmethod
    def of(cls, values: Sequence[Any]) -> Words:
        """As to_json has them."""
        written = list(map(msgspec.json.encode, values))
        text = b"".join(written)
        if not text.isascii() or b"\x7f" in text:
            written = [to_json(value).encode() for value in values]
        return cls.written(written)

    @classmethod
    def written(cls, values: Sequence[bytes]) -> Words:
        """Of what is JSON already."""
        starts = np.fromiter(accumulate(map(len, values), initial=0), np.uint64, len(values) + 1)
        return cls(b"".join(values), starts)


@dataclass(frozen=True, slots=True)
class Column:
    """One value of each row, of shape (n,): what struct wm_json_column says."""

    kind: int
    values: NDArray[np.uint64]
    null: int | None = None
    words: Words | None = None
    counts: NDArray[np.uint32] | None = None
    families: NDArray[np.uint8] | None = None


def numbers(values: NDArray[Any], null: int | None = None) -> Column:
    """Whole numbers from 0 on; `null`, modulo 2^64, is null."""
    return Column(lib.WM_JSON_NUMBER, values.astype(np.uint64), None if null is None else null % (1 << 64))


def optional(values: Sequence[int | None]) -> Column:
    """Whole numbers from 0 on, or nothing."""
    return numbers(np.array([_NONE if value is None else value for value in values], np.uint64), _NONE)


_NONE = (1 << 64) - 1


def words(values: Iterable[Any]) -> Column:
    """Anything that JSON has, and that can be hashed: each is written once."""
    number: dict[Any, int] = {}
    at = np.array([number.setdefault(value, len(number)) for value in values], np.uint64)
    return Column(lib.WM_JSON_WORD, at, words=Words.of(list(number)))


def chosen(choices: Words, numbers: NDArray[Any]) -> Column:
    """One of some words, by its number."""
    return Column(lib.WM_JSON_WORD, np.ascontiguousarray(numbers).astype(np.uint64), words=choices)


def lists(items: Words, counts: NDArray[Any]) -> Column:
    """As many items as counts says for each row, in order."""
    of_rows = counts.astype(np.uint64)
    first = np.cumsum(of_rows, dtype=np.uint64) - of_rows
    return Column(lib.WM_JSON_LIST, first, words=items, counts=counts.astype(np.uint32))


def addresses(packed: NDArray[np.uint8], families: NDArray[Any]) -> Column:
    """Addresses of packets as flows.columns.packet_address_text has them. packed: shape (n, 16)."""
    of_rows = np.ascontiguousarray(packed).view(np.uint64).reshape(-1)
    return Column(lib.WM_JSON_ADDRESS, of_rows, families=np.ascontiguousarray(families, np.uint8))


#: By field; one whose value is a struct has the columns of that.
Columns = Mapping[str, "Column | Columns"]


class Rows(Generic[Row]):
    """Rows of one kind. Fields of which there are no columns are left out of each."""

    def __init__(self, kind: type[Row], columns: Columns, count: int) -> None:
        self.kind, self.count = kind, count
        self._columns = columns

    def written(self, separator: str = ",") -> Iterator[str]:
        """All rows, with something between two, in pieces."""
        for piece, is_last in self._pieces(separator):
            yield (piece[: -len(separator)] if is_last else piece).decode()

    def words(self) -> Words:
        """Each row as a word, for a list in others."""
        text = "".join(self.written("\n")).encode()  # in which no row has a line's end
        return Words.written(text.split(b"\n") if text else [])

    def objects(self) -> Iterator[Row]:
        """Each row as what it is."""
        decoder = msgspec.json.Decoder(list[self.kind])  # type: ignore[name-defined]
        for piece, _ in self._pieces(","):
            yield from decoder.decode(b"[" + piece[:-1] + b"]")

    def _pieces(self, separator: str) -> Iterator[tuple[bytes, bool]]:
        """Some rows, each with what stands between two behind it, and whether they are the last."""
        held: list[Any] = []  # what the struct points at must live as long as it
        columns = list(_flat(self._columns, self.kind, "{"))
        after = (columns.pop()[0] + separator).encode()
        given = ffi.new("struct wm_json_column[]", [_given(before, column, held) for before, column in columns])
        held.append(ffi.from_buffer(after))
        rows = ffi.new("struct wm_json_rows *", [given, len(columns), held[-1], len(after)])
        used = ffi.new("size_t *")
        room, done = _ROOM_BYTES, 0
        out = ffi.new("uint8_t[]", room)
        while done < self.count:
            before, done = done, lib.wm_json_write(rows, done, self.count, out, room, used)
            if done == before:
                room *= 2
                out = ffi.new("uint8_t[]", room)
            else:
                yield ffi.buffer(out, used[0])[:], done == self.count


def _flat(columns: Columns, kind: type[Struct], opening: str) -> Iterator[tuple[str, Any]]:
    """Each column with what stands before its values; at last what stands behind all of them, without a column."""
    before = opening
    for field in msgspec.structs.fields(kind):
        if field.name not in columns:
            continue
        column = columns[field.name]
        before += f'"{field.encode_name}":'
        if isinstance(column, Column):
            yield before, column
            before = ","
        else:
            kind_of_field = getattr(field.type, "__origin__", field.type)  # of Annotated
            *inner, (behind, _) = _flat(column, kind_of_field, before + "{")
            yield from inner
            before = behind + ","
    yield before.removesuffix(",") + "}", None


def _given(before: str, column: Column, held: list[Any]) -> dict[str, Any]:
    """A struct wm_json_column."""

    def at(kind: str, values: Any) -> Any:
        held.append(values if values is None else ffi.from_buffer(f"{kind}[]", values))
        return ffi.NULL if values is None else held[-1]

    text = before.encode()
    is_address = column.kind == lib.WM_JSON_ADDRESS
    return {
        "before": at("uint8_t", text),
        "before_bytes": len(text),
        "kind": column.kind,
        "values": at("uint64_t", column.values),
        "null": column.null or 0,
        "has_null": column.null is not None,
        "counts": at("uint32_t", column.counts),
        "addresses": at("uint8_t", column.values.view(np.uint8) if is_address else None),
        "families": at("uint8_t", column.families),
        "words": at("uint8_t", column.words and column.words.text),
        "starts": at("uint64_t", column.words and column.words.starts),
    }
