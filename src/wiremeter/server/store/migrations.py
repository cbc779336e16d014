"""Makes the tables, and brings older ones up to date: versioned steps, each run once, in order."""

from __future__ import annotations

import time
from collections.abc import Callable

from wiremeter.errors import InputError
from wiremeter.server.store.backend import Backend
from wiremeter.server.store.schema import DATABASE, MIGRATIONS, STORE


def _first(backend: Backend) -> None:
    for table in STORE.values():
        backend.define(table)


#: What each version does to the one before. A step is never changed once released: another one follows it.
STEPS: dict[int, Callable[[Backend], None]] = {1: _first}
NEWEST = max(STEPS)


def migrate(backend: Backend) -> int:
    """Brings the store to the newest version; returns the one it had, 0 for a new one.

    A step that was cut off is run again: each can be. Raises InputError if the store was written by a
    newer wiremeter.
    """
    backend.define(MIGRATIONS)
    had: int = backend.query(f"SELECT max(version) AS v FROM {DATABASE}.migrations").table()["v"][0].as_py()
    if had > NEWEST:
        raise InputError(
            f"the store has version {had}, this wiremeter knows {NEWEST}: use the newer one, or another store"
        )
    for version in range(had + 1, NEWEST + 1):
        STEPS[version](backend)
        backend.execute(f"INSERT INTO {DATABASE}.migrations (version, time) VALUES ({version}, {time.time():.3f})")
    return had
