"""Flows and conversations as lines of a table: which columns fit, what stands in them, and one flow in full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.columns import VLAN_NONE
from wiremeter.flows.dns import rcode_name
from wiremeter.flows.protocols import protocol_name
from wiremeter.flows.recent import FlowSums
from wiremeter.names.records import NAMELESS, FlowName
from wiremeter.reports.cells import clock_time, endpoint, flags_text
from wiremeter.reports.selection import Selected, Selection
from wiremeter.reports.units import CELL_WIDTH, cell, percent, rate_text
from wiremeter.settings.words import SortKey
from wiremeter.tui import palette
from wiremeter.tui.extras import AVERAGES, Extra, average_cell, average_facts
from wiremeter.tui.panels import rate_units
from wiremeter.tui.table import Column, facts_line, header_line, row_line, width_of

_ROOM_FOR_ALL = 150

#: Evidence that is not the flow's own word, but what is known of its address.
INFERRED = ("dns_answer", "ptr")
_ROOM_FOR_DOMAIN = 38  # characters for both ends and the domain
_LONGEST_DOMAIN = 40
_IPV4_END = 21  # 255.255.255.255:65535


@dataclass(frozen=True, slots=True)
class FlowRows:
    """The rows of the flow table for one batch."""

    batch: FlowBatch
    selected: Selected
    selection: Selection
    columns: tuple[Column, ...]
    averages: NDArray[np.float64]  # bytes per second over each of WINDOWS, a row a flow
    sums: NDArray[np.uint64]  # bytes since each was first seen

    def __len__(self) -> int:
        return len(self.selected.flows)

    def header(self) -> Text:
        return header_line(self.columns, self.selection.sort, reverse=self.selection.reverse)

    def line(self, index: int) -> Text:
        row, name = self.selected.flows[index], self._name(index)
        return row_line(self.columns, (self._cell(index, row, name, column) for column in self.columns))

    def identity(self, index: int) -> tuple[object, ...]:
        row = self.selected.flows[index]
        attachment = self.batch.attachments[row["attachment"]]
        ends = [bytes(row[f"{side}_addr"]) for side in self._sides] + [int(row[f"{side}_port"]) for side in self._sides]
        direction = None if self.selection.pairs else attachment.direction
        return attachment.device, direction, int(row["vlan"]), int(row["protocol"]), *ends

    def details(self, index: int, width: int) -> list[Text]:
        """Three lines, and a fourth where anything is known of what it is about; as many facts as fit."""
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
        lines = [who, facts_line(self._facts(row), width), facts_line(self._past(index), width)]
        name = self._name(index)
        return lines if name == NAMELESS else [*lines, facts_line(name_facts(name), width)]

    def _facts(self, row: np.void) -> Iterator[str]:
        prefixes = ("rx_", "tx_") if self.selection.pairs else ("",)
        for prefix in prefixes:
            packets, amount = int(row[f"{prefix}packets"]), int(row[f"{prefix}bytes"])
            yield f"{prefix.replace('_', ' ')}{packets:,} packets, {amount:,} bytes"
        yield f"in {' + '.join(format(int(row[f'{prefix}skbs']), ',') for prefix in prefixes)} skbs"
        if row["tcp_flags"]:
            yield f"flags {flags_text(int(row['tcp_flags']))}"
        yield f"{_time(row['first_ns'])} to {_time(row['last_ns'])}"

    def _past(self, index: int) -> Iterator[str]:
        yield from average_facts(self.averages[index], self.selection)
        yield f"in all {rate_text(int(self.sums[index]), 'B')}"

    def _name(self, index: int) -> FlowName:
        return self.batch.names[int(self.selected.names[index])]

    @property
    def _sides(self) -> tuple[str, str]:
        return ("local", "remote") if self.selection.pairs else ("src", "dst")

    def _endpoint(self, row: np.void, side: str) -> str:
        return endpoint(
            row[f"{side}_addr"], int(row[f"{side}_port"]), int(row["protocol"]), services=self.selection.services
        )

    def _amount(self, row: np.void, what: str, prefixes: tuple[str, ...]) -> int:
        return sum(int(row[f"{prefix}{what}"]) for prefix in prefixes)

    def _cell(self, index: int, row: np.void, name: FlowName, column: Column) -> tuple[str, str]:
        seconds = self.batch.seconds or 1.0
        both = ("rx_", "tx_") if self.selection.pairs else ("",)
        unit = 1 if self.selection.in_bytes else 8
        if column.name in AVERAGES:
            return average_cell(self.averages[index, AVERAGES.index(column.name)], self.selection)
        match column.name:
            case "total":
                number = cell(int(self.sums[index]))
                return number, palette.of_number(number)
            case "device":
                return self.batch.attachments[row["attachment"]].device, palette.PLAIN
            case "direction":
                direction = self.batch.attachments[row["attachment"]].direction
                return direction, palette.DIRECTION[direction]
            case "vlan":
                return "" if row["vlan"] == VLAN_NONE else str(row["vlan"]), palette.PLAIN
            case "protocol":
                if name.application != NAMELESS.application:
                    return name.application, palette.PLAIN
                return protocol_name(int(row["protocol"])), palette.FAINT
            case "domain":
                return domain_text(name), palette.FAINT if name.domain_source in INFERRED else palette.STRONG
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


def domain_text(name: FlowName) -> str:
    """The domain, with a mark where it is only inferred; "" if there is none.

    >>> domain_text(FlowName("tls", "example.com", "sni")), domain_text(FlowName("tls", "example.com", "dns_answer"))
    ('example.com', '~example.com')
    """
    return ("~" if name.domain_source in INFERRED else "") + (name.domain or "")


def name_facts(name: FlowName) -> Iterator[str]:
    """All that is known of a conversation, with the evidence."""
    yield name.application
    if name.domain:
        yield f"{name.domain} by {name.domain_source}"
    if name.http_method or name.http_status is not None:
        yield f"{name.http_method or ''} {name.http_status or ''}".strip()
    if name.dns_query:
        yield f"asked {name.dns_query}"
    if name.dns_rcode is not None:
        yield rcode_name(name.dns_rcode)
    if name.tls_version:
        yield f"TLS {name.tls_version}"
    for label, fact in (("alpn", name.alpn), ("", name.tls_cipher), ("ja4", name.ja4), ("ja4s", name.ja4s)):
        if fact:
            yield f"{label} {fact}".strip()


def flow_rows(
    batch: FlowBatch,
    selected: Selected,
    width: int,
    selection: Selection,
    recent: FlowSums,
    extra: Extra = "averages",
    *,
    with_vlan: bool = False,
    with_names: bool = False,
) -> FlowRows:
    """Choose the columns that fit in `width` characters; addresses and domain take what the others leave.

    recent: of all intervals, that of the batch included. extra: which further columns, where not all have room.
    with_vlan: have a column of VLANs, room permitting. with_names: one of domains, room permitting.
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
    wide_protocol = 10 if with_names else 7  # postgresql, bittorrent
    start.append(Column("protocol", "proto", wide_protocol if width >= 100 else 6, "protocol"))
    end = []
    has_all = width >= _ROOM_FOR_ALL
    if has_all or (extra == "flags" and width >= (120 if with_names else 96)):
        end.append(Column("flags", "flags", 6))
        end.append(Column("size", "B/packet", 8, is_number=True))
    if width >= (130 if extra == "averages" else 112):
        end.append(Column("share", "share", 7, "bytes", True, has_arrow=False))
    if selection.pairs:
        by_packets = selection.sort == "packets" and width < 90  # where packets have no column of their own
        amount: SortKey = "packets" if by_packets else "bytes"
        shown = "packet/s" if by_packets else unit
        end += [
            Column(f"{side}_{amount}", f"{side} {shown}", len(shown) + 4, amount, True, has_arrow=side == "rx")
            for side in ("rx", "tx")
        ]
    else:
        end.append(Column("bytes", unit, len(unit) + 2, "bytes", True))
    if not selection.pairs or width >= 90:
        end.append(Column("packets", "packet/s", 9, "packets", True))
    if has_all or (extra == "averages" and width >= (118 if with_names else 90)):
        end += [Column(name, name, CELL_WIDTH, is_number=True) for name in AVERAGES]
    if extra == "totals" and width >= 70:
        end.append(Column("total", "total B", CELL_WIDTH + 1, is_number=True))
    left = width - width_of(start + end)
    domain = []
    if with_names and left >= _ROOM_FOR_DOMAIN:
        # A third, and what ends as long as those of IPv4 leave; addresses are seldom longer.
        domain_width = min(_LONGEST_DOMAIN, max(left // 3 - 1, left - 2 * (_IPV4_END + 1) - 1))
        domain.append(Column("domain", "domain", domain_width, "domain"))
        left -= domain_width + 1
    end_width = max(8, min(48, left // 2 - 1))
    near, far = ("local", "remote") if selection.pairs else ("src", "dst")
    near_label, far_label = ("local", "remote") if selection.pairs else ("source", "destination")
    ends = [Column(near, near_label, end_width, "source"), Column(far, far_label, end_width, "destination")]
    averages, sums = recent.averages(batch, selected.flows), recent.sums(batch, selected.flows)
    return FlowRows(batch, selected, selection, (*start, *ends, *domain, *end), averages, sums)


def _time(time_ns: np.uint64) -> str:
    return f"{clock_time(int(time_ns))}.{int(time_ns) // 10**6 % 1000:03d}"
