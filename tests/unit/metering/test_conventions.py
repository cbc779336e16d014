"""What drivers count: differences explained, and the table measured against the sender's own arithmetic."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosts import devices as topology
from hosts import netns, senders
from hosts.devices import Port
from hosts.netns import wait_until
from hosts.wire import Traffic
from wiremeter.flows.batch import Tally
from wiremeter.flows.columns import Direction
from wiremeter.linux.devices import ARPHRD_LOOPBACK, Device, read_devices
from wiremeter.linux.netlink import RouteSocket
from wiremeter.linux.netlink_messages import LinkCounters, Qdisc, XdpSlot
from wiremeter.metering.conventions import (
    SETTLED,
    Balance,
    Convention,
    QdiscGain,
    convention_of,
    drops_of,
    explain_difference,
)

needs_root = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which needs root"),
]

WIRE = Convention("packets", "wire")
SKBS = Convention("skbs", "skbs")
MIXED = Convention("mixed", "mixed")
UNKNOWN = Convention("unknown", "unknown")

WHOLE = dict.fromkeys(("tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation", "tx-scatter-gather"), True)


def over(intervals: Iterable[tuple[Tally, LinkCounters]], convention: Convention, **more: Any) -> dict[str, int]:
    """The remainders of intervals that follow each other, summed; only those that are not zero."""
    sums: Counter[str] = Counter()
    balance = SETTLED
    for seen, gained in intervals:
        _, remainders, balance = explain_difference("tx", seen, gained, convention, before=balance, **more)
        sums.update(remainders)
        assert sums["unexplained"] == balance.unexplained
    return causes(sums)


QUIET = (Tally(), LinkCounters())


def tx(packets: int, dropped: int = 0) -> LinkCounters:
    return LinkCounters(tx_packets=packets, tx_dropped=dropped)


def causes(remainders: Mapping[str, int]) -> dict[str, int]:
    """Those that are not zero."""
    return {cause: packets for cause, packets in remainders.items() if packets}


# Explaining ----------------------------------------------------------------------------------------------------------


def test_equal_counts_leave_nothing() -> None:
    counters, remainders, _ = explain_difference("tx", Tally(10, 1000, 10), LinkCounters(0, 10, 0, 1000), WIRE)
    assert (counters.packets, counters.bytes, counters.drops, counters.convention) == (10, 1000, 0, "wire")
    assert set(remainders) == {"qdisc_drops", "device_drops", "queued", "bypassed_stack", "unexplained"}
    assert causes(remainders) == {}


def test_rx_and_tx_read_their_own_counters() -> None:
    gained = LinkCounters(rx_packets=3, tx_packets=4, rx_bytes=30, tx_bytes=40, rx_dropped=1, tx_dropped=2)
    rx, _, _ = explain_difference("rx", Tally(3, 30, 3), gained, WIRE)
    tx_, _, _ = explain_difference("tx", Tally(4, 40, 4), gained, WIRE)
    assert (rx.packets, rx.bytes, rx.drops) == (3, 30, 1)
    assert (tx_.packets, tx_.bytes, tx_.drops) == (4, 40, 2)


def test_what_the_capture_lost_is_named_and_only_there() -> None:
    gained = LinkCounters(100, 0, 0, 0)
    _, remainders, _ = explain_difference("rx", Tally(60, 0, 60), gained, WIRE, capture_dropped=40)
    assert remainders == {"capture_dropped": 40, "bypassed_stack": 0, "unexplained": 0}
    assert "capture_dropped" not in explain_difference("rx", Tally(100, 0, 100), gained, WIRE)[1]


def test_what_the_qdisc_dropped_and_holds_we_saw_and_the_device_did_not() -> None:
    gain = QdiscGain("tbf", drops=1993, queued=3)
    _, remainders, _ = explain_difference("tx", Tally(2000, 0, 2000), tx(4), WIRE, qdisc=gain)
    assert causes(remainders) == {"qdisc_drops": -1993, "queued": -3}


def test_drops_are_told_by_direction_with_their_cause() -> None:
    gained = LinkCounters(rx_dropped=1, tx_dropped=2, rx_missed=3, rx_nohandler=4)
    assert drops_of("rx", gained, QdiscGain("tbf", 9)) == (
        ("device", "dropped", 1, False),
        ("device", "missed", 3, True),
        ("device", "nohandler", 4, False),
    )
    assert drops_of("tx", gained, QdiscGain("tbf", 9)) == (("qdisc", "tbf", 9, True), ("device", "dropped", 2, True))
    assert drops_of("tx", gained, QdiscGain()) == (("device", "dropped", 2, True),)
    assert drops_of("tx", LinkCounters(tx_dropped=-5), QdiscGain()) == (("device", "dropped", 0, True),)


def test_what_waited_in_the_qdisc_and_has_gone_is_named() -> None:
    _, remainders, _ = explain_difference("tx", Tally(), tx(3), WIRE, qdisc=QdiscGain("tbf", 0, -3))
    assert causes(remainders) == {"queued": 3}


def test_what_the_device_dropped_instead_of_sending_is_named() -> None:
    _, remainders, _ = explain_difference("tx", Tally(1000, 0, 1000), tx(500, dropped=500), SKBS)
    assert causes(remainders) == {"device_drops": -500}


def test_what_the_device_sent_and_we_never_saw_bypassed_the_stack() -> None:
    burst = (Tally(10, 0, 10), tx(387_338))
    assert over([burst, QUIET], WIRE) == {"bypassed_stack": 387_328}
    assert over([burst, burst, QUIET], WIRE) == {"bypassed_stack": 2 * 387_328}


def test_a_difference_that_has_not_stood_yet_is_no_bypass() -> None:
    ahead, behind = (Tally(100, 0, 100), tx(104)), (Tally(100, 0, 100), tx(96))
    assert over([ahead], WIRE) == {"unexplained": 4}
    assert over([ahead, behind], WIRE) == {}


def test_more_at_rx_is_unexplained_unless_another_xdp_program_comes_first() -> None:
    gained = LinkCounters(rx_packets=110)
    _, alone, _ = explain_difference("rx", Tally(100, 0, 100), gained, WIRE, before=Balance(10, 10))
    _, behind, _ = explain_difference("rx", Tally(100, 0, 100), gained, WIRE, before=Balance(10, 10), other_xdp=True)
    assert causes(alone) == {"unexplained": 10}
    assert causes(behind) == {"bypassed_stack": 10}


def test_super_packets_count_by_the_drivers_unit() -> None:
    seen = Tally(400, 416_800, 10)
    assert causes(explain_difference("tx", seen, tx(400), WIRE)[1]) == {}
    assert causes(explain_difference("tx", seen, tx(10), SKBS)[1]) == {}
    for count in (10, 123, 400):
        assert causes(explain_difference("tx", seen, tx(count), MIXED)[1]) == {}
    assert causes(explain_difference("tx", seen, tx(9), MIXED)[1]) == {"unexplained": -1}
    assert over([(seen, tx(401)), QUIET], MIXED) == {"bypassed_stack": 1}


def test_where_only_buffers_are_seen_the_device_may_count_any_more() -> None:
    seen = Tally(10, 0, 10)
    assert causes(explain_difference("rx", seen, LinkCounters(rx_packets=400), UNKNOWN)[1]) == {}
    assert causes(explain_difference("rx", seen, LinkCounters(rx_packets=9), UNKNOWN)[1]) == {"unexplained": -1}


def test_a_dropped_super_packet_may_stand_for_many_packets() -> None:
    _, remainders, _ = explain_difference("tx", Tally(400, 0, 10), tx(360), WIRE, qdisc=QdiscGain("fq", drops=1))
    assert causes(remainders) == {"qdisc_drops": -1}


def test_readings_a_little_apart_are_not_taken_for_a_bypass() -> None:
    seen = Tally(10_000, 0, 10_000)
    _, remainders, _ = explain_difference("tx", seen, tx(10_090), WIRE, uncertain=0.01)
    assert causes(remainders) == {"unexplained": 90}


def test_a_difference_that_stays_is_named_in_the_end() -> None:
    busy = (Tally(1000, 0, 1000), tx(1005))
    assert over([busy] * 10, WIRE, uncertain=0.01) == {"bypassed_stack": 34, "unexplained": 16}
    assert over([*[busy] * 10, QUIET], WIRE, uncertain=0.01) == {"bypassed_stack": 50}


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 100), st.integers(0, 30)), min_size=1),
    st.sampled_from([WIRE, MIXED]),
)
def test_readings_that_lie_apart_leave_no_more_than_what_came_between_two(
    drawn: list[tuple[int, int, int]], convention: Convention
) -> None:
    """Each interval: packets, how many of them are in one buffer with another, and how many came between our turn and
    the reading of the device. Nothing is lost and nothing bypasses the stack, however long it goes on."""
    intervals, ahead = [], 0
    for packets, together, now_ahead in [*drawn, (30, 0, 0)]:
        packets += ahead  # what came between the two is of this interval
        buffers = packets - min(packets, together) // 2
        device = packets if convention is WIRE else packets - min(packets, together) // 4
        intervals.append((Tally(packets, 0, buffers), tx(device + now_ahead - ahead)))
        ahead = now_ahead
    most = max(ahead for *_, ahead in drawn)
    left = over(intervals, convention, uncertain=1.0)
    assert set(left) <= {"unexplained"}
    assert -most <= left.get("unexplained", 0) <= 0
    if convention is WIRE:
        assert left == {}


def test_a_device_that_counts_late_in_every_interval_leaves_nothing_in_the_end() -> None:
    """Sixteen minutes of skewed readings with super-packets among them, and both counters agree at the end."""
    late, intervals = 0, []
    for second in range(1000):
        now_late = 3 if second % 2 == 0 else 0
        intervals.append((Tally(150, 0, 100), tx(100 + late - now_late)))
        late = now_late
    assert over([*intervals, (Tally(100, 0, 100), tx(100 + late))], MIXED) == {}


def test_a_device_that_counts_buffers_and_is_read_late_now_and_then_owes_nothing() -> None:
    """It counts as little as it may, super-packets go by, and once its reading is far ahead of ours."""
    ahead, intervals = 0, []
    for second in range(1000):
        now_ahead = 1400 if second == 400 else second % 7
        intervals.append((Tally(4500, 0, 100), tx(100 + now_ahead - ahead)))
        ahead = now_ahead
    assert over([*intervals, (Tally(4500, 0, 100), tx(100 - ahead))], MIXED) == {}


def test_packets_on_their_way_are_not_taken_for_a_bypass_when_they_arrive() -> None:
    _, first, open_then = explain_difference("tx", Tally(500, 0, 500), tx(0), SKBS)
    _, then, _ = explain_difference("tx", Tally(), tx(500), SKBS, before=open_then)
    assert causes(first) == {"unexplained": -500}
    assert causes(then) == {"unexplained": 500}


counts = st.integers(0, 1 << 40)


@given(
    st.sampled_from(["rx", "tx"]),
    st.sampled_from([WIRE, SKBS, MIXED]),
    st.lists(st.tuples(counts, counts, counts, counts, counts, st.integers(-1000, 1000), st.floats(0, 1)), min_size=1),
    st.booleans(),
)
def test_remainders_add_up_to_the_difference(
    direction: Direction,
    convention: Convention,
    intervals: list[tuple[int, int, int, int, int, int, float]],
    other_xdp: bool,
) -> None:
    balance, ours, device, causes = SETTLED, Tally(), 0, 0
    for some, others, counted, drops, dropped, queued, uncertain in intervals:
        seen = Tally(max(some, others), 0, min(some, others))
        counters, remainders, balance = explain_difference(
            direction,
            seen,
            LinkCounters(rx_packets=counted, tx_packets=counted, tx_dropped=dropped),
            convention,
            qdisc=QdiscGain("fq", drops, queued),
            uncertain=uncertain,
            before=balance,
            other_xdp=other_xdp,
        )
        assert remainders["bypassed_stack"] >= 0
        ours, device, causes = ours.plus(seen), device + counters.packets, causes + sum(remainders.values())
        assert ours.skbs <= device - causes <= ours.packets


def test_a_replaced_qdisc_gains_nothing() -> None:
    assert QdiscGain.between(Qdisc("fq", 10, 5), Qdisc("fq", 12, 1)) == QdiscGain("fq", 2, -4)
    assert QdiscGain.between(Qdisc("fq", 10, 5), Qdisc("tbf", 12, 1)) == QdiscGain()
    assert QdiscGain.between(Qdisc("fq", 10, 5), Qdisc("fq", 1, 0)) == QdiscGain()
    assert QdiscGain.between(None, Qdisc("fq", 10, 5)) == QdiscGain.between(Qdisc("fq", 10, 5), None) == QdiscGain()


# The table -----------------------------------------------------------------------------------------------------------


def physical(driver: str, **features: bool) -> Device:
    named = {name.replace("_", "-"): on for name, on in features.items()}
    return Device("eth0", 2, driver=driver, parent="0000:00:03.0", features=named)


VETH = Device("v0", 3, kind="veth", driver="veth", features=WHOLE)


def left_out(convention: Convention) -> int | None:
    """Bytes of each buffer that the device does not count, as users read it; None where that is left open."""
    if "bytes with the" in convention.text or "tun/tap" in convention.text:
        return 0
    return 14 if re.search(r"bytes without the (inner )?Ethernet header(?! where)", convention.text) else None


@pytest.mark.parametrize(
    ("device", "direction", "unit", "missing"),
    [
        (Device("lo", 1, arphrd=ARPHRD_LOOPBACK, features=WHOLE | {"rx-gro": True}), "rx", "skbs", 14),
        (VETH, "tx", "mixed", 0),
        (Device("v0", 3, kind="veth", driver="veth"), "tx", "mixed", None),
        (Device("v0", 3, kind="veth", driver="veth", features={"rx-gro": True}), "rx", "mixed", None),
        (Device("v0", 3, kind="veth", driver="veth", xdp=XdpSlot("xdp", (9,))), "rx", "mixed", 14),
        (physical("virtio_net", rx_gro=True, rx_gro_hw=True), "rx", "mixed", 0),
        (physical("virtio_net", rx_gro=True), "rx", "packets", 0),
        (physical("virtio_net", tx_tcp_segmentation=True), "tx", "mixed", 0),
        (physical("ixgbe", rx_gro=True), "rx", "packets", None),
        (physical("ixgbe", rx_lro=True), "rx", "mixed", None),
        (physical("ixgbe"), "tx", "packets", None),
        (physical("r8169"), "tx", "mixed", None),
        (Device("wg0", 9, kind="wireguard", driver="wireguard"), "tx", "mixed", None),
    ],
)
def test_conventions_follow_driver_and_offloads(
    device: Device, direction: Direction, unit: str, missing: int | None
) -> None:
    convention = convention_of(device, direction)
    assert (convention.unit, left_out(convention)) == (unit, missing)
    assert convention.text.startswith(("loopback", device.driver or device.kind))


def test_generic_xdp_makes_the_rx_unit_unknown() -> None:
    assert convention_of(VETH, "rx", "xdp-generic").unit == "unknown"
    assert convention_of(VETH, "tx", "tcx").unit == "mixed"


# Measured ------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A device that counts, what is sent past it, and in which direction."""

    port: Port
    direction: Direction
    send: Callable[[], tuple[Traffic, int]]  # → wire truth, and buffers


@contextmanager
def veth_case(
    direction: Direction, *, gso: bool, tso: bool = True, gro: bool = False, udp: bool = True
) -> Iterator[Case]:
    """From client to server; `tso` and `udp` (segmentation) of the sender, `gro` of the receiver."""
    with topology.pair() as (client, server), senders.sinks(server):
        tcp = dict.fromkeys((name for name in topology.SEGMENTATION if name.startswith("tx-tcp")), tso)
        client.offload(**{name.replace("-", "_"): on for name, on in tcp.items()}, tx_udp_segmentation=udp)
        server.offload(generic_receive_offload=gro)
        port = client if direction == "tx" else server
        # What the sender's kernel cuts, because the device does not, arrives in pieces.
        cut = direction == "rx" and not udp
        yield Case(port, direction, lambda: send_udp(client, server.ipv4, gso=gso, cut=cut))


@contextmanager
def loopback_case(direction: Direction, *, gso: bool) -> Iterator[Case]:
    with netns.hosts("solo") as (solo,):
        port = Port(solo, "lo", "", "127.0.0.1")
        with senders.sinks(port):
            yield Case(port, direction, lambda: send_udp(port, "127.0.0.1", gso=gso))


@contextmanager
def vxlan_case(direction: Direction, *, gso: bool) -> Iterator[Case]:
    topology.require("vxlan")
    with topology.pair() as (client, server):
        near, far = topology.vxlan(client, server)
        with senders.sinks(server):
            yield Case(near if direction == "tx" else far, direction, lambda: send_udp(near, far.ipv4, gso=gso))


@contextmanager
def macvlan_case(direction: Direction, *, gso: bool) -> Iterator[Case]:
    topology.require("macvlan")
    with topology.pair() as (client, server), senders.sinks(server):
        near = topology.macvlan(client, "mv0", "10.81.0.1", "02:81:00:00:00:01")
        far = topology.macvlan(server, "mv0", "10.81.0.2", "02:81:00:00:00:02")
        topology.acquaint(near, far)
        yield Case(near if direction == "tx" else far, direction, lambda: send_udp(near, far.ipv4, gso=gso))


@contextmanager
def bridge_case(direction: Direction, *, gso: bool) -> Iterator[Case]:
    """A bridge with an address of its own, whose port leads to the other host."""
    topology.require("bridge")
    with topology.pair() as (client, server):
        topology.bridge(client.host, "br0", client.device)
        near = Port(client.host, "br0", "02:82:00:00:00:01", "10.82.0.1")
        far = Port(server.host, server.device, server.mac, "10.82.0.2")
        near.host.ip(f"link set br0 address {near.mac}", "addr add 10.82.0.1/24 dev br0")
        far.host.ip(f"addr add 10.82.0.2/24 dev {far.device}")
        topology.acquaint(near, far)
        wait_until(
            lambda: client.link["linkinfo"]["info_slave_data"]["state"] == "forwarding", "the bridge's port forwards"
        )
        sender, receiver = (near, far) if direction == "tx" else (far, near)
        with senders.sinks(receiver):
            yield Case(near, direction, lambda: send_udp(sender, receiver.ipv4, gso=gso))


def send_udp(source: Port, destination: str, *, gso: bool, cut: bool = False) -> tuple[Traffic, int]:
    """The wire truth, and in how many buffers; `cut`: super-packets have become packets before."""
    if not gso:
        return senders.udp_packets(source, destination, 500, 100), 500
    traffic = senders.udp_gso(source, destination, 10, 40_000, 1000)
    return traffic, traffic.total.packets if cut else 10


CASES: dict[str, Callable[[], AbstractContextManager[Case]]] = {
    f"{name}, {direction}, {'super-packets' if gso else 'packets'}": (partial(case, direction, gso=gso, **options))
    for name, case, options in [
        ("loopback", loopback_case, {}),
        ("veth", veth_case, {}),
        ("veth with GRO", veth_case, {"gro": True}),
        ("veth with GRO, sender without TSO", veth_case, {"gro": True, "tso": False}),
        ("veth, sender without UDP GSO", veth_case, {"udp": False}),
        ("vxlan", vxlan_case, {}),
        ("macvlan", macvlan_case, {}),
        ("bridge", bridge_case, {}),
    ]
    for direction in ("rx", "tx")
    for gso in (False, True)
}


class TestRunningKernel:
    """Known traffic past each device leaves nothing unexplained by the table."""

    pytestmark = needs_root

    @pytest.mark.parametrize("name", CASES)
    def test_known_traffic_is_counted_as_the_table_says(self, name: str) -> None:
        with CASES[name]() as (port, direction, send):
            device, before = look(port)
            traffic, buffers = send()
            topology.settle(port)
            gained = look(port)[1].since(before)
            packets, octets = traffic.total
            if not device.has_ethernet:
                octets -= packets * 14
            seen = Tally(packets, octets, buffers)
            convention = convention_of(device, direction)
            counters, remainders, _ = explain_difference(direction, seen, gained, convention)
            assert causes(remainders) == {}
            missing = left_out(convention)
            if missing is not None and seen.packets == seen.skbs:
                assert counters.bytes == seen.bytes - seen.skbs * missing

    def test_a_tap_counts_what_its_reader_takes(self) -> None:
        topology.require("tap")
        with netns.hosts("solo") as (solo,):
            port = topology.tap(solo, vnet_header=False)
            solo.ip(f"neigh replace 10.79.0.9 lladdr 02:79:00:00:00:09 dev {port.device}")
            with senders.guest(port, vnet_header=False) as descriptor:
                device, before = look(port)
                traffic = senders.udp_packets(port, "10.79.0.9", 100, 100)
                unread = look(port)[1].since(before)
                while read_one(descriptor):
                    pass
                read = look(port)[1].since(before)
        seen, convention = Tally(*traffic.total, 100), convention_of(device, "tx")
        assert causes(explain_difference("tx", seen, unread, convention)[1]) == {"unexplained": -100}
        counters, remainders, _ = explain_difference("tx", seen, read, convention)
        assert causes(remainders) == {}
        assert counters.bytes == seen.bytes
        assert left_out(convention) == 0

    def test_a_bypassing_sender_is_reported(self) -> None:
        with topology.pair() as (client, server), senders.sinks(server):
            device, before = look(client)
            seen = Tally(*senders.udp_packets(client, server.ipv4, 50).total, 50)
            frame = bytes.fromhex(server.mac.replace(":", "") + client.mac.replace(":", "") + "88b5") + bytes(46)
            senders.raw_frames(client, frame, 77, bypass_qdisc=True)
            gained = look(client)[1].since(before)
            assert over([(seen, gained), QUIET], convention_of(device, "tx")) == {"bypassed_stack": 77}

    def test_a_tbfs_drops_are_reported(self) -> None:
        with topology.pair() as (client, server), senders.sinks(server), client.host.entered(), RouteSocket() as route:
            topology.limit_rate(client)
            (device, before), qdisc_before = look(client), route.qdiscs()[client.link["ifindex"]]
            seen = Tally(*senders.udp_packets(client, server.ipv4, 200, 1000).total, 200)
            after = route.qdiscs()[client.link["ifindex"]]
            gained = look(client)[1].since(before)
            gain = QdiscGain.between(qdisc_before, after)
            convention = convention_of(device, "tx")
            _, remainders, _ = explain_difference("tx", seen, gained, convention, qdisc=gain)
            assert remainders["qdisc_drops"] < -100
            assert remainders["unexplained"] == remainders["bypassed_stack"] == 0


def look(port: Port) -> tuple[Device, LinkCounters]:
    """The device and its counters now."""
    with port.host.entered(), RouteSocket() as route:
        device = next(device for device in read_devices() if device.name == port.device)
        return device, route.counters()[device.ifindex]


def read_one(descriptor: int) -> bytes:
    """One packet from a tun or tap, b"" if there is none."""
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""
