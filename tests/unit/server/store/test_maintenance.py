"""A store is looked at, compacted, exported, backed up, and restored whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet

from unit.server.store.batches import bytes_in, make_batch, make_table
from wiremeter.errors import InputError
from wiremeter.server.store import DATABASE, Conflict, Limits, Store, open_store
from wiremeter.server.store.maintenance import backup, compact, export, restore, table_infos
from wiremeter.shipment.schema import TABLES

FAST = Limits(group_seconds=0)


def fill(store: Store) -> int:
    """Three batches; the bytes of their flows."""
    batches = [
        make_batch(sequence=sequence, tables={name: make_table(name, 50, sequence) for name in TABLES})
        for sequence in range(3)
    ]
    for batch in batches:
        store.insert(batch)
    return sum(map(bytes_in, batches))


def test_a_backup_is_the_same_store_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "all.tar"
    with open_store(str(tmp_path / "one"), limits=FAST) as store:
        octets = fill(store)
        assert backup(store, file) == file.stat().st_size > 0
        with pytest.raises(InputError, match="there already"):
            backup(store, file)
    with pytest.raises(InputError, match="holds a store"):
        restore(file, tmp_path / "one")
    restore(file, tmp_path / "two")
    with open_store(str(tmp_path / "two"), limits=FAST) as store:
        sums = store.query(f"SELECT count() AS n, sum(bytes) AS bytes FROM {DATABASE}.flows").records()
        assert sums == [{"n": 150, "bytes": octets}]
        with pytest.raises(Conflict):
            store.insert(make_batch(sequence=1, seed=77))
        assert store.insert(make_batch(sequence=3)).is_new


def test_what_is_no_backup_is_refused_and_leaves_an_empty_store(tmp_path: Path) -> None:
    from wiremeter.server.store import Refused

    (tmp_path / "no.tar").write_bytes(b"no backup at all" * 100)
    with pytest.raises(Refused):
        restore(tmp_path / "no.tar", tmp_path / "store")
    with pytest.raises(InputError, match="no file"):
        restore(tmp_path / "nothing.tar", tmp_path / "other")


def test_export_gives_every_table_as_parquet(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store"), limits=FAST) as store:
        octets = fill(store)
        store.close_ended()
        written = dict(export(store, tmp_path / "out"))
        assert {path.stem for path in written} >= {*TABLES, "batches", "hosts_minute", "names_hour"}
        flows = parquet.read_table(tmp_path / "out" / "flows.parquet")
        assert (flows.num_rows, sum(flows["bytes"].to_pylist())) == (150, octets)
        assert list((tmp_path / "out").glob("*.new")) == []
        with pytest.raises(InputError, match="there already"):
            list(export(store, tmp_path / "out"))


def test_compacting_leaves_one_part_a_partition_and_changes_nothing(tmp_path: Path) -> None:
    with open_store(str(tmp_path), limits=FAST) as store:
        octets = fill(store)
        list(compact(store))
        infos = {info.name: info for info in table_infos(store)}
        assert infos["flows"].parts == 1
        assert infos["flows"].rows == 150
        assert infos["flows"].bytes > 0
        assert infos["dns"].oldest
        assert store.query(f"SELECT sum(bytes) AS bytes FROM {DATABASE}.flows").records() == [{"bytes": octets}]
