"""Packets as columns of numbers → Ethernet frames as bytes, with the lengths and checksums that they must have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wiremeter.captures.file import Frames
from wiremeter.datapath.host import LINK_ETHERNET

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
#: `protocol` of packets that are ARP instead of IP.
NOT_IP = 0

ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
NO_VLAN = -1

#: First addresses. Clients: private, or of no one in particular; servers: for benchmarks (RFC 2544, RFC 6598).
IPV4_HOSTS, IPV4_ANYWHERE, IPV4_SERVERS = 0x0A000001, 0x64400000, 0xC6120001
#: IPv6 addresses are this prefix, for documentation (RFC 3849), and the IPv4 one.
IPV6_PREFIX = (0x20010DB8, 0, 0)
ANYWHERE_MAX = 1 << 22

_RECORD = np.dtype([("seconds", "<u4"), ("nanoseconds", "<u4"), ("captured", "<u4"), ("wire", "<u4")])
#: Version 2.4, UTC, nanoseconds, frames of up to 256 KiB, Ethernet.
_PCAP_HEADER = np.array([0xA1B23C4D, 2 | 4 << 16, 0, 0, 1 << 18, 1], "<u4")
#: What all payloads begin with: a DNS question for simulated.test, so that those on port 53 are well-formed (RFC 1035).
_QUESTION = bytes.fromhex("53550100 0001 0000 0000 0000") + b"\x09simulated\x04test\x00" + bytes.fromhex("00010001")
_MAC: list[Any] = [("dst_high", ">u2"), ("dst_low", ">u4"), ("src_high", ">u2"), ("src_low", ">u4")]
_ETHERNET: list[Any] = [("mac", _MAC)]
_TAG: list[Any] = [("tag_type", ">u2"), ("tag", ">u2")]
_IPV4: list[Any] = [
    ("version_ihl", "u1"), ("class", "u1"), ("length", ">u2"), ("id", ">u2"), ("fragment", ">u2"),
    ("ttl", "u1"), ("protocol", "u1"), ("ip_checksum", ">u2"), ("src", ">u4"), ("dst", ">u4"),
]  # fmt: skip
_IPV6: list[Any] = [
    ("version_class", ">u4"), ("length", ">u2"), ("protocol", "u1"), ("ttl", "u1"),
    ("src_prefix", ">u4", (3,)), ("src", ">u4"), ("dst_prefix", ">u4", (3,)), ("dst", ">u4"),
]  # fmt: skip
_L4: dict[int, list[Any]] = {
    TCP: [
        ("sport", ">u2"), ("dport", ">u2"), ("seq", ">u4"), ("ack", ">u4"), ("flags", ">u2"),
        ("window", ">u2"), ("checksum", ">u2"), ("urgent", ">u2"),
    ],
    UDP: [("sport", ">u2"), ("dport", ">u2"), ("udp_length", ">u2"), ("checksum", ">u2")],
    ICMP: [("type", "u1"), ("code", "u1"), ("checksum", ">u2"), ("echo_id", ">u2"), ("echo_seq", ">u2")],
}  # fmt: skip
_ARP: list[Any] = [
    ("hardware", ">u2"), ("network", ">u2"), ("sizes", ">u2"), ("operation", ">u2"),
    ("sha_high", ">u2"), ("sha_low", ">u4"), ("spa", ">u4"), ("tha_high", ">u2"), ("tha_low", ">u4"), ("tpa", ">u4"),
]  # fmt: skip

_CHUNK_BYTES = 1 << 22
_MAC_HIGH = 0x0200  # locally administered


class Packets(NamedTuple):
    """Packets in order of time, as columns of shape (n,).

    protocol: ICMP (also where it is to be ICMPv6), TCP, UDP or NOT_IP. client_addr, server_addr: of IPv4, or the low
    32 bits. payload: bytes behind the headers. number: goes up from packet to packet, for identifications.
    flow: a number that only packets of the same flow share, negative for NOT_IP.
    """

    times_ns: NDArray[np.uint64]
    protocol: NDArray[np.uint8]
    is_ipv6: NDArray[np.bool_]
    is_from_server: NDArray[np.bool_]
    client_addr: NDArray[np.uint32]
    server_addr: NDArray[np.uint32]
    client_port: NDArray[np.uint16]
    server_port: NDArray[np.uint16]
    payload: NDArray[np.uint32]
    flags: NDArray[np.uint16]
    seq: NDArray[np.uint32]
    ack: NDArray[np.uint32]
    number: NDArray[np.uint32]
    flow: NDArray[np.int64]

    def part(self, chosen: slice | NDArray[Any]) -> Packets:
        """Some of them."""
        return Packets._make(column[chosen] for column in self)


class FrameBuilder:
    """Builds frames in one buffer, which it uses again.

    Each frame has a row; its headers end where the payload begins, at the same place in every row. All payloads begin
    alike, so they are written once and their checksums looked up.
    """

    def __init__(self, mtu: int, vlan: int = NO_VLAN) -> None:
        """mtu: bytes of the largest IP packet. vlan: tag of all frames, or NO_VLAN."""
        self._tag = vlan
        self._shapes = {
            (protocol, is_ipv6): np.dtype(
                _ETHERNET
                + (_TAG if vlan != NO_VLAN else [])
                + [("ethertype", ">u2")]
                + (_IPV6 if is_ipv6 else _IPV4)
                + l4
            )
            for protocol, l4 in _L4.items()
            for is_ipv6 in (False, True)
        }
        self._shapes[NOT_IP, False] = np.dtype(
            _ETHERNET + (_TAG if vlan != NO_VLAN else []) + [("ethertype", ">u2"), *_ARP]
        )
        self._payload_at = _RECORD.itemsize + max(shape.itemsize for shape in self._shapes.values())
        pattern = (np.arange(mtu + mtu % 2) * 7 + 0x20).astype(np.uint8)
        pattern[: len(_QUESTION)] = np.frombuffer(_QUESTION, np.uint8)
        stride = -(-(self._payload_at + len(pattern)) // 8) * 8
        self._rows = np.zeros((max(64, _CHUNK_BYTES // stride), stride), np.uint8)
        self._rows[:, self._payload_at : self._payload_at + len(pattern)] = pattern
        self._sums = _sums_of_prefixes(pattern)

    def frames(self, packets: Packets) -> Iterator[Frames]:
        """All of them in order, in groups; a group is valid until the next one is taken."""
        for first in range(0, len(packets.times_ns), len(self._rows)):
            yield self._build(packets.part(slice(first, first + len(self._rows))))

    def records(self, frames: Frames) -> bytes:
        """The frames of a group that was built here as records of a pcap file (nanoseconds, little-endian)."""
        starts = frames.offsets.astype(np.intp) - _RECORD.itemsize
        heads = np.zeros(len(frames), _RECORD)
        heads["seconds"], heads["nanoseconds"] = np.divmod(frames.times_ns, np.uint64(10**9))
        heads["captured"] = heads["wire"] = frames.wire
        flat = self._rows.reshape(-1)
        flat[starts[:, None] + np.arange(_RECORD.itemsize)] = heads.view(np.uint8).reshape(len(frames), -1)
        ends = starts + _RECORD.itemsize + frames.captured
        view = frames.data
        return b"".join([view[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)])

    def _build(self, packets: Packets) -> Frames:
        count = len(packets.times_ns)
        lengths = np.zeros(count, np.uint32)
        for (protocol, is_ipv6), shape in self._shapes.items():
            (rows,) = np.nonzero((packets.protocol == protocol) & (packets.is_ipv6 == is_ipv6))
            if len(rows):
                heads = self._heads(shape, protocol, is_ipv6, packets.part(rows))
                self._rows[rows, self._payload_at - shape.itemsize : self._payload_at] = heads.view(np.uint8).reshape(
                    len(rows), shape.itemsize
                )
                lengths[rows] = shape.itemsize
        offsets = np.arange(count, dtype=np.uint64) * np.uint64(self._rows.shape[1])
        offsets += np.uint64(self._payload_at) - lengths
        lengths += packets.payload
        links = np.full(count, LINK_ETHERNET, np.uint32)
        data = self._rows.data.cast("B")
        return Frames(data, offsets, lengths, lengths, np.ascontiguousarray(packets.times_ns), links)

    def _heads(self, shape: np.dtype[np.void], protocol: int, is_ipv6: bool, packets: Packets) -> NDArray[np.void]:
        """All headers of packets of one shape."""
        heads = np.zeros(len(packets.times_ns), shape)
        back = packets.is_from_server
        src, dst = _swapped(packets.client_addr, packets.server_addr, back)
        mac = heads["mac"]
        mac["src_high"] = mac["dst_high"] = _MAC_HIGH
        mac["src_low"], mac["dst_low"] = src, dst
        if self._tag != NO_VLAN:
            heads["tag_type"], heads["tag"] = ETHERTYPE_VLAN, self._tag
        if protocol == NOT_IP:
            _fill_arp(heads, src, dst, back)
            return heads
        l4_offset = shape.fields["sport" if protocol != ICMP else "type"][1]  # type: ignore[index]
        l4_bytes = packets.payload + np.uint32(shape.itemsize - l4_offset)
        number = ICMP6 if protocol == ICMP and is_ipv6 else protocol
        heads["src"], heads["dst"], heads["ttl"], heads["protocol"] = src, dst, 64, number
        words = heads.view(">u2").reshape(len(heads), -1)
        if is_ipv6:
            heads["ethertype"], heads["version_class"], heads["length"] = ETHERTYPE_IPV6, 6 << 28, l4_bytes
            heads["src_prefix"] = heads["dst_prefix"] = IPV6_PREFIX
        else:
            heads["ethertype"], heads["version_ihl"], heads["length"] = ETHERTYPE_IPV4, 0x45, l4_bytes + 20
            heads["id"], heads["fragment"] = packets.number & 0xFFFF, 0x4000  # DF
            ip_at = shape.fields["version_ihl"][1] // 2  # type: ignore[index]
            heads["ip_checksum"] = _checksum(words[:, ip_at : l4_offset // 2].sum(axis=1, dtype=np.uint64))
        _fill_l4(heads, protocol, is_ipv6, packets, l4_bytes)
        sums = words[:, l4_offset // 2 :].sum(axis=1, dtype=np.uint64) + self._sums[packets.payload]
        if number != ICMP:  # which alone has no pseudo header
            addresses_at = shape.fields["src_prefix" if is_ipv6 else "src"][1] // 2  # type: ignore[index]
            sums += words[:, addresses_at : l4_offset // 2].sum(axis=1, dtype=np.uint64) + l4_bytes + np.uint64(number)
        checksum = _checksum(sums)
        # In UDP 0 says that there is none (RFC 768).
        heads["checksum"] = np.where(checksum == 0, 0xFFFF, checksum) if protocol == UDP else checksum
        return heads


def pcap_header() -> bytes:
    """What a pcap file begins with whose records FrameBuilder.records() made."""
    return _PCAP_HEADER.tobytes()


def _fill_arp(
    heads: NDArray[np.void], src: NDArray[np.uint32], dst: NDArray[np.uint32], is_reply: NDArray[np.bool_]
) -> None:
    heads["ethertype"], heads["hardware"], heads["network"], heads["sizes"] = ETHERTYPE_ARP, 1, ETHERTYPE_IPV4, 0x0604
    heads["operation"] = np.where(is_reply, 2, 1)
    heads["sha_high"], heads["sha_low"], heads["spa"], heads["tpa"] = _MAC_HIGH, src, src, dst
    heads["tha_high"], heads["tha_low"] = np.where(is_reply, _MAC_HIGH, 0), np.where(is_reply, dst, 0)
    mac = heads["mac"]
    mac["dst_high"] = np.where(is_reply, _MAC_HIGH, 0xFFFF)
    mac["dst_low"] = np.where(is_reply, dst, 0xFFFFFFFF)


def _fill_l4(
    heads: NDArray[np.void], protocol: int, is_ipv6: bool, packets: Packets, l4_bytes: NDArray[np.uint32]
) -> None:
    back = packets.is_from_server
    if protocol == ICMP:
        request, reply = (128, 129) if is_ipv6 else (8, 0)
        heads["type"], heads["echo_id"] = np.where(back, reply, request), packets.client_port
        heads["echo_seq"] = packets.number & 0xFFFF
        return
    heads["sport"], heads["dport"] = _swapped(packets.client_port, packets.server_port, back)
    if protocol == UDP:
        heads["udp_length"] = l4_bytes
        return
    heads["seq"], heads["ack"], heads["window"] = packets.seq, packets.ack, 0xFAF0
    heads["flags"] = packets.flags | 5 << 12


def _swapped(one: NDArray[Any], other: NDArray[Any], swap: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.where(swap, other, one), np.where(swap, one, other)


def _checksum(sums: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The Internet checksum (RFC 1071) for sums of 16-bit words.

    >>> _checksum(np.array([0x2DDF0], "u8")).tolist() == [0xFFFF - 0xDDF2]
    True
    """
    for _ in range(3):
        sums = (sums & np.uint64(0xFFFF)) + (sums >> np.uint64(16))
    return sums ^ np.uint64(0xFFFF)


def _sums_of_prefixes(pattern: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Sums of the 16-bit words of the first 0, 1, ... bytes; an odd last byte is filled up with zero."""
    weights = np.where(np.arange(len(pattern)) % 2, 1, 256)
    return np.concatenate(([0], np.cumsum(pattern * weights))).astype(np.uint64)
