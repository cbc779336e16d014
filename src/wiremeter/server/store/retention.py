"""Keeps the store within its size and its disk: the oldest partitions go first, and each is counted.

Time is the engine's own affair (TTL): it drops whole parts that are too old. Here it is about room, which fills
whatever the clock says. Flows, transactions and the like go before rollups, which are small and old on purpose.
Identities of batches stay, since without them a batch could be stored twice.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wiremeter.server.store.backend import Backend
from wiremeter.server.store.schema import DATABASE, ROLLUP_DIMENSIONS, STORE, rollup_name
from wiremeter.shipment.schema import TABLES

_log = logging.getLogger(__name__)

#: Kept free by default: this much, or a tenth of a small disk. Merges write before they delete.
_FREE_BYTES = 2 << 30
#: Below this part of what is kept free, nothing is stored any more.
_STOP_AT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How much is kept.

    days: of flows and all that is not a rollup, None: as the schema has it. size_bytes: of the store on disk, None:
    what the disk has. free_bytes: kept free on the disk, None: 2 GiB, or a tenth of a small one.
    """

    days: int | None = None
    size_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(slots=True)
class Dropped:
    """What was dropped for want of room, since this server runs."""

    partitions: int = 0
    rows: int = 0
    bytes: int = 0


def keep_days(backend: Backend, keep: Keep) -> None:
    """Has the engine drop what is older than `keep` says; rollups are not touched. Raises as Backend.execute."""
    for name in TABLES:
        table = STORE[name]
        days = keep.days if keep.days is not None else table.keep_days
        if days is not None:
            backend.keep(table, days)


class Retention:
    """What is kept of the store in `directory`.

    disk: total and free bytes of a directory's disk.
    """

    def __init__(
        self,
        backend: Backend,
        directory: Path,
        keep: Keep,
        *,
        disk: Callable[[Path], tuple[int, int]] = lambda path: (
            shutil.disk_usage(path).total,
            shutil.disk_usage(path).free,
        ),
    ) -> None:
        self._backend = backend
        self._directory = directory
        self._keep = keep
        self._disk = disk
        self.dropped = Dropped()

    @property
    def free_bytes(self) -> int:
        """What is kept free."""
        if self._keep.free_bytes is not None:
            return self._keep.free_bytes
        return min(_FREE_BYTES, self._disk(self._directory)[0] // 10)

    @property
    def disk_free_bytes(self) -> int:
        """What is free on the disk now."""
        return self._disk(self._directory)[1]

    def why_full(self) -> str | None:
        """Why nothing may be stored now; None if there is room."""
        free = self.disk_free_bytes
        if free >= self.free_bytes * _STOP_AT:
            return None
        return (
            f"the store's disk is full: {free >> 20} MiB of {self._directory} are free, and old data cannot be dropped "
            "as fast; free some room, or let the store keep less"
        )

    def enforce(self) -> None:
        """Drops the oldest partitions until there is room. Raises as Backend.query."""
        while (over := self._over()) > 0:
            oldest = self._oldest()
            if oldest is None:
                return
            self._drop(oldest)
            if int(oldest["bytes"]) >= over and self._keep.size_bytes is None:
                return  # the engine deletes files some time later: look again in the next round

    def _over(self) -> int:
        """Bytes that are too many."""
        over = self.free_bytes - self.disk_free_bytes
        if self._keep.size_bytes is not None:
            sql = f"SELECT sum(bytes_on_disk) AS size FROM system.parts WHERE database = '{DATABASE}' AND active"
            over = max(over, self._backend.query(sql).records()[0]["size"] - self._keep.size_bytes)
        return over

    def _oldest(self) -> dict[str, int | str] | None:
        """The partition that goes next. The newest of each table stays: it is being written."""
        rollups = ", ".join(f"'{rollup_name(kind, size)}'" for kind in ROLLUP_DIMENSIONS for size in (60, 3600))
        tables = ", ".join(f"'{name}'" for name in TABLES)
        sql = f"""
            SELECT table, partition_id AS partition, sum(rows) AS rows, sum(bytes_on_disk) AS bytes,
                toUnixTimestamp(max(max_time)) AS until, table IN ({rollups}) AS is_rollup
            FROM system.parts
            WHERE database = '{DATABASE}' AND active AND table IN ({tables}, {rollups})
                AND (table, partition_id) NOT IN (
                    SELECT table, argMax(partition_id, max_time) FROM system.parts
                    WHERE database = '{DATABASE}' AND active GROUP BY table)
            GROUP BY table, partition ORDER BY is_rollup, until, table LIMIT 1
        """
        found = self._backend.query(sql).records()
        return found[0] if found else None

    def _drop(self, partition: dict[str, int | str]) -> None:
        table, name = partition["table"], partition["partition"]
        self._backend.execute(f"ALTER TABLE {DATABASE}.{table} DROP PARTITION ID '{name}'")
        self.dropped.partitions += 1
        self.dropped.rows += int(partition["rows"])
        self.dropped.bytes += int(partition["bytes"])
        self._backend.execute(
            f"INSERT INTO {DATABASE}.dropped (time, table, partition, rows, bytes) VALUES "
            f"({time.time():.3f}, '{table}', '{name}', {partition['rows']}, {partition['bytes']})"
        )
        _log.warning(
            "dropped %s rows of %s, partition %s (%s bytes): the store needs the room",
            partition["rows"],
            table,
            name,
            partition["bytes"],
        )
