"""Batches on disk until they have arrived, so that they outlive the process, the server's absence, and power cuts.

    000000000017.<sha-256 of the file, hex>.arrows    a batch that waits: the bytes that are sent
    000000000016.sent                                 the last number that was given, if it does not wait any more
    state.json                                        which agent and boot numbers belong to, and what was dropped
    damaged/ refused/                                 batches that were set aside, the newest of them

A file is complete or not there: it is written under another name, synced, renamed, and the directory synced. Its
checksum is its name, so that the file is Arrow and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from wiremeter.errors import InputError
from wiremeter.files import write_whole
from wiremeter.shipment.identity import Identity, new_boot
from wiremeter.sinks.shipping.backlog import Entry, Waiting, oldest

log = logging.getLogger(__name__)

_BATCH = re.compile(r"([0-9]{12})\.([0-9a-f]{64})\.arrows")
_SENT = re.compile(r"([0-9]{12})\.sent")
_STATE = "state.json"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
#: Files that may wait, whatever their size: each takes some 300 bytes of memory.
MAX_BATCHES = 50_000
#: Of the spool's bytes, as many again may lie in each directory of what was set aside.
_ASIDE_PART = 16


class Spool:
    """A directory of batches. A context manager: one process at a time."""

    is_lasting = True

    def __init__(self, directory: Path, agent: str, max_bytes: int) -> None:
        """Makes the directory if need be, and finds what waits in it. max_bytes: of all batches that wait.

        Raises InputError if it cannot be used.
        """
        self._directory, self._agent, self.max_bytes = directory, agent, max_bytes
        self._lock, self._state_lock = threading.Lock(), threading.Lock()
        self._files: dict[Entry, str] = {}  # digests, oldest first
        self._taken: set[Entry] = set()
        self._dropped: Counter[str] = Counter()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(
                f"cannot keep batches in {directory}: {error.strerror}; change --spool-dir, or `none` ships from memory"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._find()
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise InputError(f"another agent keeps batches in {directory}: give each --spool-dir of its own") from error
        except OSError as error:
            os.close(self._descriptor)
            raise InputError(f"cannot use what is in {directory}: {error.strerror}; is it a spool?") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)

    # -- putting

    def next_identity(self) -> Identity:
        return Identity(self._agent, self._boot, self._next - self._first)

    @property
    def next_number(self) -> int:
        """Of the batch that is put next; after a restart, one more than that of the last that was put."""
        with self._lock:
            return self._next

    def put(self, content: bytes) -> None:
        if len(content) > self.max_bytes:
            self.skip("spool_full")
            return
        while self._is_full_with(len(content)) and self._drop_oldest("spool_full"):
            pass
        freed = 0
        while True:
            try:
                self._write(content)
                return
            except OSError as error:
                # Others may fill the disk as fast as room is made: then what waits is not all given up for it.
                if error.errno not in _NO_SPACE or freed > 2 * len(content):
                    raise
                before = self._bytes
                if not self._drop_oldest("disk_full"):
                    raise
                freed += before - self._bytes

    def skip(self, reason: str) -> None:
        self._next += 1
        self._count(reason)

    def _write(self, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        path = self._path(self._next, digest)
        try:
            write_whole(path, content)
        except OSError:
            with contextlib.suppress(OSError):  # its number is still to be given, to a batch that is kept
                path.unlink()
            raise
        with self._lock:
            self._files[Entry(self._next, time.time_ns(), len(content))] = digest
            self._bytes += len(content)
            self._next += 1

    # -- taking

    def take(self, most: int = 1, most_bytes: int = 0) -> list[Entry]:
        with self._lock:
            found = oldest(self._files, most, most_bytes)
            self._taken = set(found)
            return found

    def content(self, entry: Entry) -> bytes | None:
        digest = self._files[entry]
        path = self._path(entry.number, digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            log.error("a batch is missing: somebody else removes files of the spool", extra={"path": str(path)})
            self._give_up(entry, "missing")
            return None
        except OSError as error:
            why = error.strerror
        else:
            if hashlib.sha256(content).hexdigest() == digest:
                return content
            why = "its checksum is another"
        log.error("a batch is damaged and set aside in damaged/", extra={"path": str(path), "why": why})
        self._give_up(entry, "damaged", aside="damaged")
        return None

    def keep(self, entry: Entry) -> None:
        with self._lock:
            self._taken.discard(entry)

    def delivered(self, entry: Entry) -> None:
        self._remove(entry)

    def refused(self, entry: Entry) -> None:
        self._give_up(entry, "refused", aside="refused")

    # -- telling

    @property
    def waiting(self) -> Waiting:
        with self._lock:
            first = next(iter(self._files), None)
            return Waiting(len(self._files), self._bytes, first.queued_ns if first else None)

    @property
    def dropped(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._dropped)

    # -- files; the lock is not held meanwhile, so that a disk that hangs keeps nobody from being told

    def _is_full_with(self, size: int) -> bool:
        return self._bytes + size > self.max_bytes or len(self._files) >= MAX_BATCHES

    def _path(self, number: int, digest: str) -> Path:
        return self._directory / f"{number:012d}.{digest}.arrows"

    def _drop_oldest(self, reason: str) -> bool:
        """Of those that are not on their way."""
        with self._lock:
            first = next((entry for entry in self._files if entry not in self._taken), None)
            if first is None:
                return False
            path, is_last = self._forget(first)
        self._take_away(path, first.number, is_last=is_last)
        self._count(reason)
        return True

    def _give_up(self, entry: Entry, reason: str, aside: str = "") -> None:
        self._remove(entry, aside)
        self._count(reason)

    def _count(self, reason: str) -> None:
        with self._lock:
            self._dropped[reason] += 1
        # No room: it is told to the server all the same, unless this process ends.
        with self._state_lock, contextlib.suppress(OSError):
            self._write_state()

    def _remove(self, entry: Entry, aside: str = "") -> None:
        with self._lock:
            path, is_last = self._forget(entry)
        self._take_away(path, entry.number, is_last=is_last, aside=aside)

    def _forget(self, entry: Entry) -> tuple[Path, bool]:
        """Its file, and whether that has the last number that was given."""
        path = self._path(entry.number, self._files.pop(entry))
        self._bytes -= entry.size
        self._taken.discard(entry)
        return path, entry.number == self._next - 1

    def _take_away(self, path: Path, number: int, *, is_last: bool, aside: str = "") -> None:
        """The last number that was given stays to be seen, or it would be given a second time."""
        try:
            if aside:
                self._set_aside(path, self._directory / aside)
            if is_last:
                path.rename(self._directory / f"{number:012d}.sent")
                self._remove_marks(number)
            else:
                path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("cannot remove a batch from the spool", extra={"path": str(path), "why": error.strerror})

    def _set_aside(self, path: Path, into: Path) -> None:
        into.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(path, into / path.name)
        held = sorted(into.iterdir())
        while len(held) > 1 and sum(file.stat().st_size for file in held) > self.max_bytes // _ASIDE_PART:
            held.pop(0).unlink()

    def _remove_marks(self, below: int) -> None:
        for path in self._directory.glob("*.sent"):
            matched = _SENT.fullmatch(path.name)
            if matched and int(matched[1]) < below:
                path.unlink()

    # -- after a restart

    def _find(self) -> None:
        last = -1
        found: dict[Entry, str] = {}
        for path in sorted(self._directory.iterdir()):
            if path.suffix == ".tmp":
                path.unlink()
            elif matched := _BATCH.fullmatch(path.name):
                about = path.stat()
                found[Entry(int(matched[1]), about.st_mtime_ns, about.st_size)] = matched[2]
                last = max(last, int(matched[1]))
            elif matched := _SENT.fullmatch(path.name):
                last = max(last, int(matched[1]))
        self._files, self._next = found, last + 1
        self._bytes = sum(entry.size for entry in found)
        state = self._read_state()
        if state and state["agent"] == self._agent and state["first"] <= last:
            self._boot, self._first, self._dropped = state["boot"], state["first"], Counter(state["dropped"])
        else:
            self._boot, self._first = new_boot(), self._next
            try:
                self._write_state()
            except OSError as error:  # then this boot ends with the process, and no number is given twice all the same
                log.warning("cannot write the spool's state", extra={"why": error.strerror})
        if found:
            log.info("batches of before wait in the spool", extra={"batches": len(found), "bytes": self._bytes})

    def _read_state(self) -> dict[str, Any] | None:
        path = self._directory / _STATE
        try:
            state = json.loads(path.read_bytes())
            kinds = {"agent": str, "boot": str, "first": int, "dropped": dict}
            if all(isinstance(state[key], kind) for key, kind in kinds.items()):
                return dict(state)
            why = "something is missing in it"
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = str(error)
        log.error("the spool's state is damaged: a new sequence begins", extra={"path": str(path), "why": why})
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(".damaged"))
        return None

    def _write_state(self) -> None:
        state = {"agent": self._agent, "boot": self._boot, "first": self._first, "dropped": self.dropped}
        write_whole(self._directory / _STATE, json.dumps(state).encode())
