"""Client and server on a wire: what both their meters say is what was sent, whatever was sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import devices, senders
from .capture import WHATEVER, Capture
from .devices import Wire
from .flips import flipping
from .measure import Attach, metering, metering_ends
from .scenarios import SCENARIOS, SUPER

pytestmark = pytest.mark.kernel

#: How often a wire is tried on which a veth with NAPI drops what its ring of 256 has no room for (Linux, veth.c).
TRIES = 8


@pytest.fixture(scope="module")
def tapped() -> Iterator[Wire]:
    """A wire with a capture in its middle, as devices come: segmentation offloads on, GRO off."""
    devices.require("veth", "bridge")
    with devices.wire(v6=True) as made, senders.sinks(made.server):
        devices.settle(made.client, made.server)
        yield made


@pytest.fixture(scope="module", params=[(True, True), (False, True), (False, False)], ids=str)
def tuned(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """The same with the client's segmentation offloads, and the server's GRO, on and off."""
    devices.require("veth", "bridge")
    segmenting, merging = request.param
    with devices.wire(v6=True) as made, senders.sinks(made.server):
        if not segmenting:
            made.client.no_segmentation()
        made.server.offload(generic_receive_offload=merging, rx_udp_gro_forwarding=merging)
        devices.settle(made.client, made.server)
        yield made


@pytest.mark.parametrize("attach", ["tcx", "xdp", "capture"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_both_ends_count_what_was_sent(tapped: Wire, name: str, attach: Attach) -> None:
    """With native XDP the server's ring may overflow, so there a capture behind the program says what came in."""
    with (
        Capture(tapped.server.host, "eth0", "in", longest=1522 if attach == "xdp" else WHATEVER) as captured,
        metering_ends(tapped.client, tapped.server, attach) as (client, server),
    ):
        sent = SCENARIOS[name](tapped.client, tapped.server)
    came = captured.traffic() if attach == "xdp" else sent.to_server
    assert came.total.packets
    client["eth0", "tx"].assert_is(sent.to_server)
    client["eth0", "rx"].assert_is(sent.to_client)
    server["eth0", "rx"].assert_is(came)
    server["eth0", "tx"].assert_is(sent.to_client)
    assert server["eth0", "rx"].modes == {attach}
    assert server["eth0", "tx"].modes == {"capture" if attach == "capture" else "tcx"}


@pytest.mark.parametrize("name", SUPER)
def test_super_packets_count_as_wire_packets_with_offloads_on_and_off(tuned: Wire, name: str) -> None:
    for _ in range(TRIES):
        dropped = devices.dropped(tuned.right)
        with (
            tuned.capture() as captured,
            metering_ends(tuned.client, tuned.server, "tcx") as (client, server),
        ):
            SUPER[name](tuned.client, tuned.server)
        if devices.dropped(tuned.right) == dropped:
            break
    else:
        pytest.fail(f"the server's ring overflowed {TRIES} times: this machine is too busy to tell what came in")
    client["eth0", "tx"].assert_is(captured.to_server)
    client["eth0", "rx"].assert_is(captured.to_client)
    server["eth0", "rx"].assert_is(captured.to_server)
    server["eth0", "tx"].assert_is(captured.to_client)
    if name.startswith("tcp"):
        merging = devices.device_features(tuned.server.host, "eth0")["generic-receive-offload"]
        assert (server["eth0", "rx"].skbs * 3 < server["eth0", "rx"].total.packets) == merging


@pytest.mark.parametrize("name", ["udp-gso", "vnet-gso", "tcp"])
def test_the_kernels_own_view_is_kept_beside_as_skbs(tapped: Wire, name: str) -> None:
    before = devices.counters(tapped.client)["tx"].packets
    with metering(tapped.client.host, "eth0", attach="tcx") as client:
        SUPER[name](tapped.client, tapped.server)
    buffers = devices.counters(tapped.client)["tx"].packets - before
    assert client["eth0", "tx"].skbs == buffers
    assert sum(client["eth0", "tx"].flow_skbs.values()) == buffers
    assert buffers * 3 < client["eth0", "tx"].total.packets


@pytest.mark.parametrize("name", [*SUPER, "raw-vlan", "raw-qinq", "tx-ring", "udp-fragments", "raw-arp"])
def test_a_bridge_between_counts_the_same_on_both_its_ports(tapped: Wire, name: str) -> None:
    """Here a tag is in the skb's metadata at egress, and a super-packet is forwarded that was not made here."""
    with metering(tapped.left.host, "left", "right", attach="tcx") as middle:
        sent = SCENARIOS[name](tapped.client, tapped.server)
    for way, traffic in (("to_server", sent.to_server), ("to_client", sent.to_client)):
        came, went = ("left", "right") if way == "to_server" else ("right", "left")
        middle[came, "rx"].assert_is(traffic)
        middle[went, "tx"].assert_is(traffic)


def test_generic_xdp_counts_buffers_and_says_so(tapped: Wire) -> None:
    with metering(tapped.server.host, "eth0", attach="xdp-generic") as server:
        sent = SCENARIOS["udp-small"](tapped.client, tapped.server)
    server["eth0", "rx"].assert_is(sent.to_server)
    assert server["eth0", "rx"].modes == {"xdp-generic"}
    assert server["eth0", "rx"].skbs == sent.to_server.total.packets


def test_tcp_flags_of_a_connection_are_kept(tapped: Wire) -> None:
    with metering(tapped.client.host, "eth0") as client:
        sent = SCENARIOS["tcp"](tapped.client, tapped.server)
    (flow,) = sent.to_server.flows
    assert client["eth0", "tx"].tcp_flags[flow] & 0x13 == 0x13  # FIN, SYN, ACK (RFC 9293, 3.1)
    assert client["eth0", "rx"].tcp_flags[flow.reverse()] & 0x13 == 0x13


@pytest.mark.parametrize("name", ["raw-tcp", "raw-qinq", "tx-ring-vlan", "udp-gso", "tcp"])
def test_where_there_is_no_tcx_clsact_counts_the_same(tapped: Wire, name: str) -> None:
    with (
        flipping(tapped.client.host, "eth0", "tx", "clsact") as out,
        flipping(tapped.server.host, "eth0", "rx", "clsact") as into,
    ):
        sent = SCENARIOS[name](tapped.client, tapped.server)
    assert out()[0] == sent.to_server
    assert into()[0] == sent.to_server


def test_two_monitors_on_a_device_both_count_and_the_displaced_one_says_so(tapped: Wire) -> None:
    with metering(tapped.client.host, "eth0") as first, metering(tapped.client.host, "eth0") as second:
        first.wait_counted()
        sent = SCENARIOS["udp-small"](tapped.client, tapped.server)
    for meter in (first, second):
        meter["eth0", "tx"].assert_is(sent.to_server)
    assert first.reading
    assert second.reading
    assert first.reading.displaced == {"eth0 rx", "eth0 tx"}
    assert second.reading.displaced == set()
