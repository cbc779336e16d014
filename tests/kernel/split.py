"""Frames in pieces: only the first bytes of a buffer are linear, so that headers lie across the edge or behind it."""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
import socket
import struct
from collections.abc import Sequence

from hosts.devices import Port
from hosts.netns import wait_until

_libc = ctypes.CDLL(None, use_errno=True)
BPF_PROG_TEST_RUN = 10
BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}[platform.machine()]


def linux_release() -> tuple[int, int]:
    """Of the running kernel, (6, 18)."""
    major, minor = re.match(r"(\d+)\.(\d+)", platform.release()).groups()  # type: ignore[union-attr]
    return int(major), int(minor)


#: Since 6.18 (fe9544ed1a2e) data_end in the context of an XDP test run says how much of the packet is linear.
XDP_SPLITS = platform.system() == "Linux" and linux_release() >= (6, 18)


def run_xdp_split(program_fd: int, frame: bytes, linear_bytes: int) -> int:
    """The verdict of an XDP program on `frame`, `linear_bytes` of it linear and the rest in frags. Raises OSError."""
    data = ctypes.create_string_buffer(frame, len(frame))
    context = ctypes.create_string_buffer(struct.pack("=6I", 0, linear_bytes, 0, 0, 0, 0), 24)
    at = ctypes.addressof
    fields = (program_fd, 0, len(frame), 0, at(data), 0, 1, 0, len(context), 0, at(context), 0)
    attributes = ctypes.create_string_buffer(struct.pack("=IIIIQQIIIIQQ", *fields), 80)
    if _libc.syscall(BPF_SYSCALL, BPF_PROG_TEST_RUN, attributes, len(attributes)) < 0:
        raise OSError(ctypes.get_errno(), f"test run of {len(frame)} bytes, {linear_bytes} linear")
    return int(struct.unpack_from("=I", attributes.raw, 4)[0])


SOL_PACKET, PACKET_TX_RING, PACKET_VERSION, TPACKET_V2 = 263, 13, 10, 1  # linux/if_packet.h
TP_STATUS_SEND_REQUEST = 1
DATA_OFFSET = 32  # of the frame in its slot
SLOT_BYTES = 16384


def send_ring(port: Port, frames: Sequence[bytes]) -> None:
    """Each frame once through a PACKET_TX_RING: only the Ethernet header of its skb is linear, the rest is in pages."""
    with port.host.entered():
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with packets:
        packets.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        shape = struct.pack("=IIII", SLOT_BYTES, len(frames), SLOT_BYTES, len(frames))
        packets.setsockopt(SOL_PACKET, PACKET_TX_RING, shape)
        packets.bind((port.device, 0))
        with mmap.mmap(packets.fileno(), SLOT_BYTES * len(frames), mmap.MAP_SHARED) as ring:
            slots = range(0, SLOT_BYTES * len(frames), SLOT_BYTES)
            for slot, frame in zip(slots, frames, strict=True):
                ring[slot + DATA_OFFSET : slot + DATA_OFFSET + len(frame)] = frame
                ring[slot : slot + 8] = struct.pack("=II", TP_STATUS_SEND_REQUEST, len(frame))
            assert packets.send(b"") == sum(map(len, frames))
            wait_until(lambda: not any(struct.unpack_from("=I", ring, slot)[0] for slot in slots), "the ring is empty")
