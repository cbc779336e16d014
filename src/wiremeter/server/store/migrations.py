"""Makes the tables, and brings older ones up to date: versioned steps, each run once, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from wiremeter.errors import InputError
from wiremeter.server.store.backend import Backend
from wiremeter.server.store.schema import DATABASE, MIGRATIONS, STORE, Table

#: What each version does to the one before. A step is never changed once released: another one follows it.
STEPS: dict[int, Callable[[], Iterable[str]]] = {
    1: lambda: (create(table) for table in STORE.values()),
}
NEWEST = max(STEPS)


def create(table: Table) -> str:
    """The statement that makes a table, if it is not there."""
    columns = ", ".join(f"`{name}` {kind}" for name, kind in table.columns.items())
    settings = {"non_replicated_deduplication_window": table.window, **table.settings}
    parts = [
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.{table.name} ({columns})",
        f"ENGINE = {table.engine}",
        f"PARTITION BY {table.partition}",
        f"ORDER BY ({', '.join(table.order)})",
    ]
    if table.primary:
        parts.append(f"PRIMARY KEY ({', '.join(table.primary)})")
    if table.keep_days is not None:
        parts.append(f"TTL toDateTime({table.aged_by}) + INTERVAL {table.keep_days} DAY DELETE")
        settings["ttl_only_drop_parts"] = 1
    parts.append(f"SETTINGS {', '.join(f'{key} = {value}' for key, value in settings.items())}")
    return " ".join(parts)


def migrate(backend: Backend) -> int:
    """Brings the store to the newest version; returns the one it had, 0 for a new one.

    A step that was cut off is run again: each of its statements can be. Raises InputError if the store was written by a
    newer wiremeter.
    """
    backend.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    backend.execute(create(MIGRATIONS))
    had: int = backend.query(f"SELECT max(version) AS v FROM {DATABASE}.migrations").table()["v"][0].as_py()
    if had > NEWEST:
        raise InputError(
            f"the store has version {had}, this wiremeter knows {NEWEST}: use the newer one, or another store"
        )
    for version in range(had + 1, NEWEST + 1):
        statements = list(STEPS[version]())
        for statement in statements:
            backend.execute(statement)
        backend.execute(
            f"INSERT INTO {DATABASE}.migrations (version, time, statements) "
            f"VALUES ({version}, {time.time():.3f}, {len(statements)})"
        )
    return had
