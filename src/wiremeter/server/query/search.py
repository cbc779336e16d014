"""Rows as they are stored: flows, and transactions of each kind; page by page, or all of them as a stream.

Pages are told apart by the last row of the one before, in an order in which the table lies anyway, so a page costs the
same wherever it is, and what is stored meanwhile moves nothing. Rows that are alike in all of the order are counted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from wiremeter.errors import InputError
from wiremeter.server.query.answer import Answer
from wiremeter.server.query.conditions import FLOW_WORDS, Where
from wiremeter.server.query.dimensions import address_text
from wiremeter.server.query.once import in_span
from wiremeter.server.query.reading import Reads
from wiremeter.server.query.sums import plain
from wiremeter.server.query.times import Span
from wiremeter.server.store import DATABASE, Rows
from wiremeter.server.store.schema import STORE
from wiremeter.shipment.schema import TABLES

SearchTable = Literal["flows", "dns", "tls", "quic", "http"]
Order = Literal["newest", "oldest"]


def _transaction_order(*own: str) -> tuple[tuple[str, str], ...]:
    names = ("agent", "src_addr", "time", "device", "dst_addr", "src_port", "dst_port", "protocol", *own)
    return (("time", "toStartOfFiveMinutes({})"), *((name, "{}") for name in names))


#: The order of rows, by column, with the function that is applied to it; begins with the table's own order.
_ORDERS: dict[SearchTable, tuple[tuple[str, str], ...]] = {
    "flows": (
        *(("time", "toStartOfMinute({})"), ("agent", "{}"), ("device", "{}"), ("direction", "{}"), ("src_addr", "{}")),
        *((name, "{}") for name in ("dst_addr", "protocol", "dst_port", "src_port", "time")),
        *(("vlan", "ifNull({}, 65535)"), ("first_time", "{}"), ("last_time", "{}"), ("packets", "{}"), ("bytes", "{}")),
    ),
    "dns": _transaction_order("query", "qtype"),
    "tls": _transaction_order("sni", "ja4"),
    "quic": _transaction_order("sni", "ja4"),
    "http": _transaction_order("host", "path", "method"),
}
#: What the filter can ask transactions, beside addresses, ports and protocol.
_TRANSACTION_WORDS = {"device": "device", "agent": "agent"}
WORDS: dict[SearchTable, Mapping[str, str]] = {
    "flows": FLOW_WORDS,
    "dns": {**_TRANSACTION_WORDS, "application": "'dns'", "domain": "lower(query)"},
    "tls": {**_TRANSACTION_WORDS, "application": "'tls'", "domain": "lower(sni)"},
    "quic": {**_TRANSACTION_WORDS, "application": "'quic'", "domain": "lower(sni)"},
    "http": {**_TRANSACTION_WORDS, "application": "'http'", "domain": "lower(host)"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which rows. limit: of them, None: all. after: the word that an answer gave to continue it."""

    table: SearchTable
    span: Span
    condition: Where = field(default_factory=Where)
    order: Order = "newest"
    limit: int | None = 1000
    after: str = ""


class _Place(msgspec.Struct, array_like=True):
    """Where a page ended: the values of the order's columns, and how many rows with these were given."""

    values: list[str | int]
    given: int


def search(store: Reads, search: Search) -> Answer:
    """The rows. Raises InputError for an `after` that no answer gave, and as Store.query."""
    order = _ORDERS[search.table]
    terms = [function.format(column) for column, function in order]
    word = " DESC" if search.order == "newest" else ""
    place = _place(search.after, search.table) if search.after else None
    conditions = [in_span(search.span), search.condition.sql]
    parameters: dict[str, object] = dict(search.condition.parameters)
    if place:
        sign = "<=" if word else ">="
        values = [
            function.format(_literal(search.table, column, f"place_{number}"))
            for number, (column, function) in enumerate(order)
        ]
        parameters |= {f"place_{number}": value for number, value in enumerate(place.values)}
        conditions.append(f"({', '.join(terms)}) {sign} ({', '.join(values)})")
        conditions.append(f"{terms[0]} {sign} {values[0]}")  # the index knows what to do with that
    limit = "" if search.limit is None else f" LIMIT {search.limit + 1}"
    offset = f" OFFSET {place.given}" if place else ""
    sql = (
        f"SELECT {', '.join(shown_columns(search.table))} FROM {DATABASE}.{search.table} AS rows "
        f"WHERE {' AND '.join(conditions)} "
        f"ORDER BY {', '.join(term + word for term in terms)}{limit}{offset}"
    )
    rows = store.query(sql, parameters)
    page = _Page(rows, [column for column, _ in order], search.limit, place)
    return Answer(page.schema, iter(page), {"order": search.order}, rows.close, page.next)


def shown_columns(table: SearchTable) -> list[str]:
    """A table's columns as they are shown, of rows that are called `rows`; addresses as text, named `…_text`."""
    found = []
    for name in STORE[table].columns:
        if name == "service_port":
            continue
        is_address = name in TABLES[table] and TABLES[table][name].type == "address"
        found.append(f"{address_text(f'rows.{name}')} AS {name}_text" if is_address else f"rows.{name} AS {name}")
    return found


def _literal(table: SearchTable, column: str, name: str) -> str:
    """A value of the order as it is given back by a client."""
    kind = "time" if column == "time" else TABLES[table][column].type if column in TABLES[table] else "word"
    if column == "time":
        sql = f"fromUnixTimestamp64Nano({{{name}:Int64}}, 'UTC')"
        return f"toDateTime64({sql}, 3, 'UTC')" if "time" not in TABLES[table] else sql
    if kind == "time":
        return f"fromUnixTimestamp64Nano({{{name}:Int64}}, 'UTC')"
    if kind == "address":
        return f"toIPv6({{{name}:String}})"
    return f"{{{name}:{'String' if kind in ('text', 'word') else 'UInt64'}}}"


def _place(text: str, table: SearchTable) -> _Place:
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(text.encode()), type=_Place)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise InputError("`after` is no word that an answer of this search gave as `next`") from None
    order = _ORDERS[table]
    are_right = len(place.values) == len(order) and 0 <= place.given < 1 << 31
    if not are_right or any(
        isinstance(value, int) == _is_text(table, column) or (isinstance(value, int) and not 0 <= value < 1 << 63)
        for value, (column, _) in zip(place.values, order, strict=True)
    ):
        raise InputError("`after` belongs to another search")
    return place


def _is_text(table: SearchTable, column: str) -> bool:
    return column == "agent" or (column in TABLES[table] and TABLES[table][column].type in ("text", "word", "address"))


class _Page:
    """The rows of a page, and where it ends. Rows come with addresses as text under their own names."""

    def __init__(self, rows: Rows, order: list[str], limit: int | None, begins: _Place | None) -> None:
        self._rows, self._order, self._limit = rows, order, limit
        self._last: tuple[list[str | int], int] | None = (begins.values, begins.given) if begins else None
        self._more = False
        self.schema = shown_rows(rows.schema.empty_table()).schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        left = self._limit
        for batch in self._rows:
            table = shown_rows(pa.Table.from_batches([batch], self._rows.schema))
            if left is not None and table.num_rows > left:
                table, self._more = table.slice(0, left), True
            if left is not None:
                left -= table.num_rows
            if table.num_rows:
                self._note(table)
                yield from table.cast(self.schema).to_batches()
            if self._more:
                return

    def next(self) -> str | None:
        """The word that continues behind this page."""
        if not self._more or self._last is None:
            return None
        place = _Place(*self._last)
        return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()

    def _note(self, table: pa.Table) -> None:
        """Where this ends, and how many rows of it are there, or just before it."""
        if self._limit is None:
            return
        last = [_value(table[column][-1]) for column in self._order]
        alike = 0
        for row in range(table.num_rows - 1, -1, -1):
            if [_value(table[column][row]) for column in self._order] != last:
                break
            alike += 1
        if alike == table.num_rows and self._last and self._last[0] == last:
            alike += self._last[1]
        self._last = (last, alike)


def shown_rows(table: pa.Table) -> pa.Table:
    """Rows of `shown_columns` under their own names."""
    names = [name.removesuffix("_text") if name.endswith("_addr_text") else name for name in table.column_names]
    return plain(table.rename_columns(names))


def _value(scalar: Any) -> str | int:
    """As a place has it: times in nanoseconds, what is null as the order takes it."""
    if pa.types.is_timestamp(scalar.type):
        return int(pc.cast(scalar, pa.timestamp("ns", "UTC")).value)
    value = scalar.as_py()
    return 65535 if value is None else value
