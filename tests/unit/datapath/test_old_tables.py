"""Tables read by the description that was left with them: as by those who know their records, or counted unread."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from wiremeter.datapath import records
from wiremeter.datapath.layout import TablePlan
from wiremeter.datapath.old_tables import OldTables

from .test_regions import PLAN, Table, context

TICK_NS, ORIGIN_NS = 4_000_000, 1_700_000_000_000_000_000


def described() -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(records.described()))
    return plain


def fill(memory: bytearray) -> Table:
    """The first half's only region, with all kinds of lines and counters."""
    table = Table(TablePlan(PLAN.lines, 1, PLAN.attachments), offset=0)
    table.add_v4(3, "192.0.2.1", "192.0.2.2", context(6, 1), src_port=40000, dst_port=443, packets=5, last=9, hash=7)
    table.add_v4(9, "192.0.2.1", "192.0.2.3", context(17, 2, vlan=77), packets=4, merged=3, first=2)
    table.add_v6(10, "2001:db8::1", "2001:db8::2", context(17, 1), src_port=53, tcp_flags=0, packets=2, last=5)
    table.add_ethertype(20, 0x0806, context(0, 1), packets=6, bytes=360)
    rows = table.counters
    for slot, row, packets in ((1, 6, 5), (2, 17, 4), (1, records.ROW_IPV6 + 17, 2), (1, records.ROW_NON_IP, 6)):
        rows["packets"][slot, row] = rows["skbs"][slot, row] = packets
        rows["bytes"][slot, row] = 60 * packets
    full = records.ROW_UNATTRIBUTED + records.REASONS.index("table_full")
    rows["packets"][1, 6], rows["packets"][1, full] = 8, 3
    table.header["payloads"][1] = 11
    memory[: len(table.memory)] = table.memory
    return table


@pytest.fixture
def memory() -> bytearray:
    return bytearray(2 * PLAN.region_bytes + 8192)


def reader(described: dict[str, Any], memory: bytearray) -> OldTables:
    overflow: Any = bytearray(2 * PLAN.overflow_bytes)
    tables: Any = memory
    return OldTables(described, (PLAN.lines, 1, PLAN.attachments), tables, overflow)


def test_our_own_tables_read_as_regions_do(memory: bytearray) -> None:
    table = fill(memory)
    drain = reader(described(), memory).read(0, TICK_NS, ORIGIN_NS)
    flows, ethertypes = table.region.take_rows(TICK_NS, ORIGIN_NS)
    counters = np.zeros_like(drain.counters)
    table.region.add_counters(counters, np.arange(PLAN.attachments))
    assert sorted(map(bytes, drain.flows[0])) == sorted(map(bytes, flows))
    assert drain.ethertypes.tolist() == ethertypes.tolist()
    assert np.array_equal(drain.counters, counters)
    assert drain.payloads.tolist() == [0, 11, 0, 0, 0]
    assert not drain.unreadable


def test_the_other_half_is_not_read(memory: bytearray) -> None:
    fill(memory)
    drain = reader(described(), memory).read(1, TICK_NS, ORIGIN_NS)
    assert not drain.counters.any()
    assert not sum(map(len, drain.flows))


def test_flows_that_cannot_be_read_are_counted_without_their_names(memory: bytearray) -> None:
    """What IP traffic was seen, less what is in no flow anyway."""
    fill(memory)
    other = described()
    for member in other["structs"]["wm_flow4"][1:]:
        member[0] = {"hot": "hotter"}.get(member[0], member[0])
    drain = reader(other, memory).read(0, TICK_NS, ORIGIN_NS)
    assert not drain.flows
    assert {slot: packets for slot, (packets, *_) in drain.unreadable.items()} == {1: 8 - 3 + 2, 2: 4}
    assert drain.counters[1, records.ROW_NON_IP, 0] == 6


def test_without_counters_there_is_nothing_to_read(memory: bytearray) -> None:
    fill(memory)
    other = copy.deepcopy(described())
    other["structs"]["wm_counters"] = [64]
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        reader(other, memory).read(0, TICK_NS, ORIGIN_NS)
