"""Averages over the last seconds, and sums, of devices and flows."""

from __future__ import annotations

import numpy as np
import pytest

from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.by_name import sums_by_name
from wiremeter.flows.recent import WINDOWS, DeviceSums, FlowSums, NameSums
from wiremeter.flows.top import device_rates
from wiremeter.names.records import FlowName

from ..live_batches import SECOND_NS, START_NS, conversations, flow, make_batch


def batch(second: float, *flows: dict[str, object], seconds: float = 1.0) -> FlowBatch:
    return make_batch(list(flows), start_ns=START_NS + int(second * SECOND_NS), seconds=seconds)


def down(packets: int, port: int = 443) -> dict[str, object]:
    return flow("192.0.2.1", "10.0.0.5", port, 50000, packets=packets)


def up(packets: int) -> dict[str, object]:
    return flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", packets=packets)


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.0, 3.0, 60.0])
def test_averages_are_over_the_windows_or_an_interval_that_is_longer(seconds: float) -> None:
    recent, devices = FlowSums(), DeviceSums()
    for number in range(round(100 / seconds)):
        now = batch(number * seconds, down(number % 7 + 1), seconds=seconds)
        recent.add(now)
        devices.add(device_rates(now), now.seconds)
    amounts = [(number % 7 + 1) * 100 for number in range(round(100 / seconds))]
    (averages,) = recent.averages(now, now.flows)
    for window, average in zip(WINDOWS, averages, strict=True):
        count = max(1, int(window / seconds + 0.5))
        assert average == pytest.approx(sum(amounts[-count:]) / (min(count, len(amounts)) * seconds))
    assert devices.averages("eth0", "rx") == pytest.approx((averages * 8).tolist())
    assert devices.bytes("eth0", "rx") == sum(amounts)
    assert devices.peak("eth0", "rx") == pytest.approx(max(amounts) * 8 / seconds)


def test_a_conversation_is_the_sum_of_both_its_flows() -> None:
    recent = FlowSums()
    for second in range(4):
        now = batch(second, down(10), up(2))
        recent.add(now)
    pairs = conversations(now)
    assert recent.averages(now, pairs).tolist() == [[1200.0, 1200.0, 1200.0]]
    assert recent.sums(now, pairs).tolist() == [4800]
    assert recent.sums(now, now.flows).tolist() == [4000, 800]


def test_what_is_new_or_was_silent_counts_its_silence() -> None:
    recent = FlowSums()
    for second in range(10):
        now = batch(second, down(1), *([down(5, 80)] if second == 9 else []))
        recent.add(now)
    assert recent.averages(now, now.flows)[1].tolist() == [250.0, 50.0, 50.0]


def test_sums_end_with_the_longest_window_and_memory_stays_bounded() -> None:
    recent = FlowSums(kept=3)
    for second in range(200):
        recent.add(batch(second, *(down(port, second * 10 + port) for port in range(1, 7))))
    assert len(recent._amounts._intervals) <= WINDOWS[-1] + 2
    assert len(recent._amounts._keys) <= 3 * (WINDOWS[-1] + 2)
    last = batch(201, down(1, 10_001))
    recent.add(last)
    assert recent.sums(last, last.flows).tolist() == [100]


def test_nothing_is_nothing() -> None:
    recent, empty = FlowSums(), batch(0)
    recent.add(empty)
    assert recent.averages(empty, empty.flows).shape == (0, len(WINDOWS))
    assert np.array_equal(recent.sums(empty, empty.flows), [])


def test_averages_by_name_are_those_of_its_flows() -> None:
    one, other = FlowName("tls", "a.example", "sni"), FlowName("quic", "b.example", "sni")
    domains = NameSums(lambda name: name.domain, kept=2)
    for second in range(20):
        now = batch(second, down(10) | {"name": one}, up(2) | {"name": one}, down(1, 80), down(4, 81) | {"name": other})
        domains.add(now.names, sums_by_name(now, ("bytes",)).sum(axis=(1, 2), dtype=np.uint64), now.seconds)
    assert domains.averages(["a.example", "b.example"]).tolist() == [[1200.0] * 3, [400.0] * 3]
    # Of three only the two largest are remembered; what is not among them counts as 0.
    assert domains.averages([None, "never.example"]).tolist() == [[0.0] * 3] * 2
    assert domains.averages([]).shape == (0, len(WINDOWS))
