"""What crossed the wire in one direction, as flows and ethertypes: the form in which truth and meter are compared."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

ETHER = 14  # bytes of an Ethernet header
IPV4, IPV6, UDP_HEADER, TCP_HEADER = 20, 40, 8, 20  # bytes, without options
TAG = 4  # bytes of a VLAN tag

ETH_P_IP, ETH_P_IPV6, ETH_P_ARP, ETH_P_8021Q, ETH_P_8021AD = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
LEAST_ETHERTYPE = 0x600  # below it the field is a length (IEEE 802.3, 3.2.6)
LLC = 0x10000  # stands for frames with a length there, as in wiremeter.flows.batch
ICMP, TCP, UDP, FRAGMENT, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 44, 58, 132, 136
WITH_PORTS = {TCP, UDP, SCTP, UDPLITE}
EXTENSIONS = {0, 43, 60}  # IPv6 headers of the common form: next header, length in 8 bytes less one

Key = TypeVar("Key")


class Count(NamedTuple):
    """Packets and bytes on the wire; bytes with the Ethernet header, without the checksum at the end."""

    packets: int = 0
    bytes: int = 0

    def plus(self, other: Count) -> Count:
        """The sum, field by field."""
        return Count(self.packets + other.packets, self.bytes + other.bytes)

    def minus(self, other: Count) -> Count:
        """The difference, field by field."""
        return Count(self.packets - other.packets, self.bytes - other.bytes)


class Flow(NamedTuple):
    """A flow's key; `vlan` is the outermost tag's id, None without a tag."""

    family: int
    protocol: int
    src: str
    sport: int
    dst: str
    dport: int
    vlan: int | None = None

    def reverse(self) -> Flow:
        """The other direction of the conversation."""
        return self._replace(src=self.dst, sport=self.dport, dst=self.src, dport=self.sport)


def add_counts(left: Mapping[Key, Count], right: Mapping[Key, Count]) -> dict[Key, Count]:
    """The sum of two tables of counts, key by key."""
    both = dict(left)
    for key, tally in right.items():
        both[key] = both.get(key, Count()).plus(tally)
    return both


@dataclass(frozen=True)
class Traffic:
    """Packets of one direction at one device: those of flows, and those that are not IP by ethertype."""

    flows: Mapping[Flow, Count] = field(default_factory=dict)
    ethertypes: Mapping[int, Count] = field(default_factory=dict)

    def plus(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(add_counts(self.flows, other.flows), add_counts(self.ethertypes, other.ethertypes))

    @property
    def total(self) -> Count:
        """All packets and bytes."""
        every = [*self.flows.values(), *self.ethertypes.values()]
        return Count(sum(count.packets for count in every), sum(count.bytes for count in every))

    @property
    def protocols(self) -> dict[tuple[int, int], Count]:
        """IP traffic by (family, protocol), and one row (0, 0) for all that is not IP."""
        sums: dict[tuple[int, int], Count] = {}
        for flow, tally in self.flows.items():
            sums = add_counts(sums, {(flow.family, flow.protocol): tally})
        for tally in self.ethertypes.values():
            sums = add_counts(sums, {(0, 0): tally})
        return sums

    def without_ethernet(self) -> Traffic:
        """The same packets where they have no Ethernet header (tun)."""
        return Traffic({f: Count(c.packets, c.bytes - c.packets * ETHER) for f, c in self.flows.items()})


@dataclass(frozen=True)
class Conversation:
    """What two ends have sent each other."""

    to_server: Traffic = field(default_factory=Traffic)
    to_client: Traffic = field(default_factory=Traffic)


def flow_traffic(flow: Flow, packets: int, octets: int) -> Traffic:
    """Traffic of one flow."""
    return Traffic({flow: Count(packets, octets)})


def decode(frame: bytes) -> Flow | int:
    """The flow of a frame by its first bytes (128 suffice here), or its ethertype where it is not IP.

    Written for whole, well-formed frames, and apart from the meter's parser, which it is the measure of.
    """
    kind, at, vlan = int.from_bytes(frame[12:14], "big"), ETHER, None
    while kind in (ETH_P_8021Q, ETH_P_8021AD):
        if vlan is None:
            vlan = int.from_bytes(frame[at : at + 2], "big") & 0xFFF
        kind, at = int.from_bytes(frame[at + 2 : at + 4], "big"), at + TAG
    if kind == ETH_P_IP:
        return _decode_ipv4(frame[at:], vlan)
    if kind == ETH_P_IPV6:
        return _decode_ipv6(frame[at:], vlan)
    return kind if kind >= LEAST_ETHERTYPE else LLC


def _decode_ipv4(packet: bytes, vlan: int | None) -> Flow:
    protocol = packet[9]
    first = not int.from_bytes(packet[6:8], "big") & 0x1FFF
    ports = _ports(packet[(packet[0] & 0xF) * 4 :]) if first and protocol in WITH_PORTS else (0, 0)
    src, dst = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16))
    return Flow(4, protocol, src, ports[0], dst, ports[1], vlan)


def _decode_ipv6(packet: bytes, vlan: int | None) -> Flow:
    protocol, at, first = packet[6], IPV6, True
    while protocol in EXTENSIONS or protocol == FRAGMENT:
        if protocol == FRAGMENT:
            protocol, first, at = packet[at], packet[at + 2 : at + 4] < b"\0\x08", at + 8
            if not first:
                break
        else:
            protocol, at = packet[at], at + 8 + packet[at + 1] * 8
    ports = _ports(packet[at:]) if first and protocol in WITH_PORTS else (0, 0)
    src, dst = (str(ipaddress.IPv6Address(packet[at : at + 16])) for at in (8, 24))
    return Flow(6, protocol, src, ports[0], dst, ports[1], vlan)


def _ports(transport: bytes) -> tuple[int, int]:
    return int.from_bytes(transport[0:2], "big"), int.from_bytes(transport[2:4], "big")
