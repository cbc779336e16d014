"""Shipped batches, read as a server does."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa


def rows_of(table: Any) -> list[str]:
    """A table's rows as text, whatever their order, which means nothing for flows."""
    return sorted(map(repr, table.to_pylist()))


def tables_of(content: bytes) -> dict[str, Any]:
    """pyarrow Tables by name."""
    stream, found = io.BytesIO(content), {}
    while stream.tell() < len(content):
        table = pa.ipc.open_stream(stream).read_all()
        table.validate(full=True)
        found[table.schema.metadata[b"wiremeter.table"].decode()] = table
    return found
