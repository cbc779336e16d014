"""One region read: lines in, rows out, and nothing left."""

from __future__ import annotations

import ipaddress
import random
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wiremeter.datapath import records
from wiremeter.datapath.layout import TablePlan, plan_tables
from wiremeter.datapath.regions import Region
from wiremeter.flows.columns import ETHERTYPE_LLC, VLAN_NONE, address_text

#: A busy machine may stand still for longer than an example usually takes.
steady = settings(deadline=None)

PLAN = plan_tables(2, 256, attachments=4)


class Table:
    """A region's memory as a program would write it, at some place in a larger map; lines are given in any order."""

    def __init__(self, plan: TablePlan = PLAN, offset: int = 8192) -> None:
        self.plan = plan
        self.offset = offset
        self.memory = bytearray(offset + plan.region_bytes + 4096)
        self.header = np.frombuffer(self.memory, records.REGION_HEADER, 1, offset)[0]
        self.counters = np.frombuffer(self.memory, records.COUNTERS, plan.attachments, offset + 64)["rows"]
        self.touched = np.frombuffer(self.memory, "u4", plan.lines, offset + plan.touched_offset)
        lines = np.frombuffer(self.memory, "u1", 64 * plan.lines, offset + plan.lines_offset)
        self.v4 = lines.view(records.FLOW4)
        self.v6 = lines.view(records.FLOW6)
        self.region = Region(plan, self.memory, offset)

    def add_v4(self, line: int, src: str, dst: str, context: int, **state: int) -> None:
        """An IPv4 flow."""
        flow = self.v4[line]
        flow["src_addr_be"], flow["dst_addr_be"] = (np.frombuffer(packed(address), "u4")[0] for address in (src, dst))
        self._fill(flow, line, 1, context, state)

    def add_ethertype(self, line: int, ethertype: int, context: int, **state: int) -> None:
        """A line that counts frames that are not IP."""
        flow = self.v4[line]
        flow["src_addr_be"], flow["dst_addr_be"] = ethertype, 0
        self._fill(flow, line, 1, context | records.VLAN_NON_IP << records.CONTEXT_VLAN_SHIFT, state)

    def add_v6(self, line: int, src: str, dst: str, context: int, **state: int) -> None:
        """An IPv6 flow in an even line and the next."""
        flow = self.v6[line // 2]
        flow["src_addr_be"], flow["dst_addr_be"] = (np.frombuffer(packed(address), "u8") for address in (src, dst))
        flow["second_line"] = 1
        self._fill(flow, line, 2, context | 1 << records.CONTEXT_V6_SHIFT, state)

    def _fill(self, flow: np.void, line: int, lines: int, context: int, state: dict[str, int]) -> None:
        assert not flow["head"]["context"], f"line {line} is taken"
        flow["head"]["context"] = context
        for name, value in {"packets": 1, "bytes": 60, **state}.items():
            if name.endswith("_port"):
                flow["head"][f"{name}_be"] = swapped(value)
            else:
                flow["hot" if name in ("packets", "bytes", "last") else "cold"][name] = value
        self.touched[self.header["entries"]] = line
        self.header["entries"] += 1
        self.header["lines_used"] += lines

    def is_empty(self) -> bool:
        """Whether all that tells a program what is in use is as if new, and what is around the region untouched."""
        assert self.header["spread_mask"] == self.plan.lines - 1
        counters = self.memory[self.offset + 64 : self.offset + self.plan.touched_offset]
        start = self.header.tobytes()[:12] + bytes(counters)
        around = self.memory[: self.offset] + self.memory[self.offset + self.plan.region_bytes :]
        heads = self.v4["head"].copy().view("u8")
        return not any(start) and not any(around) and not heads.any()


def packed(address: str) -> bytes:
    """As on the wire."""
    return ipaddress.ip_address(address).packed


def swapped(port: int) -> int:
    """A port as it stands in memory when read as a number of the machine."""
    return int.from_bytes(port.to_bytes(2, "big"), sys.byteorder)


def context(protocol: int, attachment: int = 0, vlan: int | None = None) -> int:
    """As records.h packs it."""
    tag = 0 if vlan is None else records.VLAN_TAGGED | vlan
    where = attachment + 1 << records.CONTEXT_ATTACHMENT_SHIFT
    return protocol | tag << records.CONTEXT_VLAN_SHIFT | where


def test_an_empty_region_has_no_rows() -> None:
    table = Table()
    flows, ethertypes = table.region.take_rows()
    assert (len(flows), len(ethertypes), table.region.lines_used) == (0, 0, 0)


def test_an_ipv4_flow_has_all_of_its_line() -> None:
    table = Table()
    table.add_v4(
        77, "192.0.2.1", "198.51.100.7", context(6, attachment=3, vlan=77), src_port=40001, dst_port=443,
        packets=5, bytes=7000, merged=3, first=10, last=20, tcp_flags=0x112, hash=0xFEDCBA98,
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
        254, "2001:db8::1:2", "fe80::1", context(17, attachment=1), src_port=53, dst_port=5353,
        packets=1 << 40, bytes=1 << 50, merged=1 << 39, first=10, last=20, hash=77,
    )  # fmt: skip
    (row,), _ = table.region.take_rows()
    assert [address_text(row[name]) for name in ("src_addr", "dst_addr")] == ["2001:db8::1:2", "fe80::1"]
    assert [int(row[name]) for name in ("family", "protocol", "attachment", "vlan")] == [6, 17, 1, VLAN_NONE]
    assert [int(row[name]) for name in ("src_port", "dst_port", "hash")] == [53, 5353, 77]
    assert [int(row[name]) for name in ("packets", "bytes", "skbs")] == [1 << 40, 1 << 50, 1 << 39]
    assert table.is_empty()


@pytest.mark.parametrize("v6", [False, True])
def test_ticks_become_times(v6: bool) -> None:
    table = Table()
    src, dst = ("::1", "::2") if v6 else ("10.0.0.1", "10.0.0.2")
    (table.add_v6 if v6 else table.add_v4)(0, src, dst, context(6), first=1000, last=1003)
    (row,), _ = table.region.take_rows(tick_ns=4_000_000, origin_ns=(1 << 64) - 1_000_000_000)
    assert (int(row["first_ns"]), int(row["last_ns"])) == (3_000_000_000, 3_012_000_000)


@pytest.mark.parametrize(("vlan", "shown"), [(None, VLAN_NONE), (0, 0), (1, 1), (4095, 4095)])
def test_a_priority_tag_is_not_the_same_as_none(vlan: int | None, shown: int) -> None:
    table = Table()
    table.add_v4(0, "10.0.0.1", "10.0.0.2", context(17, vlan=vlan))
    (row,), _ = table.region.take_rows()
    assert row["vlan"] == shown


@pytest.mark.parametrize("attachment", [0, 1, records.ATTACHMENTS_MAX - 1])
def test_the_lowest_and_the_highest_attachment(attachment: int) -> None:
    table = Table()
    table.add_v4(0, "10.0.0.1", "10.0.0.2", context(255, attachment, 4095))
    table.add_v6(2, "::1", "::2", context(255, attachment, 4095))
    table.add_ethertype(1, 0xFFFF, context(0, attachment))
    flows, ethertypes = table.region.take_rows()
    assert [*flows["attachment"], *ethertypes["attachment"]] == [attachment] * 3
    assert flows[["protocol", "vlan", "family"]].tolist() == [(255, 4095, 4), (255, 4095, 6)]


def test_ethertypes_are_told_from_flows() -> None:
    table = Table()
    table.add_v4(9, "10.0.0.1", "10.0.0.2", context(17))
    table.add_ethertype(3, 0x0806, context(0, attachment=2), packets=9, bytes=540)
    table.add_v4(7, "10.0.0.3", "10.0.0.4", context(17))
    table.add_ethertype(255, ETHERTYPE_LLC, context(0, attachment=1), packets=5, merged=1)
    table.add_v6(20, "::1", "::2", context(17))
    flows, ethertypes = table.region.take_rows()
    assert [address_text(row["src_addr"]) for row in flows] == ["10.0.0.1", "10.0.0.3", "::1"]
    assert ethertypes.tolist() == [(2, 0x0806, 9, 540, 9), (1, ETHERTYPE_LLC, 5, 60, 4)]
    assert table.is_empty()


def test_only_ethertypes_make_no_flows() -> None:
    table = Table()
    table.add_ethertype(0, 0x0806, context(0))
    flows, ethertypes = table.region.take_rows()
    assert (len(flows), len(ethertypes)) == (0, 1)
    assert table.is_empty()


@steady
@given(st.integers(0, 256), st.integers(0, 128), st.integers(0, 1 << 32))
def test_a_region_is_empty_after_it_was_read_however_many_lines_were_in_use(v4: int, v6: int, seed: int) -> None:
    """Twice: what a first life leaves in lines must not show in the second."""
    table, chance = Table(), random.Random(seed)
    for _ in range(2):
        pairs = chance.sample(range(128), v6)
        free = [line for line in range(256) if line // 2 not in pairs]
        singles = chance.sample(free, min(v4, len(free)))
        for line in singles:
            table.add_v4(line, f"10.0.0.{line}", "10.1.0.0", context(17))
        for pair in pairs:
            table.add_v6(2 * pair, f"::{pair:x}", "::", context(17))
        assert table.region.lines_used == len(singles) + 2 * v6
        flows, _ = table.region.take_rows()
        sources = [address_text(row["src_addr"]) for row in flows]
        assert sources == [f"10.0.0.{line}" for line in singles] + [str(ipaddress.IPv6Address(pair)) for pair in pairs]
        assert table.region.lines_used == 0
        assert table.is_empty()


def test_a_wish_for_an_early_flip_ends_with_the_flip() -> None:
    table = Table()
    table.add_v4(0, "10.0.0.1", "10.0.0.2", context(17))
    table.header["flip_asked"] = 1
    table.region.take_rows()
    assert table.is_empty()


def test_rows_are_a_copy() -> None:
    table = Table()
    table.add_v4(0, "10.0.0.1", "10.0.0.2", context(17))
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


# Reading without clearing --------------------------------------------------------------------------------------------


def test_what_is_kept_reads_the_same_again_and_is_empty_once_it_is_cleared() -> None:
    table = Table()
    table.add_v4(3, "192.0.2.1", "192.0.2.2", context(6), packets=5)
    table.add_v6(10, "2001:db8::1", "2001:db8::2", context(17), packets=2)
    table.counters["packets"][1, 6] = 7
    table.header["payloads"][2] = 3
    once, again = (table.region.take_rows(keep=True)[0] for _ in range(2))
    counters = [np.zeros((4, records.ROWS, 3), np.uint64) for _ in range(2)]
    for each in counters:
        table.region.add_counters(each, np.arange(4), keep=True)
    assert len(once) == 2
    assert once.tobytes() == again.tobytes()
    assert counters[0].sum() == counters[1].sum() == 7
    assert not table.is_empty()
    table.region.clear()
    assert table.is_empty()
    assert not table.header["payloads"].any()


@pytest.mark.parametrize("cut_after", range(3))
def test_clearing_that_was_cut_short_is_finished_by_doing_it_again(cut_after: int) -> None:
    """A head that is gone was cleared whole; one that is there says what belongs to it."""
    table = Table()
    table.add_v6(10, "2001:db8::1", "2001:db8::2", context(17))
    table.add_v4(3, "192.0.2.1", "192.0.2.2", context(6))
    if cut_after > 0:
        table.v6[5]["second_line"] = 0
    if cut_after > 1:
        table.v6[5]["head"] = 0
    table.region.clear()
    assert table.is_empty()
