"""What the server notes, and what it drops for want of room."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from unit.server.store.batches import EPOCH_NS, make_batch
from wiremeter.server.store import DATABASE, Heard, Keep, Limits, Refusal, Store, Unavailable, open_store, upkeep
from wiremeter.server.store.retention import Retention

HOUR_NS = 3600 * 10**9


def test_heartbeats_are_kept_and_the_last_of_each_agent_counts(tmp_path: Path) -> None:
    with open_store(str(tmp_path)) as store:
        store.hear(Heard("b", 2_000_000_000, {"version": "2", "devices": [{"name": "eth0"}]}))
        store.hear(Heard("a", 1_000_000_000, {"version": "1"}))
        store.hear(Heard("b", 1_000_000_000, {"version": "0"}))
        told = store.heard()
        assert [(heard.agent, heard.heartbeat["version"]) for heard in told] == [("a", "1"), ("b", "2")]
    with open_store(str(tmp_path)) as store:
        assert store.heard() == told
        store.hear(Heard("b", 3_000_000_000, {"version": "3"}))
    with open_store(str(tmp_path)) as store:
        assert [heard.heartbeat["version"] for heard in store.heard()] == ["1", "3"]


def test_refusals_are_in_their_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "EVERY_SECONDS", 0.05)
    with open_store(str(tmp_path)) as store:
        store.refuse(Refusal(time_ns=EPOCH_NS, agent="a", reason="it is no Arrow stream", status=400, size=3))
        store.refuse(Refusal(time_ns=EPOCH_NS, agent="a", sequence=7, reason="it's \\ odd\n", peer="127.0.0.1"))
        deadline = time.monotonic() + 60
        sql = f"SELECT agent, sequence, status, reason FROM {DATABASE}.quarantine ORDER BY reason"
        while len(rows := store.query(sql).records()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert rows == [
            {"agent": "a", "sequence": None, "status": 400, "reason": "it is no Arrow stream"},
            {"agent": "a", "sequence": 7, "status": 0, "reason": "it's \\ odd\n"},
        ]


def hours(store: Store) -> list[int]:
    """Which hours have flows, counted from the first."""
    sql = f"SELECT DISTINCT toUnixTimestamp(toStartOfHour(time)) AS hour FROM {DATABASE}.flows ORDER BY hour"
    return [(row["hour"] - EPOCH_NS // 10**9) // 3600 for row in store.query(sql).records()]


def test_the_oldest_goes_first_when_the_store_is_too_large_and_is_counted(tmp_path: Path) -> None:
    with open_store(str(tmp_path), limits=Limits(group_seconds=0), keep=Keep(size_bytes=1 << 40)) as store:
        for hour in range(5):
            store.insert(make_batch(sequence=hour, rows=2000, start_ns=EPOCH_NS - (4 - hour) * HOUR_NS))
        assert hours(store) == [-4, -3, -2, -1, 0]
        sql = f"SELECT sum(bytes_on_disk) AS size FROM system.parts WHERE database = '{DATABASE}' AND active"
        size = store.query(sql).records()[0]["size"]
        retention = store._retention
        retention._keep = Keep(size_bytes=size - 1000)
        retention.enforce()
        assert hours(store) == [-3, -2, -1, 0]
        retention._keep = Keep(size_bytes=1)
        retention.enforce()
        assert hours(store) == [0]
        assert store.state.dropped_rows >= 8000
        counted = store.query(f"SELECT sum(rows) AS n FROM {DATABASE}.dropped WHERE table = 'flows'").records()
        assert counted == [{"n": 8000}]
        # What was dropped is still known to have been stored.
        assert not store.insert(make_batch(sequence=0, rows=2000, start_ns=EPOCH_NS - 4 * HOUR_NS)).is_new


def test_a_disk_without_room_takes_nothing_and_says_why(tmp_path: Path) -> None:
    free = 10 << 30
    with open_store(str(tmp_path), limits=Limits(group_seconds=0)) as store:
        store._retention._disk = lambda path: (100 << 30, free)
        store.insert(make_batch())
        free = 100 << 20
        assert store.state.full
        with pytest.raises(Unavailable, match="disk is full: 100 MiB"):
            store.insert(make_batch(sequence=1))
        free = 10 << 30
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                assert store.insert(make_batch(sequence=1)).is_new
                break
            except Unavailable:
                time.sleep(0.1)


def test_room_is_made_when_the_disk_fills(tmp_path: Path) -> None:
    with open_store(str(tmp_path), limits=Limits(group_seconds=0)) as store:
        for hour in range(3):
            store.insert(make_batch(sequence=hour, rows=2000, start_ns=EPOCH_NS - (2 - hour) * HOUR_NS))
        retention = Retention(store.backend, tmp_path, Keep(free_bytes=1 << 30), disk=lambda path: (2 << 30, 1 << 29))
        retention.enforce()
        assert hours(store) == [0]


def test_days_are_the_engines_and_can_be_changed(tmp_path: Path) -> None:
    old = EPOCH_NS - 3 * 24 * HOUR_NS
    with open_store(str(tmp_path), limits=Limits(group_seconds=0), keep=Keep(days=10)) as store:
        store.insert(make_batch(rows=100, start_ns=old))
        assert hours(store) == [-72]
    with open_store(str(tmp_path), limits=Limits(group_seconds=0), keep=Keep(days=2)) as store:
        store.insert(make_batch(sequence=1, rows=100))
        store.backend.execute(f"OPTIMIZE TABLE {DATABASE}.flows FINAL")
        assert hours(store) == [0]
