"""Tables that another wiremeter made, with records of another layout or of another size: read once, by what they say.

Nobody adds to them any more. Slow beside `regions`, since fields are found by their names; it happens once an upgrade.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.flows.columns import ETHERTYPE_COUNTER, FLOW, VLAN_NONE


class OldTables:
    """The two halves of tables, as the wiremeter that made them has described them."""

    def __init__(
        self,
        described: Mapping[str, Any],
        plan: tuple[int, int, int],
        tables: mmap.mmap,
        overflow: mmap.mmap,
    ) -> None:
        """described: as records.described. plan: lines, regions and attachments.

        Raises ValueError, KeyError or TypeError if not even the counters can be found.
        """
        self._dtypes = {name: records.dtype_described(of) for name, of in described["structs"].items()}
        self._constants: dict[str, int] = described["constants"]
        self._reasons: list[str] = described["reasons"]
        self._sources: list[str] = described["sources"]
        self._lines, self._regions, self._slots = plan
        self._tables, self._overflow = tables, overflow
        self._header, self._counters = self._dtypes["wm_region_header"], self._dtypes["wm_counters"]
        self._touched_at = self._header.itemsize + self._slots * self._counters.itemsize
        self._lines_at = -(-(self._touched_at + self._lines * 4) // 128) * 128
        self._region_bytes = -(-(self._lines_at + self._lines * self._constants["line_bytes"]) // 4096) * 4096
        if "rows" not in (self._counters.names or ()):
            raise ValueError("no counters")

    def read(self, half: int, tick_ns: int, origin_ns: int) -> Drain:
        """All counts of one half. What has no place in today's records is in `unreadable`, by slot."""
        counters = np.zeros((self._slots, records.ROWS, 3), np.uint64)
        flows: list[NDArray[np.void]] = []
        ethertypes: list[NDArray[np.void]] = []
        payloads, lost_payloads = np.zeros((2, len(records.SOURCES)), np.uint64)
        unreadable: dict[int, tuple[int, int, int]] = {}
        for cpu in range(self._regions):
            at = (half * self._regions + cpu) * self._region_bytes
            own = np.zeros_like(counters)
            self._add_counters(self._tables, at, own)
            counters += own
            header = np.frombuffer(self._tables, self._header, 1, at)[0]
            self._add_payloads(header, payloads, lost_payloads)
            try:
                rows, kinds = self._rows(at, int(header["entries"]), tick_ns, origin_ns)
            except (ValueError, KeyError, TypeError, IndexError):
                self._add_unreadable(own, unreadable)
                continue
            flows.append(rows)
            ethertypes.append(kinds)
        self._add_counters(self._overflow, half * self._touched_at, counters)
        return Drain(
            counters=counters,
            flows=flows,
            ethertypes=np.concatenate(ethertypes) if ethertypes else np.zeros(0, ETHERTYPE_COUNTER),
            payloads=payloads,
            lost_payloads=lost_payloads,
            unreadable=unreadable,
        )

    def _add_counters(self, memory: mmap.mmap, at: int, to: NDArray[np.uint64]) -> None:
        """Rows up to the reasons mean the same as long as there are as many protocols; reasons go by their names."""
        counters = np.frombuffer(memory, self._counters, self._slots, at + self._header.itemsize)["rows"]
        rows = np.stack([counters[name] for name in records.TALLY.names or ()], axis=-1).astype(np.uint64)
        if self._constants["protocols"] != records.PROTOCOLS:
            raise ValueError(f"{self._constants['protocols']} protocols")
        to[:, : records.ROW_UNATTRIBUTED] += rows[:, : records.ROW_UNATTRIBUTED]
        for number, reason in enumerate(self._reasons):
            to[:, _row_of(reason)] += rows[:, records.ROW_UNATTRIBUTED + number]

    def _add_payloads(self, header: np.void, sent: NDArray[np.uint64], lost: NDArray[np.uint64]) -> None:
        names = header.dtype.names or ()
        for name, to in (("payloads", sent), ("lost_payloads", lost)):
            for number, source in enumerate(self._sources if name in names else ()):
                if source in records.SOURCES:
                    to[records.SOURCES.index(source)] += np.uint64(header[name][number])

    def _add_unreadable(self, counters: NDArray[np.uint64], to: dict[int, tuple[int, int, int]]) -> None:
        for slot in np.flatnonzero(counters.any(axis=(1, 2))).tolist():
            ip = counters[slot, : records.ROW_NON_IP].sum(axis=0).astype(np.int64)
            without = counters[slot, records.ROW_UNATTRIBUTED :].sum(axis=0).astype(np.int64)
            without -= counters[slot, _row_of("truncated_l2")].astype(np.int64)
            packets, size, skbs = (ip - without).tolist()
            before = to.get(slot, (0, 0, 0))
            to[slot] = (before[0] + packets, before[1] + size, before[2] + skbs)

    def _rows(self, at: int, entries: int, tick_ns: int, origin_ns: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
        line_bytes = self._constants["line_bytes"]
        touched = np.frombuffer(self._tables, "u4", entries, at + self._touched_at)
        lines = np.frombuffer(self._tables, f"V{line_bytes}", self._lines, at + self._lines_at)

        def of(dtype: np.dtype[Any], numbers: NDArray[np.uint32]) -> NDArray[np.void]:
            """Records of one or two lines, as they lie."""
            parts = [lines[numbers + more] for more in range(-(-dtype.itemsize // line_bytes))]
            raw = np.stack(parts, axis=1).view("u1").reshape(len(numbers), len(parts) * line_bytes)
            raw = raw[:, : dtype.itemsize]
            return np.ascontiguousarray(raw).view(dtype)[:, 0]

        four, six = self._dtypes["wm_flow4"], self._dtypes["wm_flow6"]
        context = of(four, touched)["head"]["context"]
        is_six = context >> self._constants["v6_shift"] & 1 == 1
        vlan = context >> self._constants["vlan_shift"] & (2 * self._constants["vlan_tagged"] - 1)
        is_non_ip = vlan == self._constants["vlan_non_ip"]
        v4, v6 = of(four, touched[~is_six & ~is_non_ip]), of(six, touched[is_six])
        rows = np.zeros(len(v4) + len(v6), FLOW)
        for family, entry, to in ((4, v4, rows[: len(v4)]), (6, v6, rows[len(v4) :])):
            for side in ("src", "dst"):
                to[f"{side}_addr"] = _addresses(entry[f"{side}_addr_be"], family)
                to[f"{side}_port"] = entry["head"][f"{side}_port_be"].byteswap()  # little-endian hosts only
            of_entry = entry["head"]["context"]
            tag = of_entry >> self._constants["vlan_shift"] & (2 * self._constants["vlan_tagged"] - 1)
            is_tagged = tag & self._constants["vlan_tagged"] != 0
            to["vlan"] = np.where(is_tagged, tag & (self._constants["vlan_tagged"] - 1), VLAN_NONE)
            to["attachment"] = (of_entry >> self._constants["attachment_shift"]) - 1
            to["protocol"], to["family"] = of_entry & 0xFF, family
            to["tcp_flags"], to["hash"] = entry["cold"]["tcp_flags"], entry["cold"]["hash"]
            to["packets"], to["bytes"] = entry["hot"]["packets"], entry["hot"]["bytes"]
            to["skbs"] = to["packets"] - entry["cold"]["merged"]
            to["first_ns"] = origin_ns + entry["cold"]["first"] * np.uint64(tick_ns)
            to["last_ns"] = origin_ns + entry["hot"]["last"] * np.uint64(tick_ns)
        frames = of(four, touched[is_non_ip])
        kinds = np.zeros(len(frames), ETHERTYPE_COUNTER)
        kinds["attachment"] = (frames["head"]["context"] >> self._constants["attachment_shift"]) - 1
        kinds["ethertype"] = frames["src_addr_be"]
        kinds["packets"], kinds["bytes"] = frames["hot"]["packets"], frames["hot"]["bytes"]
        kinds["skbs"] = kinds["packets"] - frames["cold"]["merged"]
        return rows, kinds


def _row_of(reason: str) -> int:
    """Raises ValueError for a reason that there is none of today."""
    return records.ROW_UNATTRIBUTED + records.REASONS.index(reason)


def _addresses(words: NDArray[Any], family: int) -> NDArray[Any]:
    """As a column of FLOW has them: 16 bytes in network order."""
    raw = np.ascontiguousarray(words).view("u1").reshape(len(words), 4 if family == 4 else 16)
    if family == 4:
        mapped = np.zeros((len(words), 16), np.uint8)
        mapped[:, 10:12], mapped[:, 12:] = 0xFF, raw
        raw = mapped
    return raw
