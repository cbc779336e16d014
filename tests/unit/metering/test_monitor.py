"""How batches reach who asked for them, over a session that is made up."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from wiremeter.errors import InputError, KernelError
from wiremeter.flows.batch import FlowBatch
from wiremeter.metering import monitor as monitoring
from wiremeter.metering.monitor import Monitor

from ..fabricated import fabricate_batch


class Session:
    """Gives batches, then raises or ends."""

    attachments = ()

    def __init__(self, *batches: FlowBatch, failure: BaseException | None = None) -> None:
        self._batches = list(batches)
        self._failure = failure
        self.may_begin, self.ended = threading.Event(), threading.Event()

    def next_batch(self) -> FlowBatch | None:
        self.may_begin.wait(5)
        if self._batches:
            return self._batches.pop(0)
        self.ended.set()
        if self._failure:
            raise self._failure
        return None

    def stop(self) -> None:
        pass

    def run(self) -> None:
        """Lets batches come, and waits until there are no more."""
        self.may_begin.set()
        self.ended.wait(5)


def over(monkeypatch: pytest.MonkeyPatch, session: Session) -> Monitor:
    @contextlib.contextmanager
    def opened(options: Any) -> Iterator[Session]:
        yield session

    monkeypatch.setattr(monitoring, "opened", opened)
    return Monitor("eth0")


def test_what_ends_the_subscribers_thread_is_logged_and_raised_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(fabricate_batch(), failure=KernelError("the tables are gone"))
    got: list[FlowBatch] = []
    monitor = over(monkeypatch, session).__enter__()
    monitor.subscribe(got.append)
    session.run()
    with pytest.raises(KernelError, match="the tables are gone"):
        monitor.__exit__(None)
    assert len(got) == 1
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.ERROR, "metering has ended, no more batches come")


def test_a_failure_of_the_block_itself_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(failure=KernelError("the tables are gone"))
    monitor = over(monkeypatch, session).__enter__()
    monitor.subscribe(lambda _: None)
    session.run()
    monitor.__exit__(ZeroDivisionError)


def test_a_subscriber_that_fails_keeps_no_batch_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(fabricate_batch(), fabricate_batch())
    got: list[FlowBatch] = []

    def fails(batch: FlowBatch) -> None:
        raise ValueError

    with over(monkeypatch, session) as monitor:
        monitor.subscribe(fails)
        monitor.subscribe(got.append)
        session.run()
    assert len(got) == 2


@pytest.mark.parametrize("wrong", [{"max_flows": 0}, {"max_devices": 0}, {"max_devices": -1}])
def test_there_is_room_for_something(wrong: Any) -> None:
    with pytest.raises(InputError, match="above 0"):
        Monitor("eth0", **wrong)


def test_what_is_not_needed_before_packets_are_counted_is_not_loaded() -> None:
    """Names are loaded while the kernel verifies the programs; asyncio, where batches are taken that way."""
    later = ["asyncio", "dns", "wiremeter.names.namer", "wiremeter.datapath.capture", "wiremeter.reports.text"]
    code = f"import sys, wiremeter.metering.monitor; sys.exit(' '.join(sys.modules.keys() & {later}) or 0)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
