"""The store: what the rest of the server sees of it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self

from wiremeter.errors import InputError
from wiremeter.server.store.backend import Backend, OnProgress, QueryLimits, Rows, once
from wiremeter.server.store.batch import Batch, Stored
from wiremeter.server.store.closing import Closing
from wiremeter.server.store.embedded import Embedded
from wiremeter.server.store.errors import StoreError, Unavailable
from wiremeter.server.store.journal import Journal
from wiremeter.server.store.ledger import Heard, Ledger, Refusal
from wiremeter.server.store.loader import Limits, Loader
from wiremeter.server.store.migrations import migrate
from wiremeter.server.store.retention import Keep, Retention, keep_days
from wiremeter.server.store.rows import check
from wiremeter.server.store.sandbox import allowed_text
from wiremeter.server.store.source import Source, choose
from wiremeter.server.store.upkeep import Upkeep

_log = logging.getLogger(__name__)

#: What the embedded engine may take for queries, inserts and merges together.
ENGINE_MEMORY_BYTES = 600 << 20
#: Who asks untrusted queries, and how many of each may run at a time: users shall not hold up alert rules.
Asker = Literal["users", "rules"]
UNTRUSTED_MAX: Mapping[Asker, int] = {"users": 2, "rules": 1}
#: How long one waits for its turn.
_UNTRUSTED_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How a store goes, since it was opened. full: why nothing is stored now, None if all is well. disk_…: of the disk
    that the server's part of the store is on; reserve: below that, the oldest data is dropped."""

    batches_stored: int
    rows_stored: int
    batches_waiting: int
    bytes_waiting: int
    engine_restarts: int
    dropped_partitions: int
    dropped_rows: int
    dropped_bytes: int
    refusals_left_out: int
    full: str | None
    disk_free_bytes: int
    disk_reserve_bytes: int


class Store:
    """An open store. All methods may be called from any thread. Close it, or use it as a context."""

    def __init__(
        self,
        backend: Backend,
        directory: Path,
        *,
        limits: Limits,
        keep: Keep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.backend = backend
        self._listeners: tuple[Callable[[Batch], None], ...] = ()
        migrate(backend)
        keep_days(backend, keep)
        self._untrusted = {asker: threading.Semaphore(most) for asker, most in UNTRUSTED_MAX.items()}
        self._closing = Closing(backend, now=now)
        self._retention = Retention(backend, directory, keep)
        self._loader = Loader(
            backend,
            Journal(directory / "journal"),
            self._closing,
            limits=limits,
            gate=self._retention.why_full,
        )
        self._ledger = Ledger(backend, directory / "ledger")
        self._upkeep = Upkeep(
            {
                "making rollups": self._closing.close_ended,
                "writing heartbeats": self._ledger.write,
                # The disks of servers are for their operators to keep.
                **({"dropping old data": self._retention.enforce} if backend.is_alone else {}),
            }
        )

    def submit(self, batch: Batch) -> Future[Stored]:
        """Has a batch stored; the future is done when it is, at the latest with an Unavailable.

        The future's exceptions: Conflict, the identity is stored with other content; Refused, it will never be taken;
        Unavailable, it is not known to be stored, send it again. Raises InputError for tables that are not as
        `conform` makes them, and Unavailable when too much waits.
        """
        if wrong := check(batch):
            raise InputError(f"batch {batch.about.identity}: {wrong}")
        future = self._loader.submit(batch)
        for listener in self._listeners:
            future.add_done_callback(partial(_tell, listener, batch))
        return future

    def on_stored(self, listener: Callable[[Batch], None]) -> None:
        """Has each batch that is stored from now on, and was not before, told to `listener`, which must be quick."""
        self._listeners = (*self._listeners, listener)

    def insert(self, batch: Batch) -> Stored:
        """The same, and waits for it."""
        return self.submit(batch).result()

    def query(
        self, sql: str, parameters: Mapping[str, object] | None = None, *, on_progress: OnProgress | None = None
    ) -> Rows:
        """Runs a query of the server's own; never text that came from a user.

        parameters: values for `{name:Type}` in it. on_progress: called from time to time while it runs, from the
        thread that reads the rows. Tables are named as in `wiremeter.server.store.schema`, with DATABASE in front.
        Raises Refused, TooMuch or Unavailable; reading the rows does, too.
        """
        return self.backend.query(sql, parameters, on_progress=on_progress)

    def query_untrusted(
        self,
        sql: str,
        *,
        limits: QueryLimits | None = None,
        on_progress: OnProgress | None = None,
        asker: Asker = "users",
    ) -> Rows:
        """Runs SQL that came from a user: one SELECT over the store's tables, which are named alone there.

        Raises SqlRefused for what sandbox.py does not allow, TooMuch for what goes beyond the limits, Unavailable when
        UNTRUSTED_MAX of such queries run already; else as `query`.
        """
        places = self._untrusted[asker]
        if not places.acquire(timeout=_UNTRUSTED_WAIT_SECONDS):
            raise Unavailable(f"{UNTRUSTED_MAX[asker]} queries run already; ask again later", retry_after=5)
        release = once(places.release)
        try:
            text = allowed_text(sql, self.backend.one_line)
            rows = self.backend.query_untrusted(text, limits or QueryLimits(), on_progress=on_progress)
        except BaseException:
            release()
            raise
        return rows.then(release)

    def source(self, columns: Collection[str], start_ns: int, end_ns: int, *, step: int = 0) -> Source:
        """What a question about flows is to be read from: rollups where they serve, flows for the rest.

        columns: of flows, all that the question names; `service_port` beside them, the lower of both ports. start_ns,
        end_ns: from start until before end, by the intervals' beginnings, to the millisecond. step: seconds of a time
        series, 0 for one sum. The result's sql is a subquery for FROM; amounts (packets, bytes, skbs, and rows, the
        number of flows) are to be summed. Raises as `query`.
        """
        return choose(
            columns,
            start_ns // 1_000_000,
            end_ns // 1_000_000,
            self._closing.made(),
            step=step,
            has_partitions=self.backend.is_alone,
        )

    def hear(self, heard: Heard) -> None:
        """Notes an agent's heartbeat; it is in table agents some seconds later."""
        self._ledger.hear(heard)

    def heard(self) -> list[Heard]:
        """All agents that ever said something, with the last of it, by name."""
        return self._ledger.heard()

    def refuse(self, refusal: Refusal) -> None:
        """Notes what was refused for good; it is in table quarantine some seconds later."""
        self._ledger.refuse(refusal)

    @property
    def state(self) -> State:
        """How it goes. Costs nothing."""
        waiting, waiting_bytes = self._loader.waiting
        return State(
            batches_stored=self._loader.batches_stored,
            rows_stored=self._loader.rows_stored,
            batches_waiting=waiting,
            bytes_waiting=waiting_bytes,
            engine_restarts=self.backend.restarts,
            dropped_partitions=self._retention.dropped.partitions,
            dropped_rows=self._retention.dropped.rows,
            dropped_bytes=self._retention.dropped.bytes,
            refusals_left_out=self._ledger.refusals_left_out,
            full=self._retention.why_full(),
            disk_free_bytes=self._retention.disk_free_bytes,
            disk_reserve_bytes=self._retention.free_bytes,
        )

    def closed(self) -> Mapping[int, int]:
        """By resolution in seconds, up to when rollups are made, seconds since the epoch. Raises as `query`."""
        return self._closing.made()

    def close_ended(self) -> None:
        """Makes the rollups of minutes and hours that have ended; happens by itself every few seconds."""
        self._closing.close_ended()

    def close(self) -> None:
        """Stores what waits, and closes."""
        self._loader.close()
        self._closing.stop()
        self._upkeep.stop()
        with contextlib.suppress(StoreError):
            self._ledger.write()
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tell(listener: Callable[[Batch], None], batch: Batch, future: Future[Stored]) -> None:
    if not future.cancelled() and future.exception() is None and future.result().is_new:
        listener(batch)


def open_store(
    url: str,
    *,
    directory: str | None = None,
    limits: Limits | None = None,
    keep: Keep | None = None,
    now: Callable[[], float] = time.time,
) -> Store:
    """Opens a store, and makes it if it is not there.

    url: a directory for the embedded engine, or clickhouse://… as `native.parse_url` reads it. directory: of a store at
    a URL, where the server keeps what is on its way there. now: seconds since the epoch; decides which minutes ended.
    Raises InputError for a wrong URL and for a store of a newer wiremeter, Unavailable when it is in use, does not
    start or does not answer.
    """
    backend: Backend
    if "://" in url:
        from wiremeter.server.store.native import Native

        if directory is None:
            raise InputError("a store on a ClickHouse server needs a directory here, for what is on its way there")
        backend = Native(url)
    else:
        directory = directory or url
        backend = Embedded(Path(url), on_lost=_log.error, memory_bytes=ENGINE_MEMORY_BYTES)
    try:
        return Store(backend, Path(directory), limits=limits or Limits(), keep=keep or Keep(), now=now)
    except BaseException:
        backend.close()
        raise
