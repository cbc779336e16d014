"""Times of a batch whose agent's clock is far off: moved to when it came.

Else it would be in no question's range, and perhaps old enough to be dropped at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from wiremeter.server.store.schema import STORE
from wiremeter.shipment.identity import About
from wiremeter.shipment.schema import TABLES, TableName

_S_NS = 10**9
#: A batch may be so far ahead of the server's clock, in seconds: more can be no delay.
AHEAD_MAX = 24 * 3600
#: As old as a backlog may be, in seconds: what is older would be dropped as soon as it is stored.
AGE_MAX = (STORE["flows"].keep_days or 36500) * 24 * 3600 - 24 * 3600


def correction_ns(about: About, now_ns: int) -> int:
    """By how much the times of a batch are to be moved, in whole milliseconds; 0 for one that is within bounds."""
    if now_ns - AGE_MAX * _S_NS <= about.start_ns and about.end_ns <= now_ns + AHEAD_MAX * _S_NS:
        return 0
    return (now_ns - about.end_ns) // 10**6 * 10**6


def moved(about: About, tables: Mapping[TableName, pa.Table], by_ns: int) -> tuple[About, dict[TableName, pa.Table]]:
    """The same, so much later."""
    later = dataclasses.replace(about, start_ns=about.start_ns + by_ns, end_ns=about.end_ns + by_ns)
    return later, {name: _moved(name, table, by_ns) for name, table in tables.items()}


def _moved(name: TableName, table: pa.Table, by_ns: int) -> pa.Table:
    for place, (column, about) in enumerate(TABLES[name].items()):
        if about.type == "time":
            numbers = pc.add(table[column].cast(pa.int64()), by_ns)
            table = table.set_column(place, table.schema.field(column), numbers.cast(pa.timestamp("ns", "UTC")))
    return table
