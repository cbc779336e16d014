"""Batches arrive once and the oldest first, whatever the server does; what does not arrive is told and counted."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from soak.link import Link
from wiremeter.agent.logs import TextFormatter
from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.filter import compile_filter
from wiremeter.sinks.shipping import shipper as shipper_module
from wiremeter.sinks.shipping.delivery import Server
from wiremeter.sinks.shipping.encode import encode
from wiremeter.sinks.shipping.metrics import ShippingMetrics
from wiremeter.sinks.shipping.shipper import Options, Shipper

from ...live_batches import SECOND_NS, START_NS, flow, make_batch
from ...receiver import Answer, Receiver
from ...shipped import tables_of

Make = Callable[..., Shipper]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper_module, "_FIRST_TRY_SECONDS", 0.02)
    monkeypatch.setattr(shipper_module, "_LAST_TRY_SECONDS", 0.1)
    monkeypatch.setattr(shipper_module, "_UNAUTHORIZED_SECONDS", 0.05)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def make(receiver: Receiver, tmp_path: Path) -> Make:
    def make_shipper(spool: bool = True, url: str = "", heartbeat: Any = None, **more: Any) -> Shipper:
        options = Options(
            agent="web-1",
            server=Server(url or receiver.url),
            spool_dir=tmp_path / "spool" if spool else None,
            spool_bytes=1 << 20,
            memory_bytes=1 << 20,
            rate=1 << 30,
            heartbeat=3600.0,
        )
        return Shipper(replace(options, **more), heartbeat, chance=lambda: 0.0)

    return make_shipper


def batch(number: int = 0) -> FlowBatch:
    return make_batch([flow("10.0.0.1", "10.0.0.2", number + 1, 443)], start_ns=START_NS + number * SECOND_NS)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def said(caplog: pytest.LogCaptureFixture) -> str:
    """The log with its fields."""
    return "\n".join(TextFormatter().format(record) for record in caplog.records)


def settled(shipper: Shipper) -> int:
    """Batches of which is known what came of them, or that wait."""
    state = shipper.state
    waiting = sum(each.batches for each in state.waiting.values())
    return waiting + state.progress.sent["stored"] + state.progress.sent["known"] + sum(state.dropped.values())


def ports(receiver: Receiver) -> list[int]:
    """The source ports of all flows, what `batch` numbered, by sequence: of several on their way at a time the second
    may arrive first."""
    order = sorted(receiver.order, key=lambda identity: identity.sequence)
    return [tables_of(receiver.batches[i])["flows"].column("src_port").to_pylist()[0] - 1 for i in order]


def write_slowly(shipper: Shipper, numbers: range) -> None:
    """One after the other, so that none is dropped for want of time."""
    for number in numbers:
        before = settled(shipper)
        shipper.write(batch(number))
        until(lambda before=before: settled(shipper) > before)  # type: ignore[misc]


def failing(times: int, answer: Answer) -> Callable[[str, dict[str, str]], Answer | None]:
    left = [times]

    def before(path: str, headers: dict[str, str]) -> Answer | None:
        left[0] -= 1
        return answer if left[0] >= 0 else None

    return before


@pytest.mark.parametrize("spool", [True, False])
def test_batches_arrive_once(spool: bool, make: Make, receiver: Receiver) -> None:
    with make(spool) as shipper:
        write_slowly(shipper, range(5))
        until(lambda: len(receiver.order) == 5)
    assert ports(receiver) == list(range(5))
    assert [identity.sequence for identity in sorted(receiver.order)] == list(range(5))
    assert (receiver.repeated, receiver.conflicts) == (0, [])


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 404, 307])
def test_what_fails_for_now_is_sent_again(status: int, make: Make, receiver: Receiver) -> None:
    receiver.before = failing(3, (status, {}, b"not now"))
    with make() as shipper:
        write_slowly(shipper, range(3))
        until(lambda: len(receiver.order) == 3)
        until(lambda: shipper.state.progress.sent["stored"] == 3)
        assert sum(shipper.state.progress.failures.values()) == 3
        assert not shipper.state.findings
    assert ports(receiver) == [0, 1, 2]


@pytest.mark.parametrize("lost", [(0, {}, b""), (500, {}, b"")])
def test_a_batch_whose_answer_is_lost_is_stored_once(lost: Answer, make: Make, receiver: Receiver) -> None:
    receiver.after = failing(2, lost)
    with make() as shipper:
        write_slowly(shipper, range(2))
        until(lambda: sum(shipper.state.progress.sent.values()) == 2)
    assert ports(receiver) == [0, 1]
    assert receiver.repeated == 2
    assert shipper.state.progress.sent == {"known": 1, "stored": 1}


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_what_will_never_be_taken_is_set_aside_and_the_next_comes(
    status: int, make: Make, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.before = failing(1, (status, {}, b'{"error": "schema: no such column"}'))
    with make() as shipper:
        write_slowly(shipper, range(2))
        until(lambda: ports(receiver) == [1])
        until(lambda: shipper.state.dropped == {"refused": 1})
    assert "no such column" in said(caplog)
    assert len(list((tmp_path / "spool/refused").iterdir())) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_without_a_right_it_waits_and_says_so_loudly(
    status: int, make: Make, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wiremeter")
    receiver.before = lambda path, headers: (status, {}, b'{"error": "token revoked"}')
    with make() as shipper:
        write_slowly(shipper, range(2))
        until(lambda: shipper.state.progress.failures["unauthorized"] >= 2)
        (finding,) = shipper.state.findings
        assert (finding.kind, finding.severity) == ("not_shipping", "fault")
        assert "token revoked" in finding.text
        receiver.before = lambda path, headers: None
        until(lambda: ports(receiver) == [0, 1])
        until(lambda: not shipper.state.findings)
    assert [r.levelname for r in caplog.records if "do not arrive" in r.message] == ["ERROR"]
    assert "arrive at the server again" in said(caplog)


def test_a_backlog_behind_a_long_way_comes_many_at_a_time(make: Make, receiver: Receiver) -> None:
    """One at a time would be 200 round trips."""
    with make(url="http://127.0.0.1:9", spool_bytes=1 << 24) as shipper:
        write_slowly(shipper, range(200))
    with Link() as link:
        link.target, link.delay = ("127.0.0.1", receiver.port), 0.02
        with make(url=link.url, spool_bytes=1 << 24) as again:
            until(lambda: again.state.progress.sent["stored"] == 200, 60)
        assert link.most_open == 16
    assert ports(receiver) == list(range(200))
    assert receiver.repeated == 0
    # What is sent is always the oldest: none arrives before what waited fifteen places ahead of it.
    assert all(identity.sequence < at + 16 for at, identity in enumerate(receiver.order))


def test_what_fails_among_many_is_sent_again_and_each_is_stored_once(make: Make, receiver: Receiver) -> None:
    with make(url="http://127.0.0.1:9") as shipper:
        write_slowly(shipper, range(60))
    dice = random.Random(5)
    receiver.before = lambda path, headers: (503, {}, b"") if dice.random() < 0.1 else None
    receiver.after = lambda path, headers: (0, {}, b"") if dice.random() < 0.1 else None
    with make() as again:
        until(lambda: sum(again.state.progress.sent.values()) == 60, 60)
        assert again.state.waiting["disk"].batches == 0
        assert sum(again.state.progress.failures.values()) > 0
    assert ports(receiver) == list(range(60))
    assert receiver.conflicts == []
    assert receiver.repeated > 0


def test_retry_after_is_kept(make: Make, receiver: Receiver) -> None:
    receiver.before = failing(1, (503, {"Retry-After": "1"}, b""))
    with make() as shipper:
        began = time.monotonic()
        write_slowly(shipper, range(1))
        until(lambda: receiver.order)
        assert time.monotonic() - began >= 1.0


def test_a_server_that_is_not_there_costs_nothing_but_time(make: Make, receiver: Receiver, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    with make(url=f"http://127.0.0.1:{free}") as shipper:
        write_slowly(shipper, range(4))
        until(lambda: shipper.state.progress.failures["connection"] >= 2)
        (finding,) = shipper.state.findings
        assert "refused" in finding.reason
    assert shipper.state.waiting["disk"].batches == 4
    with make() as again:
        until(lambda: len(receiver.order) == 4)
        write_slowly(again, range(4, 6))
        until(lambda: len(receiver.order) == 6)
    assert ports(receiver) == list(range(6))
    assert len({identity.boot for identity in receiver.order}) == 1
    assert [identity.sequence for identity in sorted(receiver.order)] == list(range(6))


def test_a_portal_that_answers_everything_takes_nothing(make: Make, receiver: Receiver) -> None:
    receiver.before = failing(2, (200, {}, b"<html>Please log in</html>"))
    with make() as shipper:
        write_slowly(shipper, range(1))
        until(lambda: shipper.state.progress.failures["not_a_server"] == 2)
        until(lambda: ports(receiver) == [0])


def test_a_backlog_comes_at_a_bounded_rate(make: Make, receiver: Receiver) -> None:
    with make(url="http://127.0.0.1:9") as shipper:
        write_slowly(shipper, range(6))
    size = shipper.state.waiting["disk"].bytes
    began = time.monotonic()
    with make(rate=size) as _:
        until(lambda: len(receiver.order) == 6)
        assert time.monotonic() - began > 0.4  # three rounds, of which the last need not be waited for


def test_from_memory_it_ships_and_says_so(make: Make, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    with make(spool=False, memory_bytes=1 << 16, url="http://127.0.0.1:9") as shipper:
        write_slowly(shipper, range(3))
        assert "from_memory" in {finding.kind for finding in shipper.state.findings}
    assert "lost with the process" in said(caplog)
    assert "batches are lost" in said(caplog)


def test_a_full_memory_drops_the_oldest_and_tells_the_server(make: Make, receiver: Receiver) -> None:
    held = threading.Event()

    def before(path: str, headers: dict[str, str]) -> Answer | None:
        return None if held.is_set() else (503, {}, b"")

    receiver.before = before
    with make(spool=False, memory_bytes=1) as shipper:
        write_slowly(shipper, range(6))
        held.set()
        until(lambda: shipper.state.waiting["memory"].batches == 0)
        shipper.write(batch(6))
        until(lambda: ports(receiver)[-1:] == [6])
    metadata = tables_of(receiver.batches[max(receiver.order)])["flows"].schema.metadata
    dropped = sum(shipper.state.dropped.values())
    assert dropped >= 4
    assert metadata[b"wiremeter.dropped"] == b'{"memory_full":%d}' % dropped
    assert len(receiver.order) + dropped == 7


def test_a_disk_that_cannot_be_written_is_survived(
    make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with make() as shipper:
        write_slowly(shipper, range(1))
        until(lambda: len(receiver.order) == 1)

        def broken(content: bytes) -> None:
            raise OSError(30, "Read-only file system")

        assert shipper._spool
        monkeypatch.setattr(shipper._spool, "put", broken)
        write_slowly(shipper, range(1, 3))
        until(lambda: len(receiver.order) == 3)
        assert "Read-only" in next(f.reason for f in shipper.state.findings if f.kind == "from_memory")
        monkeypatch.undo()
        write_slowly(shipper, range(3, 4))
        until(lambda: len(receiver.order) == 4)
        assert not shipper.state.findings
    assert ports(receiver) == [0, 1, 2, 3]
    assert [identity.sequence for identity in receiver.order] == [0, 0, 1, 1]
    assert "Read-only" in said(caplog)


def test_a_meter_that_is_faster_than_the_disk_loses_counted_batches(
    make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def slow(*args: Any, **more: Any) -> bytes:
        gate.wait()
        return encode(*args, **more)

    monkeypatch.setattr(shipper_module, "encode", slow)
    with make() as shipper:
        for number in range(10):
            shipper.write(batch(number))
        gate.set()
        until(lambda: shipper.state.progress.sent["stored"] >= 2)
        write_slowly(shipper, range(10, 11))
        until(lambda: 10 in ports(receiver))
    behind = shipper.state.dropped["behind"]
    assert behind >= 7
    assert len(receiver.order) + behind == 11


def test_a_disk_that_hangs_does_not_keep_the_agent_from_ending(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shipper_module, "_LAST_SECONDS", 0.1)
    gate = threading.Event()
    monkeypatch.setattr(shipper_module, "encode", lambda *args, **more: gate.wait() and b"")
    shipper = make().__enter__()
    for number in range(5):
        shipper.write(batch(number))
    began = time.monotonic()
    shipper.close()
    assert time.monotonic() - began < 5
    assert "could not be written" in said(caplog)
    gate.set()


def test_a_fault_in_one_batch_is_told_and_the_next_is_shipped(
    make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with make() as shipper:
        with monkeypatch.context() as patched:
            patched.setattr(shipper_module, "encode", lambda *args, **more: 1 / 0)
            shipper.write(batch(0))
            until(lambda: shipper.state.dropped == {"failed": 1})
        shipper.write(batch(1))
        until(lambda: ports(receiver) == [1])
    assert "report it" in said(caplog)


def test_ignored_flows_are_not_sent_and_counted(make: Make, receiver: Receiver) -> None:
    with make(ignore=[compile_filter("port 22")]) as shipper:
        shipper.write(make_batch([flow("10.0.0.1", "10.0.0.2", 1, 22, packets=5), flow("10.0.0.1", "10.0.0.2", 2, 80)]))
        until(lambda: receiver.order)
        text = generate_latest(_registry(shipper)).decode()
    tables = tables_of(receiver.batches[receiver.order[0]])
    assert tables["flows"].column("dst_port").to_pylist() == [80]
    assert {"kind": "ignored", "reason": "port 22", "packets": 5}.items() <= tables["audit_reasons"].to_pylist()[
        0
    ].items()
    assert sum(tables["counters"].column("packets").to_pylist()) == 6
    assert 'wiremeter_ship_ignored_packets_total{expression="port 22"} 5.0' in text


def test_metrics_tell_how_it_goes(make: Make, receiver: Receiver) -> None:
    receiver.before = failing(1, (503, {}, b""))
    with make() as shipper:
        write_slowly(shipper, range(2))
        until(lambda: shipper.state.progress.sent["stored"] == 2)
        text = generate_latest(_registry(shipper)).decode()
    for line in (
        'wiremeter_ship_batches_total{result="stored"} 2.0',
        'wiremeter_ship_batches_total{result="refused"} 0.0',
        'wiremeter_ship_failures_total{cause="busy"} 1.0',
        'wiremeter_ship_dropped_batches_total{reason="spool_full"} 0.0',
        'wiremeter_ship_waiting_batches{place="disk"} 0.0',
        'wiremeter_ship_waiting_bytes{place="memory"} 0.0',
    ):
        assert line in text
    assert "wiremeter_ship_last_success_timestamp_seconds 0.0" not in text


def test_changed_options_are_taken_at_once(make: Make, receiver: Receiver) -> None:
    with make(url="http://127.0.0.1:9") as shipper:
        write_slowly(shipper, range(2))
        until(lambda: shipper.state.progress.failures["connection"])
        with pytest.raises(InputError, match="token"):
            shipper.change(replace(shipper._options, server=Server(receiver.url, token_file="/nowhere")))
        shipper.change(replace(shipper._options, server=Server(receiver.url)))
        until(lambda: ports(receiver) == [0, 1])


def test_heartbeats_are_sent_between_batches(make: Make, receiver: Receiver) -> None:
    with make(heartbeat=lambda state: b'{"agent": "web-1"}') as shipper:
        until(lambda: receiver.heartbeats)
        write_slowly(shipper, range(1))
        until(lambda: receiver.order)
    assert receiver.heartbeats[0] == {"agent": "web-1"}


def _registry(shipper: Shipper) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ShippingMetrics(lambda: shipper.state))
    return registry
