"""Stores batches, each once: one thread, which puts those that wait into groups and inserts a group at a time.

A group is one insert a table: an insert of its own for every table of every batch would cost the engine more than the
rows do. Whoever waits for a batch is told when its group is stored, and not before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from wiremeter.errors import WiremeterError
from wiremeter.server.store.backend import Backend
from wiremeter.server.store.batch import Batch, Stored
from wiremeter.server.store.closing import Closing
from wiremeter.server.store.errors import Conflict, Refused, Unavailable
from wiremeter.server.store.journal import Group, Journal
from wiremeter.server.store.rows import group_tables
from wiremeter.server.store.schema import DATABASE
from wiremeter.server.store.sql import quoted
from wiremeter.shipment.identity import Identity

_log = logging.getLogger(__name__)

#: Refusals that pass: TOO_MANY_PARTS, MEMORY_LIMIT_EXCEEDED, NOT_ENOUGH_SPACE, TABLE_IS_READ_ONLY, and no free file.
_PASSING = frozenset({252, 241, 243, 242, 76, 74, 75})
#: Seconds until a group that failed is tried again; twice as many each time, up to the second.
_RETRY_SECONDS, _RETRY_SECONDS_MAX = 0.5, 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How batches are put together. group_rows, group_bytes: of one group, unless one batch has more.
    group_seconds: the least time from one group to the next. waiting_bytes: of all that wait; more is turned away."""

    group_rows: int = 500_000
    group_bytes: int = 64 << 20
    group_seconds: float = 1.0
    waiting_bytes: int = 128 << 20


@dataclass(slots=True)
class _Waiting:
    batch: Batch
    size: int
    future: Future[Stored] = field(default_factory=Future)


class Loader:
    """The thread, and what waits for it.

    gate: says why nothing may be stored now, None if all is well. Starts with what the journal holds.
    """

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        closing: Closing,
        *,
        limits: Limits,
        gate: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._backend = backend
        self._journal = journal
        self._closing = closing
        self._limits = limits
        self._gate = gate
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._is_closed = False
        self._pending = deque((group, closing.begin_again()) for group in journal.groups())
        self._newest: dict[tuple[str, str], int] | None = None
        self.rows_stored = 0
        self.batches_stored = 0
        self._thread = threading.Thread(target=self._run, name="store-loader", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch) -> Future[Stored]:
        """Has a batch stored. Raises Unavailable when too much waits."""
        size = batch.size_bytes  # once: Arrow adds up all buffers each time
        waiting = _Waiting(batch, size)
        waiting.future.set_running_or_notify_cancel()  # whoever stops waiting does not stop the group
        with self._changed:
            if self._is_closed:
                raise Unavailable("the store is closed")
            if self._waiting and self._waiting_bytes + size > self._limits.waiting_bytes:
                raise Unavailable("more batches wait than the store keeps up with; send it again later", retry_after=2)
            self._waiting.append(waiting)
            self._waiting_bytes += size
            self._changed.notify_all()
        return waiting.future

    @property
    def waiting(self) -> tuple[int, int]:
        """Batches that wait, and their bytes."""
        with self._changed:
            return len(self._waiting), self._waiting_bytes

    def close(self) -> None:
        """Stores what waits, and ends. Batches that cannot be stored now fail with Unavailable."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        retry = _RETRY_SECONDS
        began = 0.0
        while True:
            group = self._next_group(began + self._limits.group_seconds)
            if not group and self._is_closed:
                return
            began = time.monotonic()
            try:
                self._finish_pending()
                self._store(group)
                retry = _RETRY_SECONDS
            except WiremeterError as error:
                self._fail(group, error, retry)
                self._pause(retry)
                retry = min(2 * retry, _RETRY_SECONDS_MAX)
            except Exception as error:  # whoever waits must hear of it, whatever it was
                _log.exception("storing batches failed")
                self._fail(group, Unavailable(f"storing it failed: {error}", retry_after=retry), retry)
                self._pause(retry)

    def _next_group(self, not_before: float) -> list[_Waiting]:
        """Waits for batches; at once empty if a group is pending, or when it is closed and none waits."""
        limits = self._limits
        group: list[_Waiting] = []
        rows = size = 0
        with self._changed:
            while not (self._waiting or self._is_closed or self._pending):
                self._changed.wait()
            while not self._is_closed and (rest := not_before - time.monotonic()) > 0:
                if sum(each.batch.rows for each in self._waiting) >= limits.group_rows:
                    break
                self._changed.wait(rest)
            while self._waiting and (not group or (rows < limits.group_rows and size < limits.group_bytes)):
                waiting = self._waiting.popleft()
                group.append(waiting)
                rows += waiting.batch.rows
                size += waiting.size
            self._waiting_bytes -= size
        return group

    def _pause(self, seconds: float) -> None:
        with self._changed:
            if not self._is_closed:
                self._changed.wait(seconds)

    @staticmethod
    def _fail(group: Iterable[_Waiting], error: WiremeterError, retry: float) -> None:
        if not isinstance(error, Unavailable):
            error = Unavailable(f"the store could not take it: {error}", retry_after=retry)
        _log.warning("batches were not stored: %s", error)
        for waiting in group:
            if not waiting.future.done():
                waiting.future.set_exception(error)

    def _finish_pending(self) -> None:
        """Does again what was cut off; only then is it known what is stored. Raises as Backend.insert."""
        while self._pending:
            self._insert(self._pending[0][0])
            self._forget_pending()
            self._newest = None
        if self._newest is None:
            self._newest = self._newest_stored()

    def _forget_pending(self) -> None:
        group, ticket = self._pending.popleft()
        group.forget()
        self._closing.end(ticket)

    def _store(self, group: Sequence[_Waiting]) -> None:
        if not group:
            return
        if why := self._gate():
            raise Unavailable(why, retry_after=30)
        contents = self._contents([each.batch.about.identity for each in group])
        fresh: list[_Waiting] = []
        again: list[_Waiting] = []
        for waiting in group:
            identity = waiting.batch.about.identity
            known = contents.get(identity)
            if known is None:
                contents[identity] = waiting.batch.content
                fresh.append(waiting)
            elif known == waiting.batch.content:
                again.append(waiting)
            else:
                waiting.future.set_exception(_conflict(identity))
        if fresh:
            self._store_fresh(fresh)
        for waiting in again:
            waiting.future.set_result(Stored(is_new=False))

    def _store_fresh(self, fresh: list[_Waiting]) -> None:
        """Stores batches that are not stored. Where the engine refuses them together, it is asked for each alone."""
        batches = [each.batch for each in fresh]
        ticket, closed = self._closing.begin(min(batch.about.start_ns for batch in batches) / 1e9)
        try:
            group = self._journal.write(f"{time.time_ns():020d}", group_tables(batches, closed))
        except BaseException as error:
            self._closing.end(ticket)
            if isinstance(error, OSError):
                raise Unavailable(f"the store's journal cannot be written: {error}", retry_after=5) from error
            raise
        self._pending.append((group, ticket))
        try:
            self._insert(group)
        except _RefusedAtOnce as error:
            self._forget_pending()
            if len(fresh) > 1:
                for waiting in fresh:
                    self._store_fresh([waiting])
            else:
                fresh[0].future.set_exception(Refused(str(error), code=error.code))
            return
        self._forget_pending()
        for waiting in fresh:
            identity = waiting.batch.about.identity
            if self._newest is not None:
                key = identity.agent, identity.boot
                self._newest[key] = max(self._newest.get(key, -1), identity.sequence)
            self.rows_stored += waiting.batch.rows
            self.batches_stored += 1
            waiting.future.set_result(Stored(is_new=True))

    def _insert(self, group: Group) -> None:
        for place, insert in enumerate(group.inserts):
            try:
                self._backend.insert(insert.table, insert.columns, insert.file, token=insert.token)
            except Refused as error:
                if error.code in _PASSING:
                    raise Unavailable(f"the store cannot take rows now: {error}", retry_after=5) from error
                if place == 0:
                    raise _RefusedAtOnce(str(error), code=error.code) from error
                raise

    def _newest_stored(self) -> dict[tuple[str, str], int]:
        """The newest sequence that is stored of each agent's boots."""
        sql = f"SELECT agent, boot, max(sequence) AS sequence FROM {DATABASE}.batches GROUP BY agent, boot"
        rows = self._backend.query(sql).records()
        return {(row["agent"], row["boot"]): row["sequence"] for row in rows}

    def _contents(self, identities: Sequence[Identity]) -> dict[Identity, bytes]:
        """The content hashes of those that are stored."""
        newest = self._newest if self._backend.is_alone else None
        doubtful = [
            identity
            for identity in identities
            if newest is None or identity.sequence <= newest.get((identity.agent, identity.boot), -1)
        ]
        if not doubtful:
            return {}
        keys = ", ".join(f"({quoted(each.agent)}, {quoted(each.boot)}, {each.sequence})" for each in doubtful)
        sql = f"SELECT agent, boot, sequence, content FROM {DATABASE}.batches WHERE (agent, boot, sequence) IN ({keys})"
        return {
            Identity(row["agent"], row["boot"], row["sequence"]): row["content"]
            for row in self._backend.query(sql).records()
        }


class _RefusedAtOnce(Refused):
    """The first insert of a group was refused, so nothing of it is stored."""


def _conflict(identity: Identity) -> Conflict:
    return Conflict(
        f"batch {identity.sequence} of agent {identity.agent}, boot {identity.boot}, is stored with other content; "
        "two agents with one id, or a state directory that was restored?"
    )
