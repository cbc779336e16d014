"""The thread that serves early flips."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Any, cast

import numpy as np
import pytest

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.errors import KernelError
from wiremeter.flows.columns import ETHERTYPE_COUNTER
from wiremeter.metering.early_flips import EarlyFlips


class Engine:
    """Asks for a flip when told to; numbers its drains."""

    def __init__(self) -> None:
        self.flip_requests = self
        self.flips = 0
        self.fails = False
        self._asked = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._asked

    def ask(self) -> None:
        os.eventfd_write(self._asked, 1)

    def take(self) -> bool:
        try:
            return bool(os.eventfd_read(self._asked))
        except BlockingIOError:
            return False

    def flip(self) -> Drain:
        if self.fails:
            raise KernelError("no", call="flip", errno=5)
        self.flips += 1
        counters = np.zeros((1, records.ROWS, 3), np.uint64)
        return Drain(counters, [], np.zeros(0, ETHERTYPE_COUNTER), peak_lines=self.flips)


class BusyEngine(Engine):
    """Takes its time over each request, and never has one."""

    def take(self) -> bool:
        time.sleep(0.001)
        return False


def open_flips(engine: Engine) -> EarlyFlips:
    return EarlyFlips(cast(Any, engine))


def wait_for(early: EarlyFlips) -> None:
    assert select.select([early], [], [], 60)[0]


def test_a_request_is_served_while_its_owner_is_busy() -> None:
    engine = Engine()
    with open_flips(engine) as early:
        for number in (1, 2):
            engine.ask()
            deadline = time.monotonic() + 60
            while early.count < number and time.monotonic() < deadline:
                time.sleep(0.001)
        wait_for(early)
        with early.paused():
            assert [drain.peak_lines for drain in early.take()] == [1, 2]
            assert early.take() == []
        assert not select.select([early], [], [], 0)[0]
        assert early.count == 2


def test_no_flip_happens_while_paused() -> None:
    engine = Engine()
    with open_flips(engine) as early:
        with early.paused():
            engine.ask()
            time.sleep(0.05)
            assert engine.flips == 0
        wait_for(early)
        assert engine.flips == 1


def test_who_waits_for_a_pause_gets_it_from_a_busy_engine() -> None:
    engine = BusyEngine()
    with open_flips(engine) as early:
        engine.ask()  # never taken: the thread goes round and round
        began = time.monotonic()
        for _ in range(20):
            with early.paused():
                pass
        assert time.monotonic() - began < 2


def test_what_an_early_flip_raised_is_raised_to_its_owner() -> None:
    engine = Engine()
    engine.fails = True
    with open_flips(engine) as early:
        engine.ask()
        wait_for(early)
        with early.paused(), pytest.raises(KernelError):
            early.take()


def test_the_thread_ends_with_the_block() -> None:
    with open_flips(Engine()):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "wiremeter-flips"]


@pytest.mark.parametrize("urgent", [True, False])
def test_who_takes_the_drains_goes_before_others_while_tables_fill_if_it_is_urgent(
    urgent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that has the interpreter's lock and no CPU keeps the one that flips from its tables."""
    nice = {threading.get_native_id(): 3}
    monkeypatch.setattr("os.getpriority", lambda _, thread: nice.get(thread, 0))
    monkeypatch.setattr("os.setpriority", lambda _, thread, value: nice.update({thread: value}))
    monkeypatch.setattr("wiremeter.metering.early_flips.CALM_SECONDS", 0.05)
    engine = Engine()
    with EarlyFlips(cast(Any, engine), urgent=urgent) as early:
        engine.ask()
        wait_for(early)
        assert nice[threading.get_native_id()] == (-10 if urgent else 3)
        time.sleep(0.06)
        with early.paused():
            assert len(early.take()) == 1
        assert nice[threading.get_native_id()] == 3
        engine.ask()
        wait_for(early)
    assert nice[threading.get_native_id()] == 3
