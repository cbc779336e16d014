"""A store on ClickHouse servers answers what the embedded one answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from unit.server.store.batches import EPOCH_NS, bytes_in, make_batch, make_table
from unit.server.store.clickhouse import PASSWORD, USER, Server, servers
from unit.server.store.waiting import until
from wiremeter.errors import InputError
from wiremeter.server.store import (
    DATABASE,
    Batch,
    Conflict,
    Heard,
    Limits,
    QueryLimits,
    Refused,
    SqlRefused,
    Store,
    TooMuch,
    Unavailable,
    open_store,
)
from wiremeter.server.store.ddl import Cluster, create_in_cluster
from wiremeter.server.store.native import Native, parse_url
from wiremeter.server.store.schema import HOUR, MINUTE, ROLLUP_DIMENSIONS, STORE, rollup_name
from wiremeter.shipment.schema import TABLES

#: Agents on both shards.
OTHERS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
FAST = Limits(group_seconds=0.01)


def clock() -> float:
    return EPOCH_NS / 1e9 + 7200


def url_of(started: Sequence[Server]) -> str:
    return f"clickhouse://{USER}:{PASSWORD}@{','.join(f'127.0.0.1:{each.http}' for each in started)}/?cluster=wm"


def fill(store: Store, batches: range) -> None:
    for future in [
        store.submit(
            make_batch(
                f"agent-{number}",
                sequence,
                start_ns=EPOCH_NS + sequence * 20 * 10**9,
                tables={name: make_table(name, 20, sequence * 7 + number) for name in TABLES},
            )
        )
        for sequence in batches
        for number in range(5)
    ]:
        future.result()


def answers(store: Store) -> dict[str, Any]:
    """What questions of all kinds get."""
    every = {
        name: f"SELECT * FROM {DATABASE}.{name} ORDER BY ALL"
        for name in (*TABLES, *(rollup_name(kind, size) for kind in ROLLUP_DIMENSIONS for size in (MINUTE, HOUR)))
    }
    for name in [name for name in every if name.endswith(("minute", "hour"))]:
        kind = ROLLUP_DIMENSIONS["hosts" if name.startswith("hosts") else "names"]
        keys = ", ".join(kind)
        every[name] = f"SELECT time, {keys}, sum(bytes), sum(rows) FROM {DATABASE}.{name} GROUP BY ALL ORDER BY ALL"
    every["batches"] = f"SELECT agent, boot, sequence, content, rows FROM {DATABASE}.batches ORDER BY ALL"
    source = store.source({"domain", "service_port"}, EPOCH_NS, EPOCH_NS + 3_600 * 10**9)
    every["source"] = f"SELECT domain, service_port, sum(bytes) FROM {source.sql} GROUP BY ALL ORDER BY ALL"
    found = {name: store.query(sql).records() for name, sql in every.items()}
    found["user"] = store.query_untrusted(
        "SELECT f.device, sum(f.bytes) AS b FROM flows f JOIN audit a ON f.agent = a.agent AND f.device = a.device "
        "WHERE f.agent IN (SELECT agent FROM dns) GROUP BY f.device ORDER BY ALL"
    ).records()
    return found


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers(tmp_path_factory.mktemp("one"), 1) as (server,):
        yield server


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the embedded store answers, with half of the batches late."""
    with open_store(str(tmp_path_factory.mktemp("embedded")), limits=FAST, now=clock) as store:
        fill(store, range(5))
        store.close_ended()
        fill(store, range(10))
        return answers(store)


@pytest.mark.slow
def test_a_server_answers_as_the_embedded_store(one: Server, expected: dict[str, Any], tmp_path: Path) -> None:
    with open_store(one.url, directory=str(tmp_path), limits=FAST, now=clock) as store:
        fill(store, range(5))
        store.close_ended()
        fill(store, range(10))
        found = answers(store)
        for name in expected:
            assert found[name] == expected[name], name
        with pytest.raises(Conflict):
            store.insert(make_batch("agent-1", 3, seed=99))
        store.hear(Heard("agent-1", EPOCH_NS, {"version": "1"}))
    with open_store(one.url, directory=str(tmp_path), limits=FAST, now=clock) as store:
        assert [heard.agent for heard in store.heard()] == ["agent-1"]


@pytest.mark.slow
def test_what_a_server_refuses_and_ends_is_told_as_such(one: Server, tmp_path: Path) -> None:
    with open_store(one.url, directory=str(tmp_path), limits=FAST) as store:
        with pytest.raises(Refused, match="nosuch"):
            store.query("SELECT nosuch")
        with pytest.raises(SqlRefused):
            store.query_untrusted("SELECT * FROM url('http://127.0.0.1/', 'LineAsString')")
        for text in (
            "INSERT INTO flows (device) VALUES ('x')",
            "SET readonly = 0",
            "SELECT 1 SETTINGS max_threads = 9",
        ):
            with pytest.raises(Refused):
                store.backend.query_untrusted(text, QueryLimits())
        with pytest.raises(TooMuch):
            store.backend.query_untrusted(
                "SELECT sum(number) FROM numbers(100000000000)", QueryLimits(seconds=1)
            ).table()
        store.backend.execute(f"ALTER TABLE {DATABASE}.flows ADD CONSTRAINT not_that CHECK agent != 'refused'")
        with pytest.raises(Refused, match="not_that"):
            store.insert(make_batch("refused"))
        store.backend.execute(f"ALTER TABLE {DATABASE}.flows DROP CONSTRAINT not_that")


@pytest.mark.slow
def test_a_cluster_answers_as_the_embedded_store_and_loses_nothing_with_a_node(
    tmp_path: Path, expected: dict[str, Any]
) -> None:
    with servers(tmp_path / "cluster", 4, replicas=2) as nodes:
        with open_store(url_of(nodes), directory=str(tmp_path / "here"), limits=FAST, now=clock) as store:
            fill(store, range(5))
            store.close_ended()
            nodes[0].kill()  # the first host, and a replica of the first shard
            batches = [make_batch(name, start_ns=EPOCH_NS) for name in OTHERS]
            outcomes = [outcome(store, batch) for batch in batches]
            assert "stored" in outcomes
            assert "unavailable" in outcomes  # a replica that is away cannot get its copy
            agents = "agent LIKE 'agent-%'"
            sums = store.query(f"SELECT count() AS n FROM {DATABASE}.flows WHERE {agents}").records()
            assert sums == [{"n": 5 * 5 * 20}]  # and yet all can be asked for
            nodes[0].start()
            nodes[0].wait()
            until(lambda: [outcome(store, batch) for batch in batches] == ["stored before"] * len(batches))
            fill(store, range(10))
            octets = sum(map(bytes_in, batches))
        others = f"SELECT count() AS n, sum(bytes) AS bytes FROM {DATABASE}.flows WHERE NOT ({agents})"
        for node in nodes:  # each has all of its shard
            local = Native(node.url).query(f"SELECT agent, sum(bytes) AS b FROM {DATABASE}.flows_local GROUP BY agent")
            for row in local.records():
                expected_sum = f"SELECT sum(bytes) AS b FROM {DATABASE}.flows WHERE agent = '{row['agent']}'"
                assert Native(nodes[3].url).query(expected_sum).records() == [{"b": row["b"]}]
        with open_store(url_of(nodes), directory=str(tmp_path / "here"), limits=FAST, now=clock) as store:
            found = {
                name: [row for row in rows if row.get("agent") not in OTHERS] for name, rows in answers(store).items()
            }
            for name in expected.keys() - {"source", "user"}:
                assert found[name] == expected[name], name
            assert store.query(others).records() == [{"n": 10 * len(OTHERS), "bytes": octets}]


def outcome(store: Store, batch: Batch) -> str:
    try:
        return "stored" if store.insert(batch).is_new else "stored before"
    except Unavailable:
        return "unavailable"


def test_urls_are_read_and_wrong_ones_are_told_without_their_password() -> None:
    address = parse_url("clickhouse://wm:a%40b@one:81,[::1]:82,three/?cluster=c&replicated=1")
    assert address.hosts == (("one", 81), ("::1", 82), ("three", 8123))
    assert (address.user, address.password) == ("wm", "a@b")
    assert address.cluster == Cluster("c", True)
    for wrong in (
        "http://u:topsecret@h/",
        "clickhouse://",
        "clickhouse://u:topsecret@h/other",
        "clickhouse://u:topsecret@h/?x=1",
        "clickhouse://u:topsecret@h:port/",
    ):
        with pytest.raises(InputError) as refused:
            parse_url(wrong)
        assert "topsecret" not in str(refused.value)
    with pytest.raises(InputError, match="directory"):
        open_store("clickhouse://h/")


def test_statements_for_replicated_clusters_are_understood(opened: Store) -> None:
    """No Keeper here to run them with: the engine reads them, and that is all."""
    for table in STORE.values():
        for statement in create_in_cluster(table, Cluster("c", is_replicated=True)):
            opened.backend.execute(f"EXPLAIN AST {statement}")
            assert "ON CLUSTER 'c'" in statement
    local, over = create_in_cluster(STORE["agents"], Cluster("c", is_replicated=True))
    assert "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/wiremeter/agents', '{replica}', seen)" in local
    assert "Distributed('c', 'wiremeter', 'agents_local', cityHash64(agent))" in over
