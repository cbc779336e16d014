"""One row a case: packets of a flow or several, and what each one's payload is sent as."""

# ruff: noqa: E501  (one row a case, however long)

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from . import packets as p
from .cases import chain
from .packets import ACK, SYN, TCP, UDP, over4, over6


class Packet(NamedTuple):
    """A frame, what its payload is sent as ("": it is not), and the payload."""

    frame: bytes
    source: str
    payload: bytes = b""


class Flip(NamedTuple):
    """The epoch turns here."""


class Case(NamedTuple):
    """What the packets are, as a sentence."""

    name: str
    packets: Sequence[Packet | Flip]


FLIP = Flip()

# Payloads, by what they begin like.
DNS = struct.pack("!HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0) + b"\3www\7example\3com\0\0\1\0\1"
CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(100)
SETTINGS = bytes.fromhex("000012040000000000000300000080000400010000000500ffffff")
SERVER_HELLO = bytes.fromhex("160303007a020000760303") + bytes(60)
CERTIFICATE = bytes.fromhex("16030310000b000ffc") + bytes(90)
ENCRYPTED = bytes.fromhex("1703030100") + bytes(range(64))
CIPHER_CHANGE = bytes.fromhex("140303000101") + bytes(20)
REQUEST, RESPONSE = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
OPAQUE = b"nothing of anyone's"
HTTP_BEGINNINGS = (
    *("GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PROPFIND"),
    *("ACL", "COPY", "LOCK", "M-SEARCH", "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "PROPPATCH", "PURGE", "QUERY"),
    *("REPORT", "SEARCH", "SUBSCRIBE", "UNLOCK", "VERSION-CONTROL", "PRI", "HTTP/1.1"),
)  # fmt: skip


def long_header(first: int, version: int) -> bytes:
    """The beginning of a QUIC packet with a long header (RFC 9000, section 17.2)."""
    return struct.pack("!BI", first, version) + b"\x08" + bytes(8) + b"\x00" + bytes(40)


V1, V2 = 1, 0x6B3343CF
INITIAL, INITIAL_V2 = long_header(0xC3, V1), long_header(0xD3, V2)
NO_INITIALS = {
    "a Handshake packet of version 1": long_header(0xE0, V1),
    "0-RTT of version 1": long_header(0xD0, V1),
    "Retry of version 1": long_header(0xF0, V1),
    "a Handshake packet of version 2": long_header(0xF0, V2),
    "0-RTT of version 2": long_header(0xE0, V2),
    "what would be an Initial if version 2 counted as version 1 does": long_header(0xC0, V2),
    "a version negotiation": long_header(0xC0, 0),
    "an Initial of another version": long_header(0xC0, 0xFF00001D),
    "a short header": bytes([0x41]) + bytes(40),
    "an Initial cut before the eighth byte": INITIAL[:7],
}


def tcp(
    source: str, payload: bytes = OPAQUE, *, over: int = 4, flags: int = ACK, sport: int = p.SPORT, dport: int = p.DPORT
) -> Packet:
    """A segment."""
    segment = p.tcp(payload, flags=flags, sport=sport, dport=dport)
    return Packet(over4(TCP, segment) if over == 4 else over6(TCP, segment), source, payload)


def udp(source: str, payload: bytes = OPAQUE, *, over: int = 4, sport: int = p.SPORT, dport: int = p.DPORT) -> Packet:
    """A datagram."""
    datagram = p.udp(payload, sport=sport, dport=dport)
    return Packet(over4(UDP, datagram) if over == 4 else over6(UDP, datagram), source, payload)


def spent(over: int = 4) -> list[Packet]:
    """As many opaque segments as there is budget for at first, and one more."""
    return [tcp("first", over=over)] * 3 + [tcp("", over=over)]


def spent_udp(over: int = 4) -> list[Packet]:
    """The same of UDP."""
    return [udp("first", over=over)] * 2 + [udp("", over=over)]


DNS_CASES = [
    *(
        Case(f"a DNS datagram {way} port {port} over IPv{over}", [udp("dns", DNS, over=over, **{way_port: port})])
        for way, way_port in (("from", "sport"), ("to", "dport")) for port in (53, 5353, 5355) for over in (4, 6)
    ),
    *(
        Case(f"a DNS segment {way} port 53 over IPv{over}", [tcp("dns", b"\0\x21" + DNS, over=over, **{way_port: 53})])
        for way, way_port in (("from", "sport"), ("to", "dport")) for over in (4, 6)
    ),
    Case("every DNS datagram, however many", [udp("dns", DNS, dport=53)] * 40),
    Case("every DNS segment with payload, however many", [tcp("dns", DNS, dport=53), tcp("", b"", dport=53)] * 20),
    Case("mDNS's and LLMNR's ports say nothing about TCP", [*[tcp("first", DNS, dport=5353)] * 3, tcp("", DNS, dport=5353), *[tcp("first", DNS, dport=5355)] * 3, tcp("", DNS, dport=5355)]),
    Case("whatever is on port 53", [udp("dns", OPAQUE, dport=53), tcp("dns", CLIENT_HELLO, dport=53), udp("dns", b"x", dport=53)]),
    Case("an empty datagram to port 53 has nothing to send", [udp("", b"", dport=53)]),
    Case("port 53 in the other byte order is another port", [udp("first", DNS, dport=0x3500), udp("first", DNS, dport=0x3500), udp("", DNS, dport=0x3500)]),
]  # fmt: skip

CREDIT_CASES = [
    *(Case(f"the first packets of a TCP flow over IPv{over}, then silence", [*spent(over), *[tcp("", over=over)] * 5]) for over in (4, 6)),
    *(Case(f"the first packets of a UDP flow over IPv{over}, then silence", [*spent_udp(over), *[udp("", over=over)] * 5]) for over in (4, 6)),
    Case("both flows of a conversation have their own", [*spent(), *[Packet(over4(TCP, p.tcp(OPAQUE), src=p.DST4, dst=p.SRC4), "first", OPAQUE)] * 3]),
    Case("packets without payload cost nothing", [tcp("", b"", flags=SYN), *[tcp("", b""), tcp("first")] * 3, tcp("")]),
    Case("short payloads are sent too", [*(tcp("first", b"1234567"[:n]) for n in (1, 4, 7)), tcp("")]),
    Case("short datagrams are sent too", [udp("first", b"x"), udp("first", b"1234567"), udp("")]),
    Case("a SYN begins anew", [*spent(), tcp("", b"", flags=SYN), *spent()]),
    Case("a SYN and ACK begin anew", [*spent(), tcp("", b"", flags=SYN | ACK), *spent()]),
    Case("a SYN with payload is the first of three", [*spent(), tcp("first", flags=SYN), *[tcp("first")] * 2, tcp("")]),
    Case("what was seen is known after a flip", [*spent(), FLIP, tcp(""), tcp(""), FLIP, tcp(""), udp("first"), FLIP, udp("first"), udp(""), FLIP, udp("")]),
    Case("budget goes on where it stood at a flip", [tcp("first"), FLIP, tcp("first"), FLIP, tcp("first"), tcp(""), FLIP, tcp("")]),
    Case("a SYN begins anew after a flip", [*spent(), FLIP, tcp("", b"", flags=SYN), *spent(), FLIP, tcp("")]),
    Case("a SYN before a flip, its first packets behind it", [tcp("", b"", flags=SYN), FLIP, *spent()]),
    Case("flows without payload for an epoch are known still", [*spent(), FLIP, tcp("", b""), FLIP, tcp("")]),
]  # fmt: skip

TLS_CASES = [
    *(
        Case(f"a {name} on any port over IPv{over}", [tcp("tls", hello, over=over, sport=sport, dport=dport)])
        for name, hello in (("ClientHello", CLIENT_HELLO), ("ServerHello", SERVER_HELLO))
        for sport, dport in ((40000, 443), (443, 40000), (1, 2), (25, 50000)) for over in (4, 6)
    ),
    *(Case(f"a hello whose record is of version 3.{minor}", [tcp("tls", CLIENT_HELLO[:2] + bytes([minor]) + CLIENT_HELLO[3:])]) for minor in range(5)),
    Case("a hello though there is no budget left", [*spent(), tcp("tls", CLIENT_HELLO)]),
    Case("a hello after a flip though there is no budget left", [*spent(), FLIP, tcp("tls", CLIENT_HELLO)]),
    Case("sixteen segments behind a client's hello, as TLS", [tcp("tls", CLIENT_HELLO), *[tcp("tls")] * 16, *[tcp("")] * 3]),
    Case("six segments behind a server's hello, as TLS", [tcp("tls", SERVER_HELLO), *[tcp("tls")] * 6, *[tcp("")] * 3]),
    Case("each hello renews that", [tcp("tls", CLIENT_HELLO), *[tcp("tls")] * 5, tcp("tls", SERVER_HELLO), *[tcp("tls")] * 6, tcp("")]),
    Case("segments behind a hello are sent across a flip", [tcp("tls", SERVER_HELLO), tcp("tls"), FLIP, *[tcp("tls")] * 5, tcp("")]),
    Case("a certificate is no hello, but a segment behind one", [tcp("tls", SERVER_HELLO), tcp("tls", CERTIFICATE)]),
    Case("a certificate by itself is nothing", [*spent(), tcp("", CERTIFICATE)]),
    Case("encrypted records end the budget", [tcp("tls", CLIENT_HELLO), tcp("", ENCRYPTED), tcp(""), tcp("", ENCRYPTED)]),
    Case("so does the change to encryption", [tcp("tls", SERVER_HELLO), tcp("", CIPHER_CHANGE), tcp("")]),
    Case("encrypted records end the budget of first packets", [tcp("first"), tcp("", ENCRYPTED), tcp(""), tcp("")]),
    Case("a flow that begins encrypted is left alone", [tcp("", ENCRYPTED), tcp(""), FLIP, tcp("")]),
    Case("the end of a budget is known after a flip", [tcp("tls", CLIENT_HELLO), tcp("", ENCRYPTED), FLIP, tcp("")]),
    Case("a hello behind encrypted records", [tcp("tls", CLIENT_HELLO), tcp("", ENCRYPTED), tcp("tls", CLIENT_HELLO)]),
    Case("a hello of a version that is not TLS", [*spent(), tcp("", b"\x16\x03\x05" + CLIENT_HELLO[3:]), tcp("", b"\x16\x02\x01" + CLIENT_HELLO[3:])]),
    Case("a hello cut before its type is a beginning of nothing", [*spent(), tcp("", CLIENT_HELLO[:5]), tcp("", CLIENT_HELLO[:7])]),
    Case("a hello of eight bytes is enough", [*spent(), tcp("tls", CLIENT_HELLO[:8])]),
    Case("a hello over UDP is none", [*spent_udp(), udp("", CLIENT_HELLO)]),
]  # fmt: skip

HTTP_CASES = [
    *(
        Case(f"a message that begins {begin} over IPv{over}", [*spent(over), tcp("http", begin.encode() + b" / HTTP/1.1\r\n\r\n", over=over)])
        for begin in HTTP_BEGINNINGS for over in (4, 6)
    ),
    Case("HTTP on any port", [tcp("http", REQUEST, dport=1), tcp("http", RESPONSE, sport=50000, dport=50001)]),
    Case("sixteen segments behind a head, as HTTP", [tcp("http", REQUEST), *[tcp("http")] * 16, *[tcp("")] * 3]),
    Case("the next head renews that", [tcp("http", RESPONSE), *[tcp("http")] * 16, tcp(""), tcp("http", RESPONSE), *[tcp("http")] * 16, tcp("")]),
    Case("a head within the budget renews it", [tcp("http", REQUEST), *[tcp("http")] * 10, tcp("http", REQUEST), *[tcp("http")] * 16, tcp("")]),
    Case("a head after a flip", [tcp("http", REQUEST), *[tcp("http")] * 16, FLIP, tcp(""), tcp("http", REQUEST)]),
    Case("sixteen segments behind an HTTP/2 server's settings", [tcp("http", SETTINGS), *[tcp("http")] * 16, tcp("")]),
    Case("an acknowledgement of settings, or settings of a stream, begin nothing", [*[tcp("first", SETTINGS[:4] + b"\1" + SETTINGS[5:]), tcp("first", SETTINGS[:7] + b"\1\0")], tcp("first"), tcp("")]),
    Case("what looks encrypted does not end the budget of HTTP", [tcp("http", RESPONSE), tcp("http", ENCRYPTED), tcp("http")]),
    Case("TLS behind HTTP, as with CONNECT", [tcp("http", b"CONNECT a:443 HTTP/1.1\r\n\r\n"), tcp("tls", CLIENT_HELLO), tcp("", ENCRYPTED), tcp("")]),
    Case("a method that nobody registered", [*spent(), tcp("http", b"FROB / HTTP/1.1"), *[tcp("http")] * 16, tcp("")]),
    Case("what begins nearly like HTTP", [*spent(), *(tcp("", begin) for begin in (b"get / HTTP", b"Get / HTTP", b"GE / HTTP", b"GET  / HTTP", b"GET \n HTTP", b"POST\t/ HTTP", b" GET / HTTP", b"GET/HTTP", b"PRIVMSG/", b"HTTP-ish", b"ABCDEFg "))]),
    Case("a head of under eight bytes is a beginning of nothing", [*spent(), tcp("", b"GET / H")]),
    Case("HTTP over UDP is none", [*spent_udp(), udp("", REQUEST)]),
]  # fmt: skip

QUIC_CASES = [
    *(
        Case(f"an Initial of version {number} with {first:#x}, over IPv{over}", [*spent_udp(over), udp("quic", long_header(first, version), over=over)])
        for number, version, kind in ((1, V1, 0xC0), (2, V2, 0xD0)) for first in (kind, kind | 0x0F) for over in (4, 6)
    ),
    Case("an Initial on any port", [udp("quic", INITIAL, sport=7, dport=8)]),
    Case("an Initial after a flip", [*spent_udp(), FLIP, udp("quic", INITIAL_V2)]),
    Case("three datagrams behind an Initial, as QUIC", [udp("quic", INITIAL), *[udp("quic")] * 3, udp(""), udp("")]),
    Case("each Initial renews that", [udp("quic", INITIAL), udp("quic"), udp("quic", INITIAL), *[udp("quic")] * 3, udp("")]),
    *(Case(f"{name} is no Initial", [*spent_udp(), udp("", data)]) for name, data in NO_INITIALS.items()),
    Case("an Initial over TCP is none", [*spent(), tcp("", INITIAL)]),
]  # fmt: skip

AFTER_L2 = ((p.VLAN, 77),), ((p.QINQ, 5), (p.VLAN, 77))
WALK = (p.HOPOPTS, p.DSTOPTS, p.ROUTING, p.AH, p.DSTOPTS)
HEADER_CASES = [
    *(Case(f"DNS behind {len(tags)} VLAN tags over IPv4", [Packet(over4(UDP, p.udp(DNS, dport=53), *tags), "dns", DNS)]) for tags in AFTER_L2),
    *(Case(f"a hello behind {len(tags)} VLAN tags over IPv6", [Packet(over6(TCP, p.tcp(CLIENT_HELLO), *tags), "tls", CLIENT_HELLO)]) for tags in AFTER_L2),
    *(Case(f"DNS behind {n} bytes of IPv4 options", [Packet(over4(UDP, p.udp(DNS, dport=53), options=bytes([1]) * n), "dns", DNS)]) for n in (4, 20, 40)),
    *(Case(f"a head behind a TCP header of {words} words", [Packet(over4(TCP, p.tcp(REQUEST, words=words)), "http", REQUEST)]) for words in (5, 6, 8, 15)),
    Case("a TCP header of no words leaves what would be it as payload", [Packet(over4(TCP, p.tcp(b"", words=0)), "first", p.tcp(b"", words=0))]),
    Case("a TCP header longer than the packet has no payload", [Packet(over4(TCP, p.tcp(b"", words=15)[:40]), "")]),
    *(Case(f"an Initial behind IPv6 extension header {kind}", [Packet(over6(*chain(kind, last=UDP, behind=p.udp(INITIAL))), "quic", INITIAL)]) for kind in WALK),
    Case("an Initial behind many IPv6 extension headers", [Packet(over6(*chain(*WALK, last=UDP, behind=p.udp(INITIAL))), "quic", INITIAL)]),
    Case("opaque payload behind extension headers has budget too", [*[Packet(over6(*chain(*WALK, last=UDP, behind=p.udp(OPAQUE))), "first", OPAQUE)] * 2, Packet(over6(*chain(*WALK, last=UDP, behind=p.udp(OPAQUE))), "")]),
    Case("padding behind a short IPv4 packet is not its payload", [Packet(over4(TCP, p.tcp(b"abc")) + b"\xa5" * 30, "first", b"abc"), Packet(over4(TCP, p.tcp()) + b"\xa5" * 6, "")]),
    Case("padding is not looked into either", [*spent(), Packet(over4(TCP, p.tcp(b"GET ")) + b"/ HTTP/1.1", "")]),
    Case("padding behind a short IPv6 packet is not its payload", [Packet(over6(UDP, p.udp(b"abc")) + b"\xa5" * 30, "first", b"abc"), Packet(over6(UDP, p.udp()) + b"\xa5" * 6, "")]),
    Case("padding behind DNS is not its payload", [Packet(over4(UDP, p.udp(DNS, dport=53)) + b"\xa5" * 9, "dns", DNS)]),
    Case("a packet that ends before its IP header says has what is there", [Packet(over4(UDP, p.udp(DNS, dport=53), total_bytes=900), "dns", DNS)]),
    Case("a total length of 0 is that of the frame", [Packet(over4(UDP, p.udp(DNS, dport=53), total_bytes=0), "dns", DNS)]),
    Case("an IPv4 packet that ends within the UDP header", [Packet(over4(UDP, p.udp(DNS, dport=53), total_bytes=26), "")]),
    Case("protocols other than TCP and UDP", [Packet(over4(kind, p.udp(DNS, dport=53)), "") for kind in (p.UDPLITE, p.SCTP, p.DCCP, p.ICMP, p.GRE)]),
    Case("ARP", [Packet(p.ethernet(p.ARP, bytes(46)), "")]),
]  # fmt: skip

LONG = DNS + bytes(range(256)) * 4
PARTS = [LONG[:192], LONG[192:592], LONG[592:]]
OFFSETS = (0, 25, 75)


def fragments4(
    data: Sequence[bytes], dport: int, source: str, src: str, protocol: int = UDP, sport: int = p.SPORT
) -> list[Packet]:
    """Parts of a datagram as IPv4 fragments. OFFSETS count from the UDP header on."""
    header = (p.udp if protocol == UDP else p.tcp)(sport=sport, dport=dport)
    return [
        Packet(over4(protocol, (header if not at else b"") + part, src=src, fragment=at, more=part is not data[-1]), source, part)
        for at, part in zip(OFFSETS, data, strict=True)
    ]  # fmt: skip


def fragments6(data: Sequence[bytes], dport: int, source: str, src: str, protocol: int = UDP) -> list[Packet]:
    """The same over IPv6."""
    header = (p.udp if protocol == UDP else p.tcp)(sport=p.SPORT, dport=dport)
    return [
        Packet(over6(p.FRAGMENT, p.fragment(protocol, at, more=part is not data[-1]) + (header if not at else b"") + part, src=src), source, part)
        for at, part in zip(OFFSETS, data, strict=True)
    ]  # fmt: skip


FRAGMENT_CASES = [
    Case("IPv4 fragments of DNS, the first and the others", fragments4(PARTS, 53, "dns", "10.9.0.1")),
    Case("IPv6 fragments of DNS, the first and the others", fragments6(PARTS, 53, "dns", "2001:db8:9::1")),
    Case("IPv4 fragments of an answer", fragments4(PARTS, 443, "dns", "10.9.0.2", sport=53)),
    Case("IPv4 fragments of other UDP", fragments4(PARTS, 443, "", "10.9.0.3")),
    Case("IPv6 fragments of other UDP", fragments6(PARTS, 443, "", "2001:db8:9::3")),
    Case("IPv4 fragments of TCP, even on port 53", fragments4(PARTS, 53, "", "10.9.0.4", TCP)),
    Case("IPv6 fragments of TCP, even on port 53", fragments6(PARTS, 53, "", "2001:db8:9::4", TCP)),
    Case("a first fragment with ports and nothing else", [Packet(over4(UDP, p.udp(dport=53), src="10.9.0.6", more=True), "")]),
    Case("a fragment that is the whole datagram is none", [Packet(over6(p.FRAGMENT, p.fragment(UDP) + p.udp(DNS, dport=53)), "dns", DNS), *[Packet(over6(p.FRAGMENT, p.fragment(UDP) + p.udp(OPAQUE)), "first", OPAQUE)] * 2]),
    Case("IPv4 fragments of DNS in a VLAN", [Packet(over4(UDP, p.udp(dport=53) + PARTS[0], (p.VLAN, 9), src="10.9.0.7", more=True), "dns", PARTS[0]), Packet(over4(UDP, PARTS[1], (p.VLAN, 9), src="10.9.0.7", fragment=25), "dns", PARTS[1])]),
]  # fmt: skip

CASES = DNS_CASES + CREDIT_CASES + TLS_CASES + HTTP_CASES + QUIC_CASES + HEADER_CASES + FRAGMENT_CASES
