"""A batch is stored once, whole, and then it can be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from unit.server.store.batches import bytes_in, make_batch, make_table
from wiremeter.errors import InputError
from wiremeter.server.store import Conflict, Refused, Store, Unavailable, open_store
from wiremeter.shipment.schema import TABLES


def scalar(store: Store, sql: str, parameters: dict[str, Any] | None = None) -> Any:
    (row,) = store.query(sql, parameters).records()
    (value,) = row.values()
    return value


def flows_of(store: Store, agent: str) -> tuple[int, int]:
    sql = "SELECT count() AS n, sum(bytes) AS bytes FROM wiremeter.flows WHERE agent = {agent:String}"
    (row,) = store.query(sql, {"agent": agent}).records()
    return row["n"], row["bytes"]


def test_a_batch_is_stored_once(opened: Store) -> None:
    batch = make_batch("once")
    assert opened.insert(batch).is_new
    assert not opened.insert(batch).is_new
    assert flows_of(opened, "once") == (10, bytes_in(batch))


def test_the_same_identity_with_other_content_is_a_conflict(opened: Store) -> None:
    opened.insert(make_batch("twice", seed=1))
    with pytest.raises(Conflict, match="other content"):
        opened.insert(make_batch("twice", seed=2))
    assert flows_of(opened, "twice")[0] == 10


def test_the_same_batch_twice_in_one_group_is_stored_once(opened: Store) -> None:
    batch = make_batch("together")
    futures = [opened.submit(batch) for _ in range(5)] + [opened.submit(make_batch("together", seed=9))]
    assert sorted(future.result().is_new for future in futures[:5]) == [False] * 4 + [True]
    with pytest.raises(Conflict):
        futures[5].result()
    assert flows_of(opened, "together")[0] == 10


def test_every_table_is_stored_with_what_it_had(opened: Store) -> None:
    batch = make_batch("all", tables={name: make_table(name, 7, seed=3) for name in TABLES})
    assert opened.insert(batch).is_new
    for name, columns in TABLES.items():
        asked = ", ".join(f"`{column}`" for column in columns)
        found = opened.query(f"SELECT {asked} FROM wiremeter.{name} WHERE agent = 'all'").table()
        assert _sorted(found.to_pylist()) == _sorted(batch.tables[name].to_pylist()), name
    assert scalar(opened, "SELECT rows FROM wiremeter.batches WHERE agent = 'all'") == 7 * len(TABLES)


def _sorted(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(repr(row) for row in rows)


def test_a_query_without_rows_tells_its_columns(opened: Store) -> None:
    with opened.query("SELECT device, bytes FROM wiremeter.flows WHERE agent = 'nobody'") as rows:
        assert rows.schema.names == ["device", "bytes"]
        assert list(rows) == []


def test_a_query_can_be_left_amid_its_rows(opened: Store) -> None:
    for _ in range(3):
        with opened.query("SELECT number FROM system.numbers LIMIT 100000000") as rows:
            assert next(iter(rows)).num_rows > 0
    assert scalar(opened, "SELECT 1 AS one") == 1


def test_progress_is_told(opened: Store) -> None:
    told: list[tuple[int, int]] = []
    sql = "SELECT sum(sipHash64(number)) AS n FROM numbers(50000000)"
    opened.query(sql, on_progress=lambda rows, total: told.append((rows, total))).table()
    assert told
    assert told[-1][1] == 50_000_000


def test_a_wrong_query_is_refused_with_the_engines_words(opened: Store) -> None:
    with pytest.raises(Refused, match="nosuch"):
        opened.query("SELECT nosuch FROM wiremeter.flows")


def test_a_table_with_a_column_missing_or_of_another_type_is_not_taken(opened: Store) -> None:
    flows = make_table("flows", 3)
    for wrong in (
        flows.drop_columns(["bytes"]),
        flows.set_column(9, "packets", flows["packets"].cast(pa.uint32())),
    ):
        with pytest.raises(InputError, match="expected"):
            opened.insert(make_batch("wrong", tables={"flows": wrong}))
    assert flows_of(opened, "wrong")[0] == 0


def test_dictionaries_may_hold_words_twice_and_nulls(opened: Store) -> None:
    """Arrow allows that, and the engine does not."""
    words = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), pa.array(["tls", "tls", None, "dns"]))
    flows = make_table("flows", 4)
    place = flows.schema.get_field_index("application")
    opened.insert(make_batch("words", tables={"flows": flows.set_column(place, flows.field(place), words)}))
    sql = "SELECT application, count() AS n FROM wiremeter.flows WHERE agent = 'words' GROUP BY ALL ORDER BY ALL"
    assert opened.query(sql).records() == [
        {"application": "", "n": 1},
        {"application": "dns", "n": 1},
        {"application": "tls", "n": 2},
    ]


def test_an_insert_that_the_engine_refuses_is_an_error_and_others_are_stored(opened: Store) -> None:
    opened.backend.execute("ALTER TABLE wiremeter.flows ADD CONSTRAINT not_that CHECK agent != 'refused'")
    try:
        bad = opened.submit(make_batch("refused"))
        good = [opened.submit(make_batch("beside", sequence)) for sequence in range(3)]
        with pytest.raises(Refused, match="not_that"):
            bad.result()
        assert all(future.result().is_new for future in good)
    finally:
        opened.backend.execute("ALTER TABLE wiremeter.flows DROP CONSTRAINT not_that")
    assert flows_of(opened, "refused")[0] == 0
    assert flows_of(opened, "beside")[0] == 30
    assert opened.insert(make_batch("refused")).is_new


def test_two_processes_do_not_share_a_directory(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wiremeter.server.store.engine.LOCK_SECONDS", 0.1)
    directory = opened.backend.engine.directory  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="another process"):
        open_store(str(directory))


def test_a_store_that_is_opened_again_knows_what_it_has(tmp_path: Path) -> None:
    batch = make_batch()
    with open_store(str(tmp_path)) as store:
        assert store.insert(batch).is_new
    with open_store(str(tmp_path)) as store:
        assert not store.insert(batch).is_new
        with pytest.raises(Conflict):
            store.insert(make_batch(seed=8))
        assert flows_of(store, "web-1") == (10, bytes_in(batch))
