"""Devices: the facts about each, and which of them a list of patterns means."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from wiremeter.errors import InputError, KernelError
from wiremeter.linux.ethtool import Ethtool, Features
from wiremeter.linux.netlink import RouteSocket, read_xdp_support
from wiremeter.linux.netlink_messages import IFF_POINTOPOINT, Link, XdpSlot, XdpSupport

AUTO = "auto"
ETHERNET_BYTES = 14  # an Ethernet header without tags

# linux/if_arp.h
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772
ARPHRD_PPP, ARPHRD_RAWIP, ARPHRD_TUNNEL, ARPHRD_TUNNEL6, ARPHRD_SIT, ARPHRD_NONE = 512, 519, 768, 769, 776, 0xFFFE
ARPHRD_IPGRE, ARPHRD_IP6GRE = 778, 823

_WITH_ETHERNET = frozenset({ARPHRD_ETHER, ARPHRD_LOOPBACK})
_FROM_IP_HEADER = frozenset({ARPHRD_PPP, ARPHRD_RAWIP, ARPHRD_TUNNEL, ARPHRD_TUNNEL6, ARPHRD_SIT, ARPHRD_NONE})
_GRE = frozenset({ARPHRD_IPGRE, ARPHRD_IP6GRE})
_NAMED_TYPES = {
    24: "IEEE 1394",
    32: "InfiniBand",
    280: "CAN",
    801: "raw 802.11",
    802: "802.11 with a Prism header",
    803: "802.11 with a radiotap header",
    804: "IEEE 802.15.4",
    824: "netlink monitor",
    825: "6LoWPAN",
    826: "vsock monitor",
}


@dataclass(frozen=True, slots=True)
class Device:
    """What is known about one network interface.

    arphrd: hardware type (linux/if_arp.h); kind: the kernel's word for a virtual device ("veth"), "" if it has none;
    driver: by ethtool, "" if unnamed; parent: the bus device behind it, "" if virtual; master, lower: ifindex of the
    device it is enslaved to and of the one it is stacked on or paired with, or 0; xdp_support: None where the kernel
    cannot be asked (before 6.3); features: offloads by the kernel's names; fixed_features: those no one can change.
    """

    name: str
    ifindex: int
    arphrd: int = ARPHRD_ETHER
    mtu: int = 1500
    is_up: bool = True
    is_point_to_point: bool = False
    kind: str = ""
    driver: str = ""
    parent: str = ""
    parent_bus: str = ""
    master: int = 0
    lower: int = 0
    rx_queues: int = 1
    tx_queues: int = 1
    xdp: XdpSlot = field(default_factory=XdpSlot)
    xdp_support: XdpSupport | None = None
    features: Mapping[str, bool] = field(default_factory=dict)
    fixed_features: frozenset[str] = frozenset()

    @property
    def is_loopback(self) -> bool:
        """Whether this is loopback, which shows each packet as rx and as tx."""
        return self.arphrd == ARPHRD_LOOPBACK

    @property
    def is_physical(self) -> bool:
        """Whether hardware, or a hypervisor that plays it, is behind the device."""
        return bool(self.parent) and not self.kind

    @property
    def has_ethernet(self) -> bool:
        """Whether frames begin with an Ethernet header; if not, and there is support, they begin at the IP header."""
        return self.arphrd in _WITH_ETHERNET

    @property
    def l2_bytes(self) -> int:
        """Bytes before the IP header, without VLAN tags."""
        return ETHERNET_BYTES if self.has_ethernet else 0

    @property
    def unsupported_reason(self) -> str:
        """Why frames of this device cannot be parsed; "" if they can."""
        if self.arphrd in _WITH_ETHERNET or self.arphrd in _FROM_IP_HEADER:
            return ""
        if self.arphrd in _GRE:
            # ipgre_header() and ip6gre_header() write the outer header before the program at egress sees the packet,
            # unless the remote end is fixed.
            if self.is_point_to_point:
                return ""
            return "it is a GRE device without a fixed remote, whose packets begin with the outer header"
        name = _NAMED_TYPES.get(self.arphrd, "of a kind without a name here")
        return f"its link layer is {name} (ARPHRD {self.arphrd}); wiremeter reads Ethernet and bare IP"

    def has(self, feature: str) -> bool:
        """Whether an offload is on, by the kernel's name for it."""
        return self.features.get(feature, False)


def device_from(
    link: Link, driver: str = "", features: Features | None = None, xdp: XdpSupport | None = None
) -> Device:
    """The device that a link and what its driver says about it describe."""
    return Device(
        name=link.name,
        ifindex=link.ifindex,
        arphrd=link.arphrd,
        mtu=link.mtu,
        is_up=link.is_up,
        is_point_to_point=bool(link.flags & IFF_POINTOPOINT),
        kind=link.kind,
        driver=driver,
        parent=link.parent,
        parent_bus=link.parent_bus,
        master=link.master,
        lower=link.lower,
        rx_queues=link.rx_queues,
        tx_queues=link.tx_queues,
        xdp=link.xdp,
        xdp_support=xdp,
        features=features.active if features else {},
        fixed_features=features.fixed if features else frozenset(),
    )


def read_devices() -> tuple[Device, ...]:
    """All devices of the calling thread's network namespace, in ifindex order. Needs no privilege.

    What a driver does not answer (some refuse while the port is down) is left out of its device. Raises KernelError.
    """
    with RouteSocket() as route:
        links = route.links()
    support = read_xdp_support()
    devices = []
    with Ethtool() as ethtool:
        for link in links:
            driver = ""
            features: Features | None = None
            try:
                driver = ethtool.driver(link.raw_name)
                features = ethtool.features(link.raw_name)
            except KernelError as error:
                if error.errno == errno.ENODEV:  # gone, or renamed, since the links were read
                    continue
            xdp = None if support is None else support.get(link.ifindex, XdpSupport(frozenset(), frozenset()))
            devices.append(device_from(link, driver, features, xdp))
    return tuple(devices)


def read_default_route() -> frozenset[int]:
    """ifindexes of the devices that carry the default routes of the calling thread's network namespace."""
    with RouteSocket() as route:
        return route.default_route_devices()


def name_as_text(name: str) -> str:
    r"""A device's name as it is everywhere here: bytes that are no UTF-8, of which it may have any, are escapes.

    name: also as Python has it from the command line, where such bytes are surrogates (PEP 383).

    >>> print(name_as_text("b\udcff"), name_as_text("eth0"))
    b\xff eth0
    """
    return os.fsencode(name).decode(errors="backslashreplace")


def is_glob(pattern: str) -> bool:
    """Whether a pattern may match several devices, and later ones too, rather than name one."""
    return any(mark in pattern for mark in "*?[")


def select_devices(
    patterns: Sequence[str], devices: Iterable[Device], default_route: Collection[int], *, strict: bool = True
) -> tuple[Device, ...]:
    """The devices that `patterns` mean, each once, in the order of `devices`.

    patterns: names, globs (`veth*`; one that is a device's very name means that one too) and `auto`; none at all means
    `auto`. `auto` takes the devices whose ifindex is in
    default_route, never loopback; without any, every physical device that is up. A glob that matches nothing is no
    error: devices may come. Devices that cannot be parsed are in the answer if a pattern means them.
    Raises InputError for a name that no device has, and for an `auto` that finds none. With strict=False (looking
    again while running) these match nothing instead.
    """
    known = tuple(devices)
    chosen: set[int] = set()
    for pattern in map(name_as_text, patterns or (AUTO,)):
        matches = _matches(pattern, known, default_route)
        if not matches and strict and not is_glob(pattern):
            raise InputError(_no_default(known) if pattern == AUTO else _no_device(pattern, known))
        chosen.update(matches)
    return tuple(device for device in known if device.ifindex in chosen)


def _matches(pattern: str, devices: Sequence[Device], default_route: Collection[int]) -> set[int]:
    if pattern == AUTO:
        return _auto(devices, default_route)
    named = {device.ifindex for device in devices if device.name == pattern}
    if is_glob(pattern):
        named |= {device.ifindex for device in devices if fnmatchcase(device.name, pattern)}
    return named


def _auto(devices: Sequence[Device], default_route: Collection[int]) -> set[int]:
    routed = {device.ifindex for device in devices if device.ifindex in default_route and not device.is_loopback}
    if routed:
        return routed
    return {d.ifindex for d in devices if d.is_physical and d.is_up and not d.unsupported_reason}


def _no_default(devices: Sequence[Device]) -> str:
    return (
        "auto finds no device: there is no default route, and no physical device is up."
        f" Name one with --interface; there are: {_listed(devices)}"
    )


def _no_device(name: str, devices: Sequence[Device]) -> str:
    if name in ("any", "all"):
        return f"no device is called {name}; to meter all, use the glob '*'"
    near = difflib.get_close_matches(name, [device.name for device in devices], n=3, cutoff=0.5)
    if near:
        return f"no device is called {name}; did you mean {' or '.join(near)}?"
    return f"no device is called {name}; there are: {_listed(devices)}"


def _listed(devices: Sequence[Device], most: int = 20) -> str:
    names = [device.name for device in devices[:most]]
    more = len(devices) - len(names)
    return (", ".join(names) or "none") + (f" and {more} more" if more > 0 else "")
