"""Frames byte by byte, right ones and wrong ones: every length, count and version can be given as it should not be."""

from __future__ import annotations

import ipaddress
import struct

MACS = bytes.fromhex("027700000002027700000001")
SRC4, DST4 = "192.0.2.1", "198.51.100.7"
SRC6, DST6 = "2001:db8::1", "2001:db8:ffff::7"
SPORT, DPORT = 40001, 443

IPV4, IPV6, ARP, LLDP, MPLS, PPPOE = 0x0800, 0x86DD, 0x0806, 0x88CC, 0x8847, 0x8864
VLAN, QINQ, QINQ_OLD = 0x8100, 0x88A8, 0x9100

# IANA protocol numbers.
HOPOPTS, ICMP, IGMP, TCP, EGP, UDP, DCCP, ROUTING, FRAGMENT, GRE, ESP, AH = 0, 1, 2, 6, 8, 17, 33, 43, 44, 47, 50, 51
ICMPV6, NO_NEXT, DSTOPTS, OSPF, SCTP, MOBILITY, UDPLITE = 58, 59, 60, 89, 132, 135, 136

SYN, ACK = 0x02, 0x10


def ethernet(ethertype: int, payload: bytes, *tags: tuple[int, int]) -> bytes:
    """An Ethernet frame; `tags` are (protocol identifier, tag control information) from the outside in."""
    stack = b"".join(struct.pack("!HH", *tag) for tag in tags)
    return MACS + stack + struct.pack("!H", ethertype) + payload


def over4(protocol: int, payload: bytes, *tags: tuple[int, int], **header: int | str | bytes) -> bytes:
    """A frame with an IPv4 packet; `header` as for `ipv4`."""
    return ethernet(IPV4, ipv4(protocol, payload, **header), *tags)  # type: ignore[arg-type]


def over6(next_header: int, payload: bytes, *tags: tuple[int, int], **header: int | str) -> bytes:
    """A frame with an IPv6 packet; `header` as for `ipv6`."""
    return ethernet(IPV6, ipv6(next_header, payload, **header), *tags)  # type: ignore[arg-type]


def ipv4(
    protocol: int,
    payload: bytes,
    *,
    src: str = SRC4,
    dst: str = DST4,
    version: int = 4,
    words: int | None = None,
    total_bytes: int | None = None,
    fragment: int = 0,
    more: bool = False,
    options: bytes = b"",
) -> bytes:
    """RFC 791, section 3.1. `fragment` is the offset in eights of bytes; `words` the header's claimed length."""
    head = 20 + len(options)
    first = version << 4 | (head // 4 if words is None else words)
    total = head + len(payload) if total_bytes is None else total_bytes
    fixed = struct.pack("!BBHHHBBH", first, 0, total, 77, more << 13 | fragment, 64, protocol, 0)
    return fixed + ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + options + payload


def ipv6(
    next_header: int,
    payload: bytes,
    *,
    src: str = SRC6,
    dst: str = DST6,
    version: int = 6,
    payload_bytes: int | None = None,
) -> bytes:
    """RFC 8200, section 3. `payload_bytes` is the claimed length of all behind the header."""
    claimed = len(payload) if payload_bytes is None else payload_bytes
    fixed = struct.pack("!IHBB", version << 28, claimed, next_header, 64)
    return fixed + ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + payload


def options(next_header: int, eights: int = 0) -> bytes:
    """A hop-by-hop or destination options header, or a routing header, all alike (RFC 8200, 4.3, 4.4, 4.6)."""
    return bytes([next_header, eights]) + bytes(6 + 8 * eights)


def fragment(next_header: int, offset: int = 0, *, more: bool = False) -> bytes:
    """A fragment header (RFC 8200, 4.5); `offset` in eights of bytes."""
    return struct.pack("!BBHI", next_header, 0, offset << 3 | more, 99)


def authentication(next_header: int, words: int = 4) -> bytes:
    """An authentication header, its length in fours of bytes less two (RFC 4302, section 2.2)."""
    return bytes([next_header, words]) + bytes(4 * (words + 2) - 2)


def tcp(payload: bytes = b"", *, sport: int = SPORT, dport: int = DPORT, flags: int = ACK, words: int = 5) -> bytes:
    """RFC 9293, section 3.1. `words` is the header's length; `flags` all twelve bits behind it."""
    fixed = struct.pack("!HHIIHHHH", sport, dport, 1, 2, words << 12 | flags, 0xFFFF, 0, 0)
    return fixed + bytes(4 * max(0, words - 5)) + payload


def udp(payload: bytes = b"", *, sport: int = SPORT, dport: int = DPORT) -> bytes:
    """RFC 768; UDP-Lite looks the same (RFC 3828)."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def sctp(payload: bytes = b"", *, sport: int = SPORT, dport: int = DPORT) -> bytes:
    """RFC 9260, section 3.1."""
    return struct.pack("!HHII", sport, dport, 1, 0) + payload


def dccp(payload: bytes = b"", *, sport: int = SPORT, dport: int = DPORT) -> bytes:
    """RFC 4340, section 5.1, without extended sequence numbers."""
    return struct.pack("!HHBBHI", sport, dport, 3, 0, 0, 1) + payload


def icmp(payload: bytes = b"abcd") -> bytes:
    """An echo request; its identifier lies where others have a port, and is none."""
    return struct.pack("!BBHHH", 8, 0, 0, 0x1234, 0x5678) + payload
