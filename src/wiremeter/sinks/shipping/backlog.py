"""Batches that wait to be sent: what keeps them must do this. In memory, it does not outlive the process."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple, Protocol

from wiremeter.shipment.identity import Identity, new_boot

#: Why a batch is given up; `wiremeter_ship_dropped_batches_total` and the metadata of later batches count by it.
#: spool_full, memory_full: the oldest made room. disk_full: the same, because the disk had none. damaged: its file is
#: not what was written. missing: it is not there any more. refused: the server will never take it. behind: the next
#: came before it was written. failed: a fault of ours.
REASONS = ("spool_full", "memory_full", "disk_full", "damaged", "missing", "refused", "behind", "failed")


class Entry(NamedTuple):
    """One batch that waits. number: its order. queued_ns: since when, Unix time. size: bytes."""

    number: int
    queued_ns: int
    size: int


class Waiting(NamedTuple):
    """How much waits. oldest_ns: since when the oldest does, Unix time; None where nothing waits."""

    batches: int
    bytes: int
    oldest_ns: int | None


class Backlog(Protocol):
    """Batches in order. One thread puts, another takes; the rest may be called from any."""

    #: Whether what waits outlives the process.
    is_lasting: bool

    def next_identity(self) -> Identity:
        """Of the batch that is put next."""

    def put(self, content: bytes) -> None:
        """Keeps a batch with the identity that was told, and drops the oldest where there is no room otherwise.

        Raises OSError if it cannot be kept: then its identity is still to be given.
        """

    def skip(self, reason: str) -> None:
        """Gives up the batch with the identity that was told; its sequence remains a gap."""

    def take(self, most: int = 1, most_bytes: int = 0) -> list[Entry]:
        """The oldest, one at least if any waits: no more than `most`, and of more bytes together no second one.

        They are not dropped until they are given back, by `keep`, `delivered` or `refused`, or until the next call.
        """

    def content(self, entry: Entry) -> bytes | None:
        """Of an entry that was taken; None if it is lost, which is counted, and then it is given back."""

    def keep(self, entry: Entry) -> None:
        """To be sent again."""

    def delivered(self, entry: Entry) -> None:
        """It has arrived."""

    def refused(self, entry: Entry) -> None:
        """It will never be taken."""

    @property
    def waiting(self) -> Waiting:
        """How much waits."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Batches given up since the boot of `next_identity`, by reason."""


def oldest(entries: Iterable[Entry], most: int, most_bytes: int) -> list[Entry]:
    """What `take` takes of entries in their order.

    >>> oldest([Entry(0, 0, 70), Entry(1, 0, 30), Entry(2, 0, 1)], 16, 100)
    [Entry(number=0, queued_ns=0, size=70), Entry(number=1, queued_ns=0, size=30)]
    """
    found: list[Entry] = []
    size = 0
    for entry in islice(entries, most):
        size += entry.size
        if found and size > most_bytes:
            break
        found.append(entry)
    return found


class MemoryBacklog:
    """Batches in memory. A context manager, for the sake of others that are."""

    is_lasting = False

    def __init__(self, agent: str, max_bytes: int) -> None:
        """max_bytes: of all together; one batch may always wait."""
        self._agent, self._boot, self._next = agent, new_boot(), 0
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._contents: dict[int, bytes] = {}
        self._taken: set[Entry] = set()
        self._dropped: Counter[str] = Counter()
        self._bytes = 0

    def next_identity(self) -> Identity:
        return Identity(self._agent, self._boot, self._next)

    def put(self, content: bytes) -> None:
        with self._lock:
            self._entries.append(Entry(self._next, time.time_ns(), len(content)))
            self._contents[self._next] = content
            self._bytes += len(content)
            self._next += 1
            while self._bytes > self.max_bytes and self._drop_oldest():
                pass

    def skip(self, reason: str) -> None:
        with self._lock:
            self._next += 1
            self._dropped[reason] += 1

    def take(self, most: int = 1, most_bytes: int = 0) -> list[Entry]:
        with self._lock:
            found = oldest(self._entries, most, most_bytes)
            self._taken = set(found)
            return found

    def content(self, entry: Entry) -> bytes | None:
        return self._contents[entry.number]

    def keep(self, entry: Entry) -> None:
        with self._lock:
            self._taken.discard(entry)

    def delivered(self, entry: Entry) -> None:
        with self._lock:
            self._forget(entry)

    def refused(self, entry: Entry) -> None:
        with self._lock:
            self._forget(entry)
            self._dropped["refused"] += 1

    @property
    def waiting(self) -> Waiting:
        with self._lock:
            since_ns = self._entries[0].queued_ns if self._entries else None
            return Waiting(len(self._entries), self._bytes, since_ns)

    @property
    def dropped(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._dropped)

    def _drop_oldest(self) -> bool:
        """Of those that are not on their way; the newest stays."""
        first = next((entry for entry in self._entries if entry not in self._taken), None)
        if first is None or first == self._entries[-1]:
            return False
        self._forget(first)
        self._dropped["memory_full"] += 1
        return True

    def _forget(self, entry: Entry) -> None:
        self._entries.remove(entry)
        self._bytes -= entry.size
        del self._contents[entry.number]
        self._taken.discard(entry)
