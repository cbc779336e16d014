"""The audit over several intervals, against devices whose counters are made up."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.interval import Interval
from wiremeter.errors import KernelError
from wiremeter.flows.batch import Attachment, Audit, Drop, Tally
from wiremeter.flows.columns import ETHERTYPE_COUNTER, AttachMode
from wiremeter.linux.devices import Device
from wiremeter.linux.netlink_messages import LinkCounters, Qdisc, XdpSlot
from wiremeter.metering.auditor import Auditor
from wiremeter.metering.tracker import Metered

DEVICE = Device("eth0", 2, driver="ixgbe", parent="0000:00:03.0")
TX = Attachment(7, "eth0", 2, "tx", "tcx")
MS = 0.001


class Counting:
    """A device and its qdisc; a reading takes time, by the clock that this is too."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent = self.received = 0
        self.dropped = 0
        self.qdisc = Qdisc("tbf", 0, 0)
        self.fails = 0

    def __call__(self) -> float:
        return self.now

    def counters(self) -> Mapping[int, LinkCounters]:
        if self.fails:
            raise KernelError("no", call="RTM_GETSTATS", errno=self.fails)
        self.now += MS
        return {2: LinkCounters(rx_packets=self.received, tx_packets=self.sent, tx_dropped=self.dropped)}

    def qdiscs(self) -> Mapping[int, Qdisc]:
        return {2: self.qdisc}


@pytest.fixture
def device() -> Counting:
    return Counting()


@pytest.fixture
def auditor(device: Counting) -> Auditor:
    return Auditor(device, device)


def audit(
    auditor: Auditor, packets: int, attached: bool = True, attachment: Attachment = TX, on: Device = DEVICE
) -> Audit:
    """Of an interval in which we counted so many; the reading is done."""
    counters = np.zeros((1, records.ROWS, 3), np.uint64)
    counters[0, records.ROW_IPV4 + 6] = packets, 60 * packets, packets
    interval = Interval()
    interval.add(Drain(counters, [], np.zeros(0, ETHERTYPE_COUNTER)), {0: 0})
    metered = {attachment.id: Metered(attachment, cast(Any, None), on)} if attached else {}
    (found,) = auditor.audits(interval, [attachment], [Tally(packets, 60 * packets, packets)], metered)
    return found


def read(auditor: Auditor, device: Counting, attachment: Attachment = TX) -> None:
    device.now += 1.0
    auditor.read([attachment])


def test_the_first_interval_compares(auditor: Auditor, device: Counting) -> None:
    device.sent = 1000  # before we came
    read(auditor, device)
    device.sent += 50
    read(auditor, device)
    found = audit(auditor, 50)
    assert found.kernel
    assert found.kernel.packets == 50
    assert not any(found.remainders.values())


def test_a_device_that_came_in_the_interval_does_not_compare_before_the_next(
    auditor: Auditor, device: Counting
) -> None:
    auditor.read()
    read(auditor, device)
    assert audit(auditor, 50).kernel is None
    read(auditor, device)
    assert audit(auditor, 0).kernel is not None


def test_a_device_that_went_does_not_compare(auditor: Auditor, device: Counting) -> None:
    read(auditor, device)
    auditor.read()
    assert audit(auditor, 50, attached=False).kernel is None


def test_packets_at_the_start_between_our_turn_and_the_reading_did_not_bypass_the_stack(
    auditor: Auditor, device: Counting
) -> None:
    """Four packets that the device counts in its first reading and we in our first interval."""
    auditor.read()
    device.sent = 4
    read(auditor, device)
    for ours in (4, 0, 0):
        read(auditor, device)
        assert not any(audit(auditor, ours).remainders.values())


def test_what_is_missing_from_then_on_is_told(auditor: Auditor, device: Counting) -> None:
    auditor.read()
    device.sent = 4
    read(auditor, device)
    read(auditor, device)
    assert audit(auditor, 10).remainders["unexplained"] == -6


def test_a_burst_between_turn_and_reading_comes_back_and_is_no_bypass(auditor: Auditor, device: Counting) -> None:
    read(auditor, device)
    device.sent += 2000 + 40  # 40 of them in the millisecond after our turn
    read(auditor, device)
    first = audit(auditor, 2000)
    assert (first.remainders["bypassed_stack"], first.remainders["unexplained"]) == (0, 40)
    read(auditor, device)
    second = audit(auditor, 40)
    assert (second.remainders["bypassed_stack"], second.remainders["unexplained"]) == (0, -40)


def test_what_bypasses_the_stack_is_named_when_it_has_stood(auditor: Auditor, device: Counting) -> None:
    read(auditor, device)
    device.sent += 5100
    read(auditor, device)
    assert audit(auditor, 100).remainders["bypassed_stack"] == 0
    read(auditor, device)
    found = audit(auditor, 0)
    assert (found.remainders["bypassed_stack"], found.remainders["unexplained"]) == (5000, -5000)


@pytest.mark.parametrize(
    ("mode", "slot", "bypassed"),
    [
        ("tcx", XdpSlot("xdp", (9,)), 5000),
        ("clsact", XdpSlot("xdp-generic", (9,)), 5000),
        ("capture", XdpSlot("xdp", (9,)), 5000),
        ("tcx", XdpSlot(), 0),
        ("xdp", XdpSlot("xdp", (9,)), 0),
    ],
)
def test_what_another_xdp_program_took_at_rx_has_bypassed_the_stack(
    auditor: Auditor, device: Counting, mode: AttachMode, slot: XdpSlot, bypassed: int
) -> None:
    attachment = replace(TX, direction="rx", mode=mode)
    on = replace(DEVICE, xdp=slot)
    read(auditor, device, attachment)
    device.received += 5100
    read(auditor, device, attachment)
    assert audit(auditor, 100, attachment=attachment, on=on).remainders["bypassed_stack"] == 0
    read(auditor, device, attachment)
    assert audit(auditor, 0, attachment=attachment, on=on).remainders["bypassed_stack"] == bypassed


def test_drops_are_told_and_explain_the_difference(auditor: Auditor, device: Counting) -> None:
    read(auditor, device)
    device.sent, device.dropped, device.qdisc = 90, 3, Qdisc("tbf", 5, 2)
    read(auditor, device)
    found = audit(auditor, 100)
    assert found.drops == (Drop("qdisc", "tbf", 5), Drop("device", "dropped", 3))
    assert found.dropped == 8
    assert not found.remainders["unexplained"]
    read(auditor, device)
    assert audit(auditor, 0).dropped == 0


def test_devices_that_change_faster_than_they_can_be_read_are_compared_later(
    auditor: Auditor, device: Counting
) -> None:
    read(auditor, device)
    device.fails = errno.EINTR
    read(auditor, device)
    assert audit(auditor, 50).kernel is None
    device.fails = 0
    read(auditor, device)
    assert audit(auditor, 0).kernel is None
    read(auditor, device)
    assert audit(auditor, 0).kernel is not None
    device.fails = errno.EPERM
    with pytest.raises(KernelError):
        read(auditor, device)
