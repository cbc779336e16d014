"""Who may what while payloads are read, and what is told when the process that reads them dies: `live` and `agent`."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.message
import pytest
from prometheus_client.parser import text_string_to_metric_families

from wiremeter.linux.host import parse_capabilities
from wiremeter.names import library

from . import netns
from .netns import Host, wait_until

pytestmark = pytest.mark.kernel

WIREMETER = str(Path(sys.executable).parent / "wiremeter")
LISTEN = "127.0.0.1:10465"
METERING = {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}
#: connect(2), which a reader that was taken over would like: its number, and how it is called.
FORBIDDEN = {
    "x86_64": b"\xb8" + struct.pack("<I", 42) + b"\x0f\x05\xc3",  # mov eax, 42; syscall; ret
    "aarch64": struct.pack("<III", 0xD2801968, 0xD4000001, 0xD65F03C0),  # mov x8, #203; svc #0; ret
}


@pytest.fixture
def solo() -> Iterator[Host]:
    with netns.hosts("solo") as (host,):
        host.ip("link set lo up")
        yield host


class Talk:
    """A client and a name server on loopback: each exchange is two packets."""

    def __init__(self, host: Host) -> None:
        with host.entered():
            self._client, self._server = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
            self._server.bind(("127.0.0.1", 53))
        self.exchanges = 0

    def exchange(self, name: str) -> None:
        self.exchanges += 1
        query = dns.message.make_query(name, "A")
        self._client.sendto(query.to_wire(), ("127.0.0.1", 53))
        _, client = self._server.recvfrom(2048)
        self._server.sendto(dns.message.make_response(query).to_wire(), client)
        self._client.recv(2048)

    def close(self) -> None:
        self._client.close()
        self._server.close()


@pytest.fixture
def talk(solo: Host) -> Iterator[Talk]:
    with contextlib.closing(Talk(solo)) as made:
        yield made


class Live:
    """`wiremeter live --format json`, and the documents that it prints."""

    def __init__(self, host: Host, *options: str) -> None:
        argv = [WIREMETER, "live", "-i", "lo", "--interval", "300ms", "--format", "json", *options]
        with host.entered():
            self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.documents: list[dict[str, Any]] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, claim: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The next document of which this holds."""
        while True:
            line = self._lines.get(timeout=20 * netns.PATIENCE)
            assert line is not None, "live has ended"
            self.documents.append(json.loads(line))
            if claim(self.documents[-1]):
                return self.documents[-1]

    def end(self) -> str:
        """Ends it as Ctrl-C does. Returns what it said on standard error."""
        self.process.send_signal(signal.SIGINT)
        while (line := self._lines.get(timeout=20 * netns.PATIENCE)) is not None:
            self.documents.append(json.loads(line))
        self._thread.join()
        _, said = self.process.communicate()
        assert self.process.returncode == 0, said
        return said

    def packets(self) -> int:
        """All that were seen to leave loopback, in documents that all balance."""
        assert all(document["balanced"] for document in self.documents)
        devices = (device for document in self.documents for device in document["devices"])
        return sum(device["seen"]["packets"] for device in devices if device["direction"] == "tx")


@contextlib.contextmanager
def live_in(host: Host, *options: str) -> Iterator[Live]:
    made = Live(host, *options)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


@pytest.fixture
def live(solo: Host) -> Iterator[Live]:
    with live_in(solo) as made:
        made.until(lambda document: document["devices"])
        yield made


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def readers(meter: int) -> list[int]:
    """The processes that a meter has started."""
    found = []
    for task in Path(f"/proc/{meter}/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def assert_powers(meter: int, reader: int) -> None:
    assert parse_capabilities(Path(f"/proc/{meter}/status").read_text()) >= METERING
    of_reader = status(reader)
    assert {of_reader[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (of_reader["NoNewPrivs"], of_reader["Seccomp"]) == ("1", "2")
    assert of_reader["Uid"].split() == of_reader["Gid"].split() == ["65534"] * 4
    assert {"0", "1", "2"} < set(os.listdir(f"/proc/{reader}/fd"))
    opened = {os.readlink(f"/proc/{reader}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{reader}/fd")}
    assert opened == {"/dev/null", "socket", "/memfd"}  # no map, no ring, no link


def take_over(reader: int) -> None:
    """The decoders' entry point becomes a system call that is not allowed."""
    path = str(library._library.__file__)  # type: ignore[attr-defined]
    symbol = ctypes.cast(ctypes.CDLL(path).wm_names_read, ctypes.c_void_p).value
    assert symbol
    with Path(f"/proc/{reader}/mem").open("r+b", buffering=0) as memory:
        memory.seek(base_of(path, reader) + symbol - base_of(path, os.getpid()))
        memory.write(FORBIDDEN[platform.machine()])


def base_of(path: str, pid: int) -> int:
    """Where a library lies in a process."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith(path) and line.split()[2] == "00000000":
            return int(line.split("-")[0], 16)
    raise AssertionError(f"{path} is not in {pid}")


def names_of(document: dict[str, Any]) -> set[str]:
    return {question["query"] for question in document["dns_summary"]["questions"]}


@pytest.mark.parametrize("attach", ["tcx", "capture"])
def test_live_reads_without_power(solo: Host, talk: Talk, attach: str) -> None:
    with live_in(solo, "--attach", attach) as live:
        live.until(lambda document: document["devices"])
        (reader,) = readers(live.process.pid)
        assert_powers(live.process.pid, reader)
        talk.exchange("first.example")
        live.until(lambda document: "first.example" in names_of(document))
        assert live.end() == ""
        assert not Path(f"/proc/{reader}").exists()


def test_a_decoder_that_makes_a_forbidden_call_dies_alone(live: Live, talk: Talk) -> None:
    (reader,) = readers(live.process.pid)
    talk.exchange("before.example")
    live.until(lambda document: "before.example" in names_of(document))
    take_over(reader)
    for number in range(5):
        talk.exchange(f"lost-{number}.example")
    said = live.until(lambda document: document["health"]["reader_endings"] == 1)
    assert any("SIGSYS" in finding["text"] for finding in said["alarms"] if finding["kind"] == "reader_ended")
    assert not Path(f"/proc/{reader}").exists()
    wait_until(lambda: readers(live.process.pid) != [], "another reader begins")
    live.until(lambda _: True)
    for number in range(1000):
        talk.exchange(f"after-{number % 10}.example")
        if number % 100 == 0:
            live.until(lambda _: True)
    live.until(lambda document: "after-0.example" in names_of(document))
    live.end()
    assert live.packets() == 2 * talk.exchanges
    health = live.documents[-1]["health"]
    told = sum(document["dns_summary"]["queries"] for document in live.documents)
    # No payload is in neither: two of each exchange, which loopback shows twice and which are read once.
    assert health["payloads"]["dns"] + health["lost_payloads"]["dns"] == 4 * talk.exchanges
    assert health["lost_payloads"]["dns"] >= 10
    assert told + health["lost_payloads"]["dns"] >= talk.exchanges


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_agent_outlives_its_reader(solo: Host, talk: Talk, tmp_path: Path, number: signal.Signals) -> None:
    with agent(solo, tmp_path / "log") as process:
        (reader,) = readers(process.pid)
        assert_powers(process.pid, reader)
        talk.exchange("first.example")
        os.kill(reader, number)
        with solo.entered():
            wait_until(lambda: metric("wiremeter_reader_endings_total") == 1, "the end is told")
        wait_until(lambda: readers(process.pid) != [], "another reader begins")
        with solo.entered():
            wait_until(lambda: asks_and_is_told(talk), "names are read again")
            wait_until(
                lambda: metric("network_packets_total", direction="tx", protocol="udp") == 2 * talk.exchanges, "all", 10
            )
    assert f"it was killed by signal {number.name}" in (tmp_path / "log").read_text()


def asks_and_is_told(talk: Talk) -> bool:
    talk.exchange("again.example")
    return metric("network_dns_queries_total") > 1


def test_the_reader_does_not_outlive_the_agent(solo: Host, tmp_path: Path) -> None:
    with agent(solo, tmp_path / "log") as process:
        (reader,) = readers(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: not Path(f"/proc/{reader}").exists() or status(reader)["State"][0] == "Z", "it ends")


def test_a_group_that_is_stopped_at_once_still_tells_its_last_interval(solo: Host, talk: Talk) -> None:
    """As systemd stops a service: every process gets the signal."""
    with live_in(solo, "--interval", "5s") as live:
        live.until(lambda document: document["devices"])
        (reader,) = readers(live.process.pid)
        talk.exchange("last.example")
        os.kill(reader, signal.SIGTERM)
        live.end()
        assert "last.example" in names_of(live.documents[-1])
        assert live.documents[-1]["health"]["reader_endings"] == 0


def test_it_can_be_turned_off(solo: Host, talk: Talk) -> None:
    with live_in(solo, "--no-isolate") as live:
        live.until(lambda document: document["devices"])
        assert readers(live.process.pid) == []
        talk.exchange("here.example")
        live.until(lambda document: "here.example" in names_of(document))
        live.end()


@pytest.mark.parametrize(("call", "said"), [("seccomp", "seccomp"), ("capset", "capset")])
def test_where_it_cannot_be_had_that_is_said(solo: Host, call: str, said: str) -> None:
    argv = [WIREMETER, "live", "-i", "lo", "--once"]
    with solo.entered():
        done = subprocess.run(argv, preexec_fn=lambda: deny(call), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "payloads cannot be read in a process without privileges" in done.stderr
    assert said in done.stderr
    assert "--no-isolate" in done.stderr


NUMBERS = {"x86_64": {"seccomp": 317, "capset": 126}, "aarch64": {"seccomp": 277, "capset": 91}}


def deny(call: str) -> None:
    """As a container's profile does: the call fails with EPERM, here and in all that is started from here."""
    instructions = (
        (0x20, 0, 0, 0),  # load the call's number
        (0x15, 0, 1, NUMBERS[platform.machine()][call]),
        (0x06, 0, 0, 0x00050001),  # SECCOMP_RET_ERRNO | EPERM
        (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(code)))
    assert ctypes.CDLL(None).prctl(22, 2, program, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


@contextlib.contextmanager
def agent(host: Host, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`wiremeter agent`, ready."""
    argv = [WIREMETER, "agent", "-i", "lo", "--interval", "300ms", "--listen", LISTEN]
    with host.entered(), log.open("wb") as file:
        process = subprocess.Popen(argv, stderr=file)
    try:
        with host.entered():
            wait_until(is_ready, "the agent is ready")
        yield process
    finally:
        process.terminate()
        process.wait(20)


def is_ready() -> bool:
    try:
        return bool(urllib.request.urlopen(f"http://{LISTEN}/readyz", timeout=1).status == 200)
    except OSError:
        return False


def metric(name: str, **labels: str) -> float:
    text = urllib.request.urlopen(f"http://{LISTEN}/metrics", timeout=5).read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
