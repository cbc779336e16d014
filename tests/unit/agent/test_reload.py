"""SIGHUP: what is taken, what needs a restart, and when it is the terminal's end instead."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wiremeter.agent import logs
from wiremeter.agent.logs import TextFormatter
from wiremeter.agent.reload import InForce, Reload
from wiremeter.agent.shipping import shipped
from wiremeter.errors import InputError
from wiremeter.settings import Settings
from wiremeter.settings.setting import settings_of

from ..live_batches import flow, make_batch
from ..receiver import Receiver
from ..shipped import tables_of

BASE = Settings(listen=None, agent_id="web-1")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(autouse=True)
def own_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """How the log was configured."""
    configured: list[tuple[str, str]] = []
    monkeypatch.setattr(logs, "configure", lambda level, format: configured.append((level, format)))
    caplog.set_level("INFO", "wiremeter")
    return configured


def told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(TextFormatter().format(record) for record in caplog.records)


def reload_to(before: Settings, after: Settings, shipper: Any = None) -> Settings:
    in_force = InForce(before)
    Reload(in_force, lambda: after, shipper)()
    return in_force.settings


def test_the_log_changes_and_what_needs_a_restart_is_named(
    caplog: pytest.LogCaptureFixture, own_log: list[tuple[str, str]]
) -> None:
    after = replace(BASE, log_level="warning", log_format="json", interval=7.0, domains=5)
    assert reload_to(BASE, after) == replace(BASE, log_level="warning", log_format="json")
    assert own_log == [("warning", "json")]
    assert "changed=log_level,log_format" in told(caplog) or "changed=log_format,log_level" in told(caplog)
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert set(warning.settings.split(",")) == {"interval", "domains"}  # type: ignore[attr-defined]


def test_nothing_changed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert reload_to(BASE, BASE) == BASE
    assert "changed=nothing" in told(caplog)


def test_wrong_settings_change_nothing(caplog: pytest.LogCaptureFixture, own_log: list[tuple[str, str]]) -> None:
    def wrong() -> Settings:
        raise InputError("agent.yaml:3: interval is 'x'")

    in_force = InForce(BASE)
    Reload(in_force, wrong, None)()
    assert in_force.settings == BASE
    assert not own_log
    assert "interval is" in told(caplog)


def test_a_shipper_takes_its_settings(receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = replace(BASE, server="http://127.0.0.1:9", spool_dir=str(tmp_path / "spool"))
    in_force = InForce(before)
    with shipped(lambda: in_force.settings) as shipper:
        assert shipper
        wrong = replace(before, server=receiver.url, ignore=("no such word at all",))
        Reload(in_force, lambda: wrong, shipper)()
        assert in_force.settings == before
        assert "filter" in told(caplog)
        after = replace(before, server=receiver.url, ignore=("port 22",), spool_dir=str(tmp_path / "other"))
        Reload(in_force, lambda: after, shipper)()
        assert in_force.settings == replace(after, spool_dir=before.spool_dir)
        shipper.write(make_batch([flow("10.0.0.1", "10.0.0.2", 1, 22), flow("10.0.0.1", "10.0.0.2", 1, 80)]))
        end = time.monotonic() + 60
        while not receiver.order:
            assert time.monotonic() < end
            time.sleep(0.01)
    flows = tables_of(receiver.batches[receiver.order[0]])["flows"]
    assert flows.column("dst_port").to_pylist() == [80]


@pytest.mark.parametrize("after", [None, "http://127.0.0.1:9"])
def test_shipping_does_not_begin_or_end_without_a_restart(after: str | None, caplog: pytest.LogCaptureFixture) -> None:
    before = replace(BASE, server=None if after else "http://127.0.0.1:9", spool_dir="")
    in_force = InForce(before)
    with shipped(lambda: in_force.settings) as shipper:
        Reload(in_force, lambda: replace(before, server=after), shipper)()
    assert in_force.settings == before
    assert "need a restart" in told(caplog)


def test_every_setting_that_reloads_is_one_of_shipping_or_the_log() -> None:
    names = {name for name, each in settings_of(Settings).items() if each.reloads}
    assert {"log_level", "log_format", "debug", "server", "token_file", "ignore"} <= names
    assert not names & {"interfaces", "interval", "attach", "agent_id", "spool_dir", "state_dir"}


_AGENT = """
import asyncio, contextlib, sys
from wiremeter.agent import logs, loop
from wiremeter.settings import Settings
sys.path.insert(0, sys.argv[1])
from unit.agent.test_loop import FakeMeter
logs.configure()
asyncio.run(loop.run(Settings(listen=None), lambda _: FakeMeter()))
"""


class Agent:
    """A loop in a process of its own, whose log goes to a pipe."""

    def __init__(self, **more: Any) -> None:
        tests = str(Path(__file__).parents[2])
        command = [sys.executable, "-c", _AGENT, tests]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, **more)
        assert self.process.stderr
        self._log, self._text = self.process.stderr.fileno(), ""

    def says(self, text: str) -> bool:
        end = time.monotonic() + 60
        while text not in self._text and time.monotonic() < end:
            if select.select([self._log], [], [], 0.1)[0]:
                chunk = os.read(self._log, 65536).decode()
                if not chunk:
                    break
                self._text += chunk
        return text in self._text


def in_session(ignores: bool = False) -> Callable[[], None]:
    def begin() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # becomes the controlling terminal
        if ignores:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    return begin


@pytest.mark.slow
def test_a_service_reloads_and_goes_on() -> None:
    agent = Agent(stdin=subprocess.DEVNULL, start_new_session=True)
    assert agent.says("starting")
    time.sleep(0.5)
    agent.process.send_signal(signal.SIGHUP)
    assert agent.says("settings read again")
    assert agent.process.poll() is None
    agent.process.terminate()
    assert agent.process.wait(10) == 0


@pytest.mark.slow
@pytest.mark.parametrize("nohup", [False, True])
def test_a_closed_terminal_ends_the_agent_unless_under_nohup(nohup: bool) -> None:
    ours, theirs = pty.openpty()
    agent = Agent(stdin=theirs, preexec_fn=in_session(nohup))
    os.close(theirs)
    assert agent.says("starting")
    time.sleep(0.5)
    agent.process.send_signal(signal.SIGHUP)
    assert agent.says("settings read again")
    os.close(ours)
    if nohup:
        time.sleep(0.5)
        assert agent.process.poll() is None
        agent.process.terminate()
    assert agent.process.wait(10) == 0
    assert agent.says("signal=SIGTERM" if nohup else "signal=SIGHUP")
