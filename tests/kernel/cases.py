"""One row a case: what it is as a sentence, the frame, and what it must count as, written by hand."""

# ruff: noqa: E501  (one row a case, however long)

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from addresses import address
from wiremeter.flows.columns import ETHERTYPE_LLC, ETHERTYPE_NONE, PROTOCOL_UNKNOWN, VLAN_NONE

from . import packets as p
from .packets import ACK, DPORT, ICMPV6, SPORT, SYN, TCP, UDP, ethernet, ipv4, ipv6, over4, over6
from .reference import FlowKey, Reading


class Case(NamedTuple):
    """A frame and its meaning."""

    name: str
    frame: bytes
    expected: Reading


def flow(family: int, protocol: int, ports: tuple[int, int] = (0, 0), flags: int = 0, vlan: int = VLAN_NONE) -> Reading:
    """Counted in the flow between the addresses that `packets` uses."""
    src, dst = (p.SRC4, p.DST4) if family == 4 else (p.SRC6, p.DST6)
    return Reading(family, protocol, FlowKey(family, protocol, address(src), address(dst), *ports, vlan), flags)


def refused(family: int | None, protocol: int, reason: str) -> Reading:
    """Counted, but in no flow."""
    return Reading(family, protocol, reason=reason)


def not_ip(ethertype: int) -> Reading:
    """Counted by ethertype."""
    return Reading(0, ethertype=ethertype)


PORTS = (SPORT, DPORT)
TCP4, TCP6 = flow(4, TCP, PORTS, ACK), flow(6, TCP, PORTS, ACK)
UDP4, UDP6 = flow(4, UDP, PORTS), flow(6, UDP, PORTS)
TRUNCATED_L2 = refused(None, 0, "truncated_l2")


def tagged(vlan: int) -> Reading:
    """The TCP flow of IPv4 with a VLAN."""
    return flow(4, TCP, PORTS, ACK, vlan)


ETHERNET = [
    Case("a TCP segment over IPv4", over4(TCP, p.tcp(b"hello")), TCP4),
    Case("a TCP segment over IPv6", over6(TCP, p.tcp(b"hello")), TCP6),
    Case("ARP is not IP", ethernet(p.ARP, bytes(46)), not_ip(p.ARP)),
    Case("LLDP is not IP", ethernet(p.LLDP, bytes(60)), not_ip(p.LLDP)),
    Case("MPLS is not IP, whatever it carries", ethernet(p.MPLS, bytes(4) + ipv4(TCP, p.tcp())), not_ip(p.MPLS)),
    Case("PPPoE is not IP, whatever it carries", ethernet(p.PPPOE, bytes(8) + ipv4(TCP, p.tcp())), not_ip(p.PPPOE)),
    Case("a spanning tree frame has a length, no ethertype", ethernet(38, b"\x42\x42\x03" + bytes(43)), not_ip(ETHERTYPE_LLC)),
    Case("a length of 1", ethernet(1, bytes(46)), not_ip(ETHERTYPE_LLC)),
    Case("the longest length", ethernet(1500, bytes(46)), not_ip(ETHERTYPE_LLC)),
    Case("a number too large for a length and too small for an ethertype", ethernet(1501, bytes(46)), not_ip(ETHERTYPE_NONE)),
    Case("0x05ff is the last number that is no ethertype", ethernet(0x5FF, bytes(46)), not_ip(ETHERTYPE_NONE)),
    Case("0 is neither a length nor an ethertype, and shows as it is", ethernet(0, bytes(46)), not_ip(0)),
    Case("Novell's raw frames have a length and no LLC", ethernet(46, b"\xff\xff" + bytes(44)), not_ip(ETHERTYPE_NONE)),
    Case("a length with nothing behind it", ethernet(38, b""), not_ip(ETHERTYPE_LLC)),
    Case("a length with one byte behind it", ethernet(38, b"\xff"), not_ip(ETHERTYPE_LLC)),
    Case("0x0600 is the first ethertype", ethernet(0x600, bytes(46)), not_ip(0x600)),
    Case("0xffff is the last ethertype", ethernet(0xFFFF, bytes(46)), not_ip(0xFFFF)),
    Case("nothing behind an Ethernet header that promises ARP", ethernet(p.ARP, b""), not_ip(p.ARP)),
    Case("nothing behind an Ethernet header that promises IPv4", ethernet(p.IPV4, b""), refused(4, PROTOCOL_UNKNOWN, "truncated_ip")),
    Case("nothing behind an Ethernet header that promises IPv6", ethernet(p.IPV6, b""), refused(6, PROTOCOL_UNKNOWN, "truncated_ip")),
]  # fmt: skip

SEGMENT = p.tcp(b"hello")
VLANS = [
    *(
        Case(f"a tag of type {kind:#06x}", over4(TCP, SEGMENT, (kind, 77)), tagged(77))
        for kind in (p.VLAN, p.QINQ, p.QINQ_OLD)
    ),
    *(
        Case(f"the outer of two tags, of types {outer:#06x} and {inner:#06x}", over4(TCP, SEGMENT, (outer, 100), (inner, 200)), tagged(100))
        for outer in (p.VLAN, p.QINQ, p.QINQ_OLD)
        for inner in (p.VLAN, p.QINQ)
    ),
    Case("a priority tag has id 0", over4(TCP, SEGMENT, (p.VLAN, 0xE000)), tagged(0)),
    Case("a priority tag around a VLAN tag is still the outermost", over4(TCP, SEGMENT, (p.VLAN, 0), (p.VLAN, 5)), tagged(0)),
    Case("priority and drop bits are not part of the id", over4(TCP, SEGMENT, (p.VLAN, 0xF04D)), tagged(77)),
    Case("the highest id", over4(TCP, SEGMENT, (p.VLAN, 0xFFF)), tagged(4095)),
    Case("a tag before IPv6", over6(TCP, SEGMENT, (p.VLAN, 77)), flow(6, TCP, PORTS, ACK, 77)),
    Case("four tags", over4(TCP, SEGMENT, *[(p.VLAN, n) for n in (1, 2, 3, 4)]), tagged(1)),
    Case("a fifth tag is not looked behind", over4(TCP, SEGMENT, *[(p.VLAN, n) for n in range(1, 6)]), not_ip(p.VLAN)),
    Case("ARP in a VLAN counts by its own ethertype", ethernet(p.ARP, bytes(46), (p.VLAN, 77)), not_ip(p.ARP)),
    Case("a length behind a tag is no ethertype", ethernet(38, bytes(46), (p.VLAN, 77)), not_ip(ETHERTYPE_LLC)),
    *(
        Case(f"a tag cut after {n} bytes", over4(TCP, SEGMENT, (p.VLAN, 77))[: 14 + n], TRUNCATED_L2) for n in range(4)
    ),
    *(
        Case(f"a second tag cut after {n} bytes", over4(TCP, SEGMENT, (p.QINQ, 7), (p.VLAN, 77))[: 18 + n], TRUNCATED_L2)
        for n in range(4)
    ),
    Case("nothing behind a tag that promises IPv4", over4(TCP, SEGMENT, (p.VLAN, 7))[:18], refused(4, PROTOCOL_UNKNOWN, "truncated_ip")),
]  # fmt: skip

IPV4 = [
    *(
        Case(f"{n} bytes of options", over4(TCP, SEGMENT, options=bytes([1]) * n), TCP4) for n in range(4, 41, 4)
    ),
    Case("a header cut within its options", over4(TCP, b"", options=bytes(40))[:-1], refused(4, TCP, "truncated_ip")),
    Case("a header that claims to be longer than the frame", over4(TCP, b"abc", words=15), refused(4, TCP, "truncated_ip")),
    *(
        Case(f"a header of {n} words, less than there must be", over4(TCP, SEGMENT, words=n), refused(4, TCP, "malformed_ip"))
        for n in range(5)
    ),
    *(
        Case(f"version {n} behind the ethertype of IPv4", over4(TCP, SEGMENT, version=n), refused(4, PROTOCOL_UNKNOWN, "malformed_ip"))
        for n in range(16) if n != 4
    ),
    Case("an IPv6 packet behind the ethertype of IPv4", ethernet(p.IPV4, ipv6(TCP, SEGMENT)), refused(4, PROTOCOL_UNKNOWN, "malformed_ip")),
    Case("a first fragment has ports", over4(UDP, p.udp(bytes(64)), more=True), UDP4),
    Case("a fragment in the middle has none", over4(UDP, p.udp(bytes(64)), more=True, fragment=9), flow(4, UDP)),
    Case("the last fragment has none", over4(UDP, p.udp(bytes(64)), fragment=18), flow(4, UDP)),
    Case("the highest fragment offset", over4(TCP, SEGMENT, fragment=0x1FFF), flow(4, TCP)),
    Case("a last fragment of one byte is whole", over4(UDP, b"x", fragment=18), flow(4, UDP)),
    Case("an empty last fragment is whole", over4(UDP, b"", fragment=18), flow(4, UDP)),
    Case("don't fragment does not make a fragment", over4(TCP, SEGMENT, fragment=0x4000), TCP4),
    Case("the reserved bit does not make a fragment", over4(TCP, SEGMENT, fragment=0x8000), TCP4),
    Case("a first fragment too short for ports", over4(UDP, b"abc", more=True), refused(4, UDP, "truncated_l4")),
    Case("padding behind a short packet is not read as ports", over4(UDP, p.udp(), total_bytes=20), refused(4, UDP, "truncated_l4")),
    Case("a total length that ends within the ports", over4(UDP, p.udp(), total_bytes=23), refused(4, UDP, "truncated_l4")),
    Case("a total length that ends behind the ports", over4(UDP, p.udp(), total_bytes=24), UDP4),
    Case("a total length that ends before the TCP flags", over4(TCP, p.tcp(flags=SYN), total_bytes=33), flow(4, TCP, PORTS)),
    Case("a total length that ends behind the TCP flags", over4(TCP, p.tcp(flags=SYN), total_bytes=34), flow(4, TCP, PORTS, SYN)),
    Case("a total length shorter than the header", over4(TCP, SEGMENT, total_bytes=19), refused(4, TCP, "truncated_l4")),
    Case("a total length shorter than the options", over4(TCP, SEGMENT, options=bytes(8), total_bytes=24), refused(4, TCP, "truncated_l4")),
    Case("a total length shorter than the header, and no ports to miss", over4(p.ICMP, p.icmp(), total_bytes=1), flow(4, p.ICMP)),
    Case("a total length beyond the frame", over4(TCP, SEGMENT, total_bytes=0xFFFF), TCP4),
    Case("a total length beyond a frame that ends within the ports", over4(TCP, b"abc", total_bytes=40), refused(4, TCP, "truncated_l4")),
    Case("a total length of 0, left to an offload", over4(TCP, SEGMENT, total_bytes=0), TCP4),
    Case("the padding of a short packet counts as bytes", over4(UDP, p.udp()) + bytes(18), UDP4),
]  # fmt: skip

EXTENSIONS: dict[str, tuple[int, Callable[..., bytes]]] = {
    "hop-by-hop options": (p.HOPOPTS, p.options),
    "destination options": (p.DSTOPTS, p.options),
    "a routing header": (p.ROUTING, p.options),
    "an atomic fragment": (p.FRAGMENT, p.fragment),
    "an authentication header": (p.AH, p.authentication),
}


def chain(*kinds: int, last: int = TCP, behind: bytes = SEGMENT, eights: int = 0) -> tuple[int, bytes]:
    """Extension headers in this order before `behind`: the first one's number, and all the bytes."""
    numbers = [*kinds, last]
    headers = b"".join(
        p.fragment(following) if kind == p.FRAGMENT
        else p.authentication(following, 4 + 2 * eights) if kind == p.AH
        else p.options(following, eights)
        for kind, following in zip(kinds, numbers[1:], strict=True)
    )  # fmt: skip
    return numbers[0], headers + behind


def long_chain(eights: int) -> tuple[int, bytes]:
    """Fifteen headers of 2,048 bytes and a last one before TCP."""
    return chain(*[p.DSTOPTS] * 15, last=p.ROUTING, behind=p.options(TCP, eights) + SEGMENT, eights=255)


ALL_KINDS = (p.HOPOPTS, p.DSTOPTS, p.ROUTING, p.FRAGMENT, p.AH, p.DSTOPTS)
IPV6 = [
    *(Case(f"behind {name}", over6(kind, build(TCP) + SEGMENT), TCP6) for name, (kind, build) in EXTENSIONS.items()),
    *(
        Case(f"ICMPv6 behind {name}", over6(kind, build(ICMPV6) + p.icmp()), flow(6, ICMPV6))
        for name, (kind, build) in EXTENSIONS.items()
    ),
    *(
        Case(f"behind long {name}", over6(kind, build(UDP, 20) + p.udp()), UDP6)
        for name, (kind, build) in EXTENSIONS.items() if kind != p.FRAGMENT
    ),
    Case("behind the longest options", over6(p.DSTOPTS, p.options(TCP, 255) + SEGMENT), TCP6),
    Case("behind all extension headers in their order", over6(*chain(*ALL_KINDS)), TCP6),
    Case("behind all extension headers in the wrong order", over6(*chain(*reversed(ALL_KINDS))), TCP6),
    Case("behind eleven extension headers", over6(*chain(*[p.DSTOPTS] * 11)), TCP6),
    Case("behind 128 extension headers", over6(*chain(*[p.DSTOPTS] * 128)), TCP6),
    Case("129 extension headers are too many", over6(*chain(*[p.DSTOPTS] * 129)), refused(6, p.DSTOPTS, "ip_extension_limit")),
    Case("130 extension headers are too many", over6(*chain(*[p.DSTOPTS] * 128, p.AH, p.ROUTING)), refused(6, p.AH, "ip_extension_limit")),
    Case("a fragment is too many where 128 came before", over6(*chain(*[p.DSTOPTS] * 128, last=p.FRAGMENT, behind=p.fragment(UDP, 9) + SEGMENT)), refused(6, p.FRAGMENT, "ip_extension_limit")),
    Case("extension headers that end just within 32 KiB", over6(*long_chain(248)), TCP6),
    Case("extension headers that end beyond 32 KiB", over6(*long_chain(249)), refused(6, p.ROUTING, "ip_extension_limit")),
    Case("ten extension headers of 2,048 bytes", over6(*chain(*[p.DSTOPTS] * 10, eights=255)), TCP6),
    Case("behind nine long extension headers and the first fragment", over6(*chain(*[p.DSTOPTS] * 9, p.FRAGMENT, eights=255)), TCP6),
    Case("a first fragment has ports", over6(p.FRAGMENT, p.fragment(UDP, more=True) + p.udp(bytes(64))), UDP6),
    Case("a fragment in the middle has none", over6(p.FRAGMENT, p.fragment(UDP, 9, more=True) + p.udp()), flow(6, UDP)),
    Case("the last fragment has none", over6(p.FRAGMENT, p.fragment(UDP, 9) + p.udp()), flow(6, UDP)),
    Case("the highest fragment offset", over6(p.FRAGMENT, p.fragment(TCP, 0x1FFF) + SEGMENT), flow(6, TCP)),
    Case("an empty last fragment is whole", over6(p.FRAGMENT, p.fragment(UDP, 9)), flow(6, UDP)),
    Case("a later fragment behind other headers", over6(*chain(p.HOPOPTS, p.ROUTING, last=p.FRAGMENT, behind=p.fragment(UDP, 1) + b"x")), flow(6, UDP)),
    Case("a later fragment is not looked into, even for its options", over6(p.FRAGMENT, p.fragment(p.DSTOPTS, 9) + p.options(TCP) + SEGMENT), flow(6, p.DSTOPTS)),
    Case("a first fragment is looked into", over6(p.FRAGMENT, p.fragment(p.DSTOPTS, more=True) + p.options(TCP) + SEGMENT), TCP6),
    Case("ESP hides what is behind", over6(p.ESP, bytes(40)), flow(6, p.ESP)),
    Case("no next header", over6(p.NO_NEXT, b""), flow(6, p.NO_NEXT)),
    Case("no next header, and bytes behind it all the same", over6(p.NO_NEXT, SEGMENT), flow(6, p.NO_NEXT)),
    Case("no next header behind options", over6(p.HOPOPTS, p.options(p.NO_NEXT)), flow(6, p.NO_NEXT)),
    Case("mobility is a protocol, not walked", over6(p.MOBILITY, p.options(TCP) + SEGMENT), flow(6, p.MOBILITY)),
    Case("IPv6 in IPv6 counts by the outer header", over6(41, ipv6(TCP, SEGMENT)), flow(6, 41)),
    *(
        Case(f"an extension header cut after {n} bytes", over6(p.DSTOPTS, p.options(TCP)[:n]), refused(6, p.DSTOPTS, "truncated_ip"))
        for n in range(8)
    ),
    *(
        Case(f"a second extension header cut after {n} bytes", over6(p.HOPOPTS, p.options(p.AH) + p.authentication(TCP)[:n]), refused(6, p.AH, "truncated_ip"))
        for n in (0, 1, 7, 8, 20, 23)
    ),
    Case("options longer than the frame, before a protocol with ports", over6(p.DSTOPTS, p.options(TCP, 9)[:40]), refused(6, p.DSTOPTS, "truncated_ip")),
    Case("options longer than the frame, before one without", over6(p.DSTOPTS, p.options(ICMPV6, 9)[:40]), refused(6, p.DSTOPTS, "truncated_ip")),
    Case("options longer than the payload, in the padding", over6(p.DSTOPTS, p.options(ICMPV6, 3) + p.icmp(), payload_bytes=16), refused(6, p.DSTOPTS, "truncated_ip")),
    Case("padding is not read as an extension header", over6(p.HOPOPTS, p.options(p.DSTOPTS) + p.options(UDP) + p.udp(), payload_bytes=8), refused(6, p.DSTOPTS, "truncated_ip")),
    Case("padding is not read as ports", over6(UDP, p.udp(), payload_bytes=3), refused(6, UDP, "truncated_l4")),
    Case("padding behind options is not read as ports", over6(p.DSTOPTS, p.options(UDP) + p.udp(), payload_bytes=8), refused(6, UDP, "truncated_l4")),
    Case("a payload length that ends behind the ports", over6(UDP, p.udp(), payload_bytes=4), UDP6),
    Case("a payload length that ends before the TCP flags", over6(TCP, p.tcp(flags=SYN), payload_bytes=13), flow(6, TCP, PORTS)),
    Case("a payload length beyond the frame", over6(TCP, SEGMENT, payload_bytes=0xFFFF), TCP6),
    Case("a payload length of 0, as jumbograms have", over6(TCP, SEGMENT, payload_bytes=0), TCP6),
    Case("a jumbogram's options", over6(p.HOPOPTS, bytes([TCP, 0, 0xC2, 4]) + struct.pack("!I", 70000) + SEGMENT, payload_bytes=0), TCP6),
    *(
        Case(f"version {n} behind the ethertype of IPv6", over6(TCP, SEGMENT, version=n), refused(6, PROTOCOL_UNKNOWN, "malformed_ip"))
        for n in range(16) if n != 6
    ),
    Case("an IPv4 packet behind the ethertype of IPv6", ethernet(p.IPV6, ipv4(TCP, p.tcp(bytes(20)))), refused(6, PROTOCOL_UNKNOWN, "malformed_ip")),
]  # fmt: skip

PROTOCOLS = [
    Case("UDP", over4(UDP, p.udp(b"x")), UDP4),
    Case("UDP over IPv6", over6(UDP, p.udp(b"x")), UDP6),
    Case("an empty UDP datagram", over4(UDP, p.udp()), UDP4),
    Case("UDP-Lite", over4(p.UDPLITE, p.udp(b"x")), flow(4, p.UDPLITE, PORTS)),
    Case("UDP-Lite over IPv6", over6(p.UDPLITE, p.udp(b"x")), flow(6, p.UDPLITE, PORTS)),
    Case("SCTP", over4(p.SCTP, p.sctp(b"x")), flow(4, p.SCTP, PORTS)),
    Case("SCTP over IPv6", over6(p.SCTP, p.sctp(b"x")), flow(6, p.SCTP, PORTS)),
    Case("DCCP", over4(p.DCCP, p.dccp(b"x")), flow(4, p.DCCP, PORTS)),
    Case("DCCP over IPv6", over6(p.DCCP, p.dccp(b"x")), flow(6, p.DCCP, PORTS)),
    Case("ICMP has no ports", over4(p.ICMP, p.icmp()), flow(4, p.ICMP)),
    Case("ICMPv6 has no ports", over6(ICMPV6, p.icmp()), flow(6, ICMPV6)),
    Case("IGMP has no ports", over4(p.IGMP, bytes(8)), flow(4, p.IGMP)),
    Case("GRE has no ports", over4(p.GRE, bytes(4) + ipv4(TCP, SEGMENT)), flow(4, p.GRE)),
    Case("ESP has no ports", over4(p.ESP, bytes(40)), flow(4, p.ESP)),
    Case("AH in IPv4 is a protocol, not walked", over4(p.AH, p.authentication(TCP) + SEGMENT), flow(4, p.AH)),
    Case("IPv6's options are a protocol in IPv4", over4(p.DSTOPTS, p.options(TCP) + SEGMENT), flow(4, p.DSTOPTS)),
    Case("OSPF has no ports", over4(p.OSPF, bytes(24)), flow(4, p.OSPF)),
    Case("IPv4 in IPv4 counts by the outer header", over4(4, ipv4(TCP, SEGMENT)), flow(4, 4)),
    Case("nothing behind the header of a protocol without ports", over4(p.ICMP, b""), flow(4, p.ICMP)),
    *(
        Case(f"protocol {number} with {n} bytes has no whole ports", over4(number, bytes(n)), refused(4, number, "truncated_l4"))
        for number in (TCP, UDP, p.UDPLITE, p.SCTP, p.DCCP) for n in (0, 3)
    ),
    *(
        Case(f"protocol {number} over IPv6 with {n} bytes has no whole ports", over6(number, bytes(n)), refused(6, number, "truncated_l4"))
        for number in (TCP, UDP, p.UDPLITE, p.SCTP, p.DCCP) for n in (0, 3)
    ),
    Case("four bytes of UDP are enough for a flow", over4(UDP, p.udp()[:4]), UDP4),
    Case("thirteen bytes of TCP have ports and no flags", over4(TCP, p.tcp(flags=SYN)[:13]), flow(4, TCP, PORTS)),
    Case("fourteen bytes of TCP have flags", over4(TCP, p.tcp(flags=SYN)[:14]), flow(4, TCP, PORTS, SYN)),
    Case("all twelve bits of TCP flags", over4(TCP, p.tcp(flags=0xFFF)), flow(4, TCP, PORTS, 0xFFF)),
    Case("no TCP flags at all", over4(TCP, p.tcp(flags=0)), flow(4, TCP, PORTS)),
    *(
        Case(f"TCP flag {1 << bit:#x}", over4(TCP, p.tcp(flags=1 << bit)), flow(4, TCP, PORTS, 1 << bit)) for bit in range(12)
    ),
    Case("TCP flags with options", over4(TCP, p.tcp(flags=SYN | ACK, words=15)), flow(4, TCP, PORTS, SYN | ACK)),
    Case("a TCP header of no words", over4(TCP, p.tcp(flags=SYN, words=0)), flow(4, TCP, PORTS, SYN)),
    Case("a TCP header longer than the packet", over4(TCP, p.tcp(flags=SYN, words=15)[:20]), flow(4, TCP, PORTS, SYN)),
    Case("ports 0", over4(UDP, p.udp(sport=0, dport=0)), flow(4, UDP)),
    Case("ports 65535", over4(UDP, p.udp(sport=65535, dport=65535)), flow(4, UDP, (65535, 65535))),
    Case("ports in their order", over4(UDP, p.udp(sport=0x1234, dport=0x5678)), flow(4, UDP, (0x1234, 0x5678))),
]  # fmt: skip

CASES = ETHERNET + VLANS + IPV4 + IPV6 + PROTOCOLS
