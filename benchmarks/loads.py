"""The loads that meters are compared under: which packets, of how many flows, in which mix."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from types import MappingProxyType

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import numpy as np
from numpy.typing import NDArray

ETHERNET, IPV4, UDP_HEADER = 14, 20, 8
FRAME_MIN, FRAME_MAX = 60, 1514
TEMPLATES_MAX = 128
CHECKSUM_AT, SOURCE_AT, DESTINATION_AT = 24, 26, 30
SOURCE_PORT_AT, DESTINATION_PORT_AT = 34, 36
DNS_ID_AT = 42
UDP = 17

#: struct template in generator.bpf.c.
TEMPLATE = np.dtype(
    [
        ("bytes", "u4"),
        ("address_at", "u4"),
        ("port_at", "u4"),
        ("id_at", "u4"),
        ("sum", "u4"),
        ("whole", "u4"),
        ("frame", "u1", (1520,)),
    ]
)

_MACS = bytes.fromhex("0200000000fe020000000001")  # to nobody, so that the stack drops it right behind the meters
_CLIENT, _SERVER = bytes([10, 0, 0, 0]), bytes([198, 18, 0, 1])  # RFC 2544: for benchmarks


@dataclass(frozen=True, slots=True)
class Template:
    """A frame without its check sequence, and where in it the flow's number is written (0: nowhere)."""

    frame: bytes
    address_at: int = SOURCE_AT
    port_at: int = 0
    id_at: int = 0
    whole: bool = False  # what lies behind the first FRAME_MIN bytes matters


@dataclass(frozen=True, slots=True)
class Load:
    """Packets that follow a cycle of templates, over `flows` clients; each client's turn lasts `hold` packets."""

    name: str
    text: str
    templates: Sequence[Template]
    flows: int
    hold: int = 1

    @property
    def stride(self) -> int:
        """From one flow to the next: near the golden section, so that neighbours in time are far apart, and each flow
        has its turn once a round.

        >>> [Load("", "", (), flows).stride for flows in (1, 10, 1000)]
        [1, 7, 619]
        """
        stride = max(1, round(self.flows * 0.618))
        while gcd(stride, self.flows) > 1:
            stride += 1
        return stride

    def bytes_of(self, packets: int) -> int:
        """Bytes of the first `packets` packets."""
        lengths = [len(template.frame) for template in self.templates]
        rounds, rest = divmod(packets, len(lengths))
        return rounds * sum(lengths) + sum(lengths[:rest])

    def flows_of(self, packets: int) -> int:
        """How many clients the first `packets` packets have."""
        return min(self.flows, -(-packets // self.hold))

    def table(self) -> NDArray[np.void]:
        """The templates as the program reads them, dtype TEMPLATE."""
        rows = np.zeros(len(self.templates), TEMPLATE)
        for row, template in zip(rows, self.templates, strict=True):
            row["bytes"] = len(template.frame)
            row["address_at"], row["port_at"], row["id_at"] = template.address_at, template.port_at, template.id_at
            row["sum"] = _sum_without(template)
            row["whole"] = template.whole
            row["frame"][: len(template.frame)] = np.frombuffer(template.frame, np.uint8)
        return rows


def _sum_without(template: Template) -> int:
    """The sum of the IPv4 header's words as this machine reads them, without checksum and the flow's address."""
    words = np.frombuffer(template.frame[ETHERNET : ETHERNET + IPV4], "u2")
    left_out = {(at - ETHERNET) // 2 for at in (CHECKSUM_AT, template.address_at, template.address_at + 2)}
    return sum(int(word) for at, word in enumerate(words) if at not in left_out)


def udp_frame(payload: bytes, *, from_client: bool = True, port: int = 443) -> bytes:
    """Ethernet, IPv4, UDP between a client and the server, without a UDP checksum, which IPv4 allows (RFC 768)."""
    ends = ((_CLIENT, 40000), (_SERVER, port))
    (source, source_port), (destination, destination_port) = ends if from_client else ends[::-1]
    udp = struct.pack(">HHHH", source_port, destination_port, UDP_HEADER + len(payload), 0) + payload
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, IPV4 + len(udp), 0, 0, 64, UDP, 0, source, destination)
    return _MACS + struct.pack(">H", 0x0800) + ip + udp


def _udp_of(frame_bytes: int) -> Template:
    return Template(udp_frame(bytes(frame_bytes - ETHERNET - IPV4 - UDP_HEADER)))


def small(flows: int) -> Load:
    """64 bytes on the wire with the frame check sequence, 60 without, from so many flows."""
    plural = "s" * (flows > 1)
    return Load(f"udp64-{flows}", f"64-byte UDP, {flows:,} flow{plural}", (_udp_of(FRAME_MIN),), flows)


def imix(flows: int = 1_000) -> Load:
    """The simple Internet mix: of 12 frames 7 have 64 bytes, 4 have 570 and 1 has 1518, check sequence included."""
    small_one, middle, large = _udp_of(60), _udp_of(566), _udp_of(1514)
    cycle = (small_one, middle, small_one, small_one, middle, small_one, large, small_one, middle, small_one, middle)
    return Load("imix", f"IMIX 7:4:1, {flows:,} flows", (*cycle, small_one), flows)


#: name, type, answer section as (name or "" for the question's, TTL, type, data …).
_LOOKUPS: tuple[tuple[str, str, tuple[tuple[str, int, str, str], ...]], ...] = (
    ("www.example.com.", "A", (("", 300, "A", "198.51.100.7"),)),
    ("www.example.com.", "AAAA", (("", 300, "AAAA", "2001:db8::7"),)),
    (
        "cdn.example.net.",
        "A",
        (("", 60, "CNAME", "edge.example.org."), ("edge.example.org.", 20, "A", "203.0.113.9")),
    ),
    ("missing.example.com.", "A", ()),
    ("example.com.", "MX", (("", 3600, "MX", "10 mail.example.com."),)),
    ("api.example.org.", "HTTPS", (("", 300, "HTTPS", "1 . alpn=h2,h3"),)),
    ("example.net.", "TXT", (("", 3600, "TXT", '"v=spf1 -all"'),)),
    ("7.100.51.198.in-addr.arpa.", "PTR", (("", 3600, "PTR", "www.example.com."),)),
)


def dns_heavy(flows: int = 1_000) -> Load:
    """Real questions and answers in turn, each pair of one client's port and number, eight kinds of lookups."""
    templates = []
    for name, kind, records in _LOOKUPS:
        query = dns.message.make_query(name, kind, use_edns=0, id=0)
        answer = dns.message.make_response(query, recursion_available=True)
        if not records:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        for owner, ttl, record_kind, data in records:
            answer.answer.append(dns.rrset.from_text(owner or name, ttl, "IN", record_kind, data))
        question = udp_frame(query.to_wire(), port=53)
        reply = udp_frame(answer.to_wire(), port=53, from_client=False)
        templates.append(Template(question, SOURCE_AT, SOURCE_PORT_AT, DNS_ID_AT, whole=True))
        templates.append(Template(reply, DESTINATION_AT, DESTINATION_PORT_AT, DNS_ID_AT, whole=True))
    return Load("dns", f"DNS questions and answers, {flows:,} clients", tuple(templates), flows, hold=2)


LOADS: Mapping[str, Load] = MappingProxyType(
    {load.name: load for load in (*map(small, (1, 1_000, 100_000, 1_000_000)), imix(), dns_heavy())}
)
