"""The packets that test runs take: plain headers, no payload to speak of."""

from __future__ import annotations

import struct

ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
TCP, UDP = 6, 17
#: Where in the packet four bytes of the source address are, which the bench programs rewrite to make flows.
SOURCE_IPV4, SOURCE_IPV6 = 26, 34

_MACS = bytes.fromhex("020000000002020000000001")
_PORTS = (40000, 443)


def ipv4(protocol: int, payload: int = 6) -> bytes:
    """Ethernet, IPv4, and `protocol` (TCP or UDP) with `payload` bytes; addresses of RFC 2544."""
    inner = _l4(protocol, payload)
    source, destination = bytes([198, 18, 0, 2]), bytes([198, 18, 0, 1])
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(inner), 0, 0, 64, protocol, 0, source, destination)
    return _MACS + struct.pack(">H", ETHERTYPE_IPV4) + header + inner


def ipv6(protocol: int, payload: int = 6) -> bytes:
    """Ethernet, IPv6, and `protocol` with `payload` bytes; addresses of RFC 5180."""
    inner = _l4(protocol, payload)
    source, destination = bytes.fromhex("20010002" + "00" * 11 + "02"), bytes.fromhex("20010002" + "00" * 11 + "01")
    header = struct.pack(">IHBB16s16s", 6 << 28, len(inner), protocol, 64, source, destination)
    return _MACS + struct.pack(">H", ETHERTYPE_IPV6) + header + inner


def _l4(protocol: int, payload: int) -> bytes:
    if protocol == TCP:
        return struct.pack(">HHIIHHHH", *_PORTS, 0, 0, 0x5010, 64, 0, 0) + bytes(payload)
    return struct.pack(">HHHH", *_PORTS, 8 + payload, 0) + bytes(payload)
