"""The agent is killed, stopped, upgraded and replaced while packets cross a device: each is counted, and once."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kernel.programs import changed_meter
from wiremeter import __version__

from . import leaks, netns
from .pinning import WIREMETER, Agent, bpffs, other_wiremeter

pytestmark = pytest.mark.kernel

THERE = "10.7.0.2"
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
    for turn in range(10):
        agent.start()
        traffic.send(30 + turn, 70)
        if turn % 3:
            agent.wait_for(**traffic.sent)
        agent.kill()
        traffic.send(11, 13)
    agent.start()
    agent.wait_for(**traffic.sent)
    agent.stop()
    traffic.send(5, 7)
    agent.start()
    agent.wait_for(**traffic.sent)


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


def test_another_program_takes_the_place_of_the_one_that_counts(agent: Agent, traffic: Traffic, tmp_path: Path) -> None:
    """Built from other sources, over the same records: tables and links stay."""
    here = "struct packet packet = packet_of_skb(skb);\n\t__u32 identity"
    other = changed_meter(tmp_path, "wiremeter.bpf.c", here, f'asm volatile("r0 = 0" ::: "r0");\n\t{here}')
    agent.start()
    traffic.send(10, 20)
    before = agent.pinned()
    agent.kill()
    traffic.send(3, 4)
    agent.words += ["--program", str(other)]
    agent.start()
    traffic.send(30, 40)
    agent.wait_for(**traffic.sent)
    assert agent.pinned() == before
    assert "replaced" not in agent.said


def test_tables_of_another_size_take_the_place_of_those_there_are(agent: Agent, traffic: Traffic) -> None:
    agent.words += ["--flow-table", "1024"]
    agent.start()
    traffic.send(10, 20)
    agent.kill()
    traffic.send(3, 4)
    agent.words += ["--flow-table", "2048"]
    agent.start()
    traffic.send(30, 40)
    agent.wait_for(**traffic.sent)
    assert "of another layout or size" in agent.said
    assert {name.partition("/")[0] for name in agent.pinned()} == {"tables-2", "links", "programs"}
    assert agent.unattributed() == 0


def test_tables_with_records_of_another_version_are_read_once_more(
    agent: Agent, traffic: Traffic, tmp_path: Path
) -> None:
    ours, other = agent.program, other_wiremeter(tmp_path / "other")
    for turn, agent.program in enumerate((other, ours, other)):
        agent.start()
        traffic.send(10 + turn, 20)
        agent.kill()
        traffic.send(3, 4)
    agent.program = ours
    agent.start()
    agent.wait_for(**traffic.sent)
    assert agent.said.count("of another layout or size") == 3
    assert {name.partition("/")[0] for name in agent.pinned()} == {"tables-4", "links", "programs"}
    assert agent.unattributed() == 0
    assert agent.attributed_to_flows() == traffic.sent


def test_a_second_agent_over_the_same_pins_is_refused(agent: Agent, traffic: Traffic, tmp_path: Path) -> None:
    agent.start()
    second = subprocess.run([*WIREMETER, "agent", *agent.words], capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert "another wiremeter has the pins" in second.stderr
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
