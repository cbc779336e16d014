"""The statements that make a table: alone, or on every node of a cluster, with one that stands for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from wiremeter.server.store.schema import DATABASE, Table
from wiremeter.server.store.sql import assignments


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, as its servers' `remote_servers` name it. is_replicated: its nodes replicate by ClickHouse Keeper
    (macros shard and replica); else whoever inserts writes to all replicas (internal_replication false)."""

    name: str
    is_replicated: bool = False


def create(table: Table) -> str:
    """The statement that makes a table, if it is not there."""
    return _create(table, table.name, table.engine, "non_replicated_deduplication_window")


def create_in_cluster(table: Table, cluster: Cluster) -> tuple[str, str]:
    """The statements for each node: its own table, and the one over all of them.

    Rows of one agent are on one shard, so are their tokens; tables without agents are on the first.
    """
    engine, window = table.engine, "non_replicated_deduplication_window"
    if cluster.is_replicated:
        name, _, arguments = engine.partition("(")
        path = f"'/clickhouse/tables/{{shard}}/{DATABASE}/{table.name}', '{{replica}}'"
        engine = f"Replicated{name}({', '.join(filter(None, [path, arguments.rstrip(')')]))})"
        window = "replicated_deduplication_window"
    local = f"{table.name}_local"
    shard = "cityHash64(agent)" if "agent" in table.columns else "0"
    on = f" ON CLUSTER '{cluster.name}'" if cluster.is_replicated else ""
    over = (
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.{table.name}{on} AS {DATABASE}.{local} "
        f"ENGINE = Distributed('{cluster.name}', '{DATABASE}', '{local}', {shard})"
    )
    return _create(table, local + on, engine, window), over


def _create(table: Table, name: str, engine: str, window: str) -> str:
    columns = ", ".join(f"`{column}` {kind}" for column, kind in table.columns.items())
    settings: dict[str, str | int] = {window: table.window}
    parts = [
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.{name} ({columns})",
        f"ENGINE = {engine}",
        f"PARTITION BY {table.partition}",
        f"ORDER BY ({', '.join(table.order)})",
    ]
    if table.primary:
        parts.append(f"PRIMARY KEY ({', '.join(table.primary)})")
    if table.keep_days is not None:
        parts.append(f"TTL {ttl(table, table.keep_days)}")
        settings["ttl_only_drop_parts"] = 1
    parts.append(f"SETTINGS {assignments(settings)}")
    return " ".join(parts)


def ttl(table: Table, days: int) -> str:
    """The expression by which the engine drops what is older."""
    return f"toDateTime({table.aged_by}) + toIntervalDay({days})"
