"""A store on a small disk: it makes room, it never fills the disk, and what it acknowledged is there or counted."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from unit.server.store.batches import EPOCH_NS, make_batch, make_table
from wiremeter.server.store import DATABASE, Keep, Limits, Unavailable, loader, open_store, upkeep
from wiremeter.shipment.schema import TableName

SIZE_MIB = 96
FREE_BYTES = 40 << 20
ROWS = 20_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with a small disk of its own."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_store_outlives_a_disk_that_is_too_small(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(loader, "_RETRY_SECONDS_MAX", 0.5)
    stored, least = 0, SIZE_MIB << 20
    reasons: set[str] = set()
    keep = Keep(free_bytes=FREE_BYTES)
    made: list[dict[TableName, pa.Table]] = [{"flows": make_table("flows", ROWS, seed)} for seed in range(4)]
    with open_store(str(disk / "store"), limits=Limits(group_seconds=0), keep=keep) as store:
        for sequence in range(80):
            start_ns = EPOCH_NS - (90 - sequence) * 1200 * 10**9
            batch = make_batch(sequence=sequence, start_ns=start_ns, tables=made[sequence % len(made)])
            try:
                stored += store.insert(batch).is_new
            except Unavailable as error:
                reasons.add(str(error).split(":")[0])
            least = min(least, shutil.disk_usage(disk).free)
        store._retention.enforce()
        state = store.state
        (flows,) = store.query(f"SELECT count() AS n, min(time) AS oldest FROM {DATABASE}.flows").records()
        (dropped,) = store.query(f"SELECT sum(rows) AS n FROM {DATABASE}.dropped WHERE table = 'flows'").records()
        assert state.dropped_partitions > 0
        assert flows["n"] + dropped["n"] == stored * ROWS
    assert stored > 20
    assert reasons <= {"the store's disk is full"}
    assert least > 4 << 20
    with open_store(str(disk / "store"), keep=keep) as store:
        assert store.query(f"SELECT count() AS n FROM {DATABASE}.flows").records() == [{"n": flows["n"]}]
