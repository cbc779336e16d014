"""Sums of flows: the largest by any dimensions, and time series, each with the remainder, so that they add up.

One statement each: all of an answer is of one state of the store, so the remainder is exact while batches come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from wiremeter.server.query.answer import Answer
from wiremeter.server.query.conditions import Where
from wiremeter.server.query.dimensions import AMOUNT_COLUMNS, AMOUNTS, DIMENSIONS, TO_SERVER, columns_of
from wiremeter.server.query.once import once_sql
from wiremeter.server.query.times import Span
from wiremeter.server.store import Store
from wiremeter.server.store.sql import settings_clause

Once = Literal["none", "observer"]
Amount = Literal["packets", "bytes", "skbs", "flows"]

#: What a conversation is told apart by.
CONVERSATION = (
    *("agent", "device", "family", "protocol", "client_addr", "client_port", "server_addr", "server_port"),
    *("application", "domain"),
)
#: Of conversations also: what went to the server. The rest came from it.
TO_SERVER_AMOUNTS = {f"{name}_to_server": f"sumIf({name}, {TO_SERVER})" for name in ("packets", "bytes")}


#: What one question may take of the engine, which others and the making of rollups need, too; beyond, it is TooMuch.
_LIMITS = settings_clause(
    {
        "max_memory_usage": 250 << 20,
        "max_bytes_before_external_group_by": 120 << 20,
        "max_execution_time": 60,
        "timeout_overflow_mode": "throw",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which flows, told apart by what. sort: the amount that makes one larger than another. limit: how many are told
    apart, at most. more: further sums by name, as SQL over flows; they need no rollups to be had."""

    span: Span
    condition: Where = field(default_factory=Where)
    by: tuple[str, ...] = ()
    sort: Amount = "bytes"
    limit: int = 10
    once: Once = "none"
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def amounts(self) -> dict[str, str]:
        """All sums by name."""
        return {**{name: f"sum({column})" for name, column in AMOUNT_COLUMNS.items()}, **self.more}

    def source(self, store: Store, *, step: int = 0) -> str:
        """What it reads: dimensions as d0, d1, …, then the columns of amounts."""
        columns = columns_of(self.by) | self.condition.columns | (columns_of(["client_addr"]) if self.more else set())
        sql = (
            store.source(columns, self.span.start_ns, self.span.end_ns, step=step).sql
            if self.once == "none"
            else once_sql(columns, self.span, self.condition)
        )
        dimensions = [f"{DIMENSIONS[name].sql} AS d{place}" for place, name in enumerate(self.by)]
        return f"(SELECT *, {', '.join(['time AS at', *dimensions])} FROM {sql} WHERE {self.condition.sql})"

    @property
    def keys(self) -> list[str]:
        """Its dimensions in the source."""
        return [f"d{place}" for place in range(len(self.by))]

    def shown(self, *, is_other: str) -> list[str]:
        """The same as the answer shows them: null in the remainder."""
        names = zip(self.by, self.keys, strict=True)
        return [f"if({is_other}, NULL, {DIMENSIONS[name].shown(key)}) AS `{name}`" for name, key in names]


def top(store: Store, question: Question) -> Answer:
    """The largest, then one row with `other` true that is all the rest, if there is any.

    about: total, of all flows that fit. Raises as Store.query.
    """
    keys = question.keys
    sums = [f"{sql} AS sum_{name}" for name, sql in question.amounts.items()]
    sets = f"GROUP BY GROUPING SETS (({', '.join(keys)}), ())" if keys else ""
    is_total = f"grouping({keys[0]}) = {_TOTAL}" if keys else "1"
    sql = (
        f"SELECT {', '.join([*question.shown(is_other='is_total'), *_sums(question), 'is_total'])} FROM ("
        f"SELECT {', '.join([*keys, *sums, f'{is_total} AS is_total'])} FROM {question.source(store)} {sets} "
        f"ORDER BY is_total DESC, sum_{question.sort} DESC{''.join(f', {key}' for key in keys)} "
        f"LIMIT {question.limit + 1}) ORDER BY is_total DESC, `{question.sort}` DESC{_LIMITS}"
    )
    rows = plain(store.query(sql, question.condition.parameters).table())
    return _with_other(rows, question)


#: What grouping(d0) is of the set that has no d0.
_TOTAL = 1


def _sums(question: Question) -> list[str]:
    return [f"sum_{name} AS `{name}`" for name in question.amounts]


def _with_other(rows: pa.Table, question: Question) -> Answer:
    """The total, which is the first row, becomes the remainder, which is the last."""
    is_total = rows["is_total"].cast(pa.bool_())
    parts = rows.filter(pc.invert(is_total)).drop_columns(["is_total"])
    totals = rows.filter(is_total).to_pylist()
    total = {name: int(totals[0][name]) if totals else 0 for name in question.amounts}
    if not question.by:
        parts = parts.slice(0, 0)
    listed = {name: pc.sum(parts[name]).as_py() or 0 for name in total}
    rest = {name: total[name] - listed[name] for name in total}
    parts = parts.append_column("other", pa.array([False] * parts.num_rows, pa.bool_()))
    if rest["flows"] or not question.by:
        row = {**rest, "other": bool(question.by)}
        parts = pa.concat_tables([parts, pa.Table.from_pylist([row], schema=parts.schema)])
    return Answer.of(parts, {"once": question.once, "total": total})


def series(store: Store, question: Question, step: int) -> Answer:
    """For each step of so many seconds: those that are the largest in all of the range, and a row that is the rest.

    Steps begin at multiples of the step since the Unix epoch; the first and the last may lie in the range in part only,
    and a step without flows has no row. Raises as Store.query.
    """
    keys, milliseconds = question.keys, step * 1000
    source = question.source(store, step=step)
    largest = (
        f"SELECT {', '.join(keys)} FROM {source} GROUP BY {', '.join(keys)} "
        f"ORDER BY sum({AMOUNT_COLUMNS[question.sort]}) DESC, {', '.join(keys)} LIMIT {question.limit}"
    )
    is_other = f"({', '.join(keys)}) NOT IN ({largest})" if keys else "0"
    sums = [f"{sql} AS sum_{name}" for name, sql in question.amounts.items()]
    begins = f"intDiv(toUnixTimestamp64Milli(at), {milliseconds}) * {milliseconds}"
    own = [f"if(is_other, defaultValueOfArgumentType({key}), {key}) AS {key}_of" for key in keys]
    groups = ", ".join(["begins", "is_other", *(f"{key}_of" for key in keys)])
    renamed = ", ".join(["begins", "is_other", *(f"{key}_of AS {key}" for key in keys), *_names(question)])
    sql = (
        f"SELECT {', '.join([_TIME, *question.shown(is_other='is_other'), *_sums(question), 'is_other AS other'])} "
        f"FROM (SELECT {renamed} FROM ("
        f"SELECT {', '.join([f'{begins} AS begins', f'{is_other} AS is_other', *own, *sums])} "
        f"FROM {source} GROUP BY {groups})) ORDER BY begins, is_other, `{question.sort}` DESC{_LIMITS}"
    )
    rows = store.query(sql, question.condition.parameters)
    table = plain(rows.table())
    table = table.set_column(table.schema.get_field_index("other"), "other", table["other"].cast(pa.bool_()))
    total = {name: pc.sum(table[name]).as_py() or 0 for name in AMOUNTS}
    return Answer.of(table, {"once": question.once, "step_seconds": step, "total": total})


_TIME = "fromUnixTimestamp64Milli(toInt64(begins), 'UTC') AS time"


def _names(question: Question) -> list[str]:
    return [f"sum_{name}" for name in question.amounts]


def plain(table: pa.Table) -> pa.Table:
    """The same without dictionaries, which few readers expect, and with fields that may be null."""
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)
