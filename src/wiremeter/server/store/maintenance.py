"""What an operator does with a store: look at it, compact it, take data out, back it up and get it back."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from wiremeter.errors import InputError
from wiremeter.server.store.backend import Backend
from wiremeter.server.store.embedded import Embedded
from wiremeter.server.store.files import BACKUPS_DISK
from wiremeter.server.store.schema import DATABASE, STORE
from wiremeter.server.store.store import ENGINE_MEMORY_BYTES, Store

#: Rows of a Parquet file's row group.
_ROW_GROUP = 500_000


@dataclass(frozen=True, slots=True)
class TableInfo:
    """One table. bytes: on disk, of this server's. oldest and newest: seconds since the epoch, None without rows or
    time."""

    name: str
    rows: int
    bytes: int
    parts: int
    oldest: float | None
    newest: float | None


def table_infos(store: Store) -> list[TableInfo]:
    """Every table, by its name. Raises as Store.query."""
    sql = (
        "SELECT replaceRegexpOne(table, '_local$', '') AS name, sum(rows) AS rows, sum(bytes_on_disk) AS bytes, "
        "count() AS parts, toUnixTimestamp(min(min_time)) AS oldest, toUnixTimestamp(max(max_time)) AS newest "
        f"FROM system.parts WHERE database = '{DATABASE}' AND active GROUP BY name"
    )
    known = {row["name"]: row for row in store.query(sql).records()}
    empty = {"rows": 0, "bytes": 0, "parts": 0, "oldest": 0, "newest": 0}
    return [
        TableInfo(
            name=name,
            rows=row["rows"],
            bytes=row["bytes"],
            parts=row["parts"],
            oldest=row["oldest"] or None,
            newest=row["newest"] or None,
        )
        for name in sorted(STORE)
        for row in [known.get(name, empty)]
    ]


def compact(store: Store) -> Iterator[str]:
    """Makes what rollups can be made, and merges all parts of each table; gives each table's name when it is done.

    Raises InputError for a ClickHouse server, which is its operator's; else as Backend.execute.
    """
    _embedded(store.backend, "compacted")
    store.close_ended()
    for name in STORE:
        store.backend.execute(f"OPTIMIZE TABLE {DATABASE}.{name} FINAL")
        yield name


def export(store: Store, directory: Path) -> Iterator[tuple[Path, int]]:
    """Writes each table that has rows to DIRECTORY/TABLE.parquet; gives each file and its rows.

    Raises InputError if there is such a file already; OSError; and as Store.query.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name in STORE:
        file = directory / f"{name}.parquet"
        if file.exists():
            raise InputError(f"{file} is there already; export to an empty directory")
        with store.query(f"SELECT * FROM {DATABASE}.{name}") as rows:
            count = _write(file, rows.schema, iter(rows))
        if count:
            yield file, count


def _write(file: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    """Writes batches; no file without rows, and none that is not whole. The number of rows."""
    unfinished = file.with_suffix(".new")
    count = 0
    try:
        with parquet.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            waiting: list[pa.RecordBatch] = []
            for batch in batches:
                waiting.append(batch)
                count += batch.num_rows
                if sum(each.num_rows for each in waiting) >= _ROW_GROUP:
                    writer.write_table(pa.Table.from_batches(waiting, schema))
                    waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting, schema))
        if count:
            unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def backup(store: Store, file: Path) -> int:
    """Writes all of the store to one file, a tar; its size in bytes.

    Raises InputError if the file exists or the store is not embedded; OSError; and as Backend.execute.
    """
    directory = _embedded(store.backend, "backed up").engine.directory / "backups"
    if file.exists():
        raise InputError(f"{file} is there already; give another name")
    name = f"{time.time_ns()}.tar"
    directory.mkdir(mode=0o700, exist_ok=True)
    try:
        store.backend.execute(f"BACKUP DATABASE {DATABASE} TO Disk('{BACKUPS_DISK}', '{name}')")
        shutil.move(directory / name, file)
    finally:
        (directory / name).unlink(missing_ok=True)
    return file.stat().st_size


def restore(file: Path, directory: Path) -> None:
    """Makes a store out of a backup, in a directory that holds none.

    Raises InputError if the directory holds a store, or the file is no backup; Unavailable when the engine does not
    start; OSError.
    """
    if (directory / "data").exists() and any((directory / "data").iterdir()):
        raise InputError(f"{directory} holds a store already; restore into another directory")
    if not file.is_file():
        raise InputError(f"{file} is no file")
    backups = directory / "backups"
    backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = backups / f"{time.time_ns()}.tar"
    backend = Embedded(directory, on_lost=lambda what: None, memory_bytes=ENGINE_MEMORY_BYTES)
    try:
        try:
            os.link(file, copy)
        except OSError:  # another disk
            shutil.copyfile(file, copy)
        backend.execute(f"RESTORE DATABASE {DATABASE} FROM Disk('{BACKUPS_DISK}', '{copy.name}')")
    finally:
        copy.unlink(missing_ok=True)
        backend.close()


def _embedded(backend: Backend, done: str) -> Embedded:
    if not isinstance(backend, Embedded):
        raise InputError(f"a ClickHouse server is {done} with its own tools")
    return backend
