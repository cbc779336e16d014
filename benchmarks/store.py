"""The embedded store: how fast it takes flows, how fast it answers, how much room it takes.

20 simulated agents send for a minute as fast as the store takes it, beside a query each second. Then an hour is filled
up to 50 million flows, its minutes closed as they end, and questions are asked. CPU seconds are told beside wall times:
other work on the machine makes the second longer, and hardly the first.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.fleet import SECOND, Agent
from benchmarks.memory import resident_mb
from benchmarks.report import Figure, Progress, figure_of
from wiremeter.server.query.reading import Reads
from wiremeter.server.query.sums import Question, top
from wiremeter.server.query.times import Span
from wiremeter.server.store import DATABASE, Batch, Store, Stored, Unavailable, open_store
from wiremeter.server.store.embedded import Embedded
from wiremeter.server.store.schema import HOUR, MINUTE
from wiremeter.server.store.source import Source, choose

AGENTS = 20
INTERVAL = 5
#: Flows of one batch: at 250,000 a second of 20 agents.
FLOWS = 62_500
INGEST_SECONDS = 60
#: Flows of the store that is asked, all of one hour.
FILLED = 50_000_000
#: Batches that are made of each agent, and sent again and again with other times: as many as memory has room for.
_MADE, _MADE_FOR_HOUR = 3, 24
_ROUNDS = 5


def measure(say: Progress) -> Iterator[Figure]:
    """The figures; at most 3 GB of disk in the directory for temporary files."""
    with tempfile.TemporaryDirectory(prefix="wiremeter-bench-") as directory:
        yield from _ingest(Path(directory) / "ingest", say)
        yield from _ask(Path(directory) / "asked", say)


def _ingest(directory: Path, say: Progress) -> Iterator[Figure]:
    say(f"making batches of {AGENTS} agents, {FLOWS} flows each")
    fleet = _Fleet(FLOWS, _MADE)
    start = int(time.time())
    with open_store(str(directory)) as store:
        say(f"sending for {INGEST_SECONDS} s")
        cpu, own, before = _engine_cpu(store), time.process_time(), _own_mb()
        waits: list[float] = []
        ended = threading.Event()
        asking = threading.Thread(target=_ask_beside, args=(store, start, waits, ended))
        asking.start()
        began = time.monotonic()
        sent: deque[Future[Stored]] = deque()
        step = 0
        while time.monotonic() - began < INGEST_SECONDS:
            for batch in fleet.interval(step, int(time.time()) - INTERVAL):
                _submit(store, batch, sent)
            step += 1
        for future in sent:
            future.result()
        seconds = time.monotonic() - began
        ended.set()
        asking.join()
        residents = (_resident(store), _own_mb() - before)
        rows = store.state.rows_stored
        say(f"{rows:,} flows in {seconds:.1f} s: {rows / seconds:,.0f} a second")
        yield figure_of("store ingest", "wall, beside queries", "µs/flow", [seconds / rows * 1e6], 4.0)
        yield figure_of("store ingest", "CPU, engine", "µs/flow", [(_engine_cpu(store) - cpu) / rows * 1e6])
        yield figure_of("store ingest", "CPU, server", "µs/flow", [(time.process_time() - own) / rows * 1e6])
        yield figure_of("store ingest", "a query meanwhile", "ms", [wait * 1e3 for wait in waits])
        yield figure_of("store ingest", "resident, engine", "MB", [_resident(store)])
        yield figure_of("store ingest", "resident, engine and what the server grew by", "MB", [sum(residents)], 900)


def _ask(directory: Path, say: Progress) -> Iterator[Figure]:
    flows = FILLED // (AGENTS * 3600 // INTERVAL)
    fleet = _Fleet(flows, _MADE_FOR_HOUR)
    hour = int(time.time()) // 3600 * 3600 - 3600
    clock = [float(hour)]
    with open_store(str(directory), now=lambda: clock[0]) as store:
        say(f"filling an hour with {FILLED:,} flows")
        sent: deque[Future[Stored]] = deque()
        closing = _engine_cpu(store)
        spent = 0.0
        for step in range(3600 // INTERVAL):
            for batch in fleet.interval(step, hour + step * INTERVAL):
                _submit(store, batch, sent)
            if step % 60 == 59:
                while sent:
                    sent.popleft().result()
                clock[0] = hour + (step + 1) * INTERVAL
                closing = _engine_cpu(store)
                store.close_ended()
                spent += _engine_cpu(store) - closing
        clock[0] = hour + 3700
        store.close_ended()
        rows = store.state.rows_stored
        say("merging, as the engine does by itself in time")
        store.backend.execute(f"OPTIMIZE TABLE {DATABASE}.flows FINAL")
        sizes = store.query(
            "SELECT table, sum(bytes_on_disk) AS bytes FROM system.parts "
            f"WHERE active AND database = '{DATABASE}' GROUP BY table"
        ).records()
        on_disk = {row["table"]: row["bytes"] for row in sizes}
        yield figure_of("store rollups", "CPU, engine", "µs/flow", [spent / rows * 1e6])
        yield figure_of("store on disk", "flows", "bytes/flow", [on_disk["flows"] / rows], 16)
        rollups = sum(size for name, size in on_disk.items() if name.endswith(("_minute", "_hour")))
        yield figure_of("store on disk", "rollups", "bytes/flow", [rollups / rows])
        yield from _questions(store, hour, say)
        yield figure_of("store questions", "resident, engine", "MB", [_resident(store)], 900)


def _questions(store: Store, hour: int, say: Progress) -> Iterator[Figure]:
    """As /v1/top asks: all four amounts, and the remainder."""
    end, flows = (hour + 3600) * SECOND, _Flows(store)
    asked: dict[str, tuple[Reads, int, tuple[str, ...], float]] = {
        "five minutes, by source, flows alone": (flows, 300, ("src_addr",), 0.3),
        "five minutes, by source": (store, 300, ("src_addr",), 0.3),
        "a day, by source": (store, 86400, ("src_addr",), 0.3),
        "a day, by application and domain": (store, 86400, ("application", "domain"), 0.3),
        "an hour of 50 million flows, by source": (flows, 3600, ("src_addr",), 3.0),
    }
    for what, (reads, seconds, by, target) in asked.items():
        say(f"top 10 of {what}")
        question = Question(span=Span(end - seconds * SECOND, end), by=by)
        walls, cpus = [], []
        for _ in range(_ROUNDS):
            cpu, began = _engine_cpu(store), time.monotonic()
            assert top(reads, question).table().num_rows
            walls.append(time.monotonic() - began)
            cpus.append(_engine_cpu(store) - cpu)
        yield figure_of("store top 10", what, "s", walls, target)
        yield figure_of("store top 10", f"{what}: CPU", "s", cpus)


class _Flows:
    """A store of which only flows are read, whatever rollups there are."""

    def __init__(self, store: Store) -> None:
        self.query = store.query
        self.query_untrusted = store.query_untrusted

    def source(self, columns: Collection[str], start_ns: int, end_ns: int, *, step: int = 0) -> Source:
        made = {MINUTE: 0, HOUR: 0}
        return choose(columns, start_ns // 10**6, end_ns // 10**6, made, step=step, has_partitions=True)


class _Fleet:
    """Agents whose batches are made once, and sent with other times and sequences."""

    def __init__(self, flows: int, made: int) -> None:
        self._made: list[list[Batch]] = []
        for number in range(AGENTS):
            batches = Agent(number, flows, interval=INTERVAL * SECOND).batches(0)
            self._made.append([next(batches) for _ in range(made)])

    def interval(self, step: int, start: int) -> Iterator[Batch]:
        """A batch of each agent. start: seconds since the epoch."""
        for batches in self._made:
            batch = batches[step % len(batches)]
            shift = start * SECOND - batch.about.start_ns
            about = dataclasses.replace(
                batch.about,
                identity=batch.about.identity._replace(sequence=step),
                start_ns=start * SECOND,
                end_ns=(start + INTERVAL) * SECOND,
            )
            flows = batch.tables["flows"]
            for name in ("first_time", "last_time"):
                place = flows.schema.get_field_index(name)
                moved = pc.add(flows[name].cast(pa.int64()), shift).cast(flows[name].type)
                flows = flows.set_column(place, flows.schema.field(place), moved)
            yield dataclasses.replace(
                batch,
                about=about,
                content=step.to_bytes(32, "big"),
                received_ns=about.end_ns,
                tables={"flows": flows.cast(batch.tables["flows"].schema)},
            )


def _submit(store: Store, batch: Batch, sent: deque[Future[Stored]]) -> None:
    while True:
        try:
            sent.append(store.submit(batch))
        except Unavailable:
            time.sleep(0.02)
        else:
            break
    while sent and sent[0].done():
        sent.popleft().result()


def _ask_beside(store: Store, start: int, waits: list[float], ended: threading.Event) -> None:
    sql = (
        f"SELECT src_addr, sum(bytes) AS b FROM {DATABASE}.flows WHERE "
        f"time >= toDateTime64({start - INTERVAL}, 3, 'UTC') "
        "AND agent = 'host-003' GROUP BY src_addr ORDER BY b DESC LIMIT 10"
    )
    while not ended.wait(1):
        began = time.monotonic()
        store.query(sql).table()
        waits.append(time.monotonic() - began)


def _pid(store: Store) -> int:
    pid = cast(Embedded, store.backend).engine.pid
    assert pid is not None
    return pid


def _engine_cpu(store: Store) -> float:
    """CPU seconds of the engine's process, merges included."""
    fields = Path(f"/proc/{_pid(store)}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(store: Store) -> float:
    """MB of the engine's process."""
    return resident_mb(_pid(store))[0]


def _own_mb() -> float:
    """MB of this process, with what it holds ready to send."""
    return resident_mb(os.getpid())[0]
