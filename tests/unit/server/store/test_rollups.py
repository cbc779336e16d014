"""Rollups are sums of what is stored, whenever it came, and answers from them are those from flows."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unit.server.store.batches import EPOCH_NS, make_batch
from wiremeter.server.store import DATABASE, Limits, Store, open_store
from wiremeter.server.store.rollups import BUILD_SETTINGS
from wiremeter.server.store.schema import HOUR, MINUTE, ROLLUP_AMOUNTS, ROLLUP_DIMENSIONS, SERVICE_PORT, rollup_name
from wiremeter.server.store.source import choose

SECOND = 10**9
TABLES = [(kind, size) for kind in ROLLUP_DIMENSIONS for size in (MINUTE, HOUR)]


def send(store: Store, agent: str, seconds: range, *, boot: int = 1) -> None:
    """A batch for each of these seconds after the epoch."""
    futures = [
        store.submit(
            make_batch(
                agent,
                sequence,
                rows=50,
                seed=sequence + boot * 1000,
                start_ns=EPOCH_NS - HOUR * SECOND + second * SECOND,
                boot=f"00000000-0000-0000-0000-{boot:012}",
            )
        )
        for sequence, second in enumerate(seconds)
    ]
    for future in futures:
        future.result()


def sums(store: Store, source: str, keys: str) -> list[dict[str, Any]]:
    amounts = ", ".join(f"sum({name}) AS {name}" for name in ROLLUP_AMOUNTS)
    return store.query(f"SELECT {keys}, {amounts} FROM {source} GROUP BY ALL ORDER BY ALL").records()


def assert_sums_agree(store: Store, agent: str) -> None:
    made = store.closed()
    for kind, size in TABLES:
        dimensions = ", ".join(ROLLUP_DIMENSIONS[kind])
        period = f"toStartOfInterval(time, INTERVAL {size} SECOND) AS period"
        ours = f"(SELECT * FROM {DATABASE}.{rollup_name(kind, size)} WHERE agent = '{agent}')"
        flows = (
            f"(SELECT *, {SERVICE_PORT} AS service_port, toUInt64(1) AS rows FROM {DATABASE}.flows "
            f"WHERE agent = '{agent}' AND time < toDateTime64({made[size]}, 3))"
        )
        found, expected = sums(store, ours, f"{period}, {dimensions}"), sums(store, flows, f"{period}, {dimensions}")
        assert expected
        assert found == expected, (kind, size)


class Clock:
    """Seconds since the epoch, as a test has it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[tuple[Store, Clock]]:
    """A store of its own, in which nothing ends before its clock is set."""
    clock = Clock()
    with open_store(str(tmp_path), limits=Limits(group_seconds=0), now=clock) as store:
        yield store, clock


def test_rollups_sum_what_was_stored_before_and_after_they_were_made(timed: tuple[Store, Clock]) -> None:
    opened, clock = timed
    send(opened, "early", range(0, 600, 25))
    opened.close_ended()
    assert sums(opened, f"{DATABASE}.hosts_minute", "agent") == []
    clock.seconds = EPOCH_NS // SECOND + 600
    opened.close_ended()
    assert_sums_agree(opened, "early")
    send(opened, "early", range(0, 600, 25))  # the same again
    assert_sums_agree(opened, "early")
    send(opened, "early", range(7, 4000, 250), boot=2)  # late, also of an hour in which nothing was
    assert_sums_agree(opened, "early")
    send(opened, "late", range(30, 300, 30))
    assert_sums_agree(opened, "late")
    opened.backend.execute(f"OPTIMIZE TABLE {DATABASE}.hosts_minute FINAL")
    assert_sums_agree(opened, "late")


def test_a_statement_makes_one_part(opened: Store) -> None:
    """So that its token stands for all of its rows: more than the engine would put into one block by itself."""
    opened.backend.execute(f"CREATE TABLE {DATABASE}.many AS {DATABASE}.names_minute")
    insert = (
        f"INSERT INTO {DATABASE}.many (time, service_port, agent, rows) SELECT toDateTime64({EPOCH_NS // SECOND}, 3), "
        "number % 65536, toString(intDiv(number, 65536)), 1 FROM numbers_mt(1200000) GROUP BY number"
    )
    settings = {**BUILD_SETTINGS, "insert_deduplication_token": "one"}
    for _ in range(2):
        opened.backend.execute(insert, settings=settings)
        parts = opened.query(
            "SELECT rows, max_block_number - min_block_number AS more FROM system.parts WHERE table = 'many'"
        )
        assert parts.records() == [{"rows": 1_200_000, "more": 0}]
    opened.backend.execute(f"DROP TABLE {DATABASE}.many")


@pytest.mark.slow
def test_an_agent_with_many_flows_is_summed_in_parts(
    timed: tuple[Store, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wiremeter.server.store.rollups.SLICE_ROWS", 30)
    opened, clock = timed
    send(opened, "large", range(60, 200))
    clock.seconds = EPOCH_NS // SECOND + 600
    opened.close_ended()
    assert_sums_agree(opened, "large")


@pytest.mark.parametrize("seed", range(12))
def test_an_answer_is_the_same_from_rollups_and_from_flows(opened: Store, seed: int) -> None:
    rng = random.Random(seed)
    if seed == 0:
        send(opened, "asked", range(0, 7000, 40))
        opened.close_ended()
    start, end = sorted(EPOCH_NS - HOUR * SECOND + rng.randrange(7200) * SECOND for _ in range(2))
    if seed % 3 == 0:
        start = start // (60 * SECOND) * 60 * SECOND
    columns = rng.sample(["device", "application", "service_port", "src_addr", "src_port", "protocol"], 2)
    step = rng.choice([0, 0, 10, 60, 300, 3600])
    source = opened.source({*columns, "agent"}, start, end, step=step)
    keys = [*columns, *([f"toStartOfInterval(time, INTERVAL {step} SECOND) AS period"] if step else [])]

    def answer(source: str) -> list[dict[str, Any]]:
        return sums(opened, f"(SELECT * FROM {source} WHERE agent = 'asked')", ", ".join(keys))

    raw = opened.source({*columns, "agent", "src_port", "dst_addr"}, start, end, step=step)
    assert {part.table for part in raw.parts} == {"flows"}
    assert answer(source.sql) == answer(raw.sql)


@pytest.mark.slow
def test_what_is_read_is_told_and_hours_need_whole_hours(opened: Store) -> None:
    opened.close_ended()
    hour = (opened.closed()[HOUR] - HOUR) * SECOND
    tables = [part.table for part in opened.source({"domain"}, hour, hour + HOUR * SECOND).parts]
    assert tables == ["names_hour"]
    parts = opened.source({"dst_addr"}, hour + SECOND, hour + HOUR * SECOND).parts
    assert [part.table for part in parts] == ["flows", "hosts_minute"]
    assert all(before.end == after.start for before, after in itertools.pairwise(parts))
    assert [part.table for part in opened.source({"domain"}, hour, hour + HOUR * SECOND, step=30).parts] == ["flows"]


@pytest.mark.parametrize("seed", range(8))
def test_hours_that_are_read_as_partitions_are_the_rows_of_those_hours(opened: Store, seed: int) -> None:
    rng = random.Random(seed)
    if seed == 0:
        send(opened, "hours", range(0, 7200, 240))
    first = (EPOCH_NS - HOUR * SECOND) // 10**6
    edges = [0, 3600, 7200, *(rng.randrange(7200) for _ in range(3))]
    start, end = sorted(first + each * 1000 for each in rng.sample(edges, 2))
    columns = ["agent", "src_port"]

    def answer(**more: Any) -> list[dict[str, Any]]:
        source = choose(columns, start, end, {MINUTE: 0, HOUR: 0}, **more)
        return sums(opened, f"(SELECT * FROM {source.sql} WHERE agent = 'hours')", "src_port")

    assert answer(has_partitions=True) == answer()


def test_of_a_whole_hour_no_rows_time_is_looked_at() -> None:
    hour, made = HOUR * 1000, {MINUTE: 0, HOUR: 0}
    sql = choose(["src_port"], hour, 3 * hour, made, has_partitions=True).sql
    assert "_partition_id IN ('3600', '7200')" in sql
    assert "time >=" not in sql
    assert choose(["src_port"], hour - 1, 2 * hour + 1, made, has_partitions=True).sql.count("UNION ALL") == 2
    assert "_partition_id" not in choose(["src_port"], hour + 1, 2 * hour, made, has_partitions=True).sql
