"""What a frame must count as: read in plain Python from the RFCs, sharing nothing with the meter's own parser.

Where the meter parses by offsets in a buffer, this cuts the frame down header by header: what is left is what there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.flows.batch import Tally
from wiremeter.flows.columns import ETHERTYPE_LLC, ETHERTYPE_NONE, PROTOCOL_UNKNOWN, VLAN_NONE

VLAN_TYPES = (0x8100, 0x88A8, 0x9100)
VLAN_TAGS_MAX = 4
EXTENSION_HEADERS = (0, 43, 44, 51, 60)  # hop-by-hop, routing, fragment, AH, destination options
EXTENSIONS_MAX = 128
REACH_MAX = 0x7FFF  # bytes from the frame's beginning: the kernel's bound for a program that adds up lengths
WITH_PORTS = (6, 17, 33, 132, 136)  # TCP, UDP, DCCP, SCTP, UDP-Lite
V4_MAPPED = bytes(10) + b"\xff\xff"
Key = TypeVar("Key")


class FlowKey(NamedTuple):
    """What tells flows apart; addresses of 16 bytes."""

    family: int
    protocol: int
    src: bytes
    dst: bytes
    sport: int = 0
    dport: int = 0
    vlan: int = VLAN_NONE


@dataclass(frozen=True)
class Reading:
    """One frame read. Exactly one of `flow`, `ethertype` and `reason` is there; a frame cut in L2 has no family."""

    family: int | None = None  # 4, 6, or 0: not IP
    protocol: int = 0
    flow: FlowKey | None = None
    tcp_flags: int = 0
    ethertype: int | None = None
    reason: str | None = None
    head_bytes: int = 0  # up to and including the TCP or UDP header: what segments repeat


def number(data: bytes) -> int:
    """A number in network byte order."""
    return int.from_bytes(data, "big")


def read_frame(frame: bytes) -> Reading:
    """From the Ethernet header on (IEEE 802.3, 802.1Q)."""
    if len(frame) < 14:
        return Reading(reason="truncated_l2")
    ethertype, rest = number(frame[12:14]), frame[14:]
    vlan = None
    for _ in range(VLAN_TAGS_MAX):
        if ethertype not in VLAN_TYPES:
            break
        if len(rest) < 4:
            return Reading(reason="truncated_l2")
        if vlan is None:
            vlan = number(rest[0:2]) % 4096
        ethertype, rest = number(rest[2:4]), rest[4:]
    return _read_l3(ethertype, rest, VLAN_NONE if vlan is None else vlan, len(frame) - len(rest))


def read_ip(ethertype: int, data: bytes) -> Reading:
    """On a device without Ethernet: from the IP header on; `ethertype` is what the kernel says that it is."""
    read = _read_l3(ethertype, data, VLAN_NONE, 0)
    return Reading(0, ethertype=ETHERTYPE_NONE) if read.ethertype == ETHERTYPE_LLC else read


def _read_l3(ethertype: int, data: bytes, vlan: int, l2_bytes: int) -> Reading:
    if ethertype == 0x0800:
        return _read_ipv4(data, vlan, l2_bytes)
    if ethertype == 0x86DD:
        return _read_ipv6(data, vlan, l2_bytes)
    return Reading(0, ethertype=_name_length(ethertype, data) if 0 < ethertype < 0x600 else ethertype)


def _name_length(length: int, data: bytes) -> int:
    """What follows a length field (IEEE 802.3, 3.2.6), which ends at 1500: LLC, or Novell's raw IPX, which has none."""
    return ETHERTYPE_NONE if length > 1500 or data[:2] == b"\xff\xff" else ETHERTYPE_LLC


def _read_ipv4(data: bytes, vlan: int, before: int) -> Reading:
    """RFC 791. Total length 0 is what a sender leaves to the device's offload: then all that is there belongs to it."""
    if len(data) < 20:
        return Reading(4, PROTOCOL_UNKNOWN, reason="truncated_ip")
    version, head = data[0] // 16, data[0] % 16 * 4
    protocol = data[9]
    if version != 4:
        return Reading(4, PROTOCOL_UNKNOWN, reason="malformed_ip")
    if head < 20:
        return Reading(4, protocol, reason="malformed_ip")
    if head > len(data):
        return Reading(4, protocol, reason="truncated_ip")
    key = FlowKey(4, protocol, V4_MAPPED + data[12:16], V4_MAPPED + data[16:20], vlan=vlan)
    if number(data[6:8]) % 0x2000:
        return Reading(4, protocol, key)
    own = data[: number(data[2:4]) or None]
    return _read_l4(key, own[head:], before + head)


def _read_ipv6(data: bytes, vlan: int, before: int) -> Reading:
    """RFC 8200. Payload length 0 is a jumbogram's (RFC 2675): then all that is there belongs to it."""
    if len(data) < 40:
        return Reading(6, PROTOCOL_UNKNOWN, reason="truncated_ip")
    if data[0] // 16 != 6:
        return Reading(6, PROTOCOL_UNKNOWN, reason="malformed_ip")
    protocol, src, dst = data[6], data[8:24], data[24:40]
    claimed = number(data[4:6])
    own = data[40 : 40 + claimed if claimed else None]
    rest, extensions = own, 0
    while protocol in EXTENSION_HEADERS:
        extensions += 1
        if extensions > EXTENSIONS_MAX:
            return Reading(6, protocol, reason="ip_extension_limit")
        length = _extension_bytes(protocol, rest)
        if length is None or length > len(rest):
            return Reading(6, protocol, reason="truncated_ip")
        if protocol == 44 and number(rest[2:4]) // 8:
            return Reading(6, rest[0], FlowKey(6, rest[0], src, dst, vlan=vlan))
        rest, following = rest[length:], rest[0]
        if before + 40 + len(own) - len(rest) > REACH_MAX:
            return Reading(6, protocol, reason="ip_extension_limit")
        protocol = following
    key = FlowKey(6, protocol, src, dst, vlan=vlan)
    return _read_l4(key, rest, before + 40 + len(own) - len(rest))


def _extension_bytes(kind: int, data: bytes) -> int | None:
    """Length of an extension header (RFC 8200, section 4; RFC 4302, 2.2); all are at least 8. None: cut before that."""
    if len(data) < 8:
        return None
    if kind == 44:
        return 8
    return (data[1] + 2) * 4 if kind == 51 else (data[1] + 1) * 8


def _read_l4(key: FlowKey, data: bytes, before: int) -> Reading:
    if key.protocol not in WITH_PORTS:
        return Reading(key.family, key.protocol, key, head_bytes=before)
    if len(data) < 4:
        return Reading(key.family, key.protocol, reason="truncated_l4")
    key = key._replace(sport=number(data[0:2]), dport=number(data[2:4]))
    flags, head = 0, 8 if key.protocol in (17, 136) else 0
    if key.protocol == 6 and len(data) >= 14:
        flags, head = number(data[12:14]) % 4096, data[12] // 16 * 4
    return Reading(key.family, key.protocol, key, flags, head_bytes=before + head)


def wire_tally(frame_bytes: int, head_bytes: int, gso_size: int) -> Tally:
    """What is on the wire: the payload is cut into pieces of `gso_size`, each gets a copy of the headers."""
    payload = frame_bytes - head_bytes
    if not gso_size or payload <= gso_size:
        return Tally(1, frame_bytes, 1)
    pieces = [min(gso_size, payload - at) for at in range(0, payload, gso_size)]
    return Tally(len(pieces), sum(head_bytes + piece for piece in pieces), 1)


@dataclass
class Counts:
    """Sums of many readings, or what one attachment counted: equal, or the meter is wrong."""

    rows: dict[tuple[int, int], Tally] = field(default_factory=dict)  # by family and protocol; (0, 0) is not IP
    reasons: dict[str, Tally] = field(default_factory=dict)
    flows: dict[FlowKey, tuple[Tally, int]] = field(default_factory=dict)  # with their TCP flags
    ethertypes: dict[int, Tally] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Takes another's sums to its own."""
        _add_tallies(self.rows, other.rows)
        _add_tallies(self.reasons, other.reasons)
        _add_tallies(self.ethertypes, other.ethertypes)
        for key, (tally, flags) in other.flows.items():
            before, seen = self.flows.get(key, (Tally(), 0))
            self.flows[key] = before.plus(tally), seen | flags


def _add_tallies(to: dict[Key, Tally], more: Mapping[Key, Tally]) -> None:
    for key, tally in more.items():
        to[key] = to.get(key, Tally()).plus(tally)


def count_readings(read: Iterable[tuple[Reading, Tally]]) -> Counts:
    """The sums, each reading with its size on the wire."""
    total = Counts()
    for reading, size in read:
        one = Counts()
        if reading.family is not None:
            one.rows[reading.family, reading.protocol] = size
        if reading.reason is not None:
            one.reasons[reading.reason] = size
        if reading.ethertype is not None:
            one.ethertypes[reading.ethertype] = size
        if reading.flow is not None:
            one.flows[reading.flow] = size, reading.tcp_flags
        total.add(one)
    return total


def count_drain(drain: Drain, attachment: int) -> Counts:
    """What one attachment counted, of what one flip brought. A flow may be in the regions of several CPUs."""
    counters = drain.counters[attachment]
    counts = Counts()
    for row in np.flatnonzero(counters.any(axis=1)):
        tally = Tally(*map(int, counters[row]))
        if row >= records.ROW_UNATTRIBUTED:
            counts.reasons[records.REASONS[row - records.ROW_UNATTRIBUTED]] = tally
        elif row == records.ROW_NON_IP:
            counts.rows[0, 0] = tally
        else:
            counts.rows[(6, int(row) - 257) if row >= records.ROW_IPV6 else (4, int(row))] = tally
    for row in _mine(drain.ethertypes, attachment):
        counts.add(Counts(ethertypes={int(row["ethertype"]): _tally(row)}))
    for row in (row for rows in drain.flows for row in _mine(rows, attachment)):
        counts.add(Counts(flows={flow_key(row): (_tally(row), int(row["tcp_flags"]))}))
    return counts


def flow_key(row: np.void) -> FlowKey:
    """The key in a row of dtype FLOW."""
    numbers = (int(row[name]) for name in ("src_port", "dst_port", "vlan"))
    return FlowKey(
        int(row["family"]), int(row["protocol"]), row["src_addr"].tobytes(), row["dst_addr"].tobytes(), *numbers
    )


def _mine(rows: NDArray[np.void], attachment: int) -> NDArray[np.void]:
    mine: NDArray[np.void] = rows[rows["attachment"] == attachment]
    return mine


def _tally(row: np.void) -> Tally:
    return Tally(int(row["packets"]), int(row["bytes"]), int(row["skbs"]))
