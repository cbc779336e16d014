"""What devices are, for people: their addresses, speeds and drivers. Needs no privilege."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from wiremeter.errors import KernelError
from wiremeter.linux.ethtool import Ethtool
from wiremeter.linux.netlink import RouteSocket


class DeviceFacts(NamedTuple):
    """One device.

    addresses: with their prefix lengths. mac: "" without a link layer. speed_mbits: None where the driver does not
    tell, as of a device that is down. driver: "" if it is unnamed.
    """

    name: str
    ifindex: int
    addresses: tuple[str, ...]
    mac: str
    speed_mbits: int | None
    mtu: int
    driver: str


def read_inventory(ifindexes: Collection[int], root: Path = Path("/")) -> tuple[DeviceFacts, ...]:
    """Those devices of the calling thread's network namespace that are still there. Raises KernelError."""
    with RouteSocket() as route:
        links = [link for link in route.links() if link.ifindex in ifindexes]
        addresses = route.addresses()
    found = []
    with Ethtool() as ethtool:
        for link in links:
            try:
                driver = ethtool.driver(link.raw_name)
            except KernelError:  # gone meanwhile
                continue
            own = [f"{ipaddress.ip_address(a.packed)}/{a.prefix}" for a in addresses if a.ifindex == link.ifindex]
            speed = _speed(root / "sys/class/net" / link.name / "speed")
            found.append(DeviceFacts(link.name, link.ifindex, tuple(own), link.mac.hex(":"), speed, link.mtu, driver))
    return tuple(found)


def _speed(path: Path) -> int | None:
    try:
        speed = int(path.read_text())
    except (OSError, ValueError):
        return None
    return speed if speed > 0 else None
