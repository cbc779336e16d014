"""What all tables of the interactive view have in common: columns, a header, lines, and one row in full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.text import Text

from wiremeter.reports.cells import elide, printable
from wiremeter.tui import palette


@dataclass(frozen=True, slots=True)
class Column:
    """`sort` is what a click on the header sorts by, if anything, `has_arrow` whether the header then says so. Numbers
    stand at the right and begin with the largest; text begins with the first of the alphabet."""

    name: str
    label: str
    width: int
    sort: str | None = None
    is_number: bool = False
    has_arrow: bool = True


class Rows(Protocol):
    """The rows of one table for one batch; a line is made when it is asked for."""

    @property
    def columns(self) -> tuple[Column, ...]: ...

    def __len__(self) -> int: ...

    def header(self) -> Text:
        """Column names; the one sorted by has an arrow in the direction of the order."""

    def line(self, index: int) -> Text:
        """One row."""

    def identity(self, index: int) -> tuple[object, ...]:
        """What makes this row itself; the same in the next batch."""

    def details(self, index: int, width: int) -> list[Text]:
        """One row in full, in a few lines."""


@dataclass(frozen=True, slots=True)
class Reordered:
    """Rows in another order. places: of each row, where it stands in `rows`."""

    rows: Rows
    places: Sequence[int]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.rows.columns

    def __len__(self) -> int:
        return len(self.places)

    def header(self) -> Text:
        return self.rows.header()

    def line(self, index: int) -> Text:
        return self.rows.line(self.places[index])

    def identity(self, index: int) -> tuple[object, ...]:
        return self.rows.identity(self.places[index])

    def details(self, index: int, width: int) -> list[Text]:
        return self.rows.details(self.places[index], width)


def in_order_of(rows: Rows, order: Sequence[tuple[object, ...]]) -> Reordered:
    """The rows in an order of identities; those that are not in it come last, as they are."""
    ranks = {identity: rank for rank, identity in enumerate(order)}
    places = sorted(range(len(rows)), key=lambda at: ranks.get(rows.identity(at), len(ranks)))
    return Reordered(rows, places)


def header_line(columns: Iterable[Column], sort: str, *, reverse: bool) -> Text:
    """The labels, with an arrow at what is sorted by."""
    line = Text(" ", palette.HEADER, no_wrap=True, end="")
    for column in columns:
        label = column.label
        is_sorted = column.sort == sort and column.has_arrow
        if is_sorted:
            label += "▾" if column.is_number != reverse else "▴"
        shown = f"{label:>{column.width}}" if column.is_number else f"{label:{column.width}}"
        line.append(f"{shown} ", palette.STRONG if is_sorted else "")
    line.rstrip()
    return line


def row_line(columns: Iterable[Column], cells: Iterable[tuple[str, str]]) -> Text:
    """One line; cells: text and colour, one for each column."""
    line = Text(" ", no_wrap=True, end="")
    for column, (text, style) in zip(columns, cells, strict=True):
        shown = f"{text:>{column.width}}" if column.is_number else f"{elide(text, column.width):{column.width}}"
        line.append(f"{printable(shown)} ", style)
    return line


def column_at(columns: Sequence[Column], x: int) -> Column | None:
    """The column at character `x` of a line."""
    start = 1
    for column in columns:
        if start <= x < start + column.width + 1:
            return column
        start += column.width + 1
    return None


def width_of(columns: Iterable[Column]) -> int:
    """Characters that a line of these columns takes."""
    return 1 + sum(column.width + 1 for column in columns)


def facts_line(facts: Iterable[str], width: int) -> Text:
    """As many facts as fit in one line."""
    line = Text(no_wrap=True, end="")
    for fact in map(printable, facts):
        if line.cell_len + len(fact) + 2 <= width:
            line.append(f"  {fact}" if line else f" {fact}", palette.PLAIN)
    return line
