"""What was read of pinned tables and not told yet, in files: who is killed in between leaves it to the next agent.

The files have to outlive the process, not the host: tables do not outlive that either. So nothing is synced.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import Hook
from wiremeter.flows.batch import Mark
from wiremeter.flows.columns import FLOW

log = logging.getLogger(__name__)

_NAME = re.compile(r"(\d{10})\.drain")
#: What is not told for so long that it takes more than this stays in memory alone.
MAX_BYTES = 1 << 30


class Journal:
    """Drains by the number of their flip. Of one agent at a time: who holds the lock of the pins."""

    def __init__(self, directory: Path, told: Mark | None) -> None:
        """told: what the last agent had told, by its own state. Raises OSError if the directory cannot be made."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._told = told
        self._tables = ""
        self._flips: dict[int, int] = {}  # bytes
        self._book = threading.Lock()  # drains come from one thread and are told by another
        self._trouble = ""

    @property
    def told(self) -> Mark | None:
        """How far these tables were told."""
        return self._told if self._told and self._told.tables == self._tables else None

    def open(self, tables: str) -> None:
        """Looks for drains of these tables; those of others, which are no more, are removed, and that is said."""
        self._tables = tables
        for path in sorted(self._directory.iterdir()):
            matched = _NAME.fullmatch(path.name)
            if matched and self._about(path).get("tables") == tables:
                self._flips[int(matched[1])] = path.stat().st_size
                continue
            if matched:
                log.warning("what was read and not told is of tables that are gone", extra={"file": path.name})
            if path.suffix != ".damaged":
                path.unlink()
        self.forget(self.told)

    def has(self, flip: int) -> bool:
        """Whether what a flip brought is here, or was told before."""
        return flip in self._flips or (self.told is not None and flip <= self.told.flip)

    def put(self, drain: Drain, hooks: Mapping[int, Hook]) -> None:
        """Keeps a drain until it is told. hooks: of its slots. Logs what prevents it."""
        try:
            with self._book:
                if sum(self._flips.values()) > MAX_BYTES:
                    raise OSError(0, f"{len(self._flips)} drains wait to be told already")
            part = self._directory / "part"
            with part.open("wb") as file:
                _write(file, self._tables, drain, hooks)
                size = file.tell()
            part.rename(self._path(drain.flip))
        except OSError as error:
            if not self._trouble:
                log.error(
                    "what is read of pinned tables is lost if the agent is killed before it has told it",
                    extra={"why": error.strerror},
                )
            self._trouble = error.strerror or "?"
        else:
            self._trouble = ""
            with self._book:
                self._flips[drain.flip] = size

    def waiting(self) -> Iterator[tuple[Drain, dict[int, Hook]]]:
        """What was not told, oldest first, with the hooks of its slots. A damaged one is set aside and said."""
        for flip in sorted(self._flips):
            path = self._path(flip)
            try:
                with path.open("rb") as file:
                    yield _read(file)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.error(
                    "what was read and not told is damaged and set aside",
                    extra={"path": str(path), "why": str(error)},
                )
                path.rename(path.with_suffix(".damaged"))
                del self._flips[flip]

    def forget(self, told: Mark | None) -> None:
        """Removes what has been told."""
        if told is None or told.tables != self._tables:
            return
        with self._book:
            self._told = told
            done = [flip for flip in self._flips if flip <= told.flip]
            for flip in done:
                del self._flips[flip]
        for flip in done:
            self._path(flip).unlink(missing_ok=True)

    def _path(self, flip: int) -> Path:
        return self._directory / f"{flip:010d}.drain"

    @staticmethod
    def _about(path: Path) -> dict[str, Any]:
        try:
            with path.open("rb") as file:
                return dict(_about(file))
        except (OSError, ValueError, TypeError):
            return {}


def _write(file: BinaryIO, tables: str, drain: Drain, hooks: Mapping[int, Hook]) -> None:
    used = np.flatnonzero(drain.counters)
    about = {
        "tables": tables,
        "flip": drain.flip,
        "ended_ns": drain.ended_ns,
        "peak_lines": drain.peak_lines,
        "shape": drain.counters.shape,
        "reasons": records.REASONS,
        "hooks": {slot: asdict(hook) for slot, hook in hooks.items()},
        "unreadable": drain.unreadable,
        "flows": len(drain.flows),
    }
    np.save(file, np.frombuffer(json.dumps(about).encode(), np.uint8))
    arrays = (used, drain.counters.reshape(-1)[used], drain.ethertypes, drain.payloads, drain.lost_payloads)
    for array in (*arrays, *drain.flows):
        np.save(file, array)


def _about(file: BinaryIO) -> Any:
    return json.loads(np.load(file, allow_pickle=False).tobytes())


def _read(file: BinaryIO) -> tuple[Drain, dict[int, Hook]]:
    about = _about(file)
    used, values, ethertypes, payloads, lost_payloads, *flows = (
        np.load(file, allow_pickle=False) for _ in range(5 + about["flows"])
    )
    counters = np.zeros(about["shape"], np.uint64)
    counters.reshape(-1)[used] = values
    if tuple(about["reasons"]) != records.REASONS or any(rows.dtype != FLOW for rows in flows):
        raise ValueError("another version of wiremeter wrote it")
    drain = Drain(
        counters=counters,
        flows=flows,
        ethertypes=ethertypes,
        payloads=payloads,
        lost_payloads=lost_payloads,
        peak_lines=about["peak_lines"],
        flip=about["flip"],
        ended_ns=about["ended_ns"],
    )
    drain.unreadable = {int(slot): tuple(tally) for slot, tally in about["unreadable"].items()}
    return drain, {int(slot): Hook(**hook) for slot, hook in about["hooks"].items()}
