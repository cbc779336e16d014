"""What the stack never shows, and what it shows but the wire never carries: the audit names the gap.

Remainders have the sign of device − meter, so that they add up to the difference.
"""

from __future__ import annotations

import pytest

from wiremeter import Monitor

from . import devices, senders
from .measure import Attach, metering, metering_ends
from .scenarios import broadcast_of, tcp_frame
from .wire import Traffic

pytestmark = pytest.mark.kernel


def test_what_a_qdisc_drops_was_handed_over_and_is_a_named_remainder() -> None:
    with devices.pair() as (client, server), senders.sinks(server):
        devices.limit_rate(client)
        devices.settle(client, server)
        with metering(client.host, "eth0") as ours:
            ours.wait_counted()
            sent = senders.udp_packets(client, server.ipv4, 2000)
            ours.wait_counted()
        dropped = devices.qdisc_counts(client)["drops"]
    seen = ours["eth0", "tx"]
    seen.assert_is(sent)
    assert dropped > 1000
    assert seen.kernel
    assert set(seen.remainders) == {"qdisc_drops", "queued"}
    assert seen.remainders["qdisc_drops"] == -dropped
    assert seen.dropped == {("qdisc", "tbf"): dropped}
    assert seen.remainders["queued"] == seen.kernel.packets + dropped - 2000


@pytest.mark.parametrize("attach", ["tcx", "xdp"])
def test_what_bypasses_the_qdisc_is_not_seen_at_egress_and_reported_as_the_gap(attach: Attach) -> None:
    """The receiver sees it all the same."""
    with devices.pair() as (client, server):
        devices.settle(client, server)
        with metering_ends(client, server, attach) as (ours, theirs):
            ours.wait_counted()
            plain = senders.raw_frames(client, tcp_frame(client, server), 100)
            hidden = senders.raw_frames(client, tcp_frame(client, server), 5000, bypass_qdisc=True)
            ours.wait_counted()  # a quiet interval settles what crossed between two readings
    ours["eth0", "tx"].assert_is(plain)
    assert ours["eth0", "tx"].remainders == {"bypassed_stack": 5000}
    theirs["eth0", "rx"].assert_is(plain.plus(hidden))


def test_the_first_batch_has_the_devices_counters_too() -> None:
    with devices.pair() as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with client.host.entered(), Monitor("eth0", interval=0.5) as monitor:
            senders.udp_packets(client, server.ipv4, 500)
            batch = next(iter(monitor))
    of_tx = next(audit for audit in batch.audit if audit.direction == "tx")
    assert of_tx.kernel
    assert of_tx.kernel.packets == of_tx.seen.packets == 500
    assert not any(of_tx.remainders.values())


@pytest.mark.parametrize("group", ["broadcast", "224.0.0.1", "ff02::1"])
def test_the_copy_that_a_host_hears_of_its_own_broadcast_was_on_no_wire(group: str) -> None:
    """The stack hands it up as if the device had received it (dev_loopback_xmit), without an Ethernet header."""
    with devices.pair(v6=True) as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with metering_ends(client, server) as (ours, theirs):
            to = broadcast_of(client) if group == "broadcast" else group
            sent = senders.udp_packets(client, to, 300, hear_own=True)
    ours["eth0", "tx"].assert_is(sent)
    theirs["eth0", "rx"].assert_is(sent)
    ours["eth0", "rx"].assert_is(Traffic())


def test_traffic_over_many_intervals_leaves_no_remainder() -> None:
    with devices.pair() as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with metering_ends(client, server) as (ours, theirs):
            ours.wait_counted()
            theirs.wait_counted()
            sent = senders.udp_sendmmsg(client, server.ipv4, 300_000)
    ours["eth0", "tx"].assert_is(sent)
    assert ours["eth0", "tx"].remainders == {}
    assert theirs["eth0", "rx"].remainders == {}
