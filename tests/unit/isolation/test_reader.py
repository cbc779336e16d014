"""Payloads that are read in another process: the same is told, and when it dies that is told too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from wiremeter.errors import InputError
from wiremeter.isolation import process, reader
from wiremeter.isolation.places import PLACES
from wiremeter.isolation.process import ReaderOptions
from wiremeter.isolation.reader import IsolatedReader
from wiremeter.names.columns import DTYPES, Told
from wiremeter.names.payloads import Payload, packed
from wiremeter.names.reader import Reader
from wiremeter.names.records import HttpTransaction, RawTold
from wiremeter.names.transactions import HttpColumns

from ..names.dns_messages import wire_message
from ..names.payload_records import ACK, DNS, HTTP, SECOND_NS, START_NS, UDP, key, payload

REQUEST = b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n"
RESOLVER = key(port=5353, server_port=53, protocol=UDP)


class Heard:
    """An audience."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def take(self, raw: RawTold) -> None:
        self.told.append(Told.of(dict(raw)))

    @property
    def requests(self) -> list[HttpTransaction]:
        """Those that were told."""
        return list(HttpColumns.joined(self.told, {}))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def isolated(heard: Heard, clock: Clock) -> Iterator[IsolatedReader]:
    with closing(IsolatedReader(heard, ReaderOptions(), clock)) as made:
        made.begin()
        yield made


def request(port: int = 40000, *, attachment: int = 0) -> Payload:
    flow = key(port=port)
    return payload(flow, REQUEST, at_ns=START_NS + port, flags=ACK, source=HTTP, attachment=attachment)


def question(number: int = 1) -> Payload:
    return payload(RESOLVER, wire_message((("site.example", "A"),), number=number), at_ns=START_NS, source=DNS)


def pid_of(isolated: IsolatedReader) -> int:
    assert isolated.pid is not None
    return isolated.pid


def until(is_so: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_so():
            return
        time.sleep(0.02)
    raise AssertionError("it never was so")


def looked(isolated: IsolatedReader) -> bool:
    isolated.look()
    return True


def begin_again(isolated: IsolatedReader, clock: Clock) -> None:
    clock.now += reader.LONGEST_PAUSE_SECONDS
    isolated.has_room()
    until(lambda: isolated.pid is not None and (looked(isolated) and isolated.has_room()))


# --- as a Reader


def test_the_same_is_told(isolated: IsolatedReader, heard: Heard) -> None:
    here = Heard()
    for each in (isolated, Reader(here)):
        each.feed(packed([request(port) for port in range(1024, 3024)]), {0: 7})
        each.feed(packed([question(number) for number in range(200)]), {0: 7})
        each.advance(START_NS + SECOND_NS)
        each.end(START_NS + 20 * SECOND_NS)
    assert len(heard.requests) == 2000
    assert heard.requests == here.requests
    together = [[sum(len(getattr(part, column)) for part in one.told) for column in DTYPES] for one in (heard, here)]
    assert together[0] == together[1]
    assert isolated.take_lost() == [0] * 256


def test_it_takes_no_more_than_it_has_room_for_and_then_waits(isolated: IsolatedReader, heard: Heard) -> None:
    os.kill(pid_of(isolated), signal.SIGSTOP)
    fed = 0
    while isolated.has_room():
        isolated.feed(packed([request(1024 + fed)]))
        fed += 1
    assert fed == PLACES
    os.kill(pid_of(isolated), signal.SIGCONT)
    for more in range(50):
        isolated.feed(packed([request(2024 + more)]))
    isolated.end(START_NS + SECOND_NS)
    assert len(heard.requests) == fed + 50


def test_a_block_of_any_size_is_read(isolated: IsolatedReader, heard: Heard) -> None:
    long = payload(key(port=1), bytes(4096), flags=ACK, source=HTTP)
    isolated.feed(packed([request(port % 60_000, attachment=port % 2) for port in range(1024, 9024)]), {0: 7, 1: 7})
    isolated.feed(packed([long if number % 3 else request(50_000 + number) for number in range(300)]))
    isolated.end(START_NS + SECOND_NS)
    assert len(heard.requests) == 8100


def test_signals_to_the_group_leave_it_to_read_on(isolated: IsolatedReader, heard: Heard) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid_of(isolated), number)
    isolated.feed(packed([request()]))
    isolated.end(START_NS + SECOND_NS)
    assert (len(heard.requests), isolated.endings) == (1, 0)


def test_it_has_no_power(isolated: IsolatedReader) -> None:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid_of(isolated)}/status").read_text().splitlines())
    assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0, 0, 0, 0]
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")


# --- when it ends


def test_a_killed_reader_is_told_counted_and_followed(
    isolated: IsolatedReader, heard: Heard, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    isolated.feed(packed([request(1), question(1)]))
    isolated.advance(START_NS + SECOND_NS)  # told: these are not lost
    isolated.feed(packed([request(2), question(2), question(3), request(3, attachment=9)]), {0: 7})
    os.kill(pid_of(isolated), signal.SIGKILL)
    isolated.advance(START_NS + 2 * SECOND_NS)
    assert (isolated.endings, isolated.fault) == (1, "it was killed by signal SIGKILL")
    assert isolated.take_lost()[:5] == [2, 0, 1, 0, 0]
    assert "the reader of payloads ended" in caplog.text
    # Without a reader payloads are lost at once, not kept until they are old.
    assert isolated.has_room()
    isolated.feed(packed([question(4)]))
    assert isolated.take_lost()[:5] == [1, 0, 0, 0, 0]
    begin_again(isolated, clock)
    isolated.feed(packed([request(4)]))
    isolated.end(START_NS + 3 * SECOND_NS)
    assert [request.flow.src_port for request in heard.requests][-1] == 4


def test_readers_that_end_soon_follow_more_slowly(isolated: IsolatedReader, clock: Clock) -> None:
    pauses = []
    for _ in range(3):
        os.kill(pid_of(isolated), signal.SIGKILL)
        until(lambda: looked(isolated) and isolated.pid is None)
        began = clock.now
        while isolated.pid is None:
            clock.now += 0.5
            isolated.has_room()
        pauses.append(clock.now - began)
    assert pauses == [1, 2, 4]
    clock.now += reader.STEADY_SECONDS
    os.kill(pid_of(isolated), signal.SIGKILL)
    until(lambda: looked(isolated) and isolated.pid is None)
    isolated.has_room()
    assert isolated.pid is not None


@pytest.mark.parametrize("told", [False, True])
def test_one_that_hangs_is_ended(isolated: IsolatedReader, monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    monkeypatch.setattr(process, "PATIENCE_SECONDS", 0.2)
    os.kill(pid_of(isolated), signal.SIGSTOP)
    if told:
        for _ in range(PLACES + 1):
            isolated.feed(packed([request()]))
    else:
        isolated.advance(START_NS)
    assert (isolated.endings, isolated.fault) == (1, "it did not answer for 0.2 s")


def test_one_that_may_not_be_killed_is_left_to_end(isolated: IsolatedReader, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: subprocess.Popen[bytes]) -> None:
        raise PermissionError

    monkeypatch.setattr(process, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(process, "_END_SECONDS", 0.2)
    monkeypatch.setattr(subprocess.Popen, "kill", refuse)
    pid = pid_of(isolated)
    os.kill(pid, signal.SIGSTOP)
    isolated.advance(START_NS)
    assert isolated.endings == 1
    os.kill(pid, signal.SIGCONT)
    until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)


def test_it_ends_with_the_meter() -> None:
    script = (
        "import os, sys, time\n"
        "from wiremeter.isolation.reader import IsolatedReader\n"
        "from wiremeter.isolation.process import ReaderOptions\n"
        "reader = IsolatedReader(None, ReaderOptions())\n"
        "reader.begin()\n"
        "print(reader.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as meter:
        assert meter.stdout
        pid = int(meter.stdout.readline())
        meter.kill()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


# --- a reader that was taken over, or never was one


def speaking(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """What is started from now on is this instead of a reader; it has the socket's number, `fd`."""
    monkeypatch.setattr(
        process,
        "_BOOT",
        "import os, sys; sys.path[:] = sys.argv[1].split('\\n'); fd = int(sys.argv[2])\n"
        "from wiremeter.isolation.messages import *\n" + body,
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("os.write(fd, b'\\xff\\xff\\xff\\xff')", "it sent a message that is too long"),
        ("os.write(fd, LENGTH.pack(3) + b'abc')", "it told what cannot be"),
        ("os.write(fd, framed(Ready()) + framed(Ready()))", "it told what cannot be (Ready when nobody asked)"),
        ("os.write(fd, framed(Read()))", "it told what cannot be (Read when nobody asked)"),
        ("os.write(fd, framed(Done()))", "it told what cannot be (Done when nobody asked)"),
        ("os.write(fd, framed(Told({'text': b''})))", "it told what cannot be"),
        ("os.write(fd, framed(Failed('no seccomp')))", "no seccomp"),
        ("sys.exit(3)", "it ended with status 3"),
    ],
)
def test_what_cannot_be_ends_it(body: str, why: str, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    speaking(monkeypatch, f"{body}\nos.read(fd, 1)\n")
    with pytest.raises(InputError, match="--no-isolate") as refused:
        IsolatedReader(heard, ReaderOptions()).begin()
    assert why in str(refused.value)


def test_where_no_process_can_be_started_that_is_said(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with pytest.raises(InputError, match="it could not be started"):
        IsolatedReader(heard, ReaderOptions()).begin()
