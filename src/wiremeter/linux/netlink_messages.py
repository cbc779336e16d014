"""Netlink messages about devices: what they say as values, and how they are read from bytes. Pure.

Message and attribute numbers are those of the kernel's uapi headers, named beside each group. Parsers get a buffer
and where in it a body lies; they raise KernelError, struct.error or IndexError if it makes no sense.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from wiremeter.errors import KernelError

NLA_TYPE_MASK = 0x3FFF  # linux/netlink.h

# linux/rtnetlink.h
RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETQDISC = 18, 22, 26, 38
RTM_GETTFILTER, RTM_GETSTATS, RTM_GETNEXTHOP = 46, 94, 106
RT_TABLE_MAIN = 254
RTN_UNICAST = 1
RTA_OIF, RTA_MULTIPATH, RTA_TABLE, RTA_NH_ID = 4, 9, 15, 30

# linux/if_link.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_EXT_MASK = 18, 29
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFLA_XDP, IFLA_PARENT_DEV_NAME, IFLA_PARENT_DEV_BUS_NAME = 43, 56, 57
IFLA_INFO_KIND = 1
IFLA_XDP_ATTACHED, IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID = 2, 4, 5, 6, 7
IFLA_STATS_LINK_64 = 1

# linux/if_addr.h
IFA_ADDRESS, IFA_LOCAL = 1, 2

# linux/nexthop.h
NHA_ID, NHA_GROUP, NHA_OIF = 1, 2, 5

# linux/pkt_sched.h, linux/gen_stats.h
TC_H_ROOT = 0xFFFFFFFF
TC_H_CLSACT = 0xFFFFFFF1  # also TC_H_INGRESS, of the older qdisc
TC_H_CLSACT_INGRESS, TC_H_CLSACT_EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_…GRESS)
TCA_KIND, TCA_OPTIONS, TCA_STATS2, TCA_CHAIN = 1, 2, 7, 11
TCA_STATS_QUEUE = 3

# linux/pkt_cls.h
TCA_BPF_NAME, TCA_BPF_ID = 7, 11

# linux/genetlink.h, linux/netdev.h
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 1, 2
NETDEV_A_DEV_IFINDEX, NETDEV_A_DEV_XDP_FEATURES, NETDEV_A_DEV_XDP_RX_METADATA_FEATURES = 1, 3, 5

# linux/if.h
IFF_UP, IFF_POINTOPOINT = 0x1, 0x10

MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
U32 = struct.Struct("=I")
U64 = struct.Struct("=Q")
I32 = struct.Struct("=i")
IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, ARPHRD type, ifindex, flags, change
IFADDR = struct.Struct("=4BI")  # struct ifaddrmsg: family, prefix length, flags, scope, ifindex
RTMSG = struct.Struct("=8BI")  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
TCMSG = struct.Struct("=B3xiIII")  # struct tcmsg: family, ifindex, handle, parent, info
IF_STATS = struct.Struct("=B3xII")  # struct if_stats_msg: family, ifindex, filter_mask
NHMSG = struct.Struct("=4BI")  # struct nhmsg: family, scope, protocol, reserved, flags
RTNEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, ifindex
NEXTHOP_GROUP = struct.Struct("=IBBH")  # struct nexthop_grp: id, weight, weight_high, reserved
GENL = struct.Struct("=BBH")  # struct genlmsghdr: command, version, reserved
STATS64 = struct.Struct("=4Q16x2Q56xQ56xQ")  # of struct rtnl_link_stats64 what LinkCounters holds
QUEUE_STATS = struct.Struct("=5I")  # struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits


#: Bits of `xdp-features` and of `xdp-rx-metadata-features`, lowest first (Documentation/netlink/specs/netdev.yaml).
XDP_FEATURE_NAMES = ("basic", "redirect", "ndo-xmit", "xsk-zerocopy", "hw-offload", "rx-sg", "ndo-xmit-sg")
XDP_RX_METADATA_NAMES = ("timestamp", "hash", "vlan-tag")

#: Names of IFLA_XDP_ATTACHED (enum xdp_attach_type of linux/if_link.h).
XDP_MODE_NAMES = ("none", "xdp", "xdp-generic", "xdp-offload", "multiple")


class LinkCounters(NamedTuple):
    """The kernel's counters of one device since it was made, all 64 bits (struct rtnl_link_stats64)."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0
    rx_missed: int = 0
    rx_nohandler: int = 0

    def since(self, before: LinkCounters) -> LinkCounters:
        """What was gained since `before`, field by field.

        >>> LinkCounters(rx_packets=5).since(LinkCounters(rx_packets=2)).rx_packets
        3
        """
        return LinkCounters(*(now - then for now, then in zip(self, before, strict=True)))


@dataclass(frozen=True, slots=True)
class XdpSlot:
    """What is in a device's XDP slots. mode: one of XDP_MODE_NAMES; program_ids: of all modes, native first."""

    mode: str = "none"
    program_ids: tuple[int, ...] = ()

    @property
    def is_free(self) -> bool:
        """Whether no XDP program is attached, in any mode."""
        return self.mode == "none"


@dataclass(frozen=True, slots=True)
class Link:
    """One device as RTM_GETLINK describes it.

    arphrd: hardware type (linux/if_arp.h); kind: IFLA_INFO_KIND such as "veth", "" where there is none;
    master, lower: ifindex of the device it is enslaved to, and of the one it is stacked on or paired with, or 0;
    parent: the bus device behind it, "" if virtual; raw_name: `name` as the kernel has it, which may be no text;
    mac: its hardware address, 6 bytes for Ethernet, none without a link layer.
    """

    name: str
    ifindex: int
    arphrd: int
    mtu: int
    flags: int
    raw_name: bytes = b""
    kind: str = ""
    master: int = 0
    lower: int = 0
    rx_queues: int = 1
    tx_queues: int = 1
    parent: str = ""
    parent_bus: str = ""
    xdp: XdpSlot = field(default_factory=XdpSlot)
    mac: bytes = b""

    @property
    def is_up(self) -> bool:
        """Whether the device is administratively up."""
        return bool(self.flags & IFF_UP)


class Qdisc(NamedTuple):
    """A device's egress qdisc with all its children.

    kind: the root's; drops: skbs dropped since it was made; queued: skbs waiting now.
    """

    kind: str
    drops: int
    queued: int


class XdpSupport(NamedTuple):
    """What a driver says about native XDP: names of XDP_FEATURE_NAMES and XDP_RX_METADATA_NAMES."""

    features: frozenset[str]
    rx_metadata: frozenset[str]


class Message(NamedTuple):
    """One netlink message: its type and flags, and where in the buffer its body lies."""

    kind: int
    flags: int
    sequence: int
    start: int
    end: int


def parse_messages(data: bytes) -> Iterator[Message]:
    """The netlink messages in `data`, in order. Raises KernelError if one is cut or impossible."""
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < MESSAGE.size:
            raise damaged("a message header", end - offset)
        length, kind, flags, sequence, _ = MESSAGE.unpack_from(data, offset)
        if length < MESSAGE.size or offset + length > end:
            raise damaged("a message", length)
        yield Message(kind, flags, sequence, offset + MESSAGE.size, offset + length)
        offset += (length + 3) & ~3


def parse_attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each attribute's payload in data[start:end]. Raises KernelError if one is impossible."""
    while start < end:
        if end - start < ATTRIBUTE.size:
            raise damaged("an attribute header", end - start)
        length, kind = ATTRIBUTE.unpack_from(data, start)
        if length < ATTRIBUTE.size or start + length > end:
            raise damaged("an attribute", length)
        yield kind & NLA_TYPE_MASK, start + ATTRIBUTE.size, start + length
        start += (length + 3) & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """An attribute as bytes, padded.

    >>> attribute(29, b"abcde").hex()
    '09001d006162636465000000'
    """
    length = ATTRIBUTE.size + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def parse_link(data: bytes, start: int, end: int) -> Link:
    """The device that a RTM_NEWLINK body in data[start:end] describes."""
    _, arphrd, ifindex, flags, _ = IFINFO.unpack_from(data, start)
    found = {kind: (at, to) for kind, at, to in parse_attributes(data, start + IFINFO.size, end)}

    def number(kind: int, default: int = 0) -> int:
        return U32.unpack_from(data, found[kind][0])[0] if kind in found else default

    def text(kind: int) -> str:
        return text_at(data, *found[kind]) if kind in found else ""

    return Link(
        name=text(IFLA_IFNAME),
        ifindex=ifindex,
        arphrd=arphrd,
        mtu=number(IFLA_MTU),
        flags=flags,
        raw_name=data[slice(*found[IFLA_IFNAME])].rstrip(b"\0") if IFLA_IFNAME in found else b"",
        kind=_link_kind(data, *found[IFLA_LINKINFO]) if IFLA_LINKINFO in found else "",
        master=number(IFLA_MASTER),
        lower=number(IFLA_LINK),
        rx_queues=number(IFLA_NUM_RX_QUEUES, 1),
        tx_queues=number(IFLA_NUM_TX_QUEUES, 1),
        parent=text(IFLA_PARENT_DEV_NAME),
        parent_bus=text(IFLA_PARENT_DEV_BUS_NAME),
        xdp=_parse_xdp(data, *found[IFLA_XDP]) if IFLA_XDP in found else XdpSlot(),
        mac=data[slice(*found[IFLA_ADDRESS])] if IFLA_ADDRESS in found else b"",
    )


def parse_counters(data: bytes, start: int, end: int) -> tuple[int, LinkCounters]:
    """ifindex and counters of a RTM_NEWSTATS body in data[start:end]."""
    _, ifindex, _ = IF_STATS.unpack_from(data, start)
    for kind, at, _ in parse_attributes(data, start + IF_STATS.size, end):
        if kind == IFLA_STATS_LINK_64:
            return ifindex, LinkCounters._make(STATS64.unpack_from(data, at))
    return ifindex, LinkCounters()


class Address(NamedTuple):
    """One address of a device: 4 or 16 bytes in network order, or none where its family is not IP."""

    ifindex: int
    packed: bytes
    prefix: int


def parse_address(data: bytes, start: int, end: int) -> Address:
    """The address that a RTM_NEWADDR body gives a device."""
    family, prefix, _, _, ifindex = IFADDR.unpack_from(data, start)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return Address(ifindex, b"", prefix)
    found = {kind: data[at:to] for kind, at, to in parse_attributes(data, start + IFADDR.size, end)}
    # Where both are given, IFA_ADDRESS is that of a point-to-point device's other end.
    return Address(ifindex, found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b""), prefix)


class QdiscPart(NamedTuple):
    """One qdisc of a device, the root or a child; parent as in struct tcmsg."""

    ifindex: int
    parent: int
    qdisc: Qdisc


def parse_qdisc(data: bytes, start: int, end: int) -> QdiscPart:
    """The qdisc that a RTM_NEWQDISC body in data[start:end] describes."""
    _, ifindex, _, parent, _ = TCMSG.unpack_from(data, start)
    name, queued, drops = "", 0, 0
    for kind, at, to in parse_attributes(data, start + TCMSG.size, end):
        if kind == TCA_KIND:
            name = text_at(data, at, to)
        elif kind == TCA_STATS2:
            for stat, stat_at, _ in parse_attributes(data, at, to):
                if stat == TCA_STATS_QUEUE:
                    queued, _, drops, _, _ = QUEUE_STATS.unpack_from(data, stat_at)
    return QdiscPart(ifindex, parent, Qdisc(name, drops, queued))


def merge_qdiscs(parts: Iterable[QdiscPart]) -> dict[int, Qdisc]:
    """Each device's egress qdisc by ifindex.

    A root's counters hold those of its children: classful qdiscs count a child's drops as their own
    (qdisc_tree_reduce_backlog()), mq adds its children up when asked (mq_dump()). ingress and clsact have a parent
    of their own and are not on the way out.
    """
    return {ifindex: qdisc for ifindex, parent, qdisc in parts if parent == TC_H_ROOT}


class TcFilter(NamedTuple):
    """One filter at a qdisc. kind: "bpf", "flower", …; a "bpf" one has the id of its program, and maybe a name.

    handle 0: nothing but the place for filters of this kind, chain and priority, which most have behind it.
    """

    kind: str
    chain: int
    priority: int
    handle: int
    program_id: int = 0
    name: str = ""


def parse_filter(data: bytes, start: int, end: int) -> TcFilter:
    """The filter that a RTM_NEWTFILTER body in data[start:end] describes."""
    _, _, handle, _, info = TCMSG.unpack_from(data, start)
    kind, chain, program_id, name = "", 0, 0, ""
    for attribute, at, to in parse_attributes(data, start + TCMSG.size, end):
        if attribute == TCA_KIND:
            kind = text_at(data, at, to)
        elif attribute == TCA_CHAIN:
            chain = U32.unpack_from(data, at)[0]
        elif attribute == TCA_OPTIONS and kind == "bpf":  # the kernel writes the kind first; tcf_fill_node()
            for option, option_at, option_to in parse_attributes(data, at, to):
                if option == TCA_BPF_ID:
                    program_id = U32.unpack_from(data, option_at)[0]
                elif option == TCA_BPF_NAME:
                    name = text_at(data, option_at, option_to)
    return TcFilter(kind, chain, info >> 16, handle, program_id, name)


def parse_default_route(data: bytes, start: int, end: int) -> tuple[set[int], set[int]]:
    """(ifindexes, next-hop ids) of a RTM_NEWROUTE body if it is a default route of the main table, else empty sets.

    So is one for a part of the host's own addresses (`default from 2001:db8:2::/56`): with several IPv6 uplinks each
    has such a route, and there may be no other. Next-hop ids are given only where the kernel leaves out the devices
    (net.ipv4.nexthop_compat_mode=0).
    """
    _, dst_len, _, _, table, _, _, route_type, _ = RTMSG.unpack_from(data, start)
    if dst_len or route_type != RTN_UNICAST:
        return set(), set()
    devices: set[int] = set()
    next_hops: set[int] = set()
    for kind, at, to in parse_attributes(data, start + RTMSG.size, end):
        if kind == RTA_OIF:
            devices.add(I32.unpack_from(data, at)[0])
        elif kind == RTA_MULTIPATH:
            devices.update(_multipath_devices(data, at, to))
        elif kind == RTA_NH_ID:
            next_hops.add(U32.unpack_from(data, at)[0])
        elif kind == RTA_TABLE:
            table = U32.unpack_from(data, at)[0]
    if table != RT_TABLE_MAIN:
        return set(), set()
    return devices, set() if devices else next_hops


def parse_xdp_support(data: bytes, start: int, end: int) -> tuple[int, XdpSupport]:
    """ifindex and XDP support of a body of `netdev`'s dev-get in data[start:end]."""
    numbers = {NETDEV_A_DEV_IFINDEX: 0, NETDEV_A_DEV_XDP_FEATURES: 0, NETDEV_A_DEV_XDP_RX_METADATA_FEATURES: 0}
    for kind, at, to in parse_attributes(data, start + GENL.size, end):
        if kind in numbers:
            numbers[kind] = (U64 if to - at == U64.size else U32).unpack_from(data, at)[0]
    support = XdpSupport(
        _names_of_bits(numbers[NETDEV_A_DEV_XDP_FEATURES], XDP_FEATURE_NAMES),
        _names_of_bits(numbers[NETDEV_A_DEV_XDP_RX_METADATA_FEATURES], XDP_RX_METADATA_NAMES),
    )
    return numbers[NETDEV_A_DEV_IFINDEX], support


def parse_next_hop(data: bytes, start: int, end: int) -> tuple[set[int], list[int]]:
    """(ifindexes, ids of a group's members) of a RTM_NEWNEXTHOP body in data[start:end]."""
    devices: set[int] = set()
    members: list[int] = []
    for kind, at, to in parse_attributes(data, start + NHMSG.size, end):
        if kind == NHA_OIF:
            devices.add(U32.unpack_from(data, at)[0])
        elif kind == NHA_GROUP:
            members += [member for member, *_ in NEXTHOP_GROUP.iter_unpack(data[at:to])]
    return devices, members


def parse_family_id(data: bytes, start: int, end: int) -> int:
    """The id of a generic netlink family, from the body of the controller's answer in data[start:end]."""
    for kind, at, _ in parse_attributes(data, start + GENL.size, end):
        if kind == CTRL_ATTR_FAMILY_ID:
            return int.from_bytes(data[at : at + 2], sys.byteorder)
    raise damaged("a family without an id", end - start)


def damaged(what: str, length: int) -> KernelError:
    return KernelError(f"netlink: {what} of {length} bytes makes no sense", call="recvmsg", errno=errno.EBADMSG)


def text_at(data: bytes, start: int, end: int) -> str:
    r"""Text of the kernel's. A device's name may hold any bytes: those that are no UTF-8 become escapes (`\xff`)."""
    return data[start:end].rstrip(b"\0").decode(errors="backslashreplace")


def _link_kind(data: bytes, start: int, end: int) -> str:
    for kind, at, to in parse_attributes(data, start, end):
        if kind == IFLA_INFO_KIND:
            return text_at(data, at, to)
    return ""


def _parse_xdp(data: bytes, start: int, end: int) -> XdpSlot:
    mode, programs = 0, {}
    for kind, at, _ in parse_attributes(data, start, end):
        if kind == IFLA_XDP_ATTACHED:
            mode = data[at]
        elif kind in (IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID):
            programs[kind] = U32.unpack_from(data, at)[0]
    name = XDP_MODE_NAMES[mode] if mode < len(XDP_MODE_NAMES) else str(mode)
    # IFLA_XDP_PROG_ID repeats the only one; dict keys keep the order and drop the repetition.
    return XdpSlot(name, tuple(dict.fromkeys(number for _, number in sorted(programs.items()))))


def _multipath_devices(data: bytes, start: int, end: int) -> Iterator[int]:
    while start + RTNEXTHOP.size <= end:
        length, _, _, ifindex = RTNEXTHOP.unpack_from(data, start)
        if length < RTNEXTHOP.size:
            raise damaged("a next hop", length)
        yield ifindex
        start += (length + 3) & ~3


def _names_of_bits(bits: int, names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name for place, name in enumerate(names) if bits & 1 << place)
