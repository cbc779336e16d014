"""What the live view says aloud."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from wiremeter.flows.batch import Drop, FlowBatch, Health, Tally
from wiremeter.reports.findings import FindingLog, findings

from ..live_batches import SECOND_NS, START_NS, make_batch

FULL = {("eth0", "rx"): {"table_full": Tally(1200, 99_000, 1200)}}
DAMAGED = {("eth0", "tx"): {"ipv4_header": Tally(1, 60, 1)}}


def kinds(batch: FlowBatch) -> list[str]:
    return [alarm.kind for alarm in findings(batch)]


def test_what_a_capture_loses_is_said() -> None:
    batch = make_batch([], devices={"eth0": "capture"})
    batch = replace(batch, audit=tuple(replace(audit, capture_dropped=1200) for audit in batch.audit))
    lost = [alarm for alarm in findings(batch) if alarm.kind == "capture_dropped"]
    assert {(alarm.severity, alarm.packets) for alarm in lost} == {("fault", 1200)}
    assert "1,200 buffers lost" in lost[0].text


def test_quiet_batch_says_nothing() -> None:
    assert findings(make_batch([])) == ()


@pytest.mark.parametrize(
    ("batch", "kind", "text"),
    [
        (make_batch([], health=Health(displaced=("eth0 rx",))), "displaced", "eth0 rx: displaced: another program"),
        (make_batch([], devices={"eth0": "xdp-generic"}), "skb_counts", "not packets on the wire"),
        (
            make_batch([], missing=Tally(3, 180, 3)),
            "unbalanced",
            r"balance, \+3 packets, \+180 bytes: a fault",
        ),
        (make_batch([], unattributed=FULL), "unattributed", "rx: 1,200 packets .*, table_full: raise --flow-table"),
        (make_batch([], unattributed=DAMAGED), "unattributed", "eth0 tx: 1 packets unattributed, ipv4_header"),
        (make_batch([], mode="simulated"), "simulated", "SIMULATED"),
        (make_batch([], devices=()), "no_device", "no device"),
        (make_batch([], devices=("eth0", "br0")), "stacked", "totals over stacked devices are more than the wire"),
    ],
)
def test_each_state_has_its_alarm(batch: FlowBatch, kind: str, text: str) -> None:
    found = findings(batch)
    assert {alarm.kind for alarm in found} == {kind}
    assert re.search(text, found[0].text)


def test_bypassed_packets_are_reported_and_other_remainders_are_for_the_audit() -> None:
    batch = make_batch([])
    rx, tx = batch.audit
    with_gap = replace(tx, remainders={"qdisc_drops": -3, "bypassed_stack": 387_328, "unexplained": 2})
    (alarm,) = findings(replace(batch, audit=(rx, with_gap)))
    assert alarm.text.startswith("eth0 tx: 387,328 packets bypassed the stack")


def test_what_the_kernel_dropped_is_said_with_its_place() -> None:
    batch = make_batch([])
    rx, tx = batch.audit
    rx = replace(rx, drops=(Drop("device", "dropped", 3, is_loss=False), Drop("device", "missed", 12)))
    tx = replace(tx, drops=(Drop("qdisc", "tbf", 17_456),))
    assert [alarm.text for alarm in findings(replace(batch, audit=(rx, tx)))] == [
        "eth0 rx: 12 packets dropped by the device (missed)",
        "eth0 tx: 17,456 packets dropped by qdisc tbf",
    ]


def test_reasons_that_counted_nothing_are_silent() -> None:
    assert kinds(make_batch([], unattributed={("eth0", "rx"): {"table_full": Tally()}})) == []


def test_faults_come_before_warnings_before_notes() -> None:
    batch = make_batch(
        [], devices=("eth0", "br0"), unattributed=FULL, health=Health(displaced=("eth0 rx",)), missing=Tally(1, 60, 1)
    )
    severities = [alarm.severity for alarm in findings(batch)]
    assert severities == sorted(severities, key=["fault", "warning", "note"].index)
    assert set(severities) == {"fault", "warning", "note"}


def test_lost_payloads_are_those_lost_since_the_interval_before() -> None:
    before = Health(lost_payloads={"dns": 5, "tls": 7})
    batch = make_batch([], health=Health(lost_payloads={"dns": 17, "tls": 7, "http": 0}))
    (alarm,) = findings(batch, before)
    assert (alarm.kind, alarm.severity, alarm.packets) == ("lost_payloads", "warning", 12)
    assert alarm.text.startswith("12 payloads lost, dns: names may be missing")
    assert sum(alarm.packets for alarm in findings(batch)) == 24


def test_log_adds_up_lost_payloads_once() -> None:
    log = FindingLog()
    for second, lost in enumerate((3, 10, 10)):
        log.add(make_batch([], start_ns=START_NS + second * SECOND_NS, health=Health(lost_payloads={"dns": lost})))
    assert [(alarm.packets, ended) for alarm, ended in log.entries()] == [(10, START_NS + 2 * SECOND_NS)]


def test_log_that_is_cleared_keeps_what_goes_on() -> None:
    log = FindingLog()
    log.add(make_batch([], health=Health(lost_payloads={"dns": 3})))
    log.add(make_batch([], start_ns=START_NS + SECOND_NS, health=Health(lost_payloads={"dns": 10})))
    log.clear()
    assert [(alarm.packets, ended) for alarm, ended in log.entries()] == [(10, None)]


def test_log_adds_up_and_and_keeps_what_is_over_until_cleared() -> None:
    log = FindingLog()
    for second in (0, 1):
        log.add(make_batch([], unattributed=FULL, start_ns=START_NS + second * SECOND_NS))
    ((alarm, ended),) = log.entries()
    assert (alarm.packets, ended) == (2400, None)
    log.add(make_batch([], start_ns=START_NS + 2 * SECOND_NS))
    ((alarm, ended),) = log.entries()
    assert (alarm.packets, ended) == (2400, START_NS + 2 * SECOND_NS)
    log.clear()
    assert log.entries() == []


def test_what_goes_on_comes_before_what_is_over() -> None:
    log = FindingLog()
    log.add(make_batch([], health=Health(displaced=("eth0 rx",))))
    log.add(make_batch([], unattributed=FULL, start_ns=START_NS + SECOND_NS))
    assert [alarm.kind for alarm, _ in log.entries()] == ["unattributed", "displaced"]
