"""Whatever is killed, and whenever: each batch is stored once, and rollups are the sums of what is stored."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from unit.server.store.batches import EPOCH_NS, bytes_in, make_batch
from unit.server.store.sender import send
from unit.server.store.waiting import until
from wiremeter.server.store import DATABASE, Limits, Store, Unavailable, engine, open_store, upkeep
from wiremeter.server.store.schema import HOUR, MINUTE, ROLLUP_DIMENSIONS, rollup_name

TESTS = Path(__file__).parents[3]


def engine_pid(store: Store) -> int:
    pid = store.backend.engine.pid  # type: ignore[attr-defined]
    assert isinstance(pid, int)
    return pid


def expected_bytes(agents: int, count: int, start_ns: int) -> int:
    return sum(
        bytes_in(make_batch(f"agent-{n}", sequence, rows=40, start_ns=start_ns + sequence * 5 * 10**9))
        for n in range(agents)
        for sequence in range(count)
    )


def assert_all_there(store: Store, agents: int, count: int, start_ns: int) -> None:
    rows, octets = agents * count * 40, expected_bytes(agents, count, start_ns)
    sums = store.query(f"SELECT count() AS rows, sum(bytes) AS bytes FROM {DATABASE}.flows").records()
    assert sums == [{"rows": rows, "bytes": octets}]
    assert store.query(f"SELECT count() AS n, sum(rows) AS rows FROM {DATABASE}.batches").records() == [
        {"n": agents * count, "rows": rows}
    ]
    store.close_ended()
    for kind in ROLLUP_DIMENSIONS:
        for size in (MINUTE, HOUR):
            made = f"toDateTime64({store.closed()[size]}, 3)"
            sql = f"SELECT sum(bytes) AS bytes, sum(rows) AS rows FROM {{}} WHERE time < {made}"
            flows = store.query(sql.format("(SELECT time, bytes, 1 AS rows FROM wiremeter.flows)")).records()
            assert store.query(sql.format(f"{DATABASE}.{rollup_name(kind, size)}")).records() == flows, (kind, size)


@pytest.mark.slow
def test_an_engine_that_is_killed_amid_inserts_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(engine, "RESTART_SECONDS_MAX", 0.2)
    rng = random.Random(1)
    agents, count, kills = 4, 60, 0
    began = time.monotonic()

    def now() -> float:
        return EPOCH_NS / 1e9 + (time.monotonic() - began) * 120

    with open_store(str(tmp_path), limits=Limits(group_seconds=0.01), now=now) as store:
        with ThreadPoolExecutor(agents) as threads:
            sending = [threads.submit(send, store, f"agent-{n}", count, EPOCH_NS) for n in range(agents)]
            while kills < 8 and not all(each.done() for each in sending):
                until(lambda: store.query("SELECT 1 AS one").records() == [{"one": 1}])
                time.sleep(rng.uniform(0, 0.4))
                os.kill(engine_pid(store), signal.SIGKILL)
                kills += 1
            for each in sending:
                each.result()
        assert kills >= 3
        assert_all_there(store, agents, count, EPOCH_NS)


@pytest.mark.slow
def test_a_server_that_is_killed_amid_inserts_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rng = random.Random(2)
    agents, count = 4, 40
    command = [sys.executable, "-m", "unit.server.store.sender", str(tmp_path), str(agents), str(count), str(EPOCH_NS)]
    acknowledged: set[tuple[str, str]] = set()
    kills = 0
    while True:
        with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            limit = rng.uniform(1.5, 4.0) if kills < 6 else 300
            killer = threading.Timer(limit, process.kill)
            killer.start()
            for line in process.stdout:
                if not line.endswith("\n"):
                    break  # it was killed amid this line
                agent, sequence, is_new = line.split()
                # What was acknowledged once is never new again.
                assert (is_new == "False") or (agent, sequence) not in acknowledged
                acknowledged.add((agent, sequence))
            killer.cancel()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert kills >= 1
    assert len(acknowledged) == agents * count
    with open_store(str(tmp_path), now=lambda: EPOCH_NS / 1e9 + 86_400) as store:
        assert_all_there(store, agents, count, EPOCH_NS)


def test_an_engine_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wiremeter.server.store.embedded.STATEMENT_SECONDS", 1.0)
    with open_store(str(tmp_path), limits=Limits(group_seconds=0.01)) as store:
        store.insert(make_batch())
        before = engine_pid(store)
        os.kill(before, signal.SIGSTOP)
        with pytest.raises(Unavailable, match="did not answer"):
            store.insert(make_batch(sequence=1))
        until(lambda: store.insert(make_batch(sequence=1)).is_new in (True, False))
        assert engine_pid(store) != before
        assert store.query(f"SELECT count() AS n FROM {DATABASE}.flows").records() == [{"n": 20}]


def test_a_query_whose_engine_dies_says_so_and_the_next_is_answered(tmp_path: Path) -> None:
    with open_store(str(tmp_path)) as store:
        rows = store.query("SELECT sleepEachRow(0.1) FROM numbers(30) SETTINGS max_block_size = 1")
        os.kill(engine_pid(store), signal.SIGKILL)
        with pytest.raises(Unavailable, match="started again"):
            rows.table()
        until(lambda: store.query("SELECT 1 AS one").records() == [{"one": 1}])


def test_the_engine_ends_with_its_server(tmp_path: Path) -> None:
    code = (
        "import sys, time; from wiremeter.server.store import open_store\n"
        "print(open_store(sys.argv[1]).backend.engine.pid, flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        process.kill()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())
