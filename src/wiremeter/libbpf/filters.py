"""How many clsact filters a device has, whoever set them: libbpf asks only for one by its handle."""

from __future__ import annotations

import socket
import struct

RTM_NEWTFILTER, RTM_GETTFILTER = 44, 46
CLSACT_INGRESS, CLSACT_EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS / _EGRESS)
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3


def count_filters(ifindex: int) -> int:
    """Filters on both sides of the clsact qdisc of a device; 0 where it has none."""
    return sum(_count(ifindex, parent) for parent in (CLSACT_INGRESS, CLSACT_EGRESS))


def _count(ifindex: int, parent: int) -> int:
    request = struct.pack("=IHHII", 36, RTM_GETTFILTER, NLM_F_REQUEST_DUMP, 1, 0)
    request += struct.pack("=BxHiIII", 0, 0, ifindex, 0, parent, 0)
    found = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.send(request)
        while True:
            data = route.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    return found
                handle = struct.unpack_from("=I", data, 16 + 8)[0]
                found += kind == RTM_NEWTFILTER and handle != 0
                data = data[(length + 3) & ~3 :]
