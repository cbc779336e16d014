"""Super-packets of captures: told by what a link can carry, and computed as segments where a size is assumed.

Where the kernel puts TCP segments together (GRO) or has not cut them yet (TSO), a capture holds one frame for many on
the wire, and nothing in the file says so. The rule: a TCP or UDP packet, no fragment and not of a loopback device, is
one if it is longer than the MTU of its link. That is 1,500 bytes, or more where the capture shows it:

- a SYN announces a segment size (RFC 9293, 3.2): with headers, what its host can receive in one packet;
- a fragment or an ICMP packet, which no offload puts together, is longer;
- the longest packet of all has between 8,960 and 9,216 bytes: jumbo frames, whose MTU is in that range nearly always,
  while super-packets end near 64 KiB.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from wiremeter.captures.file import Frames
from wiremeter.datapath._host import ffi, lib
from wiremeter.datapath.host import OFFLOAD
from wiremeter.errors import InputError
from wiremeter.flows.batch import SuperPackets, Tally
from wiremeter.settings.words import ASSUMED_MSS

_JUMBO = range(8_960, 9_217)


class SuperPacketFinder:
    """Looks at all frames of a capture before they are counted."""

    def __init__(self, assumed_mss: int | None = None) -> None:
        """assumed_mss: TCP's packets with more payload are cut into such segments. Raises InputError out of range."""
        if assumed_mss is not None and not ASSUMED_MSS[0] <= assumed_mss <= ASSUMED_MSS[1]:
            raise InputError(f"an MSS of {assumed_mss}: it must be from {ASSUMED_MSS[0]} to {ASSUMED_MSS[1]}")
        self._mss = assumed_mss
        self._given = ffi.new("struct wm_host_frames *")
        self._found = ffi.new("struct wm_super_packets *")
        self._found.mtu = lib.WM_SUPER_MTU_USUAL
        self._found.assumed_mss = assumed_mss or 0
        self._ip_bytes = np.empty(0, np.uint32)
        self._longest = 0
        self._begin()

    def _begin(self) -> None:
        self._packets: Counter[int] = Counter()  # by length of the IP packet
        self._bytes: Counter[int] = Counter()
        self._computed = Tally()

    def _make_room(self, frames: int) -> None:
        if frames <= len(self._ip_bytes):
            return
        self._ip_bytes = np.empty(frames, np.uint32)
        self._offloads = np.empty(frames, OFFLOAD)
        self._found.ip_bytes = ffi.cast("uint32_t *", self._ip_bytes.ctypes.data)
        self._found.offloads = ffi.cast("struct wm_host_offload *", self._offloads.ctypes.data)

    def look(self, frames: Frames) -> Frames:
        """The same frames, with the segments of those that are cut. Valid until the next are looked at."""
        n = len(frames)
        self._make_room(n)
        given = self._given
        given.count, given.data_bytes = n, frames.data.nbytes
        given.data = data = ffi.from_buffer("uint8_t[]", frames.data)
        given.offsets = offsets = ffi.from_buffer("uint64_t[]", frames.offsets)
        given.captured = captured = ffi.from_buffer("uint32_t[]", frames.captured)
        given.wire = wire = ffi.from_buffer("uint32_t[]", frames.wire)
        given.links = links = ffi.from_buffer("uint32_t[]", frames.links)
        told = lib.wm_super_packets_find(given, self._found)
        del data, offsets, captured, wire, links  # until here what they point at had to be held
        if not told:
            return frames
        ip_bytes, offloads = self._ip_bytes[:n], self._offloads[:n]
        cut = offloads["gso_size"] > 0 if self._mss else np.zeros(n, np.bool_)
        self._computed = self._computed.plus(Tally(int(cut.sum()), int(frames.wire[cut].sum()), int(cut.sum())))
        whole = (ip_bytes > 0) & ~cut
        for length, wire in zip(ip_bytes[whole].tolist(), frames.wire[whole].tolist(), strict=True):
            self._packets[length] += 1
            self._bytes[length] += wire
        self._longest = max(self._longest, int(ip_bytes.max()))
        return Frames(*frames[:6], offloads) if self._mss else frames

    def take(self) -> SuperPackets:
        """What was found since the last call, by the MTU that the capture has shown until now."""
        mtu = int(self._found.mtu)
        if self._longest in _JUMBO:
            mtu = max(mtu, self._longest)
        longer = [length for length in self._packets if length > mtu]
        packets = sum(self._packets[length] for length in longer)
        left = Tally(packets, sum(self._bytes[length] for length in longer), packets)
        found = SuperPackets(mtu, left, self._computed, self._mss)
        self._begin()
        return found
