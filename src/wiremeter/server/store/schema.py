"""The store's tables: what agents ship, as `wiremeter.shipment.schema` has it, and what the server keeps of its own.

One dialect, ClickHouse's, for the embedded engine and for servers. Everything here is a table's definition; statements
that make them are in migrations.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wiremeter.shipment.schema import ANSWER, TABLES, Column, TableName

DATABASE = "wiremeter"

#: What the store adds to every table of a batch, in front. time: the beginning of the batch's interval, where the table
#: has no time of its own. batch_mode: live or simulated; tables have a `mode` of their own.
ADDED = {"time": "DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1))", "agent": "LowCardinality(String)"}
ADDED_LAST = {"batch_mode": "LowCardinality(String)"}

_TYPES = {
    "bool": "Bool",
    "uint8": "UInt8",
    "uint16": "UInt16",
    "uint32": "UInt32",
    "uint64": "UInt64",
    "int64": "Int64",
    "time": "DateTime64(9, 'UTC')",
    "address": "IPv6",
    "text": "String",
    "word": "LowCardinality(String)",
    "texts": "Array(String)",
}
_TYPES["answers"] = f"Array(Tuple({', '.join(f'{name} {_TYPES[column.type]}' for name, column in ANSWER.items())}))"
#: Text that few rows differ in.
_FEW = frozenset({"domain", "ja4", "ja4s", "dns_query", "sni"})
#: By type, where ZSTD alone is not best, and by column: bytes a flow in docs/design/store.md.
_CODECS = {"UInt64": "T64, ZSTD(1)", "last_time": "T64, ZSTD(1)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table. columns: name to type with its codec. order: the sort key. partition: an expression.

    primary: what of `order` the index holds, all of it by default. keep_days: rows older than that are dropped; None:
    kept for ever. aged_by: the column that tells how old a row is.
    """

    name: str
    columns: Mapping[str, str]
    order: tuple[str, ...]
    partition: str
    engine: str = "MergeTree"
    primary: tuple[str, ...] = ()
    keep_days: int | None = None
    aged_by: str = "time"
    #: By how many inserts back a token is known.
    window: int = 10_000


def _column(name: str, column: Column) -> str:
    """A column's type. Null text is '': told apart nowhere, and nulls would cost every row."""
    if column.type == "text" and name in _FEW:
        return "LowCardinality(String) CODEC(ZSTD(1))"
    kind = _TYPES[column.type]
    if column.is_nullable and column.type not in ("text", "word"):
        kind = f"Nullable({kind})"
    return f"{kind} CODEC({_CODECS.get(name) or _CODECS.get(kind) or 'ZSTD(1)'})"


def _shipped(name: TableName) -> dict[str, str]:
    own = {key: _column(key, column) for key, column in TABLES[name].items()}
    added = {key: kind for key, kind in ADDED.items() if key not in own}
    return {**added, **own, **ADDED_LAST}


#: The last time a batch may arrive again: so long its identity is remembered.
BATCHES_DAYS = 90
_MINUTE = "toStartOfMinute(time)"
_HOUR, _DAY, _MONTH = "toStartOfHour(time)", "toDate(time)", "toYYYYMM(time)"

_ORDERS: dict[TableName, tuple[str, ...]] = {
    "flows": (
        *(_MINUTE, "agent", "device", "direction", "src_addr", "dst_addr"),
        *("protocol", "dst_port", "src_port", "time"),
    ),
    "counters": ("agent", "device", "direction", "time"),
    "audit": ("agent", "device", "direction", "time"),
    "audit_reasons": ("agent", "device", "direction", "time"),
    "devices": ("agent", "device", "direction", "time"),
    "findings": ("agent", "kind", "time"),
}
_TRANSACTION_ORDER = ("toStartOfFiveMinutes(time)", "agent", "src_addr", "time")


def _shipped_table(name: TableName) -> Table:
    order = _ORDERS.get(name, _TRANSACTION_ORDER)
    is_flows = name == "flows"
    columns = _shipped(name)
    if is_flows:
        columns["service_port"] = f"UInt16 ALIAS {SERVICE_PORT}"
    return Table(
        name=name,
        columns=columns,
        order=order,
        partition=_HOUR if is_flows else _DAY,
        primary=order[:5] if is_flows else (),
        keep_days=30,
    )


RollupKind = Literal["hosts", "names"]
#: Resolutions of rollups, in seconds.
MINUTE, HOUR = 60, 3600
_NAMES = ("agent", "device", "direction", "family", "protocol", "service_port", "application", "domain", "batch_mode")
#: What rollups tell apart: who with whom, or only what was spoken, which is far fewer rows.
ROLLUP_DIMENSIONS: dict[RollupKind, tuple[str, ...]] = {
    "hosts": (*_NAMES[:4], "src_addr", "dst_addr", *_NAMES[4:]),
    "names": _NAMES,
}
#: What they sum. rows: of flows, so a flow that lasts for five intervals is five.
ROLLUP_AMOUNTS = ("packets", "bytes", "skbs", "rows")
#: The server's port, taken to be the lower one; 0 where there are none.
SERVICE_PORT = "least(src_port, dst_port)"


def rollup_name(kind: RollupKind, resolution: int) -> str:
    """The table of a rollup.

    >>> rollup_name("hosts", MINUTE)
    'hosts_minute'
    """
    return f"{kind}_{'minute' if resolution == MINUTE else 'hour'}"


def _rollup(kind: RollupKind, resolution: int) -> Table:
    flows = _shipped("flows")
    kinds = {
        **flows,
        "service_port": "UInt16 CODEC(ZSTD(1))",
        **dict.fromkeys(ROLLUP_AMOUNTS, f"UInt64 CODEC({_CODECS['UInt64']})"),
    }
    dimensions = ROLLUP_DIMENSIONS[kind]
    is_minute = resolution == MINUTE
    return Table(
        name=rollup_name(kind, resolution),
        columns={name: kinds[name] for name in ("time", *dimensions, *ROLLUP_AMOUNTS)},
        order=("time", *dimensions),
        primary=("time", *dimensions[:4]),
        engine="SummingMergeTree",
        partition=_DAY if is_minute else _MONTH,
        keep_days=90 if is_minute else 730,
    )


#: Up to which time rollups are made, by resolution: the newest row counts.
ROLLUPS = Table(
    name="rollups",
    columns={
        "resolution": "UInt32",
        "closed": "DateTime64(3, 'UTC')",
        "made": "DateTime64(3, 'UTC')",
        "seconds": "Float32",
    },
    order=("resolution", "closed"),
    partition="tuple()",
    engine="ReplacingMergeTree",
    window=100,
)

#: What came: one row for each batch that is stored, written last of it, so its row says that all of it is there.
BATCHES = Table(
    name="batches",
    columns={
        "agent": "LowCardinality(String)",
        "boot": "LowCardinality(String)",
        "sequence": "UInt64",
        "content": "FixedString(32)",
        "received": "DateTime64(3, 'UTC')",
        "start": "DateTime64(9, 'UTC')",
        "end": "DateTime64(9, 'UTC')",
        "mode": "LowCardinality(String)",
        "version": "LowCardinality(String)",
        "skew_ns": "Nullable(Int64)",
        "flows": "UInt32",
        "rows": "UInt32",
        "dropped": "Map(LowCardinality(String), UInt64)",
    },
    order=("agent", "boot", "sequence"),
    partition="toYYYYMM(received)",
    keep_days=BATCHES_DAYS,
    aged_by="received",
)

#: What agents said of themselves last: the newest row of each counts.
AGENTS = Table(
    name="agents",
    columns={
        "agent": "String",
        "seen": "DateTime64(3, 'UTC')",
        "heartbeat": "String CODEC(ZSTD(3))",
    },
    order=("agent",),
    partition="tuple()",
    engine="ReplacingMergeTree(seen)",
    window=100,
)

#: What was refused for good, and why; the bytes themselves lie in the server's quarantine directory under `content`.
QUARANTINE = Table(
    name="quarantine",
    columns={
        "time": "DateTime64(3, 'UTC')",
        "agent": "String",
        "boot": "String",
        "sequence": "Nullable(UInt64)",
        "content": "FixedString(32)",
        "size": "UInt64",
        "status": "UInt16",
        "reason": "String",
        "peer": "String",
    },
    order=("time",),
    partition=_MONTH,
    keep_days=BATCHES_DAYS,
    window=100,
)

#: Partitions that were dropped for want of room.
DROPPED = Table(
    name="dropped",
    columns={
        "time": "DateTime64(3, 'UTC')",
        "table": "String",
        "partition": "String",
        "rows": "UInt64",
        "bytes": "UInt64",
    },
    order=("time",),
    partition="tuple()",
    window=100,
)

#: Which migrations were run.
MIGRATIONS = Table(
    name="migrations",
    columns={"version": "UInt32", "time": "DateTime64(3, 'UTC')"},
    order=("version",),
    partition="tuple()",
    window=100,
)

#: Every table by name.
STORE: dict[str, Table] = {
    **{name: _shipped_table(name) for name in TABLES},
    **{rollup_name(kind, size): _rollup(kind, size) for size in (MINUTE, HOUR) for kind in ROLLUP_DIMENSIONS},
    **{table.name: table for table in (ROLLUPS, BATCHES, AGENTS, QUARANTINE, DROPPED, MIGRATIONS)},
}
