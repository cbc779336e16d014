"""Domains, applications and hosts as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from wiremeter.flows.batch import Tally
from wiremeter.flows.by_name import NameTotal
from wiremeter.reports.cells import NO_NAME, printable
from wiremeter.reports.selection import Selection
from wiremeter.reports.units import CELL_WIDTH, cell, count, percent
from wiremeter.tui import palette
from wiremeter.tui.extras import AVERAGES, Extra, average_cell, average_facts
from wiremeter.tui.panels import rate_units
from wiremeter.tui.table import Column, facts_line, header_line, row_line, width_of

_ROOM_FOR_ALL = 140


@dataclass(frozen=True, slots=True)
class TotalRows:
    """The rows of the table of domains, applications or hosts for one batch."""

    totals: Sequence[NameTotal]
    whole: Tally
    seconds: float
    selection: Selection
    columns: tuple[Column, ...]
    averages: NDArray[np.float64] | None  # bytes per second over each of WINDOWS, a row a total; None if not known

    def __len__(self) -> int:
        return len(self.totals)

    def header(self) -> Text:
        return header_line(self.columns, self.selection.total_sort, reverse=self.selection.reverse)

    def line(self, index: int) -> Text:
        return row_line(self.columns, (self._cell(index, column) for column in self.columns))

    def identity(self, index: int) -> tuple[object, ...]:
        return self.selection.view, self.totals[index].name

    def details(self, index: int, width: int) -> list[Text]:
        total = self.totals[index]
        name = Text(f" {printable(total.name or NO_NAME)}", palette.STRONG, no_wrap=True)
        name.truncate(width, overflow="ellipsis")
        past = [] if self.averages is None else [facts_line(average_facts(self.averages[index], self.selection), width)]
        return [name, facts_line(_facts(total), width), *past]

    def _cell(self, index: int, column: Column) -> tuple[str, str]:
        total = self.totals[index]
        if column.name in AVERAGES and self.averages is not None:
            return average_cell(self.averages[index, AVERAGES.index(column.name)], self.selection)
        match column.name:
            case "name":
                return (total.name, palette.PLAIN) if total.name else (NO_NAME, palette.FAINT)
            case "rx" | "tx":
                tally = total.rx if column.name == "rx" else total.tx
                unit = 1 if self.selection.in_bytes else 8
                return cell(tally.bytes * unit / self.seconds), palette.DIRECTION[column.name]
            case "packets":
                number = cell(total.tally.packets / self.seconds)
                return number, palette.of_number(number)
            case "connections":
                return "" if total.connections is None else count(total.connections), palette.PLAIN
            case "flows":
                return count(total.flows), palette.FAINT
            case "share":
                return percent(total.tally.bytes, self.whole.bytes), palette.PLAIN
            case _:
                return count(total.tally.bytes), palette.FAINT


def total_rows(
    totals: Sequence[NameTotal],
    whole: Tally,
    seconds: float,
    width: int,
    selection: Selection,
    averages: NDArray[np.float64] | None = None,
    extra: Extra = "averages",
) -> TotalRows:
    """Choose the columns that fit in `width` characters; names take what the others leave.

    whole: the sum of `totals`. seconds: the length of the interval. averages: bytes per second of each over each of
    WINDOWS, shape (len(totals), len(WINDOWS)); None where they are not known. extra: which further columns, where not
    all have room.
    """
    unit = rate_units(selection)
    numbers = [
        Column(side, f"{side} {unit}", len(unit) + 4, "bytes", True, has_arrow=side == "rx") for side in ("rx", "tx")
    ]
    if width >= 60:
        numbers.append(Column("packets", "packet/s", 9, "packets", True))
    has_all = width >= _ROOM_FOR_ALL
    shows_averages = averages is not None and (has_all or (extra == "averages" and width >= 110))
    if shows_averages:
        numbers += [Column(name, name, CELL_WIDTH, is_number=True) for name in AVERAGES]
    if has_all or (not shows_averages and width >= 100):
        numbers.append(Column("bytes", "bytes", 13, "bytes", True, has_arrow=False))
        numbers.append(Column("flows", "flows", 9, is_number=True))
    if width >= 72 and selection.view != "hosts":
        numbers.append(Column("connections", "connections", 12, "connections", True))
    if width >= 48:
        numbers.append(Column("share", "share", 7, "bytes", True, has_arrow=False))
    label = {"domains": "domain", "applications": "application", "hosts": "host"}.get(selection.view, "name")
    name = Column("name", label, max(8, width - width_of(numbers) - 1), "name")
    return TotalRows(totals, whole, seconds or 1.0, selection, (name, *numbers), averages)


def _facts(total: NameTotal) -> Iterator[str]:
    for direction, tally in (("rx", total.rx), ("tx", total.tx)):
        yield f"{direction} {tally.packets:,} packets, {tally.bytes:,} bytes"
    yield f"{total.flows:,} flows"
    if total.connections is not None:
        yield f"{total.connections:,} connections began"
