"""The kernel's programs as an engine for captures: one test run for each frame, without a device."""

from __future__ import annotations

import contextlib
import errno
import struct

import numpy as np
from numpy.typing import NDArray

from wiremeter.captures.file import Frames
from wiremeter.captures.meter import HostMeter, OnPayloads
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.host import LINK_ETHERNET
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.naming import NO_NAMES, NameOptions
from wiremeter.errors import KernelError
from wiremeter.flows.columns import ETHERTYPE_LLC, ETHERTYPE_NONE
from wiremeter.linux.host import read_host

ETHERNET_BYTES = 14
#: Longest frame that a tc test run takes with 4 KiB pages. An XDP one takes fragments too, some 70 KiB.
TC_LONGEST = 3712
#: Bytes that a tc test run wants of a frame with one of these ethertypes.
_TC_SHORTEST = {0x0800: ETHERNET_BYTES + 20, 0x86DD: ETHERNET_BYTES + 40}
_TAGS = (0x8100, 0x88A8, 0x9100)
#: Numbers in the ethertype's place that the parser reads as these.
_STAND_INS = {ETHERTYPE_LLC: 1, ETHERTYPE_NONE: 0x5FF}
#: Frames between two looks at whether a flip was asked for.
_LOOK_EVERY = 64


class KernelMeter:
    """The kernel engine as a FrameMeter: the tc program where a test run takes the frame, else the XDP program.

    Frames that neither takes are counted by the host engine. Needs root.
    """

    def __init__(
        self,
        table_lines: int | None = None,
        names: NameOptions = NO_NAMES,
        on_payloads: OnPayloads | None = None,
    ) -> None:
        """names, on_payloads: which payloads go where.

        Raises PermissionNeeded or KernelError, naming what is in the way.
        """
        host = read_host()
        plan = plan_tables(host.cpu_numbers, table_lines, host.memory_limit_bytes, attachments=2)
        self._resources = contextlib.ExitStack()
        with contextlib.ExitStack() as opening:
            self._engine = opening.enter_context(
                KernelEngine(plan, test_runs=True, payload_limit=names.limit, payload_sources=names.sources)
            )
            self._tc = self._engine.attach(Hook("capture", 0, "rx", "tcx", load_only=True))
            self._xdp = self._engine.attach(Hook("capture", 0, "rx", "xdp", load_only=True))
            self._resources = opening.pop_all()
        self._on_payloads = on_payloads
        self._host = HostMeter(table_lines=table_lines, names=names, on_payloads=on_payloads)
        self.counted_by_host = self._host.counted_by_host
        self.table_lines = plan.lines
        self.table_bytes = plan.bytes

    def close(self) -> None:
        """Frees the tables and programs."""
        self._resources.close()

    def count(self, frames: Frames) -> int:
        for number in range(len(frames)):
            if number % _LOOK_EVERY == 0:
                self._take_payloads()
                if self._engine.flip_requests.take():
                    return number
            self._count_one(frames, number)
        self._take_payloads()
        return len(frames)

    def _take_payloads(self) -> None:
        for ring in self._engine.payload_rings:
            while len(block := self._engine.take_payloads(ring)):
                assert self._on_payloads
                self._on_payloads(block)

    def flip(self) -> list[tuple[Drain, dict[int, int]]]:
        drains = [(self._engine.flip(), {self._tc.slot: 0, self._xdp.slot: 0}), *self._host.flip()]
        for drain, _ in drains:
            for rows in drain.flows:
                rows["hash"] = _hash(rows)
            # Both programs may have met the same flow: what is merged are rows of different parts.
            drain.flows = [
                rows[rows["attachment"] == slot] for rows in drain.flows for slot in np.unique(rows["attachment"])
            ]
        return drains

    def _count_one(self, frames: Frames, number: int) -> None:
        if frames.offloads is not None and frames.offloads["gso_size"][number]:
            self._count_on_host(frames, number, "cut into segments of an assumed MSS")
            return
        packet, wire_bytes = _as_ethernet(frames, number)
        if len(packet) < ETHERNET_BYTES:
            self._count_on_host(frames, number, f"of under {ETHERNET_BYTES} bytes")
            return
        if not wire_bytes:  # a test run would take this for not given
            self._count_on_host(frames, number, "of no length on the wire")
            return
        entry = self._tc if _taken_by_tc(packet) else self._xdp
        try:
            entry.run(packet, time_ns=int(frames.times_ns[number]), wire_bytes=wire_bytes)
        except KernelError as error:
            if len(packet) <= TC_LONGEST or error.errno not in (errno.EINVAL, errno.ENOMEM):
                raise
            self._count_on_host(frames, number, f"of over {TC_LONGEST} bytes, which this kernel's test runs refuse")

    def _count_on_host(self, frames: Frames, number: int, why: str) -> None:
        self.counted_by_host[why] = self.counted_by_host.get(why, 0) + 1
        self._take_payloads()  # in order
        self._host.count(frames.part(number, number + 1))


def _as_ethernet(frames: Frames, number: int) -> tuple[bytes, int]:
    """The bytes for a test run and the length on the wire.

    A frame that begins with its network header gets an Ethernet header, which does not count. Of one that is not IP
    that header says all.
    """
    begin = int(frames.offsets[number])
    data = bytes(frames.data[begin : begin + int(frames.captured[number])])
    link, wire_bytes = int(frames.links[number]), int(frames.wire[number])
    if link == LINK_ETHERNET:
        return data, wire_bytes
    header = bytes(ETHERNET_BYTES - 2) + struct.pack(">H", _STAND_INS.get(link, link))
    return header + (data if link in _TC_SHORTEST or link in _TAGS else b""), wire_bytes


def _taken_by_tc(packet: bytes) -> bool:
    shortest = _TC_SHORTEST.get(int.from_bytes(packet[12:14]), ETHERNET_BYTES)
    return shortest <= len(packet) <= TC_LONGEST


def _hash(rows: NDArray[np.void]) -> NDArray[np.uint32]:
    """One hash for a flow whichever program or engine counted it: theirs go by the attachment too."""
    mixed = np.zeros(len(rows), np.uint64)
    for name in ("src_addr", "dst_addr"):
        for word in np.ascontiguousarray(rows[name]).view(np.uint64).T:
            mixed = (mixed ^ word) * np.uint64(0x9E3779B97F4A7C15)
    for name in ("src_port", "dst_port", "vlan", "protocol", "family"):
        mixed = (mixed ^ rows[name]) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(32)).astype(np.uint32)
