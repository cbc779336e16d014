"""Flows and conversations as lines of a table: which columns fit, what stands in them, and one flow in full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich.text import Text

from wiremeter.flows.batch import VLAN_NONE, FlowBatch
from wiremeter.flows.protocols import protocol_name
from wiremeter.flows.top import SortKey
from wiremeter.tui import palette
from wiremeter.tui.cells import clock_time, elide, endpoint, flags_text
from wiremeter.tui.panels import rate_units
from wiremeter.tui.selection import Selected, Selection
from wiremeter.tui.units import cell, percent

_ASCENDING: tuple[SortKey, ...] = ("source", "destination", "protocol")


@dataclass(frozen=True, slots=True)
class Column:
    """`sort` is what a click on the header sorts by, if anything; numbers stand at the right."""

    name: str
    label: str
    width: int
    sort: SortKey | None = None
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class FlowRows:
    """The lines of the table for one batch; a line is made when it is asked for."""

    batch: FlowBatch
    selected: Selected
    selection: Selection
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.selected.flows)

    def header(self) -> Text:
        """Column names; the one sorted by has an arrow in the direction of the order."""
        line = Text(" ", palette.HEADER, no_wrap=True, end="")
        for column in self.columns:
            label = column.label
            is_sorted = column.sort == self.selection.sort and not column.name.startswith(("share", "tx_"))
            if is_sorted:
                label += "▴" if (column.sort in _ASCENDING) != self.selection.reverse else "▾"
            shown = f"{label:>{column.width}}" if column.is_number else f"{label:{column.width}}"
            line.append(f"{shown} ", palette.STRONG if is_sorted else "")
        line.rstrip()
        return line

    def column_at(self, x: int) -> Column | None:
        """The column at character `x` of a line."""
        start = 1
        for column in self.columns:
            if start <= x < start + column.width + 1:
                return column
            start += column.width + 1
        return None

    def line(self, index: int) -> Text:
        """One flow or conversation."""
        row = self.selected.flows[index]
        line = Text(" ", no_wrap=True, end="")
        for column in self.columns:
            text, style = self._cell(row, column)
            shown = f"{text:>{column.width}}" if column.is_number else f"{elide(text, column.width):{column.width}}"
            line.append(f"{shown} ", style)
        return line

    def identity(self, index: int) -> tuple[object, ...]:
        """What makes this flow itself; the same in the next batch."""
        row = self.selected.flows[index]
        attachment = self.batch.attachments[row["attachment"]]
        ends = [bytes(row[f"{side}_addr"]) for side in self._sides] + [int(row[f"{side}_port"]) for side in self._sides]
        direction = None if self.selection.pairs else attachment.direction
        return attachment.device, direction, int(row["vlan"]), int(row["protocol"]), *ends

    def details(self, index: int, width: int) -> list[Text]:
        """One flow in full, in two lines: who, and how much; as many facts as fit."""
        row = self.selected.flows[index]
        attachment = self.batch.attachments[row["attachment"]]
        who = Text(f" {attachment.device} ", palette.STRONG, no_wrap=True)
        if not self.selection.pairs:
            who.append(f"{attachment.direction} ", palette.DIRECTION[attachment.direction])
        near, far = (self._endpoint(row, side) for side in self._sides)
        arrow = "↔" if self.selection.pairs else "→"
        who.append(f"{protocol_name(int(row['protocol']))} {near} {arrow} {far}", palette.PLAIN)
        if row["vlan"] != VLAN_NONE:
            who.append(f"  vlan {row['vlan']}", palette.PLAIN)
        who.truncate(width, overflow="ellipsis")
        how_much = Text(no_wrap=True, end="")
        for fact in self._facts(row):
            if how_much.cell_len + len(fact) + 2 <= width:
                how_much.append(f"  {fact}" if how_much else f" {fact}", palette.PLAIN)
        return [who, how_much]

    def _facts(self, row: np.void) -> Iterator[str]:
        prefixes = ("rx_", "tx_") if self.selection.pairs else ("",)
        for prefix in prefixes:
            packets, amount = int(row[f"{prefix}packets"]), int(row[f"{prefix}bytes"])
            yield f"{prefix.replace('_', ' ')}{packets:,} packets, {amount:,} bytes"
        yield f"in {' + '.join(format(int(row[f'{prefix}skbs']), ',') for prefix in prefixes)} skbs"
        if row["tcp_flags"]:
            yield f"flags {flags_text(int(row['tcp_flags']))}"
        yield f"{_time(row['first_ns'])} to {_time(row['last_ns'])}"

    @property
    def _sides(self) -> tuple[str, str]:
        return ("local", "remote") if self.selection.pairs else ("src", "dst")

    def _endpoint(self, row: np.void, side: str) -> str:
        return endpoint(row[f"{side}_addr"], int(row[f"{side}_port"]), int(row["protocol"]), names=self.selection.names)

    def _amount(self, row: np.void, what: str, prefixes: tuple[str, ...]) -> int:
        return sum(int(row[f"{prefix}{what}"]) for prefix in prefixes)

    def _cell(self, row: np.void, column: Column) -> tuple[str, str]:
        seconds = self.batch.seconds or 1.0
        both = ("rx_", "tx_") if self.selection.pairs else ("",)
        unit = 1 if self.selection.in_bytes else 8
        match column.name:
            case "device":
                return self.batch.attachments[row["attachment"]].device, palette.PLAIN
            case "direction":
                direction = self.batch.attachments[row["attachment"]].direction
                return direction, palette.DIRECTION[direction]
            case "vlan":
                return "" if row["vlan"] == VLAN_NONE else str(row["vlan"]), palette.PLAIN
            case "protocol":
                return protocol_name(int(row["protocol"])), palette.FAINT
            case "src" | "dst" | "local" | "remote":
                return self._endpoint(row, column.name), palette.PLAIN
            case "flags":
                return flags_text(int(row["tcp_flags"])), palette.FAINT
            case "size":
                packets = self._amount(row, "packets", both)
                return str(round(self._amount(row, "bytes", both) / packets) if packets else 0), palette.FAINT
            case "share":
                whole = self.selected.total.bytes
                return percent(self._amount(row, "bytes", both), whole), palette.FAINT
            case "packets":
                number = cell(self._amount(row, "packets", both) / seconds)
                return number, palette.of_number(number)
            case "rx_bytes" | "tx_bytes" | "rx_packets" | "tx_packets":
                of_unit = unit if column.name.endswith("bytes") else 1
                return cell(int(row[column.name]) * of_unit / seconds), palette.DIRECTION[column.name[:2]]
            case _:
                number = cell(self._amount(row, "bytes", both) * unit / seconds)
                return number, palette.of_number(number)


def flow_rows(
    batch: FlowBatch, selected: Selected, width: int, selection: Selection, *, with_vlan: bool = False
) -> FlowRows:
    """Choose the columns that fit in `width` characters; addresses take what the others leave.

    with_vlan: have a column of VLANs, room permitting.
    """
    devices = {a.device for a in batch.attachments}
    unit = rate_units(selection)
    start = []
    if len(devices) > 1 and selection.device is None:
        start.append(Column("device", "device", min(15 if width >= 100 else 8, max(6, *map(len, devices)))))
    if not selection.pairs:
        start.append(Column("direction", "", 2))
    if with_vlan and width >= 90:
        start.append(Column("vlan", "vlan", 4, is_number=True))
    start.append(Column("protocol", "proto", 7 if width >= 100 else 6, "protocol"))
    end = []
    if width >= 96:
        end.append(Column("flags", "flags", 6))
        end.append(Column("size", "B/packet", 8, is_number=True))
    if width >= 112:
        end.append(Column("share", "share", 7, "bytes", True))
    if selection.pairs:
        by_packets = selection.sort == "packets" and width < 90  # where packets have no column of their own
        amount: SortKey = "packets" if by_packets else "bytes"
        shown = "packet/s" if by_packets else unit
        end += [Column(f"{side}_{amount}", f"{side} {shown}", len(shown) + 4, amount, True) for side in ("rx", "tx")]
    else:
        end.append(Column("bytes", unit, len(unit) + 2, "bytes", True))
    if not selection.pairs or width >= 90:
        end.append(Column("packets", "packet/s", 9, "packets", True))
    left = width - 1 - sum(column.width + 1 for column in start + end)
    end_width = max(8, min(48, left // 2 - 1))
    near, far = ("local", "remote") if selection.pairs else ("src", "dst")
    near_label, far_label = ("local", "remote") if selection.pairs else ("source", "destination")
    ends = [Column(near, near_label, end_width, "source"), Column(far, far_label, end_width, "destination")]
    return FlowRows(batch, selected, selection, (*start, *ends, *end))


def _time(time_ns: np.uint64) -> str:
    return f"{clock_time(int(time_ns))}.{int(time_ns) // 10**6 % 1000:03d}"
