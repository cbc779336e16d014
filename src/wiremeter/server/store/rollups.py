"""Rollups: sums of flows by minute and by hour, which long ranges are answered from.

A minute is closed some seconds after its end; then its rollups are made by one statement for each. A row that comes for
a closed minute is its own sum: it is added to the rollups as it is, in the group of inserts that it comes with. So
nothing is made twice, and a rollup is always the sum of what is stored.

Rollups are SummingMergeTree tables, whose merges add up rows of one key: whoever reads them must sum, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from wiremeter.server.store.schema import (
    DATABASE,
    MINUTE,
    ROLLUP_AMOUNTS,
    ROLLUP_DIMENSIONS,
    RollupKind,
    rollup_name,
)
from wiremeter.server.store.sql import quoted

#: Seconds after its end when a minute is closed: so long batches may be under way without being late.
GRACE_SECONDS = 15
#: Rows of flows that one statement sums, about, at most: what it needs of memory follows from that.
SLICE_ROWS = 500_000

#: For those statements: all rows become one part, so all of them are there or none, and the token is known or not.
BUILD_SETTINGS: dict[str, str | int] = {
    "max_insert_threads": 1,
    "min_insert_block_size_rows": 1_000_000_000,
    "min_insert_block_size_bytes": 0,
    "max_bytes_before_external_group_by": 150 << 20,
}


@dataclass(frozen=True, slots=True)
class Slice:
    """What one build statement reads: a period of `resolution` seconds from `start` on, of these agents or all.

    part, parts: of the rows, by their source addresses, only the part-th of so many parts.
    """

    resolution: int
    start: int
    agents: tuple[str, ...] | None = None
    part: int = 0
    parts: int = 1


def build_statements(slice: Slice) -> list[tuple[str, str, str]]:
    """Table, token and statement for each rollup of a slice.

    Minutes with addresses are made of flows, minutes without of those, hours of minutes: each reads what is least.
    """
    start = f"toDateTime64({slice.start}, 3, 'UTC')"
    where = f"time >= {start} AND time < {start} + INTERVAL {slice.resolution} SECOND"
    token = f"{slice.resolution}/{slice.start}"
    if slice.agents is not None:
        where += f" AND agent IN ({', '.join(map(quoted, slice.agents))})"
        token += "/" + hashlib.sha256("\n".join(slice.agents).encode()).hexdigest()
    made = []
    if slice.parts > 1:
        where += f" AND cityHash64(src_addr) % {slice.parts} = {slice.part}"
        token += f"/{slice.part}/{slice.parts}"
    for kind, dimensions in ROLLUP_DIMENSIONS.items():
        source = _source(kind, slice.resolution)
        keys = ", ".join(dimensions)
        amounts = ", ".join(f"sum({'1' if source == 'flows' and name == 'rows' else name})" for name in ROLLUP_AMOUNTS)
        table = rollup_name(kind, slice.resolution)
        statement = (
            f"INSERT INTO {DATABASE}.{table} (time, {keys}, {', '.join(ROLLUP_AMOUNTS)}) "
            f"SELECT {start}, {keys}, {amounts} FROM {DATABASE}.{source} WHERE {where} GROUP BY {keys}"
        )
        made.append((table, f"{token}/{table}", statement))
    return made


def _source(kind: RollupKind, resolution: int) -> str:
    if resolution > MINUTE:
        return rollup_name(kind, MINUTE)
    return "flows" if kind == "hosts" else rollup_name("hosts", MINUTE)


def slices(start: int, rows: Mapping[str, int]) -> list[Slice]:
    """Slices for a minute. rows: of flows by agent. The same rows make the same slices, since tokens follow from them.

    >>> [each.agents for each in slices(0, {"a": 300_000, "b": 300_000, "c": 5})]
    [('a',), ('b', 'c')]
    >>> [each.part for each in slices(0, {"a": 1_200_000})]
    [0, 1, 2]
    """
    agents: list[str] = []
    found: list[Slice] = []
    size = 0
    for agent, count in [*sorted(rows.items()), (None, SLICE_ROWS)]:
        if agents and size + count > SLICE_ROWS:
            parts = -(-size // SLICE_ROWS)
            found += [Slice(MINUTE, start, tuple(agents), part, parts) for part in range(parts)]
            agents, size = [], 0
        if agent is not None:
            agents.append(agent)
            size += count
    return found


def late_tables(flows: pa.Table, closed: Mapping[int, int]) -> list[tuple[str, pa.Table]]:
    """The rows that a group of flows adds to rollups: those of periods that are closed.

    flows: as inserted. closed: by resolution, the end of what is closed, seconds since the epoch.
    """
    found = []
    times = flows["time"].cast(pa.int64())
    for resolution, end in closed.items():
        is_late = pc.less(times, end * 1000)
        if not pc.any(is_late).as_py():
            continue
        late = flows.filter(is_late)
        step = resolution * 1000
        began = pc.multiply(pc.divide(late["time"].cast(pa.int64()), step), step).cast(flows["time"].type)
        known = {
            "time": began,
            "service_port": pc.min_element_wise(late["src_port"], late["dst_port"]),
            "rows": pa.array([1] * late.num_rows, pa.uint64()),
        }
        for kind, dimensions in ROLLUP_DIMENSIONS.items():
            names = ("time", *dimensions, *ROLLUP_AMOUNTS)
            columns = [known.get(name, late[name] if name in late.column_names else None) for name in names]
            found.append((rollup_name(kind, resolution), pa.table(columns, names=list(names))))
    return found
