"""Columns in Arrow's layout, from NumPy arrays and from Python's values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.sinks.shipping.arrow_ipc import Array

_FORMATS = {"u1": "C", "u2": "S", "u4": "I", "u8": "L", "i8": "l", "i4": "i"}
#: Rows whose texts are gathered at a time, so that the places of their bytes take little memory.
_GATHERED_ROWS = 8192


def numbers(values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> Array:
    """Whole numbers. valid: which are not null; None: all."""
    bitmap, nulls = _validity(valid)
    return Array(_FORMATS[values.dtype.str[1:]], len(values), [np.ascontiguousarray(values)], nulls, bitmap)


def optional_numbers(values: Sequence[int | None], dtype: str) -> Array:
    """Whole numbers, None for null."""
    return numbers(np.array([value or 0 for value in values], dtype), _is_given(values))


def booleans(values: NDArray[np.bool_]) -> Array:
    """Truths, a bit each."""
    return Array("b", len(values), [np.packbits(values, bitorder="little")])


def times(values_ns: NDArray[Any]) -> Array:
    """Nanoseconds since the Unix epoch."""
    return Array("tsn:UTC", len(values_ns), [np.ascontiguousarray(values_ns).view("i8")])


def fixed(values: NDArray[Any]) -> Array:
    """Bytes of a fixed size: an array of shape (n, size) of uint8, or of shape (n,) of opaque bytes."""
    size = values.dtype.itemsize * (values.shape[1] if values.ndim == 2 else 1)
    return Array(f"w:{size}", len(values), [np.ascontiguousarray(values).view("u1").reshape(-1)])


def texts(values: Sequence[str | None]) -> Array:
    """Texts, None for null."""
    encoded = [(value or "").encode("utf-8", "replace") for value in values]
    offsets = _offsets(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    bitmap, nulls = _validity(_is_given(values))
    return Array("u", len(values), [offsets, b"".join(encoded)], nulls, bitmap)


def slices(text: bytes, at: NDArray[Any], sizes: NDArray[Any]) -> Array:
    """Texts that lie in `text` from `at` on, `sizes` bytes each; UTF-8."""
    offsets = _offsets(sizes)
    arena = np.frombuffer(text, np.uint8)
    gathered = np.empty(int(offsets[-1]), np.uint8)
    for begin in range(0, len(at), _GATHERED_ROWS):
        chosen = slice(begin, begin + _GATHERED_ROWS)
        first, last = int(offsets[begin]), int(offsets[min(begin + _GATHERED_ROWS, len(at))])
        shift = at[chosen].astype(np.int64) - offsets[:-1][chosen]
        gathered[first:last] = arena[np.arange(first, last) + np.repeat(shift, sizes[chosen])]
    return Array("u", len(at), [offsets, gathered])


def repeated(values: Sequence[str], at: NDArray[Any]) -> Array:
    """Texts of which there are few, without a dictionary, which nothing in a list has here. at: which each row has."""
    encoded = [value.encode("utf-8", "replace") for value in values]
    sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
    return slices(b"".join(encoded), (np.cumsum(sizes) - sizes)[at], sizes[at])


def words(values: Iterable[Hashable], at: NDArray[Any] | None = None) -> Array:
    """Texts of which there are few, each once in a dictionary; None for null.

    at: which of `values` each row has; None: each its own.
    """
    known = list(values)
    different = {value: code for code, value in enumerate(dict.fromkeys(value for value in known if value is not None))}
    kind = np.uint8 if len(different) <= 0xFF else np.uint16 if len(different) <= 0xFFFF else np.uint32
    codes = np.fromiter((different.get(value, len(different)) for value in known), np.uint32, len(known))
    rows = codes if at is None else codes[at]
    valid = None if None not in known else rows != len(different)
    bitmap, nulls = _validity(valid)
    rows = (rows if valid is None else np.where(valid, rows, 0)).astype(kind)
    dictionary = texts([str(value) for value in different])
    return Array(_FORMATS[rows.dtype.str[1:]], len(rows), [rows], nulls, bitmap, dictionary=dictionary)


def lists(lengths: NDArray[Any], items: Array) -> Array:
    """Lists of so many items each."""
    return Array("+l", len(lengths), [_offsets(lengths)], children={"item": items})


def structs(fields: Mapping[str, Array]) -> Array:
    """Structs of which each field is a column."""
    return Array("+s", next(iter(fields.values())).length, children=fields)


def _offsets(sizes: NDArray[Any]) -> NDArray[np.int32]:
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"a column of {offsets[-1]:,} bytes: Arrow's offsets here have 32 bits")
    return offsets.astype(np.int32)


def _is_given(values: Sequence[object]) -> NDArray[np.bool_] | None:
    if None not in values:
        return None
    return np.fromiter((value is not None for value in values), np.bool_, len(values))


def _validity(valid: NDArray[np.bool_] | None) -> tuple[NDArray[np.uint8] | None, int]:
    """Bitmap and number of nulls."""
    if valid is None or valid.all():
        return None, 0
    return np.packbits(valid, bitorder="little"), len(valid) - int(np.count_nonzero(valid))
