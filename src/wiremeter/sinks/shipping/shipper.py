"""Batches from the meter to the server: written down by one thread, sent by others, so that metering never waits."""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from wiremeter import __version__
from wiremeter.flows.batch import Attachment, FlowBatch, Health, Tally
from wiremeter.flows.filter import Filter
from wiremeter.reports.findings import Finding, findings
from wiremeter.shipment.identity import About, Identity
from wiremeter.sinks.shipping.backlog import Backlog, Entry, MemoryBacklog, Waiting
from wiremeter.sinks.shipping.delivery import Connection, Outcome, Server
from wiremeter.sinks.shipping.encode import encode
from wiremeter.sinks.shipping.left_out import LeftOut, leave_out
from wiremeter.sinks.shipping.spool import Spool

log = logging.getLogger(__name__)

#: Batches that wait to be written down; each holds its flows' 88 bytes.
_HANDED = 2
#: Batches that are on their way at a time, at most, where many wait: the answer to one takes a round trip and the time
#: that the server gathers batches for. And their bytes: each is in memory meanwhile.
_AT_A_TIME, _ROUND_BYTES = 16, 4 << 20
#: Between tries: from one to the other, doubled each time, half of it by chance, so that agents do not come in step.
_FIRST_TRY_SECONDS, _LAST_TRY_SECONDS = 1.0, 60.0
#: Where somebody must do something first.
_UNAUTHORIZED_SECONDS = 60.0
#: What goes on for long is logged this often.
_REPEAT_SECONDS = 60.0
#: At the end, so long for what waits.
_LAST_SECONDS = 5.0
#: What is to be tried again.
_FAILED = ("unauthorized", "later")
_FAULT = Outcome("later", "server", "a fault of wiremeter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a shipper is told. Those that a running one takes: all but agent and spool_dir.

    spool_dir: None ships from memory. rate: bytes a second. heartbeat: seconds. ignore: what is not shipped.
    """

    agent: str
    server: Server
    spool_dir: Path | None
    spool_bytes: int
    memory_bytes: int
    rate: int
    heartbeat: float
    ignore: Sequence[Filter] = ()


@dataclass(slots=True)
class Progress:
    """What was done so far. Counts only grow; by verdict of what was sent, and by cause of what failed."""

    sent: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)  # (expression, "packets", …)
    last_success: float = 0.0  # Unix time


class State(NamedTuple):
    """A shipper's state: what /metrics and heartbeats tell.

    identity: of the next batch. waiting: on disk and in memory. dropped: by reason. findings: of shipping. attachments,
    found: of the last batch, and the findings of that.
    """

    identity: Identity
    progress: Progress
    waiting: dict[str, Waiting]
    dropped: dict[str, int]
    findings: tuple[Finding, ...]
    attachments: tuple[Attachment, ...]
    found: tuple[Finding, ...]


class Shipper:
    """Ships from `write` on until `close`. A context manager."""

    def __init__(
        self,
        options: Options,
        heartbeat: Callable[[State], bytes] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """heartbeat: makes the body of one; None: none are sent.

        Raises InputError for a server or a spool that cannot be used.
        """
        self._options = options
        self._heartbeat = heartbeat
        self._chance = chance
        self._connection = Connection(options.server, _AT_A_TIME)
        self._width = 1
        self._memory = MemoryBacklog(options.agent, options.memory_bytes)
        self._spool = Spool(options.spool_dir, options.agent, options.spool_bytes) if options.spool_dir else None
        self._backlogs: tuple[Backlog, ...] = (self._spool, self._memory) if self._spool else (self._memory,)
        self._handed: queue.Queue[FlowBatch | None] = queue.Queue(_HANDED)
        self._behind = 0
        self._progress = Progress()
        self._health = Health()
        self._attachments: tuple[Attachment, ...] = ()
        self._found: tuple[Finding, ...] = ()
        self._disk_trouble = ""
        self._trouble: Outcome | None = None
        self._troubled_since = self._trouble_said = self._dropped_said = 0.0
        self._dropped_before: Counter[str] = Counter()
        self._news = threading.Event()
        self._written = threading.Event()
        self._lock = threading.Lock()
        self._is_closing = self._is_changed = False
        self._writer = threading.Thread(target=self._write_down, name="ship-write", daemon=True)
        self._sender = threading.Thread(target=self._send, name="ship-send", daemon=True)

    def __enter__(self) -> Shipper:
        log.info("shipping", extra={"server": self._options.server.url, "agent": self._options.agent})
        if not self._spool:
            log.warning("batches wait in memory and are lost with the process: --spool-dir keeps them on disk")
        self._writer.start()
        self._sender.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def agent(self) -> str:
        """What the server knows this agent by."""
        return self._options.agent

    def write(self, batch: FlowBatch) -> None:
        """Hands a batch over. It waits for nothing: if the disk is too slow, the batch is dropped and counted."""
        self._written.clear()
        try:
            self._handed.put_nowait(batch)
        except queue.Full:
            with self._lock:
                self._behind += 1
            self._written.set()

    def wait_written(self, seconds: float) -> None:
        """Until the batch that was handed over last is in the spool, or given up; no longer than `seconds`."""
        self._written.wait(seconds)

    @property
    def next_number(self) -> int | None:
        """Of the batch that the spool takes next, over restarts; None without one."""
        return self._spool.next_number if self._spool else None

    def change(self, options: Options) -> None:
        """Takes other options, but for agent and spool_dir. Raises InputError and changes nothing if they are wrong."""
        connection = Connection(options.server, _AT_A_TIME)
        with self._lock:
            self._options = options
            self._connection, before = connection, self._connection
            self._memory.max_bytes = options.memory_bytes
            if self._spool:
                self._spool.max_bytes = options.spool_bytes
        before.close()
        self._is_changed = True
        self._news.set()

    def close(self) -> None:
        """Writes down what was handed over, sends for a few seconds more, and says what did not arrive."""
        # A disk that hangs is not to keep the agent from ending.
        with contextlib.suppress(queue.Full):
            self._handed.put(None, timeout=_LAST_SECONDS)
        self._writer.join(_LAST_SECONDS)
        if self._writer.is_alive():
            log.error("a batch is lost: it could not be written down in time")
        self._is_closing = True
        self._news.set()
        self._sender.join(_LAST_SECONDS + 1)
        waiting = self._memory.waiting
        if waiting.batches:
            log.warning("batches are lost: they waited in memory", extra={"batches": waiting.batches})
        if self._spool:
            if left := self._spool.waiting.batches:
                log.info("batches wait in the spool for the next start", extra={"batches": left})
            if not (self._writer.is_alive() or self._sender.is_alive()):
                self._spool.__exit__()

    @property
    def state(self) -> State:
        """How it goes. From any thread."""
        waiting = {"memory": self._memory.waiting} | ({"disk": self._spool.waiting} if self._spool else {})
        now = self._progress
        progress = replace(
            now,  # other threads count on meanwhile: a dict is copied at once, a Counter is not
            sent=Counter(dict(now.sent)),
            failures=Counter(dict(now.failures)),
            left_out=Counter(dict(now.left_out)),
        )
        return State(
            self._backlogs[0].next_identity(),
            progress,
            waiting,
            dict(self._dropped()),
            tuple(self._findings()),
            self._attachments,
            self._found,
        )

    def _dropped(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for backlog in self._backlogs:
            total.update(backlog.dropped)
        return total

    def _findings(self) -> Iterator[Finding]:
        if trouble := self._trouble:
            yield Finding("not_shipping", "fault", reason=trouble.why)
        if not self._spool:
            yield Finding("from_memory", "warning", reason="there is no spool")
        elif self._disk_trouble:
            yield Finding("from_memory", "fault", reason=self._disk_trouble)

    # -- the thread that writes down

    def _write_down(self) -> None:
        while (batch := self._handed.get()) is not None:
            with self._lock:
                behind, self._behind = self._behind, 0
            for _ in range(behind):
                self._backlogs[0].skip("behind")
            try:
                self._keep(batch)
            except Exception:
                log.exception("a batch cannot be shipped: a fault of wiremeter, please report it")
                self._backlogs[0].skip("failed")
            del batch
            if self._handed.empty():
                self._written.set()
            self._tell_dropped()
            self._news.set()

    def _keep(self, batch: FlowBatch) -> None:
        found = findings(batch, self._health)
        self._health, self._attachments, self._found = batch.health, batch.attachments, found
        batch, left_out = leave_out(batch, self._options.ignore)
        for each in left_out:
            self._count_left_out(each)
        for backlog in self._backlogs:
            about = About(
                identity=backlog.next_identity(),
                mode=batch.mode,
                start_ns=batch.start_ns,
                end_ns=batch.end_ns,
                version=__version__,
                dropped=backlog.dropped,
            )
            content = encode(batch, about, findings=(*found, *self._findings()), left_out=left_out)
            try:
                backlog.put(content)
            except OSError as error:
                self._tell_disk(error.strerror or str(error))
                continue
            if backlog.is_lasting:
                self._tell_disk("")
            return

    def _count_left_out(self, found: LeftOut) -> None:
        counts = self._progress.left_out
        if found.transactions is None:
            for name, amount in zip(Tally._fields, found.tally, strict=True):
                counts[found.expression, name] += amount
        else:
            counts[found.expression, "transactions"] += found.transactions

    def _tell_disk(self, why: str) -> None:
        if why and not self._disk_trouble:
            log.error("batches cannot be written to the spool, and wait in memory", extra={"why": why})
        if self._disk_trouble and not why:
            log.info("batches are written to the spool again")
        self._disk_trouble = why

    def _tell_dropped(self) -> None:
        dropped = self._dropped()
        gained = dropped - self._dropped_before
        if gained and time.monotonic() - self._dropped_said >= _REPEAT_SECONDS:
            log.warning("batches given up", extra=dict(gained))
            self._dropped_before, self._dropped_said = dropped, time.monotonic()

    # -- the thread that sends

    def _send(self) -> None:
        """Sends what waits, the oldest first, and heartbeats in between."""
        tries = 0
        not_before = beat_due = time.monotonic()
        while not self._is_closing:
            now = time.monotonic()
            backlog = self._next_backlog()
            due = max(not_before, now if backlog else beat_due)
            if due > now:
                if self._news.wait(due - now):
                    self._news.clear()
                    if self._is_changed:
                        self._is_changed, not_before = False, now
                continue
            try:
                if now >= beat_due:
                    beat_due = now + self._options.heartbeat
                    size, outcome = self._send_heartbeat()
                else:
                    assert backlog
                    size, outcome = self._send_round(backlog)
            except Exception:
                log.exception("sending failed: a fault of wiremeter, please report it")
                self._progress.failures[_FAULT.cause] += 1
                size, outcome = 0, _FAULT
            if outcome.verdict in _FAILED:
                not_before = time.monotonic() + self._patience(outcome, tries)
                tries += 1
            else:
                not_before = now + size / self._options.rate
                tries = 0
            self._tell(outcome)
        if not tries:
            self._send_last()

    def _send_last(self) -> None:
        """What waits, without a bound on its rate, as long as it goes well."""
        end = time.monotonic() + _LAST_SECONDS
        while time.monotonic() < end and (backlog := self._next_backlog()):
            _, outcome = self._send_round(backlog)
            if outcome.verdict in _FAILED:
                return

    def _next_backlog(self) -> Backlog | None:
        """The one whose oldest has waited longest."""
        waiting = [(oldest, at) for at, b in enumerate(self._backlogs) if (oldest := b.waiting.oldest_ns) is not None]
        return self._backlogs[min(waiting)[1]] if waiting else None

    def _send_round(self, backlog: Backlog) -> tuple[int, Outcome]:
        """The oldest batches at the same time: twice as many as the last time, and one alone after a failure.

        Returns their bytes, and what came of it: of one that failed, if any did.
        """
        width, self._width = self._width, 1
        taken = backlog.take(width, _ROUND_BYTES)
        contents = {entry: content for entry in taken if (content := backlog.content(entry)) is not None}
        outcomes = self._post(list(contents.values()))
        for entry, outcome in zip(contents, outcomes, strict=True):
            self._settle(backlog, entry, outcome)
        size = sum(entry.size for entry in contents)
        if failed := [outcome for outcome in outcomes if outcome.verdict in _FAILED]:
            return size, max(failed, key=lambda outcome: outcome.retry_seconds or 0.0)
        self._width = min(2 * width, _AT_A_TIME)
        return size, Outcome("known")

    def _post(self, contents: Sequence[bytes]) -> list[Outcome]:
        """What came of each; all at the same time."""
        connection = self._connection
        outcomes = [_FAULT] * len(contents)

        def post(place: int) -> None:
            outcomes[place] = connection.batch(contents[place])

        # Daemons: an answer that does not come is not to keep the agent from ending.
        others = [threading.Thread(target=post, args=(place,), daemon=True) for place in range(1, len(contents))]
        for other in others:
            other.start()
        if contents:
            post(0)
        for other in others:
            other.join()
        return outcomes

    def _settle(self, backlog: Backlog, entry: Entry, outcome: Outcome) -> None:
        """What came of a batch is kept in its backlog, and counted."""
        progress = self._progress
        if outcome.verdict in ("stored", "known"):
            backlog.delivered(entry)
            progress.last_success = time.time()
            progress.sent_bytes += entry.size
            progress.sent[outcome.verdict] += 1
        elif outcome.verdict == "refused":
            log.error("the server refuses a batch for ever; it is set aside", extra={"why": outcome.why})
            backlog.refused(entry)
            progress.sent["refused"] += 1
        else:
            backlog.keep(entry)
            progress.failures[outcome.cause] += 1

    def _send_heartbeat(self) -> tuple[int, Outcome]:
        if not self._heartbeat:
            return 0, Outcome("known")
        outcome = self._connection.heartbeat(self._heartbeat(self.state))
        if outcome.verdict == "refused":
            log.error("the server refuses a heartbeat", extra={"why": outcome.why})
        elif outcome.verdict == "stored":
            self._progress.last_success = time.time()
        else:
            self._progress.failures[outcome.cause] += 1
        return 0, outcome

    def _patience(self, outcome: Outcome, tries: int) -> float:
        if outcome.retry_seconds is not None:
            return outcome.retry_seconds + self._chance() * _FIRST_TRY_SECONDS
        longest = min(_FIRST_TRY_SECONDS * (1 << min(tries, 30)), _LAST_TRY_SECONDS)
        if outcome.verdict == "unauthorized":
            longest = _UNAUTHORIZED_SECONDS
        return longest * (0.5 + self._chance() / 2)

    def _tell(self, outcome: Outcome) -> None:
        """Says that it goes wrong when that begins, now and then while it lasts, and that it goes well again."""
        now = time.monotonic()
        if outcome.verdict in _FAILED:
            if not self._trouble:
                self._troubled_since = now
            if not self._trouble or now - self._trouble_said >= _REPEAT_SECONDS:
                level = logging.ERROR if outcome.verdict == "unauthorized" else logging.WARNING
                waiting = [backlog.waiting for backlog in self._backlogs]
                fields = {"why": outcome.why, "waiting": sum(each.batches for each in waiting)}
                log.log(level, "batches do not arrive at the server, and wait", extra=fields)
                self._trouble_said = now
            self._trouble = outcome
        elif self._trouble:
            self._trouble = None
            log.info("batches arrive at the server again", extra={"after_seconds": round(now - self._troubled_since)})
