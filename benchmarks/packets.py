"""The packets that test runs take: plain headers, no payload to speak of."""

from __future__ import annotations

import struct

ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
TCP, UDP = 6, 17
#: Where in the packet four bytes of the source address are, which the bench programs rewrite to make flows.
SOURCE_IPV4, SOURCE_IPV6 = 26, 34

_MACS = bytes.fromhex("020000000002020000000001")
_PORTS = (40000, 443)


def ipv4(protocol: int, payload: int = 6, data: bytes = b"", port: int = _PORTS[1]) -> bytes:
    """Ethernet, IPv4, and `protocol` (TCP or UDP) to `port` with `payload` bytes of 0, then `data`; addresses of
    RFC 2544."""
    inner = _l4(protocol, bytes(payload) + data, (_PORTS[0], port))
    return _over_ipv4(protocol, bytes([198, 18, 0, 2]), bytes([198, 18, 0, 1]), inner)


def udp4(source: bytes, source_port: int, destination: bytes, destination_port: int, data: bytes) -> bytes:
    """Ethernet, IPv4 and UDP between addresses of four bytes."""
    return _over_ipv4(UDP, source, destination, _l4(UDP, data, (source_port, destination_port)))


def _over_ipv4(protocol: int, source: bytes, destination: bytes, inner: bytes) -> bytes:
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(inner), 0, 0, 64, protocol, 0, source, destination)
    return _MACS + struct.pack(">H", ETHERTYPE_IPV4) + header + inner


def ipv6(protocol: int, payload: int = 6) -> bytes:
    """Ethernet, IPv6, and `protocol` with `payload` bytes; addresses of RFC 5180."""
    inner = _l4(protocol, bytes(payload))
    source, destination = bytes.fromhex("20010002" + "00" * 11 + "02"), bytes.fromhex("20010002" + "00" * 11 + "01")
    header = struct.pack(">IHBB16s16s", 6 << 28, len(inner), protocol, 64, source, destination)
    return _MACS + struct.pack(">H", ETHERTYPE_IPV6) + header + inner


def _l4(protocol: int, data: bytes, ports: tuple[int, int] = _PORTS) -> bytes:
    if protocol == TCP:
        return struct.pack(">HHIIHHHH", *ports, 0, 0, 0x5010, 64, 0, 0) + data
    return struct.pack(">HHHH", *ports, 8 + len(data), 0) + data
