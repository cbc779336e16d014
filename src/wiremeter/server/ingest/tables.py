"""The bytes of a batch as tables: Arrow IPC streams one behind the other, checked against the schema."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from wiremeter.errors import InputError
from wiremeter.server.ingest.declared import declared_bytes
from wiremeter.server.store import conform
from wiremeter.shipment.identity import About
from wiremeter.shipment.schema import TABLES, TableName

#: Rows of all tables of a batch; an agent has at most a million flows by default (`--max-flows`).
ROWS_MAX = 4_000_000
#: Bytes of all tables of a batch in memory, decompressed.
TABLE_BYTES_MAX = 256 << 20
_TABLE_KEY = b"wiremeter.table"


def read_tables(content: bytes | memoryview) -> tuple[About, dict[TableName, pa.Table]]:
    """What a batch says of itself, and its tables, each as `conform` makes them; those not known are passed over.

    Raises InputError for what is not as wiremeter.shipment.schema has it.
    """
    try:
        return _read(content)
    except UnicodeDecodeError as error:  # in names of columns, which are first looked at where they are asked for
        raise InputError(f"text that is not UTF-8: {error.reason}") from error


def _read(content: bytes | memoryview) -> tuple[About, dict[TableName, pa.Table]]:
    about: About | None = None
    tables: dict[TableName, pa.Table] = {}
    rows = size = 0
    for schema, table in _streams(content):
        metadata = schema.metadata or {}
        name = metadata.get(_TABLE_KEY, b"").decode("utf-8", "replace")
        if about is None:
            about = About.from_metadata({key.decode(): value.decode() for key, value in metadata.items()})
            if name != "flows":
                raise InputError(f"the first table is {name[:80]!r}, expected flows")
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows > ROWS_MAX or size > TABLE_BYTES_MAX:
            raise InputError(f"more than {ROWS_MAX:,} rows or {TABLE_BYTES_MAX >> 20} MiB in one batch")
        if name not in TABLES:
            continue
        if name in tables:
            raise InputError(f"table {name} is there twice")
        tables[name] = conform(name, table)
    if about is None:
        raise InputError("the batch is empty")
    return about, tables


def _streams(content: bytes | memoryview) -> Iterator[tuple[pa.Schema, pa.Table]]:
    """Each stream's schema and rows. Everything is validated: a peer's offsets must not lead out of its buffers."""
    source = pa.BufferReader(pa.py_buffer(content))
    end, size = source.size(), 0
    while source.tell() < end:
        begun = source.tell()
        try:
            size += declared_bytes(source)
            if size > TABLE_BYTES_MAX:
                raise ValueError(f"decompresses to more than {TABLE_BYTES_MAX >> 20} MiB")
            source.seek(begun)
            with pa.ipc.open_stream(source) as reader:
                batches = [_validated(batch) for batch in reader]
                yield reader.schema, pa.Table.from_batches(batches, reader.schema)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"not an Arrow stream at byte {begun:,}: {_first_line(error)}") from error


def _validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch.validate(full=True)
    return batch


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
