"""Blocks of a packet socket's ring, built as the kernel writes them, and what the engine makes of their frames."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from wiremeter.datapath._host import ffi, lib

from wiremeter.datapath import records
from wiremeter.datapath.host import LINK_ETHERNET, OFFLOAD, HostEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.flows.columns import ETHERTYPE_NONE

BLOCK_BYTES = 1 << 16
#: linux/if_packet.h: struct tpacket_block_desc, tpacket3_hdr, sockaddr_ll; linux/virtio_net.h.
BLOCK = struct.Struct("=IIIIIIQ16x")
FRAME = struct.Struct("=IIIIIIHHIIHHQ")
ADDRESS = struct.Struct("=HHiHBB8s")
VNET = struct.Struct("=BBHHHH")
USER, VLAN_VALID = 1 << 0, 1 << 4
NEEDS_CSUM, GSO_TCPV4, GSO_UDP, GSO_UDP_L4, GSO_ECN = 1, 1, 3, 5, 0x80
FRAME_AT = 112  # of its header: 48 + 20, a virtio_net_hdr, and room to align what is behind Ethernet

MACS = bytes(12)
IPV4 = bytes.fromhex("4500 0000 0000 0000 40 06 0000 0a000001 0a000002")
TCP = struct.pack(">HHIIBBHHH", 4000, 80, 1, 1, 8 << 4, 0x10, 0, 0, 0) + bytes(12)
FRAME_TCP = MACS + b"\x08\x00" + IPV4 + TCP


@dataclass(frozen=True)
class Slot:
    """One frame as it lies in a ring."""

    data: bytes = FRAME_TCP
    wire: int = 0
    time_ns: int = 1_000_000_007
    vlan: int | None = None
    vnet: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0)
    protocol: int = 0x0800


def block(slots: Sequence[Slot]) -> bytes:
    """A block of BLOCK_BYTES that the kernel has handed over."""
    made = b""
    for number, slot in enumerate(slots):
        length = -(-(FRAME_AT + len(slot.data)) // 8) * 8
        seconds, nanoseconds = divmod(slot.time_ns, 10**9)
        status = USER | (0 if slot.vlan is None else VLAN_VALID)
        following = 0 if number == len(slots) - 1 else length
        wire = slot.wire or len(slot.data)
        head = FRAME.pack(
            *(following, seconds, nanoseconds, len(slot.data), wire, status, FRAME_AT, FRAME_AT + 14),
            *(0, slot.vlan or 0, 0x8100, 0, 0),
        )
        head += ADDRESS.pack(17, struct.unpack("=H", struct.pack(">H", slot.protocol))[0], 1, 1, 0, 6, bytes(8))
        head = head.ljust(FRAME_AT - VNET.size, b"\0") + VNET.pack(*slot.vnet)
        made += (head + slot.data).ljust(length, b"\0")
    return (BLOCK.pack(1, 0, USER, len(slots), BLOCK.size, BLOCK.size + len(made), 1) + made).ljust(BLOCK_BYTES, b"\0")


class Reading:
    """A ring of one block behind an empty one, and arrays for what is read of it."""

    def __init__(self, slots: Sequence[Slot], *, capacity: int = 16, ethernet: bool = True) -> None:
        self.memory = mmap.mmap(-1, 2 * BLOCK_BYTES)
        self.memory[BLOCK_BYTES:] = block(slots)
        self.ring = ffi.from_buffer("uint8_t[]", self.memory)
        self.block = self.ring + BLOCK_BYTES
        self.ethernet = ethernet
        columns = (("offsets", "u8"), ("captured", "u4"), ("wire", "u4"), ("times_ns", "u8"), ("links", "u4"))
        self.arrays = {name: np.zeros(capacity, dtype) for name, dtype in columns}
        self.arrays["offloads"] = np.zeros(capacity, OFFLOAD)
        self.frames = ffi.new("struct wm_ring_frames *", {"capacity": capacity})
        for name, array in self.arrays.items():
            setattr(self.frames, name, ffi.cast(ffi.typeof(getattr(self.frames, name)), array.ctypes.data))
        self.place = ffi.new("struct wm_ring_place *", lib.wm_ring_begin(self.block))

    def read(self, until_ns: int = (1 << 64) - 1) -> int:
        """How many frames are there from the place on."""
        return int(
            lib.wm_ring_read(self.ring, BLOCK_BYTES, BLOCK_BYTES, self.place[0], self.ethernet, until_ns, self.frames)
        )

    def skip(self, count: int) -> None:
        """Goes on by so many frames."""
        lib.wm_ring_skip(self.block, BLOCK_BYTES, self.place, count)

    def tally(self) -> tuple[int, int, int]:
        """Packets, bytes and skbs of all that the engine counts of these frames."""
        engine = HostEngine(plan_tables(1, 256, attachments=2))
        slot, count = engine.attach("test"), self.read()
        counted = engine.count(slot, self.memory, *(array[:count] for array in self.arrays.values()))
        assert counted == count
        rows = engine.flip().counters[slot, : records.ROW_UNATTRIBUTED].sum(axis=0)
        packets, length, skbs = map(int, rows)
        return packets, length, skbs


def test_a_block_belongs_to_who_its_status_says() -> None:
    reading = Reading([Slot()])
    assert not lib.wm_ring_is_ours(reading.ring)
    assert lib.wm_ring_is_ours(reading.block)
    lib.wm_ring_release(reading.block)
    assert not lib.wm_ring_is_ours(reading.block)
    assert lib.wm_ring_frames_open(reading.block) == 1


def test_frames_are_where_the_kernel_put_them() -> None:
    slots = [Slot(FRAME_TCP + bytes(number), wire=900 + number, time_ns=10**18 + number) for number in range(5)]
    reading = Reading(slots)
    assert reading.read() == 5
    for number, slot in enumerate(slots):
        at, length = int(reading.arrays["offsets"][number]), int(reading.arrays["captured"][number])
        assert reading.memory[at : at + length] == slot.data
        assert reading.arrays["wire"][number] == slot.wire
        assert reading.arrays["times_ns"][number] == slot.time_ns
        assert reading.arrays["links"][number] == LINK_ETHERNET


def test_frames_from_before_the_clock_was_set_back_are_read_at_once() -> None:
    now, hour = 10**18, 3600 * 10**9
    reading = Reading([Slot(time_ns=time_ns) for time_ns in (now + hour, now + hour + 5, now, now + 20)])
    assert reading.read(until_ns=now + 10) == 3


def test_reading_ends_at_the_first_frame_that_is_too_young_and_goes_on_there() -> None:
    reading = Reading([Slot(time_ns=time_ns) for time_ns in (10, 20, 30, 40)])
    assert reading.read(until_ns=20) == 2
    reading.skip(2)
    assert reading.read(until_ns=20) == 0
    assert reading.read(until_ns=40) == 2
    reading.skip(2)
    assert reading.place.left == 0
    assert reading.read() == 0


def test_no_more_frames_are_read_than_there_is_room_for() -> None:
    reading = Reading([Slot(time_ns=number) for number in range(10)], capacity=4)
    seen = []
    while count := reading.read():
        seen += reading.arrays["times_ns"][:count].tolist()
        reading.skip(count)
    assert seen == list(range(10))


def test_a_frame_that_lies_beyond_the_block_ends_it() -> None:
    reading = Reading([Slot(), Slot()])
    struct.pack_into("=I", reading.memory, BLOCK_BYTES + BLOCK.size, BLOCK_BYTES)  # the first one's way to the second
    assert reading.read() == 1
    reading.skip(2)
    assert reading.place.left == 0


def test_a_tag_that_was_taken_off_is_on_the_wire_and_in_the_flow() -> None:
    assert Reading([Slot(vlan=0x6000 | 77)]).tally() == (1, len(FRAME_TCP) + 4, 1)
    reading = Reading([Slot(vlan=0x6000 | 77)])
    reading.read()
    assert reading.arrays["offloads"][0]["vlan"] == 0x1000 | 77
    assert Reading([Slot()]).tally() == (1, len(FRAME_TCP), 1)


def test_a_tag_of_number_0_is_a_tag() -> None:
    reading = Reading([Slot(vlan=0)])
    reading.read()
    assert reading.arrays["offloads"][0]["vlan"] == 0x1000


HEADERS = len(FRAME_TCP)


@pytest.mark.parametrize("kind", [GSO_TCPV4, GSO_TCPV4 | GSO_ECN])
@pytest.mark.parametrize("checksum", [(0, 0, 0), (NEEDS_CSUM, 34, 16)])
def test_a_super_packet_counts_as_its_segments(kind: int, checksum: tuple[int, int, int]) -> None:
    flags, start, at = checksum
    slot = Slot(wire=HEADERS + 10 * 1448 + 1, vnet=(flags, kind, HEADERS, 1448, start, at))
    assert Reading([slot]).tally() == (11, HEADERS + 10 * 1448 + 1 + 10 * HEADERS, 1)


def test_the_segments_of_a_super_packet_repeat_a_tag_in_metadata_too() -> None:
    slot = Slot(wire=HEADERS + 2 * 1448, vlan=5, vnet=(NEEDS_CSUM, GSO_TCPV4, HEADERS, 1448, 34, 16))
    assert Reading([slot]).tally() == (2, 2 * 1448 + 2 * (HEADERS + 4), 1)


def test_in_a_tunnel_the_segments_repeat_the_inner_headers() -> None:
    outer = MACS + b"\x08\x00" + bytes.fromhex("4500 0000 0000 0000 40 11 0000 0a000001 0a000002")
    outer += struct.pack(">HHHH", 9, 4789, 0, 0) + bytes(8)  # UDP, VXLAN
    whole = outer + FRAME_TCP
    slot = Slot(whole, wire=len(whole) + 3000, vnet=(NEEDS_CSUM, GSO_TCPV4, 0, 1000, len(outer) + 34, 16))
    assert Reading([slot]).tally() == (3, 3000 + 3 * len(whole), 1)


UDP_FRAME = MACS + b"\x08\x00" + IPV4[:9] + b"\x11" + IPV4[10:] + struct.pack(">HHHH", 9, 9, 0, 0)


def test_udp_segments_repeat_the_udp_header_and_fragments_do_not() -> None:
    segments = Slot(UDP_FRAME, wire=len(UDP_FRAME) + 2500, vnet=(NEEDS_CSUM, GSO_UDP_L4, 0, 1000, 34, 6))
    assert Reading([segments]).tally() == (3, 2500 + 3 * len(UDP_FRAME), 1)
    fragments = Slot(UDP_FRAME, wire=34 + 3000, vnet=(0, GSO_UDP, 0, 1000, 0, 0))
    assert Reading([fragments]).tally() == (3, 3000 + 3 * 34, 1)


def test_without_ethernet_a_frame_begins_with_what_its_protocol_says() -> None:
    slots = [Slot(IPV4 + TCP), Slot(b"\x60" + bytes(60), protocol=0x86DD), Slot(b"any", protocol=0x0003)]
    reading = Reading(slots, ethernet=False)
    assert reading.read() == 3
    assert reading.arrays["links"][:3].tolist() == [0x0800, 0x86DD, ETHERTYPE_NONE]
