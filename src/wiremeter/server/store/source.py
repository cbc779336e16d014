"""Chooses what a question about flows is read from: rollups where range and columns permit, flows for the rest.

The parts are put together so that each row is in one of them, so an answer is the same whatever it is read from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from wiremeter.server.store.schema import (
    DATABASE,
    HOUR,
    MINUTE,
    ROLLUP_AMOUNTS,
    ROLLUP_DIMENSIONS,
    SERVICE_PORT,
    rollup_name,
)

#: A partition of flows, in milliseconds (schema.py).
_PARTITION_MS = HOUR * 1000


class Part(NamedTuple):
    """One table, from `start` until before `end`, both in milliseconds since the epoch."""

    table: str
    start: int
    end: int


class Source(NamedTuple):
    """What to read. sql: a subquery for FROM, with the columns that were asked for, time, and packets, bytes, skbs and
    rows, which are to be summed. parts: what it is made of."""

    sql: str
    parts: tuple[Part, ...]


def choose(
    columns: Collection[str],
    start_ms: int,
    end_ms: int,
    made: Mapping[int, int],
    *,
    step: int = 0,
    has_partitions: bool = False,
) -> Source:
    """What a question is to be read from.

    columns: of flows, all that it names in any clause; time and amounts go without saying. start_ms, end_ms: its range,
    from start until before end. step: seconds of a time series, 0 for one sum. made: as Closing.made.

    >>> choose({"application"}, 0, 7_200_000, {60: 7200, 3600: 3600}).parts
    (Part(table='names_hour', start=0, end=3600000), Part(table='names_minute', start=3600000, end=7200000))
    """
    # "names" is asked first: it has fewer rows.
    wanted = set(columns) - {"time", *ROLLUP_AMOUNTS}
    kinds = [kind for kind in reversed(ROLLUP_DIMENSIONS) if wanted <= set(ROLLUP_DIMENSIONS[kind])]
    parts = [Part("flows", start_ms, end_ms)] if start_ms < end_ms else []
    if kinds:
        for resolution in (MINUTE, HOUR):
            if step % resolution == 0:
                parts = [
                    each
                    for part in parts
                    for each in _split(part, rollup_name(kinds[0], resolution), resolution, made[resolution])
                ]
    texts = [
        _select(part.table, condition, sorted(wanted))
        for part in parts or [Part("flows", 0, 0)]
        for condition in (_conditions(part) if has_partitions else [_within(part.start, part.end)])
    ]
    return Source(f"({' UNION ALL '.join(texts)})", tuple(parts))


def _split(part: Part, rollup: str, resolution: int, made: int) -> list[Part]:
    """The part, with whole periods in the middle of it read from a rollup that is made up to `made`, in seconds."""
    period = resolution * 1000
    begins = -(-part.start // period) * period
    ends = min(part.end // period * period, made * 1000)
    if ends <= begins:
        return [part]
    pieces = [part._replace(end=begins), Part(rollup, begins, ends), part._replace(start=ends)]
    return [piece for piece in pieces if piece.start < piece.end]


def _conditions(part: Part) -> list[str]:
    """What a part's rows fulfil, of flows in up to three pieces.

    A whole hour of flows is a partition, of which no row's time needs to be looked at: that costs more than the sums.
    """
    begins, ends = -(-part.start // _PARTITION_MS) * _PARTITION_MS, part.end // _PARTITION_MS * _PARTITION_MS
    if part.table != "flows" or ends <= begins:
        return [_within(part.start, part.end)]
    hours = ", ".join(f"'{each // 1000}'" for each in range(begins, ends, _PARTITION_MS))
    edges = [_within(start, end) for start, end in ((part.start, begins), (ends, part.end)) if start < end]
    return [*edges, f"_partition_id IN ({hours})"]


def _within(start: int, end: int) -> str:
    first, last = (f"fromUnixTimestamp64Milli(toInt64({each}), 'UTC')" for each in (start, end))
    return f"time >= {first} AND time < {last}"


def _select(table: str, condition: str, wanted: list[str]) -> str:
    is_flows = table == "flows"
    columns = [f"{SERVICE_PORT} AS service_port" if is_flows and name == "service_port" else name for name in wanted]
    amounts = ["toUInt64(1) AS rows" if is_flows and name == "rows" else name for name in ROLLUP_AMOUNTS]
    return f"SELECT {', '.join(['time', *columns, *amounts])} FROM {DATABASE}.{table} WHERE {condition}"
