"""Reading one region: its counters and its lines as arrays, and making it empty again."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath import records
from wiremeter.datapath.layout import TablePlan
from wiremeter.flows.batch import ETHERTYPE_COUNTER, FLOW, VLAN_NONE

_V4_PREFIX = np.array([0xFFFF0000 if sys.byteorder == "little" else 0x0000FFFF], "u4")


class Region:
    """One CPU's region of one epoch, as views of the engine's memory. Only to be read when no program writes it."""

    def __init__(self, plan: TablePlan, memory: Any, offset: int, *, counters_only: bool = False) -> None:
        self._header = np.frombuffer(memory, records.REGION_HEADER, 1, offset)
        self._counters = np.frombuffer(
            memory, records.COUNTERS, plan.attachments, offset + records.REGION_HEADER.itemsize
        )["rows"]
        self._plan = plan
        if counters_only:
            self._index = np.zeros(1, "u4")
            self._lines = np.zeros((1, records.LINE_BYTES), "u1")
            return
        self._index = np.frombuffer(memory, "u4", plan.lines * records.INDEX_PER_LINE, offset + plan.index_offset)
        self._lines = np.frombuffer(memory, "u1", plan.lines * records.LINE_BYTES, offset + plan.lines_offset)

    @property
    def lines_used(self) -> int:
        """Lines in use, of both families."""
        return int(self._header["lines_v4"][0]) + int(self._header["lines_v6"][0])

    def add_counters(self, to: NDArray[np.uint64], attachments: NDArray[np.intp]) -> None:
        """Adds the counters of some attachments to `to`, shape (attachments, ROWS, 3), and sets them to zero."""
        for at in attachments:
            rows = self._counters[at].view("u8").reshape(records.ROWS, 3)
            to[at] += rows
            rows[:] = 0

    def take_lines(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Copies out all flows and ethertype counts and empties the table.

        Returns (flows, ethertypes) of dtypes FLOW and ETHERTYPE_COUNTER; times are the engine's clock.
        """
        v4_lines, v6_lines = int(self._header["lines_v4"][0]), int(self._header["lines_v6"][0])
        v4 = self._lines[: v4_lines * records.LINE_BYTES].view(records.FLOW4)
        v6 = self._lines[len(self._lines) - v6_lines * records.LINE_BYTES :].view(records.FLOW6)
        non_ip = (v4["rest"]["context"] >> records.CONTEXT_NON_IP_SHIFT & 1).astype(bool)
        ethertypes = _ethertype_rows(v4[non_ip]) if non_ip.any() else np.zeros(0, ETHERTYPE_COUNTER)
        flows = np.empty(len(v4) - len(ethertypes) + len(v6), FLOW)
        _fill_v4(flows[: len(flows) - len(v6)], v4[~non_ip] if len(ethertypes) else v4)
        _fill_v6(flows[len(flows) - len(v6) :], v6)
        self._clear_index(v4["state"], v6["state"])
        self._header["lines_v4"] = self._header["lines_v6"] = self._header["flip_asked"] = 0
        return flows, ethertypes

    def _clear_index(self, *states: NDArray[np.void]) -> None:
        """Frees the places of all entries: one by one when they are few, all at once when they are many."""
        if sum(map(len, states)) > len(self._index) // 16:
            self._index[:] = 0
            return
        for state in states:
            self._index[(state["hash"] + state["probe"]) & np.uint32(len(self._index) - 1)] = 0


def _fill_common(rows: NDArray[np.void], lines: NDArray[np.void]) -> None:
    rest, state = lines["rest"], lines["state"]
    context = rest["context"]
    swap = sys.byteorder == "little"
    rows["src_port"] = rest["src_port_be"].byteswap() if swap else rest["src_port_be"]
    rows["dst_port"] = rest["dst_port_be"].byteswap() if swap else rest["dst_port_be"]
    rows["protocol"] = context & 0xFF
    rows["attachment"] = context >> records.CONTEXT_ATTACHMENT_SHIFT
    vlan = context >> records.CONTEXT_VLAN_SHIFT & 0x1FFF
    rows["vlan"] = np.where(vlan & records.VLAN_TAGGED, vlan & 0xFFF, VLAN_NONE)
    rows["first_ns"], rows["last_ns"] = state["first"], state["last"]
    for name in ("hash", "packets", "bytes", "skbs", "tcp_flags"):
        rows[name] = state[name]


def _fill_v4(rows: NDArray[np.void], lines: NDArray[np.void]) -> None:
    _fill_common(rows, lines)
    rows["family"] = 4
    for name in ("src_addr", "dst_addr"):
        words = rows[name].view("u4")
        words[:, 0:2] = 0
        words[:, 2] = _V4_PREFIX
        words[:, 3] = lines[f"{name}_be"]


def _fill_v6(rows: NDArray[np.void], lines: NDArray[np.void]) -> None:
    _fill_common(rows, lines)
    rows["family"] = 6
    for name in ("src_addr", "dst_addr"):
        rows[name].view("u8")[:] = lines[f"{name}_be"]


def _ethertype_rows(lines: NDArray[np.void]) -> NDArray[np.void]:
    rows = np.empty(len(lines), ETHERTYPE_COUNTER)
    rows["attachment"] = lines["rest"]["context"] >> records.CONTEXT_ATTACHMENT_SHIFT
    rows["ethertype"] = lines["src_addr_be"]
    for name in ("packets", "bytes", "skbs"):
        rows[name] = lines["state"][name]
    return rows
