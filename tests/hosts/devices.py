"""Devices between hosts: veth pairs, a wire with a capture in its middle, bridge, macvlan, VXLAN, tun and tap, tbf.

Everything here lives in namespaces and goes with them. Addresses are handed out, neighbours are known, and nothing
speaks by itself: what a test does not send is not on the wire.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from .capture import Capture
from .frames import STRANGER
from .netns import CommandFailed, Host, command, hosts, sysctl, wait_until
from .wire import Count, Traffic

SEGMENTATION = (
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-accecn-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-sctp-segmentation",
    "tx-udp-segmentation",
    "tx-gso-list",
)
VXLAN_PORT = 4789  # RFC 7348
VXLAN_HEADERS = 14 + 20 + 8 + 8  # bytes around each inner frame: Ethernet, IPv4, UDP, VXLAN

_links = count(1)


@dataclass(frozen=True)
class Port:
    """A device of a host, with its addresses; IPv6 only where it was asked for."""

    host: Host
    device: str
    mac: str
    ipv4: str
    ipv6: str | None = None

    def address(self, family: int) -> str:
        """The address of family 4 or 6."""
        address = self.ipv4 if family == 4 else self.ipv6
        assert address, f"{self.device} has no IPv{family} address: ask for one when making the device"
        return address

    def offload(self, **features: bool) -> None:
        """Turn features on or off, by the names that `ethtool -k` lists, with `_` for `-`."""
        names = {name.replace("_", "-"): wanted for name, wanted in features.items()}
        self._ethtool({name: "on" if wanted else "off" for name, wanted in names.items()})
        now = device_features(self.host, self.device)
        assert {name: now.get(name) for name in names} == names

    def no_segmentation(self) -> None:
        """What leaves here is cut to wire packets in software, before a capture sees it; tags stay in the frame."""
        self._ethtool(dict.fromkeys((*SEGMENTATION, "tx-vlan-offload", "tx-vlan-stag-hw-insert"), "off"))

    def _ethtool(self, features: dict[str, str]) -> None:
        known = device_features(self.host, self.device)
        wanted = [word for name, state in features.items() if name in known for word in (name, state)]
        if wanted:
            self.host.command("ethtool", "-K", self.device, *wanted)

    @property
    def link(self) -> dict[str, Any]:
        """The device's `ip -j -s -d link` entry."""
        return self.host.links()[self.device]


def device_features(host: Host, device: str) -> dict[str, bool]:
    """Features by `ethtool -k` that can be changed, and whether they are on."""
    lines = host.command("ethtool", "-k", device).splitlines()[1:]
    return {
        name.strip(): state.split()[0] == "on"
        for name, _, state in (line.partition(":") for line in lines)
        if state and "[fixed]" not in state
    }


@functools.cache
def kind_exists(kind: str) -> bool:
    """Whether this kernel can make devices of `kind`."""
    made = {
        "macvlan": "link add link lo name x type macvlan",  # refused for lo, but otherwise than an unknown type
        "vxlan": "link add x type vxlan id 1 dstport 4789",
        "tun": "tuntap add mode tun x",
        "tap": "tuntap add mode tap x",
    }.get(kind, f"link add x type {kind}")
    with hosts("kinds") as (host,):
        try:
            host.ip(made)
        except CommandFailed as failure:
            return "Unknown device type" not in str(failure) and "/dev/net/tun" not in str(failure)
        return True


def require(*kinds: str) -> None:
    """Skip the running test where the kernel lacks a kind of device, and say which."""
    for kind in kinds:
        if not kind_exists(kind):
            pytest.skip(f"this kernel has no {kind} devices")


def mac_of(link: int, end: int) -> str:
    """A locally administered address, different for each end of each link."""
    return f"02:77:00:{link >> 8 & 0xFF:02x}:{link & 0xFF:02x}:{end:02x}"


@contextmanager
def pair(
    first: str = "client", second: str = "server", *, mtu: int = 1500, queues: int = 1, v6: bool = False
) -> Iterator[tuple[Port, Port]]:
    """Two hosts joined by a veth pair, each end called eth0."""
    with hosts(first, second) as (left, right):
        yield veth(left, right, mtu=mtu, queues=queues, v6=v6)


def veth(
    left: Host,
    right: Host,
    names: tuple[str, str] = ("eth0", "eth0"),
    *,
    mtu: int = 1500,
    queues: int = 1,
    v6: bool = False,
) -> tuple[Port, Port]:
    """Join two hosts; each end gets an address and knows the other's."""
    link = next(_links)
    macs = mac_of(link, 1), mac_of(link, 2)
    size = f"mtu {mtu} numtxqueues {queues} numrxqueues {queues}"
    left.ip(
        f"link add {names[0]} address {macs[0]} {size} type veth"
        f" peer name {names[1]} address {macs[1]} netns {right.name} {size}"
    )
    subnet = f"10.77.{link % 250}"
    ends = tuple(
        Port(host, name, mac, f"{subnet}.{end}", f"fd77:{link:x}::{end}" if v6 else None)
        for host, name, mac, end in zip((left, right), names, macs, (1, 2), strict=True)
    )
    for port in ends:
        bring_up(port)
    acquaint(*ends)
    for port in ends:
        wait_up(port)
    return ends[0], ends[1]


def wait_up(port: Port) -> None:
    """Return when the device is up; one that knows no carrier counts as up."""
    wait_until(lambda: port.link["operstate"] in ("UP", "UNKNOWN"), f"{port.device} is up")


def bring_up(port: Port) -> None:
    """Set the device up with its addresses, without anything that makes it speak by itself."""
    quiet_ipv6(port)
    lines = [f"link set {port.device} up"]
    if port.ipv4:
        lines.append(f"addr add {port.ipv4}/24 dev {port.device}")
    if port.ipv6:
        lines.append(f"addr add {port.ipv6}/64 dev {port.device} nodad")
    port.host.ip(*lines)


def quiet_ipv6(port: Port) -> None:
    """Turn IPv6 on where the device has an address, and its announcements off (RFC 4861, RFC 4862, RFC 3810)."""
    if not port.ipv6:
        return
    port.host.ip(f"link set {port.device} addrgenmode none")
    with port.host.entered():
        conf = f"ipv6/conf/{port.device}"
        for name, value in {"disable_ipv6": 0, "accept_dad": 0, "accept_ra": 0, "router_solicitations": 0}.items():
            sysctl(f"{conf}/{name}", value)
        # The report of the solicited-node group is repeated, after this many milliseconds at most.
        sysctl(f"{conf}/mldv2_unsolicited_report_interval", 1)


def acquaint(left: Port, right: Port) -> None:
    """Let each end know the other's link address, so that nobody asks."""
    for here, there in ((left, right), (right, left)):
        for address in filter(None, (there.ipv4, there.ipv6)):
            here.host.ip(f"neigh replace {address} lladdr {there.mac} dev {here.device} nud permanent")


def route_through(near: Port, left: Port, far: Port, right: Port) -> None:
    """Let two hosts reach each other over a third, which has the ports `left` and `right` and forwards IPv4."""
    with left.host.entered():
        sysctl("ipv4/ip_forward", 1)
    for end, gateway, other in ((near, left, far), (far, right, near)):
        end.host.ip(f"route add {other.ipv4}/32 via {gateway.ipv4} dev {end.device}")


def make_strangers(left: Port, right: Port) -> None:
    """From now on each sends IP to a link address that nobody has: the other's device counts it, its host drops it."""
    for here, there in ((left, right), (right, left)):
        for address in filter(None, (there.ipv4, there.ipv6)):
            here.host.ip(f"neigh replace {address} lladdr {STRANGER} dev {here.device} nud permanent")


@dataclass(frozen=True)
class Wire:
    """Two hosts whose wire leads through a third, which bridges and, on its ports, cuts everything to wire packets."""

    client: Port
    server: Port
    left: Port
    right: Port

    @contextmanager
    def capture(self, longest: int | None = None) -> Iterator[WireCapture]:
        """Capture both directions in the middle, as wire packets, from now on. `longest`: of a frame, in bytes."""
        longest = longest or self.client.link["mtu"] + 14 + 8
        with (
            Capture(self.right.host, self.right.device, "out", longest) as forth,
            Capture(self.left.host, self.left.device, "out", longest) as back,
        ):
            yield WireCapture(forth, back)


@dataclass(frozen=True)
class WireCapture:
    """What the middle of a Wire sees, in each direction."""

    forth: Capture
    back: Capture

    @property
    def to_server(self) -> Traffic:
        """Until now, from client to server."""
        return self.forth.traffic()

    @property
    def to_client(self) -> Traffic:
        """Until now, from server to client."""
        return self.back.traffic()


@contextmanager
def wire(*, mtu: int = 1500, queues: int = 1, v6: bool = False) -> Iterator[Wire]:
    """Three hosts: client and server, each with eth0, and between them one that bridges and captures."""
    with hosts("client", "middle", "server") as (client, middle, server):
        yield join_by_wire(client, middle, server, mtu=mtu, queues=queues, v6=v6)


def join_by_wire(
    client: Host, middle: Host, server: Host, *, mtu: int = 1500, queues: int = 1, v6: bool = False
) -> Wire:
    """Join `client` and `server` through a bridge in `middle`."""
    link = next(_links)
    far = next(_links)
    addresses = [(f"10.77.{link % 250}.{end}", f"fd77:{link:x}::{end}" if v6 else None) for end in (1, 2)]
    near_end = Port(client, "eth0", mac_of(link, 1), *addresses[0])
    far_end = Port(server, "eth0", mac_of(far, 1), *addresses[1])
    left = Port(middle, "left", mac_of(link, 2), "")
    right = Port(middle, "right", mac_of(far, 2), "")
    size = f"mtu {mtu} numtxqueues {queues} numrxqueues {queues}"
    bridge(middle, "br0")
    for end, inner in ((near_end, left), (far_end, right)):
        middle.ip(
            f"link add {inner.device} address {inner.mac} {size} type veth"
            f" peer name eth0 address {end.mac} netns {end.host.name} {size}",
            f"link set {inner.device} master br0 up",
        )
        inner.no_segmentation()
        bring_up(end)
    middle.ip(f"link set br0 mtu {mtu}")
    acquaint(near_end, far_end)
    for inner in (left, right):
        wait_until(functools.partial(_forwards, inner), f"{inner.device} forwards")
    return Wire(near_end, far_end, left, right)


def _forwards(port: Port) -> bool:
    return bool(port.link["linkinfo"]["info_slave_data"]["state"] == "forwarding")


def bridge(host: Host, name: str = "br0", *members: str) -> None:
    """A bridge that says nothing by itself and passes each frame as it is.

    No STP, no multicast queries; and no br_netfilter, which would cut padding off and put fragments together.
    """
    with host.entered():
        for table in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
            sysctl(f"bridge/{table.name}", 0)
    host.ip(
        f"link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        f"link set {name} up",
        *(f"link set {member} master {name}" for member in members),
    )


def macvlan(port: Port, name: str, ipv4: str, mac: str) -> Port:
    """A macvlan device over `port`, in bridge mode."""
    upper = Port(port.host, name, mac, ipv4)
    port.host.ip(f"link add link {port.device} name {name} address {mac} type macvlan mode bridge")
    bring_up(upper)
    return upper


def vxlan(left: Port, right: Port, *, vni: int = 77, mtu: int = 1450, checksum: bool = False) -> tuple[Port, Port]:
    """A VXLAN tunnel over two ports, vx0 at each end. `checksum`: of the outer UDP header."""
    link = next(_links)
    ends = tuple(
        Port(under.host, "vx0", mac_of(link, end), f"10.78.{link % 250}.{end}")
        for under, end in ((left, 1), (right, 2))
    )
    for end, under, other in zip(ends, (left, right), (right, left), strict=True):
        end.host.ip(
            f"link add vx0 address {end.mac} mtu {mtu} type vxlan id {vni} dstport {VXLAN_PORT} nolearning"
            f" local {under.ipv4} remote {other.ipv4} dev {under.device} {'udpcsum' if checksum else 'noudpcsum'}"
        )
        bring_up(end)
    acquaint(*ends)
    return ends[0], ends[1]


def tap(host: Host, name: str = "tap0", *, vnet_header: bool = True, ipv4: str = "10.79.0.1", mtu: int = 1500) -> Port:
    """A persistent tap device; who opens it is its guest. `vnet_header`: frames carry a virtio_net_hdr in front."""
    port = Port(host, name, mac_of(next(_links), 1), ipv4)
    host.ip(
        f"tuntap add mode tap name {name}{' vnet_hdr' if vnet_header else ''}",
        f"link set {name} address {port.mac} mtu {mtu}",
    )
    bring_up(port)
    return port


def tun(host: Host, name: str = "tun0", *, ipv4: str = "10.80.0.1", mtu: int = 1500, v6: bool = False) -> Port:
    """A persistent tun device: packets without Ethernet header."""
    port = Port(host, name, "", ipv4, "fd80::1" if v6 else None)
    host.ip(f"tuntap add mode tun name {name}", f"link set {name} mtu {mtu}")
    bring_up(port)
    return port


def limit_rate(port: Port, *, rate: str = "8kbit", burst: int = 2000, limit: int = 4000) -> None:
    """Put a token bucket before the device: what exceeds `rate` waits in `limit` bytes, then is dropped."""
    port.host.command(*f"tc qdisc add dev {port.device} root tbf rate {rate} burst {burst} limit {limit}".split())


def qdisc_counts(port: Port) -> dict[str, int]:
    """packets, bytes and drops of the device's root qdisc."""
    listed = json.loads(port.host.command("tc", "-s", "-j", "qdisc", "show", "dev", port.device))
    root = next(qdisc for qdisc in listed if qdisc.get("root"))
    return {name: root[name] for name in ("packets", "bytes", "drops")}


def move(port: Port, to: Host) -> None:
    """Move the device to another host. It arrives down and without addresses."""
    port.host.ip(f"link set {port.device} netns {to.name}")


def remove(host: Host, device: str) -> None:
    """Remove a device; nothing happens if it is gone."""
    with suppress(CommandFailed):
        host.ip(f"link del {device}")


def counters(port: Port) -> dict[str, Count]:
    """The device's own counters, "rx" and "tx", by its driver's convention."""
    stats = port.link["stats64"]
    return {way: Count(stats[way]["packets"], stats[way]["bytes"]) for way in ("rx", "tx")}


def dropped(port: Port) -> int:
    """Packets that the device took to send and dropped; of veth, what the other end's ring had no room for."""
    return int(port.link["stats64"]["tx"]["dropped"])


def settle(*ports: Port) -> None:
    """Return when the ports' counters have stood still, looked at eight times in a row."""
    for port in ports:
        last, same = None, 0
        while same < 8:
            counts = json.loads(command("ip", "-n", port.host.name, "-j", "-s", "link", "show", "dev", port.device))
            same, last = (same + 1 if counts == last else 0), counts
