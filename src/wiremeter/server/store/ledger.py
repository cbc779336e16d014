"""What the server notes of its own: agents' last heartbeats, and what was refused. Kept in memory, written together.

A row of its own for each heartbeat would cost more than batches do. What a server that is killed had not written is
told again by the next heartbeat; of refusals the last seconds are lost then, and the log has them.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from wiremeter.server.store.backend import Backend
from wiremeter.server.store.schema import DATABASE

_log = logging.getLogger(__name__)

#: Refusals that are kept until they are written; whoever sends many is told of by their number.
_REFUSALS_MAX = 1000
_MILLISECONDS = pa.timestamp("ms", "UTC")


@dataclass(frozen=True, slots=True)
class Heard:
    """An agent, and what it said last. seen_ns: server's clock."""

    agent: str
    seen_ns: int
    heartbeat: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What was refused for good. agent, boot and sequence as far as they could be read; size in bytes; status as
    answered; peer: the address it came from; content: SHA-256 of its bytes."""

    time_ns: int
    agent: str = ""
    boot: str = ""
    sequence: int | None = None
    content: bytes = bytes(32)
    size: int = 0
    status: int = 0
    reason: str = ""
    peer: str = ""


class Ledger:
    """Both of them. directory: for files on their way to the engine. Raises as Backend.query when it is made."""

    def __init__(self, backend: Backend, directory: Path) -> None:
        self._backend = backend
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._refusals: list[Refusal] = []
        self.refusals_left_out = 0
        sql = f"SELECT agent, toUnixTimestamp64Milli(seen) AS seen, heartbeat FROM {DATABASE}.agents FINAL"
        self._heard = {
            row["agent"]: Heard(row["agent"], row["seen"] * 1_000_000, json.loads(row["heartbeat"]))
            for row in backend.query(sql).records()
        }

    def hear(self, heard: Heard) -> None:
        """Notes a heartbeat; an older one than is known is passed over."""
        with self._lock:
            known = self._heard.get(heard.agent)
            if known is None or known.seen_ns <= heard.seen_ns:
                self._heard[heard.agent] = heard
                self._changed.add(heard.agent)

    def heard(self) -> list[Heard]:
        """All agents, by name."""
        with self._lock:
            return sorted(self._heard.values(), key=lambda heard: heard.agent)

    def refuse(self, refusal: Refusal) -> None:
        """Notes a refusal; when too many wait, it is counted only."""
        with self._lock:
            if len(self._refusals) < _REFUSALS_MAX:
                self._refusals.append(refusal)
            else:
                self.refusals_left_out += 1

    def write(self) -> None:
        """Writes what was noted. Raises as Backend.insert; then it is kept."""
        with self._lock:
            agents = [self._heard[name] for name in sorted(self._changed)]
            refusals = list(self._refusals)
        if agents:
            self._insert("agents", _agents(agents))
            with self._lock:
                self._changed -= {heard.agent for heard in agents if self._heard[heard.agent] == heard}
        if refusals:
            self._insert("quarantine", _refusals(refusals))
            with self._lock:
                del self._refusals[: len(refusals)]

    def _insert(self, table: str, rows: pa.Table) -> None:
        file = self._directory / table
        with ipc.new_stream(str(file), rows.schema) as stream:
            stream.write_table(rows)
        self._backend.insert(table, rows.column_names, file, token=f"ledger/{table}/{time.time_ns()}")


def _agents(agents: list[Heard]) -> pa.Table:
    return pa.table(
        {
            "agent": pa.array([heard.agent for heard in agents], pa.string()),
            "seen": pa.array([heard.seen_ns // 1_000_000 for heard in agents], _MILLISECONDS),
            "heartbeat": pa.array([json.dumps(heard.heartbeat) for heard in agents], pa.string()),
        }
    )


def _refusals(refusals: list[Refusal]) -> pa.Table:
    rows = [{"time": each.time_ns // 1_000_000, **asdict(each)} for each in refusals]
    kinds = {
        "time": _MILLISECONDS,
        "agent": pa.string(),
        "boot": pa.string(),
        "sequence": pa.uint64(),
        "content": pa.binary(32),
        "size": pa.uint64(),
        "status": pa.uint16(),
        "reason": pa.string(),
        "peer": pa.string(),
    }
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})
