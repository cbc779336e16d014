"""Two hosts joined directly: super-packets end to end, jumbo frames, queues, CPUs, flips; routers and loopback."""

from __future__ import annotations

import pytest

from . import devices, netns, scenarios, senders
from .capture import WHATEVER, Capture
from .devices import Port
from .flips import flipping
from .measure import Attach, metering, metering_ends
from .wire import ETHER, IPV4, UDP_HEADER, Conversation, Count

pytestmark = pytest.mark.kernel

UDP_FRAME = ETHER + IPV4 + UDP_HEADER + 18  # bytes of senders.udp_packets's datagrams


@pytest.mark.parametrize("attach", ["tcx", "xdp", "capture"])
@pytest.mark.parametrize("name", ["tcp", "tcp-v6", "udp-gso", "vnet-gso"])
def test_direct_neighbours_agree_with_the_sender(name: str, attach: Attach) -> None:
    """Super-packets cross whole, or native XDP turns the client's segmentation off; the client counts the same.

    With native XDP the server's ring may overflow, so there a capture behind the program says what came in.
    """
    with devices.pair(v6=True) as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with (
            Capture(server.host, "eth0", "in", longest=1514 if attach == "xdp" else WHATEVER) as captured,
            metering_ends(client, server, attach) as (ours, theirs),
        ):
            sent = scenarios.SUPER[name](client, server)
        came = captured.traffic() if attach == "xdp" else sent.to_server
    ours["eth0", "tx"].assert_is(sent.to_server)
    ours["eth0", "rx"].assert_is(sent.to_client)
    theirs["eth0", "rx"].assert_is(came)
    theirs["eth0", "tx"].assert_is(sent.to_client)


def test_big_tcp_counts_by_its_segments() -> None:
    """Super-packets of more than 64 KiB, whose IP header cannot say their length (Linux 5.19)."""
    with devices.pair(v6=True) as (client, server):
        client.host.ip("link set eth0 gso_max_size 185000")
        devices.settle(client, server)
        before = devices.counters(client)["tx"]
        with metering_ends(client, server, "tcx") as (ours, theirs):
            sent = senders.tcp_bulk(client, server, 40_000_000, family=6)
        buffers = devices.counters(client)["tx"].minus(before)
    assert buffers.bytes > 65_536 * buffers.packets, "no super-packet was larger than before: nothing is proved"
    ours["eth0", "tx"].assert_is(sent.to_server)
    theirs["eth0", "rx"].assert_is(sent.to_server)
    theirs["eth0", "tx"].assert_is(sent.to_client)


def test_tcx_leaves_the_offloads_of_both_ends_as_they_are() -> None:
    with devices.pair() as (client, server):
        before = [devices.device_features(port.host, "eth0") for port in (client, server)]
        with metering_ends(client, server):
            during = [devices.device_features(port.host, "eth0") for port in (client, server)]
        after = [devices.device_features(port.host, "eth0") for port in (client, server)]
    assert before == during == after


@pytest.mark.parametrize("attach", ["tcx", "xdp", "capture"])
@pytest.mark.parametrize("name", ["tcp", "tcp-v6", "big-datagrams", "fragments", "tx-ring"])
def test_jumbo_frames_count_with_all_their_bytes(name: str, attach: Attach) -> None:
    """A frame of 9,014 bytes is more than a page: at native XDP it comes in pieces (multi-buffer)."""
    jumbo: dict[str, scenarios.Scenario] = {
        "tcp": scenarios.SUPER["tcp"],
        "tcp-v6": scenarios.SUPER["tcp-v6"],
        "big-datagrams": lambda c, s: Conversation(senders.udp_packets(c, s.ipv4, 200, 8972)),
        "fragments": lambda c, s: Conversation(senders.udp_fragments(c, s.ipv4, 50, 60_000, mtu=9000)),
        "tx-ring": lambda c, s: Conversation(
            senders.tx_ring_frames(c, scenarios.tcp_frame(c, s).ljust(9014, b"\0"), 200, slot=16384, slots=64)
        ),
    }
    with devices.pair(mtu=9000, v6=True) as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with (
            Capture(server.host, "eth0", "in", longest=9014 if attach == "xdp" else WHATEVER) as captured,
            metering_ends(client, server, attach) as (ours, theirs),
        ):
            sent = jumbo[name](client, server)
        came = captured.traffic() if attach == "xdp" else sent.to_server
    ours["eth0", "tx"].assert_is(sent.to_server)
    theirs["eth0", "rx"].assert_is(came)
    theirs["eth0", "tx"].assert_is(sent.to_client)


@pytest.mark.parametrize("attach", ["tcx", "xdp", "capture"])
def test_queues_and_cpus_at_once_lose_nothing(attach: Attach) -> None:
    with devices.pair(queues=2) as (client, server), senders.sinks(server):
        server.offload(
            generic_receive_offload=True
        )  # with the next line this means NAPI: each queue is polled by itself
        client.no_segmentation()
        devices.settle(client, server)
        before = devices.counters(server)["rx"]
        with metering_ends(client, server, attach) as (ours, theirs):
            sent = senders.on_every_cpu(lambda cpu: senders.udp_packets(client, server.ipv4, 20_000, sport=5000 + cpu))
        arrived = devices.counters(server)["rx"].minus(before)
    ours["eth0", "tx"].assert_is(sent)
    # A veth with NAPI drops what its ring has no room for, before any program; what arrived it counted.
    assert theirs["eth0", "rx"].total == Count(arrived.packets, arrived.packets * UDP_FRAME)
    assert set(theirs["eth0", "rx"].traffic.flows) == set(sent.flows)


def test_one_flow_from_every_cpu_is_one_flow() -> None:
    with devices.pair() as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with metering(client.host, "eth0") as ours:
            sent = senders.on_every_cpu(lambda cpu: senders.udp_packets(client, server.ipv4, 20_000))
    assert len(sent.flows) == 1
    ours["eth0", "tx"].assert_is(sent)


def test_flipping_as_fast_as_possible_under_load_loses_nothing_and_counts_nothing_twice() -> None:
    """Both CPUs send at full rate while the epochs change without a pause between."""
    with devices.pair() as (client, server):
        devices.settle(client, server)
        devices.make_strangers(client, server)  # what arrives is thrown away at once: more for the sender
        with flipping(client.host, "eth0") as flips:
            sent = senders.on_every_cpu(
                lambda cpu: senders.udp_sendmmsg(client, server.ipv4, 1_000_000, sport=5100 + cpu, flows=100)
            )
        counted, number = flips()
    assert counted == sent
    assert len(sent.flows) == 200
    assert number > 20


def test_early_flips_under_a_flood_of_new_flows_keep_every_packet() -> None:
    """A table much too small for what comes: flips ahead of time, and what finds no room is counted with its reason."""
    with devices.pair() as (client, server):
        devices.settle(client, server)
        devices.make_strangers(client, server)
        with metering(client.host, "eth0", interval=0.5, flow_table=256) as meter:
            sent = senders.on_every_cpu(
                lambda cpu: senders.udp_sendmmsg(client, server.ipv4, 100_000, sport=5100 + cpu, flows=1000)
            )
    seen = meter["eth0", "tx"]
    assert seen.total == sent.total
    assert seen.protocols == sent.protocols
    assert set(seen.unattributed) <= {"table_full"}
    assert seen.traffic.total.plus(seen.unattributed.get("table_full", Count())) == sent.total
    for flow, count in seen.traffic.flows.items():
        assert count.packets <= sent.flows[flow].packets
    assert meter.reading
    assert meter.reading.early_flips


def test_a_router_counts_what_comes_and_what_goes_on() -> None:
    with netns.hosts("client", "router", "server") as (client, router, server):
        near, left = devices.veth(client, router, ("eth0", "left"))
        far, right = devices.veth(server, router, ("eth0", "right"))
        devices.route_through(near, left, far, right)
        devices.settle(near, far)
        with metering(router, "left", "right") as meter:
            sent = senders.tcp_bulk(near, far, 8_000_000)
    meter["left", "rx"].assert_is(sent.to_server)
    meter["right", "tx"].assert_is(sent.to_server)
    meter["right", "rx"].assert_is(sent.to_client)
    meter["left", "tx"].assert_is(sent.to_client)


@pytest.mark.parametrize("family", [4, 6])
def test_loopback_counts_each_packet_as_sent_and_received(family: int) -> None:
    with netns.hosts("alone") as (host,):
        lo = Port(host, "lo", "00:00:00:00:00:00", "127.0.0.1", "::1")
        with host.entered():
            netns.sysctl("ipv6/conf/lo/disable_ipv6", 0)
        with metering(host, "lo") as meter:
            sent = senders.tcp_bulk(lo, lo, 4_000_000, family=family)
    both = sent.to_server.plus(sent.to_client)
    meter["lo", "tx"].assert_is(both)
    meter["lo", "rx"].assert_is(both)


def test_device_counters_agree_by_the_drivers_convention() -> None:
    """veth without NAPI counts buffers and their bytes: of plain datagrams, just the wire's."""
    with devices.pair() as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with metering_ends(client, server) as (ours, theirs):
            ours.wait_counted()  # the first interval has no reading of the device before it
            theirs.wait_counted()
            sent = senders.udp_packets(client, server.ipv4, 1000, 100)
    for seen in (ours["eth0", "tx"], theirs["eth0", "rx"]):
        seen.assert_is(sent)
        assert seen.kernel == sent.total
        assert seen.remainders == {}
