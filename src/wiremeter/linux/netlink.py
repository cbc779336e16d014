"""What the kernel says about devices, over netlink sockets: rtnetlink and the generic netlink family `netdev`.

A socket belongs to the network namespace in which it was made, so make a `RouteSocket` where the devices are. The
questions asked every interval, `counters` and `qdiscs`, read one fixed struct a device; `links` reads everything.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Self, TypeVar

from wiremeter.errors import MORE_FILES, KernelError
from wiremeter.linux import netlink_messages as nl

T = TypeVar("T")

# linux/netlink.h
NETLINK_ROUTE = 0
NETLINK_GENERIC = 16
SOL_NETLINK = 270
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1

# linux/rtnetlink.h
RTMGRP_LINK = 1
RTEXT_FILTER_SKIP_STATS = 1 << 3

# linux/genetlink.h, linux/netdev.h
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
NETDEV_CMD_DEV_GET = 1

_RECEIVE_BYTES = 1 << 16  # the kernel fills at most 32 KiB of a dump at once; netlink_recvmsg()
_DUMP_TRIES = 20


class _Interrupted(Exception):
    """The table changed while it was dumped (NLM_F_DUMP_INTR)."""


class NetlinkSocket:
    """A netlink socket in the namespace of the thread that makes it; a context manager. Not for several threads."""

    def __init__(self, protocol: int, groups: int = 0) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            self._socket.bind((0, groups))
        except OSError as error:
            is_full = error.errno in (errno.EMFILE, errno.ENFILE)
            sandbox = "a sandbox around this process must allow AF_NETLINK (systemd: RestrictAddressFamilies)"
            raise KernelError(
                f"no netlink socket: {error.strerror}; {MORE_FILES if is_full else sandbox}",
                call="socket(AF_NETLINK)",
                errno=error.errno or 0,
            ) from error
        for option in (NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):  # strict: filters in dump requests are heeded
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; doing it again is allowed."""
        self._socket.close()

    def dump(self, kind: int, body: bytes, parse: Callable[[bytes, int, int], T]) -> list[T]:
        """What `parse` makes of each message of a dump.

        Asks again when the table changed meanwhile. Raises KernelError if the kernel refuses, or if the table never
        stays still.
        """
        for _ in range(_DUMP_TRIES):
            try:
                return self._exchange(kind, NLM_F_DUMP, body, parse)
            except _Interrupted:
                continue
        raise KernelError(
            f"{_request_name(kind)}: the table changed during each of {_DUMP_TRIES} readings; try again later",
            call=_request_name(kind),
            errno=errno.EINTR,
        )

    def get(self, kind: int, body: bytes, parse: Callable[[bytes, int, int], T]) -> list[T]:
        """What `parse` makes of the answer to a request that is not a dump. Raises KernelError if refused."""
        return self._exchange(kind, NLM_F_ACK, body, parse)

    def _exchange(self, kind: int, flags: int, body: bytes, parse: Callable[[bytes, int, int], T]) -> list[T]:
        self._sequence += 1
        header = nl.MESSAGE.pack(nl.MESSAGE.size + len(body), kind, NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
        found: list[T] = []
        interrupted = False
        while True:
            data = self._receive()
            for message in nl.parse_messages(data):
                if message.sequence != self._sequence:  # left over from an exchange that was given up
                    continue
                interrupted = interrupted or bool(message.flags & NLM_F_DUMP_INTR)
                if message.kind in (NLMSG_ERROR, NLMSG_DONE):
                    _raise_refusal(message, data, kind)
                    if interrupted:
                        raise _Interrupted
                    return found
                try:
                    found.append(parse(data, message.start, message.end))
                except (struct.error, IndexError) as error:
                    raise nl.damaged("a message", message.end - message.start) from error

    def _receive(self) -> bytes:
        data, _, flags, _ = self._socket.recvmsg(_RECEIVE_BYTES)
        if flags & socket.MSG_TRUNC:
            raise KernelError(
                f"a netlink message is longer than {_RECEIVE_BYTES} bytes", call="recvmsg", errno=errno.EMSGSIZE
            )
        return data


class RouteSocket(NetlinkSocket):
    """Devices, their counters, qdiscs and routes, of the namespace in which the socket was made."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def links(self) -> list[nl.Link]:
        """All devices, in ifindex order."""
        # The mask leaves out IPv6's own statistics, most of a message's length; the 64-bit counters stay.
        mask = nl.attribute(nl.IFLA_EXT_MASK, nl.U32.pack(RTEXT_FILTER_SKIP_STATS))
        found = self.dump(nl.RTM_GETLINK, nl.IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + mask, nl.parse_link)
        return sorted(found, key=lambda link: link.ifindex)

    def counters(self) -> dict[int, nl.LinkCounters]:
        """Each device's counters by ifindex: cheaper than `links`, for every interval."""
        request = nl.IF_STATS.pack(socket.AF_UNSPEC, 0, 1 << (nl.IFLA_STATS_LINK_64 - 1))
        return dict(self.dump(nl.RTM_GETSTATS, request, nl.parse_counters))

    def qdiscs(self) -> dict[int, nl.Qdisc]:
        """Each device's egress qdisc by ifindex."""
        return nl.merge_qdiscs(self.dump(nl.RTM_GETQDISC, nl.TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0), nl.parse_qdisc))

    def addresses(self) -> list[nl.Address]:
        """The IP addresses of all devices."""
        found = self.dump(nl.RTM_GETADDR, nl.IFADDR.pack(0, 0, 0, 0, 0), nl.parse_address)
        return [address for address in found if address.packed]

    def ingress_qdisc(self, ifindex: int) -> str:
        """The qdisc that holds a device's tc filters on the way in: "clsact", the older "ingress", or ""."""
        parts = self.dump(nl.RTM_GETQDISC, nl.TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0), nl.parse_qdisc)
        found = (part.qdisc.kind for part in parts if (part.ifindex, part.parent) == (ifindex, nl.TC_H_CLSACT))
        return next(found, "")

    def filters(self, ifindex: int, *, egress: bool) -> list[nl.TcFilter]:
        """What is on one side of a device's clsact qdisc, or in its place in a shared block, whoever put it there.

        None at all where there is no such qdisc.
        """
        parent = nl.TC_H_CLSACT_EGRESS if egress else nl.TC_H_CLSACT_INGRESS
        found = self.dump(nl.RTM_GETTFILTER, nl.TCMSG.pack(socket.AF_UNSPEC, ifindex, 0, parent, 0), nl.parse_filter)
        # A place is told apart only where nothing is in it: a "fw" filter of the old kind is no more than that.
        filled = {(each.chain, each.priority) for each in found if each.handle}
        return [each for each in found if each.handle or (each.chain, each.priority) not in filled]

    def default_route_devices(self) -> frozenset[int]:
        """ifindexes of the devices that IPv4 and IPv6 default routes of the main table lead to, all next hops."""
        devices: set[int] = set()
        next_hops: set[int] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            for found, named in self._default_routes(family):
                devices |= found
                next_hops |= named
        for next_hop in next_hops:
            devices |= self._next_hop_devices(next_hop)
        return frozenset(devices)

    def _default_routes(self, family: int) -> list[tuple[set[int], set[int]]]:
        request = nl.RTMSG.pack(family, 0, 0, 0, nl.RT_TABLE_MAIN, 0, 0, 0, 0)
        try:
            return self.dump(nl.RTM_GETROUTE, request, nl.parse_default_route)
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):  # no such table, or no IPv6
                return []
            raise

    def _next_hop_devices(self, next_hop: int) -> set[int]:
        request = nl.NHMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + nl.attribute(nl.NHA_ID, nl.U32.pack(next_hop))
        devices: set[int] = set()
        for found, members in self.get(nl.RTM_GETNEXTHOP, request, nl.parse_next_hop):
            devices |= found
            for member in members:  # a group's members are no groups; nh_create_ipv4() and _ipv6()
                devices |= self._next_hop_devices(member)
        return devices


def read_xdp_support() -> dict[int, nl.XdpSupport] | None:
    """What each device's driver says about native XDP, by ifindex; None before Linux 6.3, which cannot be asked."""
    with NetlinkSocket(NETLINK_GENERIC) as generic:
        name = nl.attribute(nl.CTRL_ATTR_FAMILY_NAME, b"netdev\0")
        try:
            ids = generic.get(GENL_ID_CTRL, nl.GENL.pack(CTRL_CMD_GETFAMILY, 1, 0) + name, nl.parse_family_id)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return dict(generic.dump(ids[0], nl.GENL.pack(NETDEV_CMD_DEV_GET, 1, 0), nl.parse_xdp_support))


class LinkWatch(NetlinkSocket):
    """Hears of devices that appear, change or go, from now on. `fileno` is for select: readable means `read`."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE, groups=RTMGRP_LINK)

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    def read(self) -> None:
        """Forgets what has been heard; what has changed, `links` tells. Does not wait."""
        while True:
            try:
                self._socket.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more than the socket holds: no matter
                    raise


def _raise_refusal(message: nl.Message, data: bytes, kind: int) -> None:
    """Raise KernelError if an NLMSG_ERROR or NLMSG_DONE says that the request failed."""
    if message.end - message.start < nl.I32.size:
        return
    code = -nl.I32.unpack_from(data, message.start)[0]
    if code <= 0:
        return
    said = _extended_message(message, data)
    raise KernelError(
        f"{_request_name(kind)}: {os.strerror(code)}{f' (the kernel says: {said})' if said else ''}",
        call=_request_name(kind),
        errno=code,
    )


def _extended_message(message: nl.Message, data: bytes) -> str:
    """The kernel's own words in an extended acknowledgement, "" if it gave none."""
    if not message.flags & NLM_F_ACK_TLVS:
        return ""
    start = message.start + nl.I32.size
    if message.kind == NLMSG_ERROR:  # the request comes back before the attributes, whole or just its header
        length = nl.MESSAGE.unpack_from(data, start)[0]
        start += nl.MESSAGE.size if message.flags & NLM_F_CAPPED else (length + 3) & ~3
    for kind, at, to in nl.parse_attributes(data, start, message.end):
        if kind == NLMSGERR_ATTR_MSG:
            return nl.text_at(data, at, to)
    return ""


def _request_name(kind: int) -> str:
    names = {
        nl.RTM_GETLINK: "RTM_GETLINK",
        nl.RTM_GETADDR: "RTM_GETADDR",
        nl.RTM_GETROUTE: "RTM_GETROUTE",
        nl.RTM_GETQDISC: "RTM_GETQDISC",
        nl.RTM_GETTFILTER: "RTM_GETTFILTER",
        nl.RTM_GETSTATS: "RTM_GETSTATS",
        nl.RTM_GETNEXTHOP: "RTM_GETNEXTHOP",
    }
    return names.get(kind, "generic netlink")
