"""`wiremeter up`: agent and server in one command, with the live table: the way to try it."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wiremeter.cli.streams import say
from wiremeter.errors import InputError, WiremeterError
from wiremeter.settings.catalogue import Settings, Up

if TYPE_CHECKING:
    from wiremeter.flows.batch import FlowBatch
    from wiremeter.flows.source import BatchSource
    from wiremeter.settings.catalogue import Live

#: Seconds that the server may take to start: its engine has to be loaded, and a large store to be opened.
_START_SECONDS = 120.0
_END_SECONDS = 30.0
_READY = "wiremeter: the server is at "
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run(settings: Up) -> int:
    """Shows the live table until it is told to end; all of it goes to the server. Raises as `live` and `server`."""
    from wiremeter.cli import live
    from wiremeter.server.directory import data_directory

    directory = data_directory(settings.data_dir)
    with _server(settings, directory) as url:
        say(f"wiremeter: the server is at {url}; what it stores is in {directory}")

        def open_source(shown: Live) -> BatchSource:
            from wiremeter.agent.handing import Handing

            return Handing(live.open_source(shown), _shipping(settings, url, directory))

        status = live.run(settings, open_source)
    say(f"wiremeter: what was seen is in {directory}; for `wiremeter server --data-dir {directory}`")
    return status


@contextlib.contextmanager
def _shipping(settings: Up, url: str, directory: Path) -> Iterator[Callable[[FlowBatch], None]]:
    from wiremeter.agent.shipping import shipped

    known = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(Settings)
        if hasattr(settings, field.name)
    }
    spool = settings.spool_dir if settings.spool_dir is not None else str(directory / "spool")
    agent = Settings(**{**known, "server": url, "spool_dir": spool})
    with shipped(lambda: agent) as shipper:
        assert shipper
        yield shipper.write


@contextlib.contextmanager
def _server(settings: Up, directory: Path) -> Iterator[str]:
    """The server in a process of its own, for as long as the block runs; gives its URL.

    Raises InputError with what it said if it does not start.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = directory / "server.log"
    command = [sys.executable, "-m", "wiremeter", "server"]
    command += ["--data-dir", str(directory), "--listen", str(settings.server_listen), "--authentication", "auto"]
    begun = log.stat().st_size if log.exists() else 0
    with open(log, "ab") as out:
        # A session of its own: Ctrl-C is this process's, and the server is to take the last batch first.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        yield _url_of(process, log, begun)
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _url_of(process: subprocess.Popen[bytes], log: Path, begun: int) -> str:
    say("wiremeter: starting the server …")
    end = time.monotonic() + _START_SECONDS
    with open(log, encoding="utf-8", errors="replace") as file:
        file.seek(begun)
        said = ""
        while time.monotonic() < end:
            said += file.read()
            if _READY in said:
                return said.split(_READY, 1)[1].split()[0]
            if process.poll() is not None:
                lines = said.strip().splitlines() or [f"it ended with status {process.returncode}"]
                why = (
                    lines[-1].removeprefix("wiremeter: ").replace("--listen", "--server-listen")
                )  # its flag is ours so
                raise InputError(f"the server did not start: {why}")
            select.select([], [], [], 0.1)
    raise WiremeterError(f"the server did not start within {_START_SECONDS:.0f} s; {log} says how far it came")


def _end_with_parent() -> None:
    """So that a server is not left behind by a process that was killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(1)
