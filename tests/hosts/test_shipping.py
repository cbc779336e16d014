"""The agent ships to a server while the network, the disk and the agent itself fail: each batch arrives once."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from unit.certificates import Authority
from unit.receiver import Receiver
from unit.server.running import RunningServer
from unit.shipped import tables_of
from wiremeter.server.store import open_store
from wiremeter.shipment.identity import About

from . import netns

pytestmark = pytest.mark.kernel
pytest.importorskip("chdb", reason="wiremeter server needs its packages")

WIREMETER = str(Path(sys.executable).with_name("wiremeter"))
OURS, SERVER = "10.9.0.1", "10.9.0.2"
TARGET = ("10.7.0.2", 7000)


@pytest.fixture
def hosts() -> Iterator[tuple[netns.Host, netns.Host]]:
    """An agent's host with a device `m0` to be metered, and a server's, which `s0` leads to."""
    with netns.hosts("agent", "server") as (ours, theirs):
        ours.ip(
            f"link add s0 type veth peer name s0 netns {theirs.name}",
            f"addr add {OURS}/24 dev s0",
            "link set s0 up",
            f"link add m0 type veth peer name m0 netns {theirs.name}",
            "addr add 10.7.0.1/24 dev m0",
            "link set m0 up",
            f"neigh add {TARGET[0]} lladdr 02:00:00:00:00:02 dev m0",
        )
        theirs.ip(f"addr add {SERVER}/24 dev s0", "link set s0 up", "link set m0 up")
        yield ours, theirs


class Agent:
    """`wiremeter agent` in a namespace, which may be started again and again."""

    def __init__(self, host: netns.Host, url: str, folder: Path, *more: str) -> None:
        self._host = host
        self._argv = [WIREMETER, "agent", "--interface", "m0", "--interval", "200ms", "--listen", "off"]
        self._argv += ["--names", "none", "--agent-id", "web-1", "--server", url, "--heartbeat", "1s"]
        self._argv += ["--spool-dir", str(folder / "spool"), *more]
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it meters."""
        seen = self.said.count("attached")
        with self._host.entered(), self._log.open("ab") as log:
            self._process = subprocess.Popen(self._argv, stderr=log)
        netns.wait_until(lambda: self.said.count("attached") >= seen + 2, "the agent has attached", 30)

    def kill(self) -> None:
        """With SIGKILL."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """The clean way."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(30) == 0, self.said

    @property
    def said(self) -> str:
        """All of its logs."""
        return self._log.read_text() if self._log.exists() else ""

    def end(self) -> None:
        """Whatever state it is in."""
        if self._process and self._process.poll() is None:
            self.kill()


@contextmanager
def running(host: netns.Host, url: str, folder: Path, *more: str) -> Iterator[Agent]:
    agent = Agent(host, url, folder, *more)
    try:
        agent.start()
        yield agent
    finally:
        agent.end()


class Traffic:
    """Datagrams through `m0`, until the block ends; `sent` of them."""

    def __init__(self, host: netns.Host) -> None:
        with host.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = 0

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ends.set()
        self._thread.join()
        self._socket.close()

    def _send(self) -> None:
        while not self._ends.wait(0.002):
            self._socket.sendto(b"x" * 100, TARGET)
            self.sent += 1


def packets(receiver: Receiver) -> int:
    """Packets to the target in all batches that are stored."""
    total = 0
    for content in list(receiver.batches.values()):
        flows = tables_of(content)["flows"]
        ports, counts = flows.column("dst_port").to_pylist(), flows.column("packets").to_pylist()
        total += sum(count for port, count in zip(ports, counts, strict=True) if port == TARGET[1])
    return total


def sequences(receiver: Receiver) -> dict[str, list[int]]:
    """Sequences by boot; of several on their way at a time the second may have arrived first."""
    found: dict[str, list[int]] = {}
    for identity in sorted(receiver.order):
        found.setdefault(identity.boot, []).append(identity.sequence)
    return found


def told_dropped(receiver: Receiver) -> dict[str, int]:
    """What the newest batch of the boot that sent last says was given up."""
    newest = max(identity for identity in receiver.order if identity.boot == receiver.order[-1].boot)
    metadata = tables_of(receiver.batches[newest])["flows"].schema.metadata
    return dict(About.from_metadata({k.decode(): v.decode() for k, v in metadata.items()}).dropped)


def test_a_network_that_is_cut_and_slow_costs_nothing(hosts: tuple[netns.Host, netns.Host], tmp_path: Path) -> None:
    ours, theirs = hosts
    authority = Authority(tmp_path)
    tls = authority.server_context(address=SERVER)
    with (
        theirs.entered(),
        Receiver(SERVER, tls=tls) as receiver,
        running(ours, receiver.url, tmp_path, "--server-ca", str(authority.path)) as agent,
    ):
        with Traffic(ours) as traffic:
            netns.wait_until(lambda: len(receiver.order) >= 2, "batches arrive", 10)
            theirs.ip("link set s0 down")
            spool = tmp_path / "spool"
            netns.wait_until(lambda: len(list(spool.glob("*.arrows"))) > 5, "batches wait", 30)
            stored = len(receiver.order)
            theirs.ip("link set s0 up")
            netns.wait_until(lambda: len(receiver.order) > stored + 5, "the backlog arrives", 30)
            for _ in range(5):
                theirs.ip("link set s0 down")
                time.sleep(0.3)
                theirs.ip("link set s0 up")
                time.sleep(0.3)
            narrow = ("tbf", "rate", "100kbit", "burst", "3kb", "latency", "200ms")
            ours.command("tc", "qdisc", "add", "dev", "s0", "root", *narrow)
            stored = len(receiver.order)
            netns.wait_until(lambda: len(receiver.order) > stored + 5, "batches arrive slowly", 60)
            ours.command("tc", "qdisc", "del", "dev", "s0", "root")
        netns.wait_until(lambda: packets(receiver) >= traffic.sent, "all has arrived", 30)
        agent.stop()
    assert packets(receiver) == traffic.sent > 1000
    assert receiver.conflicts == []
    (seen,) = sequences(receiver).values()
    assert seen == list(range(len(seen)))
    assert receiver.heartbeats


def test_an_agent_that_is_killed_sends_nothing_twice_and_leaves_no_gap(
    hosts: tuple[netns.Host, netns.Host], tmp_path: Path
) -> None:
    """What it had not written down yet is lost with it, and nothing else."""
    ours, theirs = hosts
    dice = random.Random(4)
    lost_answers = 0

    def after(path: str, headers: dict[str, str]) -> Any:
        nonlocal lost_answers
        if dice.random() < 0.3:
            lost_answers += 1
            return 0, {}, b""
        return None

    with theirs.entered(), Receiver(SERVER) as receiver:
        receiver.after = after
        with running(ours, receiver.url, tmp_path) as agent, Traffic(ours) as traffic:
            for _ in range(6):
                time.sleep(0.5 + dice.random())
                agent.kill()
                agent.start()
            netns.wait_until(lambda: len(receiver.order) > 20, "batches arrive", 30)
            agent.stop()
    assert lost_answers
    assert receiver.conflicts == []
    (seen,) = sequences(receiver).values()
    assert seen == list(range(len(seen)))
    assert 0 < packets(receiver) <= traffic.sent


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_does_not_keep_batches_from_arriving(
    hosts: tuple[netns.Host, netns.Host], tmp_path: Path, small_disk: Path
) -> None:
    ours, theirs = hosts
    with (
        theirs.entered(),
        Receiver(SERVER) as receiver,
        running(ours, receiver.url, tmp_path, "--spool-dir", str(small_disk / "spool")) as agent,
    ):
        with Traffic(ours) as traffic:
            netns.wait_until(lambda: len(receiver.order) >= 2, "batches arrive", 10)
            filler = small_disk / "filler"
            subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4096"], capture_output=True, check=False)
            netns.wait_until(lambda: "wait in memory" in agent.said, "the disk is full", 10)
            stored = len(receiver.order)
            netns.wait_until(lambda: len(receiver.order) > stored + 3, "batches arrive from memory", 10)
            filler.unlink()
            netns.wait_until(lambda: "to the spool again" in agent.said, "the disk is used again", 10)
        netns.wait_until(lambda: packets(receiver) >= traffic.sent, "all has arrived", 30)
        agent.stop()
    assert packets(receiver) == traffic.sent
    assert len(sequences(receiver)) == 2
    assert all(seen == list(range(len(seen))) for seen in sequences(receiver).values())


def test_a_server_that_is_away_for_longer_than_the_disk_holds_gets_the_newest(
    hosts: tuple[netns.Host, netns.Host], tmp_path: Path, small_disk: Path
) -> None:
    ours, theirs = hosts
    with theirs.entered(), Receiver(SERVER) as receiver:
        receiver.before = lambda path, headers: (503, {}, b"")
        with running(ours, receiver.url, tmp_path, "--spool-dir", str(small_disk / "spool")) as agent:
            (small_disk / "filler").write_bytes(bytes(130_000))
            netns.wait_until(lambda: "disk_full" in agent.said, "the disk is full", 60)
            receiver.before = lambda path, headers: None
            netns.wait_until(lambda: len(receiver.order) > 5, "batches arrive", 90)
            (small_disk / "filler").unlink()
            stored = len(receiver.order)
            netns.wait_until(lambda: len(receiver.order) > stored + 3, "what was given up is told", 30)
            agent.stop()
    dropped = told_dropped(receiver)
    assert set(dropped) == {"disk_full"}
    found = max(sequences(receiver).values(), key=len)
    assert found == sorted(set(found))
    missing = set(range(max(found))) - set(found)
    assert 0 < len(missing) <= sum(dropped.values())


def test_flipped_bits_in_the_spool_are_found_and_counted(hosts: tuple[netns.Host, netns.Host], tmp_path: Path) -> None:
    ours, theirs = hosts
    with theirs.entered(), Receiver(SERVER) as receiver:
        receiver.before = lambda path, headers: (503, {}, b"")
        with running(ours, receiver.url, tmp_path) as agent:
            spool = tmp_path / "spool"
            netns.wait_until(lambda: len(list(spool.glob("*.arrows"))) >= 8, "batches wait", 20)
            agent.kill()
            damaged = sorted(spool.glob("*.arrows"))[2:5]
            for path in damaged:
                content = bytearray(path.read_bytes())
                content[random.Random(path.name).randrange(len(content))] ^= 1 << 3
                path.write_bytes(content)
            receiver.before = lambda path, headers: None
            agent.start()
            netns.wait_until(lambda: len(receiver.order) > 10, "batches arrive", 30)
            agent.stop()
    (seen,) = sequences(receiver).values()
    assert seen == sorted(set(range(seen[-1] + 1)) - {2, 3, 4})
    assert told_dropped(receiver) == {"damaged": 3}
    assert sorted(os.listdir(spool / "damaged")) == sorted(path.name for path in damaged)


def waiting(spool: Path) -> set[Path]:
    """The batches in a spool. There is always one where each interval's waits for the server's next group."""
    return set(spool.glob("*.arrows"))


def another_batch(spool: Path) -> None:
    """Waits until one more is written."""
    there = waiting(spool)
    netns.wait_until(lambda: bool(waiting(spool) - there), "another batch is written")


def what_waits_arrives(spool: Path) -> None:
    """Waits until all that are in the spool now have arrived."""
    there = waiting(spool)
    netns.wait_until(lambda: not waiting(spool) & there, "the backlog has arrived")


@pytest.mark.parametrize("killed", ["server", "server and agent"])
def test_the_server_has_every_packet_once_whoever_is_killed(
    killed: str, hosts: tuple[netns.Host, netns.Host], tmp_path: Path
) -> None:
    """The real server, with TLS and a token. An agent that is killed takes what it had not written down with it."""
    ours, theirs = hosts
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", address=SERVER)
    token = tmp_path / "token"
    argv = [WIREMETER, "token", "create", "web-1", "--for-agent", "web-1", "--data-dir", str(tmp_path / "server")]
    token.write_text(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    options = ["--listen", f"{SERVER}:10465", "--tls-cert", str(certificate), "--tls-key", str(key)]
    # The server answers when a batch is in its store, which may take longer than the interval of the other tests.
    more = ["--server-ca", str(authority.path), "--token-file", str(token), "--interval", "1s"]
    dice = random.Random(killed)
    with theirs.entered(), RunningServer(tmp_path / "server", *options) as server:
        with running(ours, f"https://{SERVER}:10465", tmp_path, *more) as agent:
            with Traffic(ours) as traffic:
                for _ in range(3):
                    time.sleep(1 + dice.random())
                    server.kill()
                    if "agent" in killed:
                        agent.kill()
                        agent.start()
                    time.sleep(dice.random())
                    server.start()
                time.sleep(1)
            for _ in range(2):  # by then the last of the traffic is in one
                another_batch(tmp_path / "spool")
            what_waits_arrives(tmp_path / "spool")
            agent.stop()
        assert "do not arrive" in agent.said
        assert token.read_text().strip() not in agent.said
        assert "refuses" not in agent.said
    with open_store(str(tmp_path / "server" / "store")) as store:
        rows = store.query("SELECT sum(packets) AS packets FROM wiremeter.flows WHERE dst_port = 7000").table()
    (stored,) = rows.column("packets").to_pylist()
    if "agent" in killed:
        assert 0 < stored <= traffic.sent
    else:
        assert stored == traffic.sent
