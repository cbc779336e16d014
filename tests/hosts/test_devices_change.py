"""Devices that are renamed, moved, set down and up, removed and made again while they are metered."""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from wiremeter import Monitor
from wiremeter.linux.grace_periods import SWITCH

from . import devices, leaks, netns, senders
from .devices import Port
from .measure import Attach, metering
from .scenarios import tcp_frame

pytestmark = pytest.mark.kernel


def test_a_renamed_device_keeps_its_attachment_and_its_counts() -> None:
    with devices.pair() as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with metering(client.host, "eth0") as meter:
            before = senders.udp_packets(client, server.ipv4, 100)
            meter.wait_counted()
            client.host.ip("link set eth0 name lan7")
            renamed = Port(client.host, "lan7", client.mac, client.ipv4)
            after = senders.udp_packets(renamed, server.ipv4, 200)
    assert meter.reading
    (sender,) = (a for a, seen in meter.reading.by_attachment.items() if seen.total.packets)
    meter.reading.by_attachment[sender].assert_is(before.plus(after))
    assert meter.reading.devices[sender] == ("eth0", "lan7")


def test_a_device_that_goes_down_and_up_is_counted_on() -> None:
    with devices.pair() as (client, server), senders.sinks(server):
        devices.settle(client, server)
        with metering(client.host, "eth0") as meter:
            before = senders.udp_packets(client, server.ipv4, 100)
            client.host.ip("link set eth0 down")
            meter.wait_counted()
            client.host.ip("link set eth0 up")
            devices.acquaint(client, server)
            devices.wait_up(client)
            after = senders.udp_packets(client, server.ipv4, 200)
    meter["eth0", "tx"].assert_is(before.plus(after))


def test_a_device_moved_to_another_namespace_has_its_totals_closed() -> None:
    """The link would go with it, and its new ifindex may be another device's here."""
    with netns.hosts("client", "server", "elsewhere") as (client, server, elsewhere):
        near, far = devices.veth(client, server)
        with senders.sinks(far):
            devices.settle(near, far)
            with metering(client, "eth0", "lo") as meter:
                before = senders.udp_packets(near, far.ipv4, 100)
                devices.move(near, elsewhere)
                meter.wait_counted()
                meter.wait_counted()
                moved = Port(elsewhere, "eth0", near.mac, near.ipv4)
                devices.bring_up(moved)
                devices.acquaint(moved, far)
                devices.wait_up(moved)
                senders.udp_packets(moved, far.ipv4, 1000)
    meter["eth0", "tx"].assert_is(before)


def test_a_device_that_vanishes_leaves_its_last_counts_and_the_others_go_on() -> None:
    with netns.hosts("client", "server") as (client, server):
        lan, far_lan = devices.veth(client, server, ("lan0", "lan0"))
        wan, far_wan = devices.veth(client, server, ("wan0", "wan0"))
        with senders.sinks(far_lan):
            devices.settle(lan, wan, far_lan, far_wan)
            with metering(client, "lan0", "wan0") as meter:
                last = senders.udp_packets(lan, far_lan.ipv4, 100)
                devices.remove(client, "lan0")
                meter.wait_counted()
                still = senders.udp_packets(wan, far_wan.ipv4, 200)
    meter["lan0", "tx"].assert_is(last)
    meter["wan0", "tx"].assert_is(still)


def test_a_device_that_appears_is_metered_when_a_pattern_names_it() -> None:
    with netns.hosts("client", "server") as (client, server):
        lan, far_lan = devices.veth(client, server, ("lan0", "lan0"))
        with metering(client, "lan*") as meter:
            late, far_late = devices.veth(client, server, ("lan1", "lan1"))
            meter.wait_attachments(4)
            devices.settle(lan, far_lan, late, far_late)
            sent = senders.raw_frames(late, tcp_frame(late, far_late), 100)
    meter["lan1", "tx"].assert_is(sent)


def many(host: netns.Host, count: int) -> None:
    """As many devices, called ours0 and so on."""
    host.ip(*(f"link add ours{number} type veth peer name theirs{number}" for number in range(count)))


def test_many_devices_that_appear_at_once_are_metered_soon_and_no_batch_is_late() -> None:
    """Each took a load of its own once, with flips paused: 60 of them kept batches back for two minutes."""
    interval, count = 0.5, 60
    meter = Monitor("lo", "ours*", interval=interval, max_devices=count + 1)
    with netns.hosts("host") as (host,), host.entered(), meter as monitor:
        batches = iter(monitor)
        next(batches)
        many(host, count)
        made = time.monotonic()
        while True:
            batch = next(batches)
            assert batch.end_ns - batch.start_ns < 4 * interval * 1e9
            if len({attachment.device for attachment in batch.attachments}) == count + 1:
                break
            assert time.monotonic() - made < 20 * netns.PATIENCE
        assert batch.health.attaching == 0


def test_a_meter_of_many_devices_ends_soon_and_leaves_the_kernels_grace_periods_as_they_were() -> None:
    """The kernel waits for one for each program: 500 devices took 20 s."""
    count = 150
    before = SWITCH.read_text()
    with netns.hosts("host") as (host,), host.entered(), contextlib.ExitStack() as resources:
        many(host, count)
        monitor = resources.enter_context(Monitor("ours*", interval=0.2, max_devices=count))
        next(batch for batch in monitor if len(batch.attachments) == 2 * count)
        assert SWITCH.read_text() == before
        ending = time.monotonic()
        resources.close()
        seconds = time.monotonic() - ending
    assert SWITCH.read_text() == before
    if os.access(SWITCH, os.W_OK):
        assert seconds < 8 * netns.PATIENCE


def test_a_device_made_again_under_the_same_name_is_metered_again() -> None:
    with netns.hosts("client", "server") as (client, server):
        lan, far = devices.veth(client, server, ("lan0", "lan0"))
        with metering(client, "lan0") as meter:
            first = senders.raw_frames(lan, tcp_frame(lan, far), 100)
            devices.remove(client, "lan0")
            meter.wait_counted()
            lan, far = devices.veth(client, server, ("lan0", "lan0"))
            meter.wait_attachments(4)
            second = senders.raw_frames(lan, tcp_frame(lan, far), 200)
    meter["lan0", "tx"].assert_is(first.plus(second))
    assert meter.reading
    assert len([a for a, seen in meter.reading.by_attachment.items() if seen.total.packets]) == 2


@pytest.mark.parametrize("attach", ["tcx", "xdp"])
def test_nothing_stays_attached_when_the_monitor_is_killed(attach: Attach) -> None:
    with devices.pair() as (client, _), leaks.nothing_left(), metering(client.host, "eth0", attach=attach) as meter:
        assert {thing.kind for thing in leaks.things()} >= {"prog", "map", "link"}
        meter.kill()
