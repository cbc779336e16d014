"""The agent's loop, with a meter that yields made-up batches."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from wiremeter.agent import loop
from wiremeter.agent.watch import REPEAT_SECONDS, Watch
from wiremeter.errors import InputError, KernelError
from wiremeter.flows.batch import Attachment, FlowBatch, Health, Mark, Tally
from wiremeter.reports.findings import findings
from wiremeter.settings import Listen, Settings

from ..fabricated import ETH0_RX, ETH0_TX, fabricate_audit, fabricate_batch
from ..receiver import Receiver

SILENT = Settings(listen=None)


class FakeMeter:
    """Yields its batches, then waits to be closed, as the live one would wait for traffic."""

    def __init__(
        self,
        *batches: FlowBatch,
        attachments: tuple[Attachment, ...] = (ETH0_RX, ETH0_TX),
        failure: Exception | None = None,
    ) -> None:
        self.attachments = attachments
        self.batches = batches
        self.failure = failure
        self.marks: list[Mark] = []
        self.drained = asyncio.Event()
        self.closed = asyncio.Event()

    def __enter__(self) -> FakeMeter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed.set()

    def told(self, mark: Mark) -> None:
        self.marks.append(mark)

    async def __aiter__(self) -> AsyncIterator[FlowBatch]:
        for batch in self.batches:
            await asyncio.sleep(0)
            yield batch
        self.drained.set()
        if self.failure:
            raise self.failure
        await self.closed.wait()


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def run_until_drained(
    meter: FakeMeter, settings: Settings = SILENT, then: Callable[[], None] = terminate
) -> None:
    """Runs the loop over all of the meter's batches, calls `then`, and waits for the loop to end."""
    running = asyncio.create_task(loop.run(settings, lambda _: meter))
    drained = asyncio.create_task(meter.drained.wait())
    await asyncio.wait([running, drained], timeout=60, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        await asyncio.to_thread(then)
    drained.cancel()
    await asyncio.wait_for(running, 5)


@pytest.fixture(autouse=True)
def all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "wiremeter")


def logged(caplog: pytest.LogCaptureFixture, message: str) -> list[Any]:
    """The records whose message starts with `message`."""
    return [record for record in caplog.records if record.getMessage().startswith(message)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_loop_and_closes_the_meter(
    caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    meter = FakeMeter(fabricate_batch())
    await run_until_drained(meter, then=lambda: os.kill(os.getpid(), number))
    assert meter.closed.is_set()
    assert logged(caplog, "stopping")[0].signal == number.name
    assert logged(caplog, "stopped")


async def test_systemd_is_told_when_it_is_attached_and_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        await run_until_drained(FakeMeter(fabricate_batch()))
        assert listening.recv(4096) == b"READY=1\nSTATUS=metering: 2 programs attached"
        assert listening.recv(4096) == b"STOPPING=1"


async def test_handlers_of_signals_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    await run_until_drained(FakeMeter(fabricate_batch()))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


async def test_a_signal_while_the_meter_opens_ends_the_loop_once_it_is_open() -> None:
    meter = FakeMeter()

    def open_slowly(settings: Settings) -> FakeMeter:
        os.kill(os.getpid(), signal.SIGTERM)
        return meter

    await asyncio.wait_for(loop.run(SILENT, open_slowly), 5)
    assert meter.closed.is_set()


async def test_what_is_attached_is_logged_at_the_start_and_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    renamed = Attachment(1, "wan0", 2, "rx", "tcx")
    await run_until_drained(
        FakeMeter(
            fabricate_batch(),
            fabricate_batch(attachments=(renamed, ETH0_TX)),
            fabricate_batch(attachments=(ETH0_TX, Attachment(3, "eth1", 3, "rx", "xdp"))),
        )
    )
    attached = [(record.device, record.direction, record.mode) for record in logged(caplog, "attached")]
    assert attached == [("eth0", "rx", "tcx"), ("eth0", "tx", "tcx"), ("eth1", "rx", "xdp")]
    (record,) = logged(caplog, "renamed")
    assert (record.device, record.before) == ("wan0", "eth0")
    (record,) = logged(caplog, "detached")
    assert (record.device, record.direction) == ("wan0", "rx")


async def test_displacement_is_warned_of_once_and_its_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    displaced = fabricate_batch(health=Health(displaced=("eth0 rx",)))
    await run_until_drained(FakeMeter(displaced, displaced, fabricate_batch()))
    (record,) = logged(caplog, "displaced")
    assert (record.levelname, record.device, record.direction) == ("ERROR", "eth0", "rx")
    (record,) = logged(caplog, "over: displaced")
    assert (record.device, record.direction) == ("eth0", "rx")


async def test_an_audit_that_does_not_balance_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    audit = fabricate_audit(flows=Tally(10, 1000, 8), seen=Tally(12, 1100, 8))
    await run_until_drained(FakeMeter(fabricate_batch(audit=(audit,)), fabricate_batch(audit=(audit,))))
    for record in logged(caplog, "the audit does not balance"):  # at once, and what came later at the end
        assert (record.levelname, record.device, record.packets, record.bytes) == ("ERROR", "eth0", 2, 100)
    assert len(logged(caplog, "the audit does not balance")) == 2


def test_a_full_table_is_warned_of_now_and_then_with_what_came_meanwhile() -> None:
    times = iter((0.0, 1.0, 2.0, REPEAT_SECONDS, REPEAT_SECONDS + 1))
    watch = Watch((ETH0_RX, ETH0_TX), clock=lambda: next(times))
    batch = fabricate_batch(audit=(fabricate_audit(unattributed={"table_full": Tally(5, 300, 5)}),))
    packets = [notice.fields["packets"] for _ in range(5) for notice in watch.look(batch)]
    assert packets == [5, 15]


def test_what_a_capture_loses_is_warned_of_now_and_then_with_what_came_meanwhile() -> None:
    times = iter((0.0, 1.0, REPEAT_SECONDS))
    watch = Watch((ETH0_RX, ETH0_TX), clock=lambda: next(times))
    batch = fabricate_batch(audit=(fabricate_audit(capture_dropped=5),))
    assert [notice.fields["skbs"] for _ in range(3) for notice in watch.look(batch)] == [5, 10]


def test_what_came_meanwhile_is_told_when_it_is_over_too() -> None:
    now = 0.0
    watch = Watch((ETH0_RX, ETH0_TX), clock=lambda: now)
    full = fabricate_batch(audit=(fabricate_audit(unattributed={"table_full": Tally(5, 300, 5)}),))
    told = []
    for now in (0.0, 1.0, 2.0, 3.0, REPEAT_SECONDS - 1, REPEAT_SECONDS, 2 * REPEAT_SECONDS):
        told += [(now, notice.fields["packets"]) for notice in watch.look(full if now < 3 else fabricate_batch())]
    assert told == [(0.0, 5), (REPEAT_SECONDS, 10)]
    assert not list(watch.rest())


def test_what_came_meanwhile_is_told_at_the_end() -> None:
    watch = Watch((ETH0_RX, ETH0_TX), clock=lambda: 0.0)
    full = fabricate_batch(audit=(fabricate_audit(unattributed={"table_full": Tally(5, 300, 5)}),))
    assert [len(list(watch.look(full))) for _ in range(3)] == [1, 0, 0]
    (notice,) = watch.rest()
    assert notice.fields["packets"] == 10


def test_a_clock_that_is_set_again_and_again_is_told_now_and_then() -> None:
    now = 0.0
    watch = Watch((ETH0_RX, ETH0_TX), clock=lambda: now)
    reasons = []
    for now in range(int(REPEAT_SECONDS) + 1):
        health = Health(clock_step_seconds=now + 1.0)
        reasons += [notice.fields["reason"] for notice in watch.look(fabricate_batch(health=health))]
    assert reasons == ["+1.000 s", f"+{REPEAT_SECONDS + 1:.3f} s"]


def test_other_reasons_are_left_to_the_metrics() -> None:
    audit = fabricate_audit(unattributed={"truncated_l3": Tally(5, 300, 5), "table_full": Tally()})
    assert not list(Watch((ETH0_RX, ETH0_TX)).look(fabricate_batch(audit=(audit,))))


@pytest.mark.parametrize("error", [KernelError("no memory", call="mmap", errno=12), RuntimeError("bug")])
async def test_a_meter_that_fails_is_closed_and_its_error_passed_on(error: Exception) -> None:
    meter = FakeMeter(fabricate_batch(), failure=error)
    with pytest.raises(type(error)):
        await run_until_drained(meter)
    assert meter.closed.is_set()


async def test_a_port_in_use_is_told_before_anything_is_attached() -> None:
    def never(settings: Settings) -> FakeMeter:
        raise AssertionError("opened")

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="has that port already"):
        await loop.run(Settings(listen=Listen(*taken.getsockname())), never)


def fetch(address: str, path: str) -> tuple[int, str]:
    """Status and text of a page."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_batches_reach_metrics_and_readiness(caplog: pytest.LogCaptureFixture) -> None:
    meter = FakeMeter(*[fabricate_batch([(0, 4, 6, 10, 1000, 2)])] * 3)
    pages = {}

    def look() -> None:
        address = logged(caplog, "serving")[0].metrics.removeprefix("http://").removesuffix("/metrics")
        pages.update({path: fetch(address, path) for path in ("/metrics", "/healthz", "/readyz", "/")})
        os.kill(os.getpid(), signal.SIGTERM)

    await run_until_drained(meter, Settings(listen=Listen("127.0.0.1", 0)), look)
    labels = 'device="eth0",direction="rx",family="ipv4",protocol="tcp"'
    status, text = pages["/metrics"]
    assert f"network_packets_total{{{labels}}} 30.0" in text
    assert "process_resident_memory_bytes" in text
    assert "wiremeter_build_info" in text
    assert [status, *(pages[path] for path in ("/healthz", "/readyz"))] == [200, (200, "ok\n"), (200, "ok\n")]


async def test_without_a_device_the_agent_is_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    pages = {}

    def look() -> None:
        address = logged(caplog, "serving")[0].metrics.removeprefix("http://").removesuffix("/metrics")
        pages["/readyz"] = fetch(address, "/readyz")
        os.kill(os.getpid(), signal.SIGTERM)

    meter = FakeMeter(fabricate_batch(attachments=()), attachments=())
    await run_until_drained(meter, Settings(listen=Listen("127.0.0.1", 0)), look)
    assert pages["/readyz"] == (503, "not attached to any device at the moment\n")


def test_every_finding_with_advice_is_logged_in_the_words_of_the_views() -> None:
    lost = {"batch_full": Tally(5, 300, 5), "truncated_ip": Tally(1, 60, 1)}
    batch = fabricate_batch(audit=(fabricate_audit(unattributed=lost),), attachments=())
    watch = Watch(())
    found = [one for one in findings(batch) if one.advice]
    assert {one.kind for one in found} == {"unattributed", "no_device"}
    messages = [notice.message for notice in watch.look(batch)]
    assert sorted(messages) == sorted(f"{one.what}: {one.advice}" for one in found)
    assert not any("truncated_ip" in message for message in messages), "every network has some"
    assert [notice.message for notice in watch.look(fabricate_batch(attachments=()))] == []
    assert "over: no device is metered" in [notice.message for notice in watch.look(fabricate_batch())]


async def test_batches_go_to_the_server_and_metrics_tell_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Receiver() as receiver:
        settings = Settings(
            listen=Listen("127.0.0.1", 0), server=receiver.url, state_dir=str(tmp_path), agent_id="web-1"
        )
        meter = FakeMeter(fabricate_batch(second=1), fabricate_batch(second=2))
        told: list[str] = []

        def look() -> None:
            url = logged(caplog, "serving")[0].metrics
            end = time.monotonic() + 60
            while 'wiremeter_ship_batches_total{result="stored"} 2.0' not in "".join(told[-1:]):
                assert time.monotonic() < end
                told.append(urllib.request.urlopen(url, timeout=30).read().decode())
            terminate()

        await run_until_drained(meter, settings, look)
    assert [identity.sequence for identity in receiver.order] == [0, 1]
    assert receiver.heartbeats[0]["agent"] == "web-1"
    assert 'wiremeter_ship_waiting_batches{place="disk"}' in told[-1]


async def test_a_server_that_cannot_be_used_ends_the_agent_before_anything_is_attached() -> None:
    opened = []

    def open_meter(settings: Settings) -> FakeMeter:
        opened.append(settings)
        return FakeMeter()

    settings = Settings(listen=None, server="http://meter.example", token_file="/nowhere/token", agent_id="web-1")
    with pytest.raises(InputError, match="token"):
        await loop.run(settings, open_meter)
    assert not opened
