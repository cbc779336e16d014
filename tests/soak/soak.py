"""Agents, a server and its engine, all of them killed, cut off, slowed down and lied to; and the sum at the end.

Everything is a process as users run it. What agents generated is known to the packet, so at the end the store must have
exactly that: each batch once, and of those it has not, each counted under the reason why.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unit.server.running import RunningServer

from .link import Link

AGENTS = 4
#: Batches with their content that came to the server's door and are sent again now and then.
_REMEMBERED = 50


@dataclass
class Outcome:
    """What became of it. faults: how often each happened. wrong: what must not be, as sentences."""

    made: int = 0
    stored: int = 0
    packets: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For a terminal."""
        happened = ", ".join(f"{count} × {fault}" for fault, count in sorted(self.faults.items()))
        lost = ", ".join(f"{count} {reason}" for reason, count in self.lost.items()) or "none"
        lines = [
            f"faults: {happened}",
            f"batches: {self.made:,} made, {self.stored:,} stored with {self.packets:,} packets; given up: {lost}",
            f"damaged, cut and repeated bodies that were sent: {dict(self.refused)}",
        ]
        wrong = [f"WRONG: {one}" for one in self.wrong]
        return "\n".join([*lines, *(wrong or ["all of it is there, once"])])


class Agent:
    """A sender that can be killed and goes on where its spool stood."""

    def __init__(self, name: str, url: str, directory: Path, offset_ns: int) -> None:
        self.name = name
        self.directory = directory
        self._words = (name, url, str(directory), str(offset_ns))
        directory.mkdir(parents=True)
        self.start()

    def start(self) -> None:
        """Begins, or begins again."""
        command = [sys.executable, "-m", "soak.sender", *self._words]
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log, cwd=Path(__file__).parents[1])

    def kill(self) -> None:
        """As a crash."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Has it send what waits, and then end."""
        self._process.terminate()

    def wait(self) -> None:
        """Until it has ended."""
        status = self._process.wait(120)
        assert status == 0, (self.directory / "log").read_text()

    def done(self) -> Iterator[dict[str, Any]]:
        """Its log, as far as lines are whole."""
        for line in (self.directory / "done.jsonl").read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def waiting(self) -> list[Path]:
        """Files in its spool."""
        return sorted((self.directory / "spool").glob("*.arrows"))


class Soak:
    """One run."""

    def __init__(self, directory: Path, seed: int, say: Callable[[str], None] = lambda text: None) -> None:
        self._directory = directory
        self._rng = random.Random(seed)
        self._say = say
        self._outcome = Outcome()
        self._seen: list[bytes] = []

    def run(self, seconds: float) -> Outcome:
        """Faults for so long, then quiet until all has arrived, then the sum."""
        server = RunningServer(self._directory / "server", "--authentication", "off")
        with Link() as link, server:
            self._server, self._link = server, link
            self._point()
            offsets = [0, 0, 90 * 10**9, -3 * 3600 * 10**9]
            self._agents = [
                Agent(f"agent-{number}", link.url, self._directory / f"agent-{number}", offsets[number % len(offsets)])
                for number in range(AGENTS)
            ]
            end = time.monotonic() + seconds
            faults = (self._kill_agent, self._kill_server, self._kill_engine, self._cut, self._delay, self._stop_server)
            lies = (self._flip, self._repeat, self._truncate, self._reorder)
            while (left := end - time.monotonic()) > 0:
                self._remember()
                fault = self._rng.choice((*faults, *lies, *lies))
                name = fault.__name__.removeprefix("_").replace("_", " ")
                self._say(f"{left:5.0f} s left: {name}")
                fault()
                self._outcome.faults[name] += 1
                time.sleep(self._rng.uniform(0.1, 1.5))
            self._say("quiet now, until all has arrived")
            link.mend()
            for agent in self._agents:
                agent.stop()
            for agent in self._agents:
                agent.wait()
        self._sum()
        return self._outcome

    # --- what happens

    def _kill_agent(self) -> None:
        agent = self._rng.choice(self._agents)
        agent.kill()
        time.sleep(self._rng.uniform(0, 0.5))
        agent.start()

    def _kill_server(self) -> None:
        self._server.kill()
        time.sleep(self._rng.uniform(0, 1))
        self._server.start()
        self._point()

    def _kill_engine(self) -> None:
        for pid in _children(self._server.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _stop_server(self) -> None:
        os.kill(self._server.pid, signal.SIGSTOP)
        time.sleep(self._rng.uniform(0.5, 3))
        os.kill(self._server.pid, signal.SIGCONT)

    def _cut(self) -> None:
        self._link.cut()
        time.sleep(self._rng.uniform(0.1, 3))
        self._link.mend()

    def _delay(self) -> None:
        self._link.delay = self._rng.uniform(0.05, 0.5)
        time.sleep(self._rng.uniform(0.5, 3))
        self._link.mend()

    def _flip(self) -> None:
        """A bit of a file that waits."""
        self._link.cut()
        time.sleep(1)
        for path in self._rng.choice(self._agents).waiting()[-1:]:
            with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
                file.seek(self._rng.randrange(path.stat().st_size))
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1 << self._rng.randrange(8)]))
        self._link.mend()

    def _repeat(self) -> None:
        for content in self._rng.sample(self._seen, min(3, len(self._seen))):
            self._post(content)

    def _reorder(self) -> None:
        """All that waits at an agent, the newest first; the agent sends it again in its order."""
        for path in reversed(self._rng.choice(self._agents).waiting()):
            with contextlib.suppress(OSError):
                self._post(path.read_bytes())

    def _truncate(self) -> None:
        for content in self._seen[-1:]:
            self._post(content[: self._rng.randrange(1, len(content))])

    def _post(self, content: bytes) -> None:
        with contextlib.suppress(Exception):  # the server may be away, which is nothing new
            self._outcome.refused[self._server.ask("/v1/batches", content).status] += 1

    def _remember(self) -> None:
        for agent in self._agents:
            for path in agent.waiting()[:1]:
                with contextlib.suppress(OSError):
                    self._seen.append(path.read_bytes())
        del self._seen[:-_REMEMBERED]

    def _point(self) -> None:
        where = urllib.parse.urlsplit(self._server.url)
        self._link.target = (str(where.hostname), int(where.port or 0))

    # --- what must be so

    def _sum(self) -> None:
        from wiremeter.server.store import open_store

        outcome = self._outcome
        with open_store(str(self._directory / "server" / "store")) as store:
            rows = store.query(
                "SELECT agent, boot, sequence, count() AS count FROM wiremeter.batches GROUP BY agent, boot, sequence"
            ).records()
            flows = store.query(
                "SELECT agent, toUnixTimestamp64Milli(time) AS start_ms, sum(packets) AS packets"
                " FROM wiremeter.flows GROUP BY agent, time"
            ).records()
        batches = {(row["agent"], row["boot"], row["sequence"]): row["count"] for row in rows}
        packets = {(row["agent"], row["start_ms"]): row["packets"] for row in flows}
        outcome.wrong += [f"{batch} is stored {count} times" for batch, count in batches.items() if count != 1]
        expected: dict[tuple[str, int], int] = {}
        for agent in self._agents:
            lines = list(agent.done())
            made = [line for line in lines if line["what"] == "made"]
            kept = {(line["boot"], line["sequence"]): line for line in lines if line["what"] == "kept"}
            outcome.made += len(made)
            missing = [identity for identity in kept if (agent.name, *identity) not in batches]
            given_up = lines[-1].get("dropped", {})
            outcome.lost.update(given_up)
            if lines[-1]["what"] != "ended" or lines[-1]["waiting"]:
                outcome.wrong.append(f"{agent.name} did not send all that waited")
            # What is counted as damaged lies in damaged/ still. It may be stored all the same: its answer was lost, and
            # its file damaged before it was sent again. One killed amid setting aside counts once less.
            aside = agent.directory / "spool" / "damaged"
            damaged = {int(path.name.split(".")[0]) for path in aside.glob("*.arrows")}
            if not {sequence for _, sequence in missing} <= damaged:
                outcome.wrong.append(f"{agent.name}: batches are missing that nothing damaged: {missing}, {damaged}")
            counted = sum(given_up.values())
            if not len(damaged) - outcome.faults["kill agent"] <= counted <= len(damaged):
                outcome.wrong.append(f"{agent.name}: {len(damaged)} files are damaged, {given_up} are counted")
            for line in made:
                place = agent.name, line["start_ms"]
                # Of one that was made and not kept nobody knows whether the spool had it when its process was killed.
                if (agent.name, line["boot"], line["sequence"]) in batches and place in packets:
                    expected[place] = line["packets"]
        outcome.wrong += [
            f"the server answered {status}" for status in outcome.refused if status >= 500 and status != 503
        ]
        outcome.stored, outcome.packets = len(batches), sum(packets.values())
        if packets != expected:
            differ = {key for key in packets.keys() | expected.keys() if packets.get(key) != expected.get(key)}
            told = [f"{key}: stored {packets.get(key)}, made {expected.get(key)}" for key in sorted(differ)]
            outcome.wrong += told[:10]
        if len(packets) != len(batches):
            outcome.wrong.append(f"{len(batches)} batches, but flows of {len(packets)}")


def _children(pid: int) -> list[int]:
    """Of a process, and theirs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found += [int(entry.parent.name), *_children(int(entry.parent.name))]
    return found
