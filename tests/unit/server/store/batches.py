"""Batches for tests of the store: flows with totals that are known."""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wiremeter.server.store import Batch, arrow_schema
from wiremeter.shipment.identity import About, Identity
from wiremeter.shipment.schema import TABLES, Column, TableName

#: The beginning of the hour before this one: what is too old is not kept.
EPOCH_NS = (int(time.time()) // 3600 - 1) * 3600 * 10**9
BOOT = str(uuid.UUID(int=1))


def make_table(name: TableName, rows: int, seed: int = 0, *, start_ns: int = EPOCH_NS, **fixed: Any) -> pa.Table:
    """A table of any name: values by chance, but for `fixed`, which are whole columns."""
    rng = np.random.default_rng(seed)

    def values(key: str, column: Column) -> Any:
        if key in fixed:
            return fixed[key]
        match column.type:
            case "bool":
                return rng.integers(0, 2, rows).astype(bool)
            case "time":
                return pa.array(start_ns + np.sort(rng.integers(0, 10**9, rows)), pa.timestamp("ns", "UTC"))
            case "address":
                return [bytes(10) + b"\xff\xff\x0a\x00" + bytes(rng.integers(0, 256, 2, "u1")) for _ in range(rows)]
            case "texts":
                return [["h2", "http/1.1"]] * rows
            case "answers":
                return [[{"name": "a.example", "type": "A", "ttl": 60, "data": "192.0.2.1"}]] * rows
            case "text" | "word":
                return pa.array([f"{key}-{n}" for n in rng.integers(0, 5, rows)], pa.string())
            case _:
                return rng.integers(0, 100, rows)

    columns = {key: values(key, column) for key, column in TABLES[name].items()}
    arrays = []
    for field in arrow_schema(name):
        array = pa.array(columns[field.name]) if not isinstance(columns[field.name], pa.Array) else columns[field.name]
        if pa.types.is_dictionary(field.type):
            array = array.cast(pa.string()).dictionary_encode()
        arrays.append(array.cast(field.type))
    return pa.table(arrays, schema=arrow_schema(name))


def make_batch(
    agent: str = "web-1",
    sequence: int = 0,
    rows: int = 10,
    *,
    boot: str = BOOT,
    start_ns: int = EPOCH_NS,
    seed: int | None = None,
    tables: dict[TableName, pa.Table] | None = None,
) -> Batch:
    """A batch of 5 s with `rows` flows."""
    seed = sequence if seed is None else seed
    about = About(
        identity=Identity(agent, boot, sequence),
        mode="live",
        start_ns=start_ns,
        end_ns=start_ns + 5 * 10**9,
        version="1.0",
        dropped={"spool_full": 2},
    )
    tables = tables or {"flows": make_table("flows", rows, seed, start_ns=start_ns)}
    content = hashlib.sha256(f"{about.identity} {seed}".encode()).digest()
    return Batch(about=about, content=content, received_ns=start_ns + 6 * 10**9, tables=tables, skew_ns=5)


def bytes_in(batch: Batch) -> int:
    """The bytes that its flows count."""
    return int(pc.sum(batch.tables["flows"]["bytes"]).as_py())
