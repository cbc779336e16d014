"""The addresses of this host, in the calling thread's network namespace."""

from __future__ import annotations

from wiremeter.linux.netlink import RouteSocket

_V4_MAPPED = bytes(10) + b"\xff\xff"


def own_addresses() -> frozenset[bytes]:
    """All of them, 16 bytes in network order, IPv4 as v4-mapped. Raises KernelError."""
    with RouteSocket() as route:
        packed = (address.packed for address in route.addresses())
        return frozenset(_V4_MAPPED + each if len(each) == 4 else each for each in packed)
