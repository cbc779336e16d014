"""Capture files made by hand: pcap and pcapng, in both byte orders and any resolution."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

ETHERNET = 1
SECOND = 10**9


class Record(NamedTuple):
    """One frame: its bytes that are there, its time, and its length on the wire if that is another."""

    data: bytes
    time_ns: int = 1_700_000_000 * SECOND
    wire: int | None = None

    @property
    def wire_bytes(self) -> int:
        return len(self.data) if self.wire is None else self.wire


def pcap(records: Iterable[Record], linktype: int = ETHERNET, *, order: str = "<", nanoseconds: bool = False) -> bytes:
    """A pcap file; order: "<" or ">"."""
    magic, tick = (0xA1B23C4D, 1) if nanoseconds else (0xA1B2C3D4, 1000)
    return struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, linktype) + b"".join(
        struct.pack(f"{order}IIII", r.time_ns // SECOND, r.time_ns % SECOND // tick, len(r.data), r.wire_bytes) + r.data
        for r in records
    )


class Pcapng:
    """A pcapng file, block by block."""

    def __init__(self, order: str = "<") -> None:
        self.order = order
        self.bytes = b""
        self.section(order)

    def section(self, order: str) -> Pcapng:
        self.order = order
        return self.block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))

    def block(self, kind: int, body: bytes) -> Pcapng:
        body += bytes(-len(body) % 4)
        length = struct.pack(f"{self.order}I", len(body) + 12)
        self.bytes += struct.pack(f"{self.order}I", kind) + length + body + length
        return self

    def option(self, code: int, value: bytes) -> bytes:
        return struct.pack(f"{self.order}HH", code, len(value)) + value + bytes(-len(value) % 4)

    def interface(
        self, linktype: int = ETHERNET, snaplen: int = 0, resolution: int | None = None, offset: int | None = None
    ) -> Pcapng:
        """resolution: if_tsresol; offset: if_tsoffset, in seconds."""
        options = self.option(2, b"eth0")
        if resolution is not None:
            options += self.option(9, bytes([resolution]))
        if offset is not None:
            options += self.option(14, struct.pack(f"{self.order}q", offset))
        body = struct.pack(f"{self.order}HHI", linktype, 0, snaplen) + options + self.option(0, b"")
        return self.block(1, body)

    def packet(self, data: bytes, ticks: int = 0, interface: int = 0, wire: int | None = None) -> Pcapng:
        """An enhanced packet block."""
        head = struct.pack(f"{self.order}I", interface) + self._ticks(ticks) + self._lengths(data, wire)
        padded = data + bytes(-len(data) % 4)
        return self.block(6, head + padded + self.option(1, b"a comment") + self.option(0, b""))

    def old_packet(self, data: bytes, ticks: int = 0, interface: int = 0, wire: int | None = None) -> Pcapng:
        """The obsolete packet block."""
        head = struct.pack(f"{self.order}HH", interface, 0) + self._ticks(ticks) + self._lengths(data, wire)
        return self.block(2, head + data)

    def simple_packet(self, data: bytes, wire: int | None = None) -> Pcapng:
        return self.block(3, struct.pack(f"{self.order}I", len(data) if wire is None else wire) + data)

    def _ticks(self, ticks: int) -> bytes:
        return struct.pack(f"{self.order}II", ticks >> 32, ticks & 0xFFFFFFFF)

    def _lengths(self, data: bytes, wire: int | None) -> bytes:
        return struct.pack(f"{self.order}II", len(data), len(data) if wire is None else wire)


def udp(src: int = 1, dst: int = 2, sport: int = 1000, dport: int = 53, payload: bytes = b"payload") -> bytes:
    """An IPv4 packet with a UDP datagram, from 10.0.0.src to 10.0.0.dst."""
    datagram = struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload
    head = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0, 0x0A000000 + src, 0x0A000000 + dst)
    return head + datagram


def udp6(src: int = 1, dst: int = 2, sport: int = 1000, dport: int = 53, payload: bytes = b"payload") -> bytes:
    """An IPv6 packet with a UDP datagram, from 2001:db8::src to 2001:db8::dst."""
    datagram = struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload
    addresses = b"".join(bytes.fromhex("20010db8") + bytes(10) + number.to_bytes(2) for number in (src, dst))
    return struct.pack(">IHBB", 6 << 28, len(datagram), 17, 64) + addresses + datagram


def ethernet(packet: bytes, ethertype: int | None = None, *tags: tuple[int, int]) -> bytes:
    """A frame; the ethertype is that of the packet's version unless given. tags: (TPID, VLAN id), outermost first."""
    if ethertype is None:
        ethertype = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    head = bytes.fromhex("020000000002020000000001")
    return head + b"".join(struct.pack(">HH", *tag) for tag in tags) + struct.pack(">H", ethertype) + packet
