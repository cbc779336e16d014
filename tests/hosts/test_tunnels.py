"""Guests and tunnels: tap with vnet headers, tun, VXLAN, macvlan, bridge; super-packets inside and outside."""

from __future__ import annotations

import pytest

from . import devices, frames, netns, senders
from .capture import Capture
from .devices import Port
from .measure import Attach, metering
from .wire import UDP, Count, Flow, Traffic, flow_traffic

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("payload", [500, 1000, 1001, 14_480, 60_000])
def test_super_packets_of_a_guest_count_by_their_segments(payload: int, family: int) -> None:
    """A guest's header names no number of segments: gso_segs is 0 when the packet comes in."""
    devices.require("tap")
    with netns.hosts("host") as (host,):
        tap = devices.tap(host)
        inside = Port(host, "guest", "02:77:fe:00:00:01", "10.79.0.2", "fd79::2")
        big = senders.super_packet(inside, Port(host, "", tap.mac, tap.ipv4, "fd79::1"), family, payload, 1000)
        with senders.guest(tap) as guest, metering(host, "tap0") as meter:
            sent = senders.guest_super_packets(guest, big, 100)
    meter["tap0", "rx"].assert_is(sent)
    assert meter["tap0", "rx"].skbs == 100


#: An MPLS label; PPPoE's session 1 with the protocol number of IPv4 or IPv6.
LABEL = (16 << 12 | 1 << 8 | 64).to_bytes(4)
BEHIND = {
    "MPLS": {4: (0x8847, LABEL), 6: (0x8847, LABEL)},
    "PPPoE": {4: (0x8864, b"\x11\0\0\1\0\0\0\x21"), 6: (0x8864, b"\x11\0\0\1\0\0\0\x57")},
}


@pytest.mark.parametrize("attach", ["tcx", "capture"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", BEHIND)
def test_super_packets_behind_what_is_not_ip_count_by_their_segments(kind: str, family: int, attach: Attach) -> None:
    """10 segments of 1000 bytes, each with all headers from Ethernet to TCP."""
    devices.require("tap")
    with netns.hosts("host") as (host,):
        tap = devices.tap(host)
        inside = Port(host, "guest", "02:77:fe:00:00:01", "10.79.0.2", "fd79::2")
        to = Port(host, "", tap.mac, tap.ipv4, "fd79::1")
        big = senders.super_packet(inside, to, family, 10_000, 1000, behind=BEHIND[kind][family])
        with senders.guest(tap) as guest, metering(host, "tap0", attach=attach) as meter:
            sent = senders.guest_super_packets(guest, big, 20)
    assert sent.total.packets == 200
    meter["tap0", "rx"].assert_is(sent)


def test_what_a_guest_sends_over_a_bridge_leaves_as_it_was_counted() -> None:
    """The bridge's other port cuts the guest's packets; a capture there is the witness."""
    devices.require("tap", "bridge")
    with netns.hosts("host", "server") as (host, server):
        port, far = devices.veth(host, server)
        tap = devices.tap(host)
        devices.bridge(host, "br0", "eth0", "tap0")
        port.no_segmentation()
        inside = Port(host, "guest", "02:77:fe:00:00:01", "10.79.0.2")
        big = senders.super_packet(inside, far, 4, 20_000, 1448)
        with (
            senders.guest(tap) as guest,
            Capture(host, "eth0", "out") as captured,
            metering(host, "tap0", "eth0") as meter,
            metering(server, "eth0") as theirs,
        ):
            sent = senders.guest_super_packets(guest, big, 100)
        assert captured.traffic() == sent
    meter["tap0", "rx"].assert_is(sent)
    meter["eth0", "tx"].assert_is(sent)
    theirs["eth0", "rx"].assert_is(sent)


@pytest.mark.parametrize("family", [4, 6])
def test_tun_packets_count_from_their_ip_header(family: int) -> None:
    devices.require("tun")
    with netns.hosts("host") as (host,):
        tun = devices.tun(host, v6=True)
        other = "10.80.0.2" if family == 4 else "fd80::2"
        packet = frames.udp(other, 7000, tun.address(family), 5001, bytes(100))
        flow = Flow(family, UDP, other, 7000, tun.address(family), 5001)
        with senders.guest(tun, mode="tun", vnet_header=False) as guest, senders.sinks(tun):
            devices.settle(tun)
            with metering(host, "tun0") as meter:
                senders.guest_packets(guest, packet, 200)
                sent = senders.udp_packets(tun, other, 300, 50)
    meter["tun0", "rx"].assert_is(flow_traffic(flow, 200, 200 * len(packet)))
    meter["tun0", "tx"].assert_is(sent.without_ethernet())


@pytest.mark.parametrize("merging", [False, True], ids=["gro-off", "gro-on"])
@pytest.mark.parametrize("checksum", [False, True], ids=["no-outer-checksum", "outer-checksum"])
def test_super_packets_in_vxlan_count_as_their_outer_wire_packets(checksum: bool, merging: bool) -> None:
    """Each segment has its own outer headers; on the tunnel device itself they are not yet there."""
    devices.require("veth", "bridge", "vxlan")
    with devices.wire() as wire:
        left, right = devices.vxlan(wire.client, wire.server, checksum=checksum)
        wire.server.offload(generic_receive_offload=merging)
        devices.settle(wire.client, wire.server)
        with (
            wire.capture() as captured,
            metering(left.host, "eth0", "vx0") as ours,
            metering(right.host, "eth0", "vx0") as theirs,
        ):
            inner = senders.tcp_bulk(left, right, 8_000_000)
        outer_forth, outer_back = captured.to_server, captured.to_client
    assert outer_forth.total == with_tunnel_headers(inner.to_server)
    assert outer_back.total == with_tunnel_headers(inner.to_client)
    ours["vx0", "tx"].assert_is(inner.to_server)
    ours["eth0", "tx"].assert_is(outer_forth)
    ours["eth0", "rx"].assert_is(outer_back)
    ours["vx0", "rx"].assert_is(inner.to_client)
    theirs["eth0", "rx"].assert_is(outer_forth)
    theirs["vx0", "rx"].assert_is(inner.to_server)
    theirs["vx0", "tx"].assert_is(inner.to_client)
    theirs["eth0", "tx"].assert_is(outer_back)
    assert (theirs["eth0", "rx"].skbs * 3 < outer_forth.total.packets) == merging


def with_tunnel_headers(inner: Traffic) -> Count:
    """What inner packets are on the outside."""
    total = inner.total
    return Count(total.packets, total.bytes + total.packets * devices.VXLAN_HEADERS)


def test_macvlan_and_the_device_under_it_count_the_same() -> None:
    devices.require("macvlan")
    with devices.pair() as (client, server):
        upper = devices.macvlan(client, "mv0", client.ipv4.rsplit(".", 1)[0] + ".9", "02:77:fd:00:00:01")
        client.host.ip(f"addr flush dev {client.device}")
        devices.acquaint(upper, server)
        devices.settle(client, server)
        with metering(client.host, "eth0", "mv0") as meter:
            sent = senders.tcp_bulk(upper, server, 4_000_000)
    for device in ("eth0", "mv0"):
        meter[device, "tx"].assert_is(sent.to_server)
        meter[device, "rx"].assert_is(sent.to_client)


def test_a_bridge_with_an_address_counts_like_its_only_port() -> None:
    devices.require("bridge")
    with devices.pair() as (client, server):
        devices.bridge(client.host, "br0", "eth0")
        above = Port(client.host, "br0", client.mac, client.ipv4)
        client.host.ip(f"addr flush dev {client.device}", f"link set br0 address {client.mac}")
        devices.bring_up(above)
        devices.acquaint(above, server)
        devices.settle(client, server)
        with metering(client.host, "eth0", "br0") as meter:
            sent = senders.tcp_bulk(above, server, 4_000_000)
    for device in ("eth0", "br0"):
        meter[device, "tx"].assert_is(sent.to_server)
        meter[device, "rx"].assert_is(sent.to_client)
