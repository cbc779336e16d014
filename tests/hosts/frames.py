"""Frames byte by byte, with right lengths and checksums."""

from __future__ import annotations

import ipaddress
import struct

from .wire import ETH_P_IP, ETH_P_IPV6, TCP, UDP

#: Nobody's address: devices take such a frame in and count it, then the host throws it away and answers nothing.
STRANGER = "02:77:ff:ff:ff:ff"


def mac_bytes(text: str) -> bytes:
    """The six bytes of an address such as 02:77:00:00:01:01."""
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(dst: str, src: str, kind: int, payload: bytes, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    """An Ethernet frame; `tags` are (type, id) from the outside in."""
    stack = b"".join(struct.pack("!HH", tag_type, tag_id) for tag_type, tag_id in tags)
    return mac_bytes(dst) + mac_bytes(src) + stack + struct.pack("!H", kind) + payload


def ip(src: str, dst: str, protocol: int, payload: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    """An IP packet of the family of its addresses. `fragment` is IPv4's flags and offset; `options` a multiple of 4."""
    source, destination = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + source.packed + destination.packed + payload
    head_len = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | head_len // 4, 0, head_len + len(payload), 77, fragment, 64, protocol, 0)
    head += source.packed + destination.packed + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ethertype(packet: bytes) -> int:
    """The ethertype of an IP packet."""
    return ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6


def pseudo_header(src: str, dst: str, protocol: int, length: int) -> bytes:
    """What TCP and UDP checksums cover beside the packet (RFC 9293, RFC 8200)."""
    source, destination = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    if source.version == 4:
        return source.packed + destination.packed + struct.pack("!BBH", 0, protocol, length)
    return source.packed + destination.packed + struct.pack("!IHBB", length, 0, 0, protocol)


def udp(src: str, sport: int, dst: str, dport: int, payload: bytes) -> bytes:
    """An IP packet with a UDP datagram."""
    length = 8 + len(payload)
    head = struct.pack("!HHHH", sport, dport, length, 0)
    total = checksum(pseudo_header(src, dst, UDP, length) + head + payload) or 0xFFFF
    return ip(src, dst, UDP, head[:6] + struct.pack("!H", total) + payload)


def tcp(
    src: str,
    sport: int,
    dst: str,
    dport: int,
    payload: bytes,
    *,
    flags: int = 0x10,
    seq: int = 1,
    partial: bool = False,
) -> bytes:
    """An IP packet with a TCP segment. `partial`: only the pseudo-header is summed, the rest is left to the device."""
    length = 20 + len(payload)
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, 1, 5 << 4, flags, 0xFFFF, 0, 0)
    pseudo = pseudo_header(src, dst, TCP, length)
    total = ~checksum(pseudo) & 0xFFFF if partial else checksum(pseudo + head + payload)
    return ip(src, dst, TCP, head[:16] + struct.pack("!H", total) + head[18:] + payload)
