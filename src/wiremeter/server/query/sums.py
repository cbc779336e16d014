"""Sums of flows: the largest by any dimensions, and time series, each with the remainder, so that they add up.

One statement each: all of an answer is of one state of the store, so the remainder is exact while batches come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from wiremeter.server.query.answer import Answer
from wiremeter.server.query.conditions import Where
from wiremeter.server.query.dimensions import AMOUNT_COLUMNS, AMOUNTS, DIMENSIONS, TO_SERVER, columns_of
from wiremeter.server.query.once import once_sql
from wiremeter.server.query.reading import Reads
from wiremeter.server.query.times import Span
from wiremeter.server.store.sql import settings_clause

Once = Literal["none", "observer"]
Amount = Literal["packets", "bytes", "skbs", "flows"]
Rank = Literal["amount", "change"]
#: Behind the names of amounts of the range before.
BEFORE = "_before"

#: What a conversation is told apart by.
CONVERSATION = (
    *("agent", "device", "family", "protocol", "client_addr", "client_port", "server_addr", "server_port"),
    *("application", "domain"),
)
#: Of conversations also: what went to the server. The rest came from it.
TO_SERVER_AMOUNTS = {f"{name}_to_server": f"sumIf({name}, {TO_SERVER})" for name in ("packets", "bytes")}


#: What one question may take of the engine, which others and the making of rollups need, too; beyond, it is TooMuch.
#: Groups go to disk early enough that millions of them have room to get there: at 190 MiB, four million have not. A
#: million stay in memory; with 120 MiB they did not, which took 2.4 times the CPU time.
LIMITS = settings_clause(
    {
        "max_memory_usage": 250 << 20,
        "max_bytes_before_external_group_by": 160 << 20,
        "max_execution_time": 60,
        "timeout_overflow_mode": "throw",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which flows, told apart by what. sort: the amount that makes one larger than another. limit: how many are told
    apart, at most. more: further sums by name, as SQL over flows; they need no rollups to be had.

    before: seconds by which the same range lies earlier that it is compared with, 0 for none; its amounts have names
    with `_before`. rank: whether `sort` itself makes one larger, or how much it changed since then.
    """

    span: Span
    condition: Where = field(default_factory=Where)
    by: tuple[str, ...] = ()
    sort: Amount = "bytes"
    limit: int = 10
    once: Once = "none"
    more: Mapping[str, str] = field(default_factory=dict)
    before: int = 0
    rank: Rank = "amount"

    @property
    def amounts(self) -> dict[str, str]:
        """All sums by name."""
        if not self.before:
            return {**{name: f"sum({column})" for name, column in AMOUNT_COLUMNS.items()}, **self.more}
        now = {name: f"sumIf({column}, is_now)" for name, column in AMOUNT_COLUMNS.items()}
        return now | {f"{name}{BEFORE}": f"sumIf({column}, NOT is_now)" for name, column in AMOUNT_COLUMNS.items()}

    @property
    def size(self) -> str:
        """What makes one larger than another, of its sums, signed."""
        if self.rank == "amount":
            return f"toInt64(sum_{self.sort})"
        return f"abs(toInt64(sum_{self.sort}) - toInt64(sum_{self.sort}{BEFORE}))"

    @property
    def ranked(self) -> tuple[str, ...]:
        """The amounts that `size` is made of."""
        return (self.sort,) if self.rank == "amount" else (self.sort, f"{self.sort}{BEFORE}")

    @property
    def span_before(self) -> Span:
        """The range that it is compared with."""
        return Span(*(each - self.before * 10**9 for each in self.span))

    def source(self, store: Reads, *, step: int = 0) -> str:
        """What it reads: dimensions as d0, d1, …, then the columns of amounts."""
        if not self.before:
            return self._source(store, self.span, step)
        # Rollups of what was before lie in the same steps only if they are moved by whole periods.
        before = self._source(store, self.span_before, gcd(step, self.before) if step else 0)
        moved = f"SELECT * REPLACE (at + INTERVAL {self.before} SECOND AS at), 0 AS is_now FROM {before}"
        return f"(SELECT *, 1 AS is_now FROM {self._source(store, self.span, step)} UNION ALL {moved})"

    def _source(self, store: Reads, span: Span, step: int) -> str:
        columns = columns_of(self.by) | self.condition.columns | (columns_of(["client_addr"]) if self.more else set())
        sql = (
            store.source(columns, span.start_ns, span.end_ns, step=step).sql
            if self.once == "none"
            else once_sql(columns, span, self.condition)
        )
        dimensions = [f"{DIMENSIONS[name].sql} AS d{place}" for place, name in enumerate(self.by)]
        return f"(SELECT *, {', '.join(['time AS at', *dimensions])} FROM {sql} WHERE {self.condition.sql})"

    @property
    def keys(self) -> list[str]:
        """Its dimensions in the source."""
        return [f"d{place}" for place in range(len(self.by))]


def top(store: Reads, question: Question) -> Answer:
    """The largest, then one row with `other` true that is all the rest, if there is any.

    about: total, of all flows that fit. Raises as Store.query.
    """
    keys, names = question.keys, list(question.amounts)
    sums = [f"{sql} AS sum_{name}" for name, sql in question.amounts.items()]
    groups = f"SELECT {', '.join([*keys, *sums])} FROM {question.source(store)}"
    if not keys:
        shown = ", ".join(f"sum_{name} AS `{name}`" for name in names)
        rows = plain(store.query(f"SELECT {shown} FROM ({groups}){LIMITS}", question.condition.parameters).table())
        total = {name: int(value) for name, value in rows.to_pylist()[0].items()}
        return Answer.of(rows.append_column("other", pa.array([False])), _about(question, total))
    # The groups' sums are summed in turn while the largest are kept: no group is sorted, nothing is read twice.
    fields = ", ".join([f"-{question.size}", *keys, *(f"sum_{name}" for name in names)])
    totals = [f"sum(sum_{name}) AS total_{name}" for name in names]
    shown = ", ".join(
        [
            *(f"{DIMENSIONS[name].shown(f'one.{place}')} AS `{name}`" for place, name in enumerate(question.by, 2)),
            *(f"one.{place} AS `{name}`" for place, name in enumerate(names, 2 + len(keys))),
            *(f"total_{name}" for name in names),
        ]
    )
    sql = (
        f"SELECT {shown} FROM (SELECT arrayJoin(largest) AS one, * FROM ("
        f"SELECT {', '.join([f'groupArraySorted({question.limit})(({fields})) AS largest', *totals])} "
        f"FROM ({groups} GROUP BY {', '.join(keys)}))){LIMITS}"
    )
    rows = plain(store.query(sql, question.condition.parameters).table())
    total = {name: int(rows[f"total_{name}"][0].as_py()) if rows.num_rows else 0 for name in names}
    return _with_other(rows.drop_columns([f"total_{name}" for name in names]), question, total)


def values(store: Reads, question: Question, prefix: str) -> Answer:
    """The values that one dimension has, those first of which there is most, as text that a filter would name; only
    such as begin with a prefix, in whatever case. What has none, such as flows without a domain, is left out.

    about: more, whether there are others beyond the limit. Raises as Store.query.
    """
    (name,) = question.by
    sums = [f"{sql} AS sum_{name}" for name, sql in question.amounts.items()]
    amounts = [f"sum_{name} AS `{name}`" for name in question.amounts]
    sql = (
        f"SELECT ifNull(toString({DIMENSIONS[name].shown('d0')}), '') AS value, {', '.join(amounts)} FROM ("
        f"SELECT d0, {', '.join(sums)} FROM {question.source(store)} GROUP BY d0) "
        "WHERE value != '' AND startsWith(lowerUTF8(value), lowerUTF8({prefix:String})) "
        f"ORDER BY `{question.sort}` DESC, value LIMIT {question.limit + 1}{LIMITS}"
    )
    rows = plain(store.query(sql, {**question.condition.parameters, "prefix": prefix}).table())
    has_more = rows.num_rows > question.limit
    return Answer.of(rows.slice(0, question.limit), {"once": question.once, "more": has_more})


def _with_other(parts: pa.Table, question: Question, total: Mapping[str, int]) -> Answer:
    """The parts, and what is missing of the total as the last row."""
    listed = {name: pc.sum(parts[name]).as_py() or 0 for name in total}
    rest = {name: total[name] - listed[name] for name in total}
    parts = parts.append_column("other", pa.array([False] * parts.num_rows, pa.bool_()))
    if rest["flows"] or rest.get(f"flows{BEFORE}"):
        parts = pa.concat_tables([parts, pa.Table.from_pylist([{**rest, "other": True}], schema=parts.schema)])
    return Answer.of(parts, _about(question, total))


def _about(question: Question, total: Mapping[str, int]) -> dict[str, object]:
    about: dict[str, object] = {"once": question.once, "total": {name: total[name] for name in AMOUNTS}}
    if question.before:
        about["total_before"] = {name: total[f"{name}{BEFORE}"] for name in AMOUNTS}
    return about


def series(store: Reads, question: Question, step: int) -> Answer:
    """For each step of so many seconds: those that are the largest in all of the range, and a row that is the rest.

    Steps begin at multiples of the step since the Unix epoch; the first and the last may lie in the range in part only,
    and a step without flows has no row. Raises as Store.query.
    """
    keys, milliseconds = question.keys, step * 1000
    source = question.source(store, step=step)
    ranked = [*keys, *(f"{question.amounts[name]} AS sum_{name}" for name in question.ranked)]
    largest = (
        f"SELECT {', '.join(keys)} FROM (SELECT {', '.join(ranked)} FROM {source} GROUP BY {', '.join(keys)}) "
        f"ORDER BY {question.size} DESC, {', '.join(keys)} LIMIT {question.limit}"
    )
    is_other = f"({', '.join(keys)}) NOT IN ({largest})" if keys else "0"
    sums = [f"{sql} AS sum_{name}" for name, sql in question.amounts.items()]
    begins = f"intDiv(toUnixTimestamp64Milli(at), {milliseconds}) * {milliseconds}"
    own = [f"if(is_other, defaultValueOfArgumentType({key}), {key}) AS {key}_of" for key in keys]
    names = [f"sum_{name}" for name in question.amounts]
    amounts = [f"sum_{name} AS `{name}`" for name in question.amounts]
    shown = [
        f"if(is_other, NULL, {DIMENSIONS[name].shown(key)}) AS `{name}`"
        for name, key in zip(question.by, keys, strict=True)
    ]
    groups = ", ".join(["begins", "is_other", *(f"{key}_of" for key in keys)])
    renamed = ", ".join(["begins", "is_other", *(f"{key}_of AS {key}" for key in keys), *names])
    sql = (
        f"SELECT {', '.join([_TIME, *shown, *amounts, 'is_other AS other'])} "
        f"FROM (SELECT {renamed} FROM ("
        f"SELECT {', '.join([f'{begins} AS begins', f'{is_other} AS is_other', *own, *sums])} "
        f"FROM {source} GROUP BY {groups})) ORDER BY begins, is_other, `{question.sort}` DESC{LIMITS}"
    )
    rows = store.query(sql, question.condition.parameters)
    table = plain(rows.table())
    table = table.set_column(table.schema.get_field_index("other"), "other", table["other"].cast(pa.bool_()))
    total = {name: pc.sum(table[name]).as_py() or 0 for name in question.amounts}
    return Answer.of(table, {"step_seconds": step, **_about(question, total)})


_TIME = "fromUnixTimestamp64Milli(toInt64(begins), 'UTC') AS time"


def plain(table: pa.Table) -> pa.Table:
    """The same without dictionaries, which few readers expect, and with fields that may be null."""
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)
