"""The agents: which there are, what each said last, and how its batches come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from wiremeter.server.store import DATABASE, Batch, Heard, Store
from wiremeter.shipment.heartbeat import Heartbeat

#: Agents that are remembered; of more, the one not heard of for longest is forgotten here, not in the store.
AGENTS_MAX = 100_000
#: Heartbeats that may be missing before an agent is away, and the seconds that it has at least.
_MISSED, _PATIENCE_SECONDS = 3, 90.0
#: Boots whose sequences are followed for each agent.
_BOOTS = 4
_S_NS = 10**9

State = Literal["up", "away"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One agent.

    heard_ns: when it last sent anything, server's clock. heartbeat: the last one. skew_ns: how far its clock was ahead
    then; the time that the heartbeat took on its way is part of that. batch_end_ns: up to when its traffic is stored.
    batches, bytes: new ones since the server started. duplicates: sent again. boots: of each boot, the highest
    sequence and how many were stored. dropped: batches that it gave up, by reason, as the newest batch of its newest
    boot says; batches may come in another order.
    """

    agent: str
    heard_ns: int = 0
    heartbeat: Heartbeat | None = None
    skew_ns: int | None = None
    version: str = ""
    batch_end_ns: int = 0
    batches: int = 0
    bytes: int = 0
    duplicates: int = 0
    boots: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Batches with a number below the highest that are not stored: given up by the agent, or still to come."""
        return sum(highest + 1 - count for highest, count in self.boots.values())

    def state(self, now_ns: int) -> State:
        """Whether it sent anything lately."""
        interval = self.heartbeat.interval_seconds if self.heartbeat else 0.0
        patience = max(_PATIENCE_SECONDS, _MISSED * interval)
        return "up" if now_ns - self.heard_ns < patience * _S_NS else "away"


class Registry:
    """May be asked from any thread."""

    def __init__(self, store: Store, clock: Callable[[], int] = time.time_ns) -> None:
        """Begins with what the store knows. Raises StoreError."""
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._agents: dict[str, Agent] = {}
        self._load()

    def all(self) -> list[Agent]:
        """Every agent, by name."""
        with self._lock:
            return sorted(self._agents.values(), key=lambda agent: agent.agent)

    def get(self, agent: str) -> Agent | None:
        """One agent."""
        with self._lock:
            return self._agents.get(agent)

    def skew_ns(self, agent: str) -> int | None:
        """How far its clock is ahead of ours, if that is known."""
        found = self.get(agent)
        return found.skew_ns if found else None

    def heartbeat(self, heartbeat: Heartbeat, received_ns: int) -> None:
        """Takes what an agent says of itself."""
        with self._lock:
            known = self._known(heartbeat.agent)
            self._agents[heartbeat.agent] = replace(
                known,
                heartbeat=heartbeat,
                heard_ns=received_ns,
                skew_ns=heartbeat.clock_ns - received_ns,
                version=heartbeat.version,
            )
        self._store.hear(Heard(heartbeat.agent, received_ns, msgspec.to_builtins(heartbeat)))

    def batch(self, batch: Batch, size: int, *, is_new: bool) -> None:
        """Takes note of a batch that is stored."""
        about = batch.about
        with self._lock:
            known = self._known(about.identity.agent)
            if is_new:
                boots = dict(known.boots)
                highest, count = boots.pop(about.identity.boot, (-1, 0))
                boots[about.identity.boot] = (max(highest, about.identity.sequence), count + 1)
                if about.identity.sequence > highest:
                    known = replace(known, dropped=about.dropped, version=about.version)
                known = replace(
                    known,
                    batches=known.batches + 1,
                    bytes=known.bytes + size,
                    batch_end_ns=max(known.batch_end_ns, about.end_ns),
                    boots=dict(list(boots.items())[-_BOOTS:]),
                )
            else:
                known = replace(known, duplicates=known.duplicates + 1)
            self._agents[about.identity.agent] = replace(known, heard_ns=max(known.heard_ns, batch.received_ns))

    def _known(self, name: str) -> Agent:
        known = self._agents.get(name)
        if known is None:
            if len(self._agents) >= AGENTS_MAX:
                del self._agents[min(self._agents.values(), key=lambda agent: agent.heard_ns).agent]
            known = Agent(agent=name)
        return known

    def _load(self) -> None:
        for heard in self._store.heard():
            heartbeat = _read(heard)
            self._agents[heard.agent] = Agent(
                agent=heard.agent,
                heartbeat=heartbeat,
                heard_ns=heard.seen_ns,
                skew_ns=None,  # of then; the clock may have been set since
                version=heartbeat.version if heartbeat else "",
            )
        stored = self._store.query(
            "SELECT agent, boot, max(sequence) AS highest, uniqExact(sequence) AS count,"
            " argMax(dropped, sequence) AS gave_up, argMax(version, sequence) AS ran,"
            " toUnixTimestamp64Nano(max(end)) AS ended, toUnixTimestamp64Milli(max(received)) AS heard"
            f" FROM {DATABASE}.batches GROUP BY agent, boot ORDER BY heard"
        )
        for row in stored.records():
            known = self._known(row["agent"])
            boots = {**known.boots, row["boot"]: (row["highest"], row["count"])}
            self._agents[row["agent"]] = replace(
                known,
                boots=dict(list(boots.items())[-_BOOTS:]),
                dropped=dict(row["gave_up"]),
                batch_end_ns=max(known.batch_end_ns, row["ended"]),
                heard_ns=max(known.heard_ns, row["heard"] * 10**6),
                version=row["ran"],
            )


def _read(heard: Heard) -> Heartbeat | None:
    try:
        return msgspec.convert(heard.heartbeat, Heartbeat)
    except msgspec.ValidationError:  # of another version
        return None
