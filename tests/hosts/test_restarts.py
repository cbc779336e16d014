"""The agent is killed, stopped, upgraded and replaced while packets cross a device: each is counted, and once."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kernel.programs import changed_meter
from unit.receiver import Receiver
from unit.shipped import tables_of
from wiremeter import __version__
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.restarts import Restarts
from wiremeter.flows.batch import Mark
from wiremeter.flows.columns import Direction
from wiremeter.libbpf.maps import possible_cpus

from . import leaks, netns
from .pinning import WIREMETER, Agent, bpffs, other_wiremeter

pytestmark = pytest.mark.kernel

THERE, NOBODY = "10.7.0.2", "10.7.0.3"
DIRECTIONS: tuple[Direction, ...] = ("rx", "tx")
MACS = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.fixture
def hosts() -> Iterator[tuple[netns.Host, netns.Host]]:
    """A host with a device m0, and another at its other end: neither says anything by itself."""
    with netns.hosts("agent", "peer") as (ours, theirs):
        ours.ip(
            f"link add m0 address {MACS[0]} type veth peer name m0 address {MACS[1]} netns {theirs.name}",
            "addr add 10.7.0.1/24 dev m0",
            "link set m0 up",
            f"neigh add {THERE} lladdr {MACS[1]} dev m0",
            f"neigh add {NOBODY} lladdr {MACS[1]} dev m0",
        )
        theirs.ip(f"addr add {THERE}/24 dev m0", "link set m0 up", f"neigh add 10.7.0.1 lladdr {MACS[0]} dev m0")
        yield ours, theirs


class Traffic:
    """Datagrams both ways over m0, and how many there were."""

    def __init__(self, ours: netns.Host, theirs: netns.Host) -> None:
        self.sent = {"rx": 0, "tx": 0}
        self._sockets = {}
        for way, host, target in (("tx", ours, THERE), ("rx", theirs, "10.7.0.1")):
            with host.entered():
                sender = self._sockets[way] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                # No answer by ICMP: somebody is there.
                sender.bind(("0.0.0.0", 9))
                sender.connect((target, 9))

    def send(self, tx: int, rx: int) -> None:
        """So many each way."""
        for way, count in (("tx", tx), ("rx", rx)):
            for _ in range(count):
                self._sockets[way].send(bytes(100))
            self.sent[way] += count

    def send_flows(self, count: int) -> None:
        """Out, each datagram to a port of its own, where nobody answers."""
        for port in range(10_000, 10_000 + count):
            self._sockets["tx"].sendto(bytes(100), (NOBODY, port))
        self.sent["tx"] += count

    @contextmanager
    def going(self) -> Iterator[None]:
        """Some hundred each way each second while the block runs."""
        ends = threading.Event()

        def go() -> None:
            while not ends.wait(0.005):
                self.send(1, 2)

        sender = threading.Thread(target=go)
        sender.start()
        try:
            yield
        finally:
            ends.set()
            sender.join()

    def close(self) -> None:
        for each in self._sockets.values():
            each.close()


@pytest.fixture
def agent(hosts: tuple[netns.Host, netns.Host], tmp_path: Path) -> Iterator[Agent]:
    """An agent that pins; all that it pinned is gone afterwards, and taken away by `wiremeter detach`."""
    with leaks.nothing_left(), bpffs(tmp_path) as pins, closing(Agent(hosts[0], pins, tmp_path)) as agent:
        yield agent
        agent.close()
        agent.detach()
        assert not pins.exists()


@pytest.fixture
def traffic(hosts: tuple[netns.Host, netns.Host]) -> Iterator[Traffic]:
    """What is sent both ways."""
    with closing(Traffic(*hosts)) as traffic:
        yield traffic


def test_killed_and_replaced_ten_times_each_packet_is_counted_once(agent: Agent, traffic: Traffic) -> None:
    agent.start()
    with traffic.going():
        for turn in range(10):
            if turn % 3:
                agent.wait_for_at_least(**traffic.sent)
            agent.kill()
            agent.start()
    agent.wait_for(**traffic.sent)
    agent.stop()
    traffic.send(5, 7)
    agent.start()
    agent.wait_for(**traffic.sent)
    assert agent.said.count("attached ") == 2 * 12  # and none detached in between
    assert "detached" not in agent.said


#: Where an agent is killed: an attribute, and whether before or after it was called.
POINTS = {
    "turned, before the grace period": ("wiremeter.libbpf.maps:GracePeriod.wait", "before"),
    "after the grace period": ("wiremeter.libbpf.maps:GracePeriod.wait", "after"),
    "read, not kept": ("wiremeter.datapath.restarts:Restarts.put", "before"),
    "kept, not cleared": ("wiremeter.datapath.restarts:Restarts.put", "after"),
    "half cleared": ("wiremeter.datapath.regions:Region.clear", "after"),
    "cleared, not told": ("wiremeter.datapath.kernel:KernelEngine._clear", "after"),
    "told, the totals not kept": ("wiremeter.sinks.kept_totals:KeptTotals.keep", "before"),
    "the totals kept": ("wiremeter.sinks.kept_totals:KeptTotals.keep", "after"),
    "forgotten": ("wiremeter.datapath.restarts:Restarts.told", "after"),
}


def test_killed_at_awkward_moments(agent: Agent, traffic: Traffic, tmp_path: Path) -> None:
    now = tmp_path / "now"
    for point in POINTS.values():
        agent.kill_itself(*point, once=now)
        agent.start()
        agent.wait_for(**traffic.sent)  # of the turn before
        traffic.send(21, 34)
        now.touch()
        netns.wait_until(lambda: agent.ended, "the agent has killed itself", 30)
        traffic.send(55, 8)
        now.unlink()
    agent.start()
    agent.wait_for(**traffic.sent)


#: The same of what ships.
SHIPPING_POINTS = (
    ("wiremeter.sinks.shipping.shipper:Shipper.write", "before"),
    ("wiremeter.sinks.shipping.spool:Spool.put", "before"),
    ("wiremeter.sinks.shipping.spool:Spool.put", "after"),
    ("wiremeter.sinks.kept_totals:KeptTotals.keep", "before"),
    ("wiremeter.sinks.kept_totals:KeptTotals.keep", "after"),
)


def test_a_server_gets_each_packet_once(
    hosts: tuple[netns.Host, netns.Host], agent: Agent, traffic: Traffic, tmp_path: Path
) -> None:
    now = tmp_path / "now"
    with hosts[0].entered(), Receiver() as receiver:
        agent.words += ["--server", receiver.url, "--agent-id", "web-1"]
        for point in SHIPPING_POINTS:
            agent.kill_itself(*point, once=now)
            agent.start()
            traffic.send(21, 34)
            now.touch()
            netns.wait_until(lambda: agent.ended, "the agent has killed itself", 30)
            traffic.send(5, 8)
            now.unlink()
        agent.start()
        agent.wait_for(**traffic.sent)
        netns.wait_until(lambda: arrived(receiver) == traffic.sent, "all has arrived", 30)
        agent.stop()
    assert arrived(receiver) == traffic.sent
    assert not receiver.conflicts


def arrived(receiver: Receiver) -> dict[str, int]:
    """Packets in all batches, by direction."""
    total = {"rx": 0, "tx": 0}
    for content in list(receiver.batches.values()):
        for row in tables_of(content)["flows"].to_pylist():
            total[row["direction"]] += row["packets"]
    return total


@pytest.mark.parametrize("attach", ["tcx", "xdp", "xdp-generic"])
def test_another_program_takes_the_place_of_the_one_that_counts(
    agent: Agent, traffic: Traffic, tmp_path: Path, attach: str
) -> None:
    """Built from other sources, over the same records: tables and links stay."""
    here = "struct packet packet = packet_of_skb(skb);\n\t__u32 identity"
    other = changed_meter(tmp_path, "wiremeter.bpf.c", here, f'asm volatile("r0 = 0" ::: "r0");\n\t{here}')
    agent.words += ["--attach", attach]
    agent.start()
    with traffic.going():
        agent.wait_for_at_least(tx=10, rx=20)
        before = agent.pinned()
        agent.kill()
        agent.words += ["--program", str(other)]
        agent.start()
        agent.wait_for_at_least(**traffic.sent)
    agent.wait_for(**traffic.sent)
    assert agent.pinned() == before
    assert "replaced" not in agent.said


def test_what_the_tables_could_not_hold_while_nobody_read_them_is_counted(agent: Agent, traffic: Traffic) -> None:
    agent.words += ["--flow-table", "256"]
    agent.start()
    agent.kill()
    traffic.send_flows(3000)
    agent.start()
    agent.wait_for(**traffic.sent)
    (reason,) = set(re.findall(r'network_unattributed_packets_total\{[^}]*reason="([^"]+)"', agent.metrics()))
    assert reason == "table_full"
    assert agent.unattributed() > 1000
    assert agent.attributed_to_flows()["tx"] + agent.unattributed() == 3000


def test_filters_of_kernels_before_tcx_are_taken_over_too(
    hosts: tuple[netns.Host, netns.Host], traffic: Traffic, tmp_path: Path
) -> None:
    counted = {"rx": 0, "tx": 0}
    told = None
    with leaks.nothing_left(), bpffs(tmp_path) as pins, hosts[0].entered():
        for _ in range(3):
            with (
                Restarts(pins, tmp_path / "state", told) as restarts,
                KernelEngine(plan_tables(possible_cpus(), 1024), restarts=restarts) as engine,
            ):
                for direction in DIRECTIONS:
                    engine.attach(Hook("m0", socket.if_nametoindex("m0"), direction, "clsact"))
                traffic.send(10, 20)
                for drain in (*engine.take_recovered(), engine.flip(), engine.flip()):
                    for slot, owner in drain.owners.items():
                        counted[owner.hook.direction] += int(drain.counters[slot, :-7, 0].sum())  # type: ignore[attr-defined]
                    told = Mark(restarts.tables, drain.flip, drain.ended_ns)
                assert told
                engine.told(told)
                assert counted == traffic.sent
            traffic.send(3, 4)
        said = subprocess.run([*WIREMETER, "detach", "--pin", str(pins)], capture_output=True, text=True, check=True)
        assert "removed a filter from m0 rx" in said.stdout
        assert "removed a filter from m0 tx" in said.stdout
        assert "clsact" not in netns.command("tc", "qdisc", "show", "dev", "m0")


def test_tables_of_another_size_take_the_place_of_those_there_are(agent: Agent, traffic: Traffic) -> None:
    agent.words += ["--flow-table", "1024"]
    agent.start()
    with traffic.going():
        agent.kill()
        agent.words += ["--flow-table", "2048"]
        agent.start()
        agent.wait_for_at_least(**traffic.sent)
    agent.wait_for(**traffic.sent)
    assert "of another layout or size" in agent.said
    assert {name.partition("/")[0] for name in agent.pinned()} == {"tables-2", "links", "programs"}
    assert agent.unattributed() == 0


def test_tables_with_records_of_another_version_are_read_once_more(
    agent: Agent, traffic: Traffic, tmp_path: Path
) -> None:
    ours, other = agent.program, other_wiremeter(tmp_path / "other")
    agent.program = other
    agent.start()
    with traffic.going():
        for agent.program in (ours, other, ours):
            agent.kill()
            agent.start()
    agent.wait_for(**traffic.sent)
    assert agent.said.count("of another layout or size") == 3
    assert {name.partition("/")[0] for name in agent.pinned()} == {"tables-4", "links", "programs"}
    assert agent.unattributed() == 0
    assert agent.attributed_to_flows() == traffic.sent


def test_a_second_agent_over_the_same_pins_is_refused(agent: Agent, traffic: Traffic, tmp_path: Path) -> None:
    agent.start()
    for more, why in (
        (["--state-dir", str(tmp_path / "other")], "another wiremeter has the pins"),
        (["--pin", "none"], "another agent keeps its state"),
    ):
        argv = [*WIREMETER, "agent", *agent.words, *more]
        second = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2
        assert why in second.stderr
    refused = subprocess.run([*WIREMETER, "detach", *agent.pin], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "another wiremeter has the pins" in refused.stderr
    traffic.send(5, 6)
    agent.wait_for(**traffic.sent)
    doctor = subprocess.run(
        [*WIREMETER, "doctor", "--interface", "lo", "--format", "json", *agent.pin], capture_output=True, timeout=60
    )
    pinned = json.loads(doctor.stdout)["pinned"]
    assert (pinned["in_use"], pinned["links"]) == (True, 2)
    assert [(each["version"], each["is_own_layout"]) for each in pinned["tables"]] == [(__version__, True)]
