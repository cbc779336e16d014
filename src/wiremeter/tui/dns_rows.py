"""DNS questions as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from wiremeter.flows.dns import DnsTotal
from wiremeter.reports.cells import printable
from wiremeter.reports.selection import Selection
from wiremeter.reports.units import count, duration_text
from wiremeter.tui import palette
from wiremeter.tui.table import Column, facts_line, header_line, row_line, width_of


@dataclass(frozen=True, slots=True)
class DnsRows:
    """The rows of the table of DNS questions for the recent intervals."""

    totals: Sequence[DnsTotal]
    selection: Selection
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.totals)

    def header(self) -> Text:
        return header_line(self.columns, self.selection.dns_sort, reverse=self.selection.reverse)

    def line(self, index: int) -> Text:
        total = self.totals[index]
        return row_line(self.columns, (_cell(total, column) for column in self.columns))

    def identity(self, index: int) -> tuple[object, ...]:
        return self.totals[index].query, self.totals[index].qtype

    def details(self, index: int, width: int) -> list[Text]:
        total = self.totals[index]
        question = Text(f" {printable(total.name)} ", palette.STRONG, no_wrap=True).append(total.qtype, palette.PLAIN)
        question.truncate(width, overflow="ellipsis")
        return [question, facts_line(_facts(total), width)]


def dns_rows(totals: Sequence[DnsTotal], width: int, selection: Selection) -> DnsRows:
    """Choose the columns that fit in `width` characters; names take what the others leave."""
    columns = [Column("type", "type", 6, "type"), Column("queries", "queries", 8, "queries", True)]
    if width >= 72:
        columns.append(Column("rcodes", "responses", min(48, 18 + max(0, width - 80) // 2)))
    if width >= 110:
        columns.append(Column("retries", "retries", 8, is_number=True))
    if width >= 48:
        label = "unanswered" if width >= 90 else "unansw."
        columns.append(Column("unanswered", label, len(label) + 1, "unanswered", True))
    columns.append(Column("median", "median", 8, "latency", True))
    if width >= 60:
        columns.append(Column("max", "max", 8, "latency", True, has_arrow=False))
    name = Column("name", "name", max(8, width - width_of(columns) - 1), "name")
    return DnsRows(totals, selection, (name, *columns))


def rcodes_text(rcodes: Mapping[str, int]) -> str:
    """Responses by code.

    >>> rcodes_text({"NOERROR": 1200, "NXDOMAIN": 3})
    'NOERROR 1,200 NXDOMAIN 3'
    """
    return " ".join(f"{rcode} {count(responses)}" for rcode, responses in rcodes.items())


def _cell(total: DnsTotal, column: Column) -> tuple[str, str]:
    match column.name:
        case "name":
            return total.name, palette.PLAIN
        case "type":
            return total.qtype, palette.FAINT
        case "rcodes":
            return rcodes_text(total.rcodes), palette.PLAIN if set(total.rcodes) <= {"NOERROR"} else palette.NOTE
        case "unanswered":
            return count(total.unanswered), palette.WARNING if total.unanswered else palette.FAINT
        case "median" | "max":
            latency_ns = total.median_ns if column.name == "median" else total.max_ns
            return "" if latency_ns is None else duration_text(latency_ns), palette.PLAIN
        case "retries":
            return count(total.retries), palette.FAINT
        case _:
            return count(total.queries), palette.PLAIN


def _facts(total: DnsTotal) -> Iterator[str]:
    yield f"{total.queries:,} queries"
    if total.retries:
        yield f"{total.retries:,} retries"
    if total.rcodes:
        yield rcodes_text(total.rcodes)
    if total.unanswered:
        yield f"{total.unanswered:,} unanswered"
    if total.median_ns is not None and total.max_ns is not None:
        yield f"answered in {duration_text(total.median_ns)} (median), at most {duration_text(total.max_ns)}"
