"""One region read: lines in, rows out, and nothing left."""

from __future__ import annotations

import ipaddress
import sys
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wiremeter.datapath import records
from wiremeter.datapath.layout import TablePlan, plan_tables
from wiremeter.datapath.regions import Region
from wiremeter.flows.batch import ETHERTYPE_LLC, VLAN_NONE, address_text

#: A busy machine may stand still for longer than an example usually takes.
steady = settings(deadline=None)

PLAN = plan_tables(2, 256, attachments=4)


class Table:
    """A region's memory as a program would write it, at some place in a larger map."""

    def __init__(self, plan: TablePlan = PLAN, offset: int = 8192) -> None:
        self.plan = plan
        self.memory = bytearray(offset + plan.region_bytes + 4096)
        self.guard = bytes(self.memory[:offset])
        self.offset = offset
        self.header = np.frombuffer(self.memory, records.REGION_HEADER, 1, offset)[0]
        self.counters = np.frombuffer(self.memory, records.COUNTERS, plan.attachments, offset + 64)["rows"]
        self.touched = np.frombuffer(self.memory, "u4", plan.lines, offset + plan.touched_offset)
        lines = np.frombuffer(self.memory, "u1", 64 * plan.lines, offset + plan.lines_offset)
        self.v4 = lines.view(records.FLOW4)
        self.v6 = lines.view(records.FLOW6)
        self.region = Region(plan, self.memory, offset)

    def add_v4(
        self, src: str, dst: str, context: int, *, ports: tuple[int, int] = (0, 0), line: int | None = None, **state: int
    ) -> None:
        """An entry at a line; without a number, at the first that is free."""
        at = self._free(1) if line is None else line
        flow = self.v4[at]
        flow["src_addr_be"], flow["dst_addr_be"] = (np.frombuffer(packed(address), "u4")[0] for address in (src, dst))
        self._fill(flow, at, context, ports, state)

    def add_ethertype(self, ethertype: int, context: int, **state: int) -> None:
        """A line that counts frames that are not IP."""
        at = self._free(1)
        self.v4[at]["src_addr_be"], self.v4[at]["dst_addr_be"] = ethertype, 0
        self._fill(self.v4[at], at, context | 1 << records.CONTEXT_NON_IP_SHIFT, (0, 0), state)

    def add_v6(
        self, src: str, dst: str, context: int, *, ports: tuple[int, int] = (0, 0), line: int | None = None, **state: int
    ) -> None:
        """An entry at two lines, of which the first has an even number."""
        at = self._free(2) if line is None else line
        flow = self.v6[at // 2]
        flow["src_addr_be"], flow["dst_addr_be"] = (np.frombuffer(packed(address), "u8") for address in (src, dst))
        flow["second_line"] = 1
        self._fill(flow, at, context | 1 << records.CONTEXT_V6_SHIFT, ports, state)
        self.header["lines_used"] += 1

    def _free(self, lines: int) -> int:
        for at in range(0, self.plan.lines, lines):
            if not self.v4["head"]["context"][at : at + lines].any():
                return at
        raise AssertionError("the table is full")

    def _fill(self, flow: np.void, line: int, context: int, ports: tuple[int, int], state: dict[str, int]) -> None:
        flow["head"]["src_port_be"], flow["head"]["dst_port_be"] = (swapped(port) for port in ports)
        flow["head"]["context"] = context
        values = {"packets": 1, "bytes": 60, "skbs": 1, **state}
        values["merged"] = values["packets"] - values.pop("skbs")
        for name, value in values.items():
            flow["hot" if name in records.FLOW4["hot"].names else "cold"][name] = value
        self.touched[self.header["entries"]] = line
        self.header["entries"] += 1
        self.header["lines_used"] += 1

    def is_empty(self) -> bool:
        """Whether header, counters and every line's head are as if new, and nothing before the region was touched."""
        start = self.memory[self.offset : self.offset + self.plan.touched_offset]
        return not any(start) and not self.v4["head"].view("u8").any() and not any(self.memory[: self.offset])


def packed(address: str) -> bytes:
    """As on the wire."""
    return ipaddress.ip_address(address).packed


def swapped(port: int) -> int:
    """A port as it stands in memory when read as a number of the machine."""
    return int.from_bytes(port.to_bytes(2, "big"), sys.byteorder)


def context(protocol: int, attachment: int = 0, vlan: int | None = None) -> int:
    """As records.h packs it."""
    tag = 0 if vlan is None else records.VLAN_TAGGED | vlan
    return protocol | tag << records.CONTEXT_VLAN_SHIFT | attachment + 1 << records.CONTEXT_ATTACHMENT_SHIFT


def test_an_empty_region_has_no_rows() -> None:
    table = Table()
    flows, ethertypes = table.region.take_rows()
    assert (len(flows), len(ethertypes), table.region.lines_used) == (0, 0, 0)


def test_an_ipv4_flow_has_all_of_its_line() -> None:
    table = Table()
    table.add_v4(
        "192.0.2.1", "198.51.100.7", context(6, attachment=3, vlan=77), ports=(40001, 443),
        packets=5, bytes=7000, skbs=2, first=10, last=20, tcp_flags=0x112, hash=0xFEDCBA98,
    )  # fmt: skip
    (row,), ethertypes = table.region.take_rows()
    assert len(ethertypes) == 0
    assert [address_text(row[name]) for name in ("src_addr", "dst_addr")] == ["192.0.2.1", "198.51.100.7"]
    assert [int(row[name]) for name in ("family", "protocol", "attachment", "vlan")] == [4, 6, 3, 77]
    assert [int(row[name]) for name in ("src_port", "dst_port", "tcp_flags", "hash")] == [40001, 443, 0x112, 0xFEDCBA98]
    assert [int(row[name]) for name in ("packets", "bytes", "skbs", "first_ns", "last_ns")] == [5, 7000, 2, 10, 20]
    assert table.is_empty()


def test_an_ipv6_flow_has_all_of_its_lines() -> None:
    table = Table()
    table.add_v6(
        "2001:db8::1:2", "fe80::1", context(17, attachment=1), ports=(53, 5353),
        packets=1 << 40, bytes=1 << 50, skbs=1 << 39, first=10, last=20, hash=77,
    )  # fmt: skip
    (row,), _ = table.region.take_rows()
    assert [address_text(row[name]) for name in ("src_addr", "dst_addr")] == ["2001:db8::1:2", "fe80::1"]
    assert [int(row[name]) for name in ("family", "protocol", "attachment", "vlan")] == [6, 17, 1, VLAN_NONE]
    assert [int(row[name]) for name in ("src_port", "dst_port", "hash")] == [53, 5353, 77]
    assert [int(row[name]) for name in ("packets", "bytes", "skbs")] == [1 << 40, 1 << 50, 1 << 39]
    assert table.is_empty()


@pytest.mark.parametrize(("vlan", "shown"), [(None, VLAN_NONE), (0, 0), (1, 1), (4095, 4095)])
def test_a_priority_tag_is_not_the_same_as_none(vlan: int | None, shown: int) -> None:
    table = Table()
    table.add_v4("10.0.0.1", "10.0.0.2", context(17, vlan=vlan))
    (row,), _ = table.region.take_rows()
    assert row["vlan"] == shown


def test_ethertypes_are_told_from_flows() -> None:
    table = Table()
    table.add_v4("10.0.0.1", "10.0.0.2", context(17), hash=1)
    table.add_ethertype(0x0806, context(0, attachment=2), packets=9, bytes=540, skbs=9, hash=2)
    table.add_v4("10.0.0.3", "10.0.0.4", context(17), hash=3)
    table.add_ethertype(ETHERTYPE_LLC, context(0, attachment=1), hash=4)
    table.add_v6("::1", "::2", context(17), hash=5)
    flows, ethertypes = table.region.take_rows()
    assert [address_text(row["src_addr"]) for row in flows] == ["10.0.0.1", "10.0.0.3", "::1"]
    assert ethertypes.tolist() == [(2, 0x0806, 9, 540, 9), (1, ETHERTYPE_LLC, 1, 60, 1)]
    assert table.is_empty()


def test_only_ethertypes_make_no_flows() -> None:
    table = Table()
    table.add_ethertype(0x0806, context(0))
    flows, ethertypes = table.region.take_rows()
    assert (len(flows), len(ethertypes)) == (0, 1)
    assert table.is_empty()


@steady
@given(st.sets(st.integers(0, 127)), st.randoms())
def test_a_region_is_empty_after_it_was_read_wherever_its_entries_were(pairs: set[int], chance: Random) -> None:
    """A pair of lines holds one IPv6 flow, or one or two IPv4 flows."""
    table = Table()
    v4 = v6 = 0
    for pair in chance.sample(sorted(pairs), len(pairs)):
        match chance.randrange(3):
            case 0:
                table.add_v6(f"::{pair:x}", "::", context(17), line=2 * pair)
                v6 += 1
            case several:
                for line in range(2 * pair, 2 * pair + several):
                    table.add_v4(f"10.0.0.{line}", "10.1.0.0", context(17), line=line)
                    v4 += 1
    assert table.region.lines_used == v4 + 2 * v6
    flows, _ = table.region.take_rows()
    assert (flows["family"] == 4).sum() == v4
    assert (flows["family"] == 6).sum() == v6
    assert len(np.unique(flows["src_addr"], axis=0)) == v4 + v6
    assert table.region.lines_used == 0
    assert table.is_empty()


def test_times_become_those_of_the_unix_clock() -> None:
    table = Table()
    table.add_v4("10.0.0.1", "10.0.0.2", context(17), first=5, last=7)
    (row,), _ = table.region.take_rows(4_000_000, 1_000)
    assert [int(row["first_ns"]), int(row["last_ns"])] == [20_001_000, 28_001_000]


def test_a_wish_for_an_early_flip_ends_with_the_flip() -> None:
    table = Table()
    table.add_v4("10.0.0.1", "10.0.0.2", context(17))
    table.header["flip_asked"] = 1
    table.region.take_rows()
    assert table.is_empty()


def test_rows_are_a_copy() -> None:
    table = Table()
    table.add_v4("10.0.0.1", "10.0.0.2", context(17))
    flows, _ = table.region.take_rows()
    table.v4[:] = np.zeros((), records.FLOW4)
    assert flows["packets"].tolist() == [1]


def test_counters_are_added_and_set_to_zero_for_those_attachments_only() -> None:
    table = Table()
    for attachment in range(4):
        for at, name in enumerate(("packets", "bytes", "skbs")):
            table.counters[name][attachment] = np.arange(records.ROWS) * 10 + attachment + at * 100_000
    before = table.counters.copy()
    sums = np.ones((4, records.ROWS, 3), np.uint64)
    table.region.add_counters(sums, np.array([1, 3]))
    assert (sums[[0, 2]] == 1).all()
    for attachment in (1, 3):
        for at, name in enumerate(("packets", "bytes", "skbs")):
            assert (sums[attachment, :, at] == before[name][attachment] + 1).all()
            assert not table.counters[name][attachment].any()
    for attachment in (0, 2):
        assert (table.counters[attachment] == before[attachment]).all()


def test_a_region_of_counters_only_has_no_lines() -> None:
    memory = bytearray(2 * PLAN.overflow_bytes)
    region = Region(PLAN, memory, PLAN.overflow_bytes, counters_only=True)
    counters = np.frombuffer(memory, records.COUNTERS, PLAN.attachments, PLAN.overflow_bytes + 64)["rows"]
    counters["packets"][2, 6] = 23
    sums = np.zeros((4, records.ROWS, 3), np.uint64)
    region.add_counters(sums, np.arange(4))
    assert sums[2, 6].tolist() == [23, 0, 0]
    assert sums.sum() == 23
    assert not any(memory)
    assert region.lines_used == 0
