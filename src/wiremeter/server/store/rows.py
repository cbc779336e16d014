"""The rows of a group of batches, as its inserts have them: shipped tables with what the store adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from wiremeter.server.store.arrow import arrow_schema
from wiremeter.server.store.batch import Batch
from wiremeter.server.store.rollups import late_tables
from wiremeter.shipment.schema import TABLES, TableName

_MILLISECONDS = pa.timestamp("ms", "UTC")


def group_tables(batches: Sequence[Batch], closed: Mapping[int, int]) -> list[tuple[str, pa.Table]]:
    """Name and rows of each table that has any, in the order of inserting: `batches`, which says that all is there,
    last. closed: as in `late_tables`.
    """
    tables: list[tuple[str, pa.Table]] = []
    for name in TABLES:
        parts = [
            _with_added(batch, batch.tables[name])
            for batch in batches
            if name in batch.tables and batch.tables[name].num_rows
        ]
        if parts:
            table = _distinct_words(pa.concat_tables(parts).unify_dictionaries()).combine_chunks()
            tables.append((name, table))
    if tables and tables[0][0] == "flows":
        tables += late_tables(tables[0][1], closed)
    tables.append(("batches", _batches(batches)))
    return tables


def _with_added(batch: Batch, table: pa.Table) -> pa.Table:
    rows = table.num_rows
    if "time" not in table.column_names:
        start_ms = batch.about.start_ns // 1_000_000
        times = pa.array(np.full(rows, start_ms, np.int64)).cast(_MILLISECONDS)
        table = table.add_column(0, "time", times)
    table = table.add_column(1, "agent", _constant(batch.about.identity.agent, rows))
    return table.append_column("batch_mode", _constant(batch.about.mode, rows))


def _constant(word: str, rows: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([word]))


def _distinct_words(table: pa.Table) -> pa.Table:
    """The same rows, with dictionaries that hold each word once and no null: the engine takes no others."""
    for place, field in enumerate(table.schema):
        if not pa.types.is_dictionary(field.type):
            continue
        words = table.column(place).chunk(0).dictionary
        if words.null_count or len(words.unique()) < len(words):
            plain = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field, plain.dictionary_encode().cast(field.type))
    return table


def _batches(batches: Sequence[Batch]) -> pa.Table:
    abouts = [batch.about for batch in batches]
    words = pa.string()
    columns = {
        "agent": pa.array([about.identity.agent for about in abouts], words),
        "boot": pa.array([about.identity.boot for about in abouts], words),
        "sequence": pa.array([about.identity.sequence for about in abouts], pa.uint64()),
        "content": pa.array([batch.content for batch in batches], pa.binary(32)),
        "received": pa.array([batch.received_ns // 1_000_000 for batch in batches], _MILLISECONDS),
        "start": pa.array([about.start_ns for about in abouts], pa.timestamp("ns", "UTC")),
        "end": pa.array([about.end_ns for about in abouts], pa.timestamp("ns", "UTC")),
        "mode": pa.array([about.mode for about in abouts], words),
        "version": pa.array([about.version for about in abouts], words),
        "skew_ns": pa.array([batch.skew_ns for batch in batches], pa.int64()),
        "flows": pa.array([_rows(batch, "flows") for batch in batches], pa.uint32()),
        "rows": pa.array([batch.rows for batch in batches], pa.uint32()),
        "dropped": pa.array([list(about.dropped.items()) for about in abouts], pa.map_(words, pa.uint64())),
    }
    return pa.table(columns)


def _rows(batch: Batch, name: TableName) -> int:
    table = batch.tables.get(name)
    return table.num_rows if table is not None else 0


def check(batch: Batch) -> str | None:
    """What is wrong with a batch's tables, None if they are as they must be.

    The engine fills columns that are missing, and takes types that are near, without a word: so this does not.
    """
    if len(batch.content) != 32:
        return f"its content hash has {len(batch.content)} bytes, expected 32"
    if "flows" not in batch.tables:
        return "it has no table flows"
    for name, table in batch.tables.items():
        if name not in TABLES:
            return f"there is no table {name}"
        if not table.schema.equals(arrow_schema(name)):
            return f"table {name} has the columns {table.schema.to_string()}, expected {arrow_schema(name).to_string()}"
    return None
