"""The senders' arithmetic against a capture where offloads are off: the measure is measured first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import devices, senders
from .capture import Capture
from .devices import Wire
from .scenarios import SCENARIOS, SUPER

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def quiet_wire() -> Iterator[Wire]:
    """One wire for all senders; each looks only at what crosses while it sends."""
    devices.require("veth", "bridge")
    with devices.wire(v6=True) as quiet:
        devices.settle(quiet.client, quiet.server)
        yield quiet


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_sender_says_it_sent_is_what_a_capture_shows(quiet_wire: Wire, name: str) -> None:
    counted = devices.counters(quiet_wire.right)["tx"]
    with senders.sinks(quiet_wire.server), quiet_wire.capture() as captured:
        sent = SCENARIOS[name](quiet_wire.client, quiet_wire.server)
        devices.settle(quiet_wire.left, quiet_wire.right)
        assert captured.to_server == sent.to_server
        assert captured.to_client == sent.to_client
        assert sent.to_server.total.packets
    # Where all is cut to wire packets, veth's own counters are a second witness.
    assert counted.plus(sent.to_server.total) == devices.counters(quiet_wire.right)["tx"]


@pytest.mark.parametrize("name", SUPER)
def test_super_packets_leave_the_client_whole(quiet_wire: Wire, name: str) -> None:
    """Else the tests of segment arithmetic would prove nothing. veth without NAPI counts buffers."""
    before = devices.counters(quiet_wire.client)["tx"].packets
    with senders.sinks(quiet_wire.server):
        sent = SUPER[name](quiet_wire.client, quiet_wire.server)
    buffers = devices.counters(quiet_wire.client)["tx"].packets - before
    assert buffers * 3 < sent.to_server.total.packets


def test_a_capture_refuses_to_be_truth_where_offloads_are_on(quiet_wire: Wire) -> None:
    with Capture(quiet_wire.client.host, "eth0", "out") as captured:
        senders.udp_gso(quiet_wire.client, quiet_wire.server.ipv4, 1, 10_000, 1000)
        with pytest.raises(AssertionError, match="offloads are on"):
            captured.traffic()
