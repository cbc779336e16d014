"""The embedded engine as a backend: connections of its process, kept for the next call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import ipc

from wiremeter.server.store.backend import OnProgress, QueryLimits, Rows, once
from wiremeter.server.store.ddl import create, ttl
from wiremeter.server.store.engine import Connection, Engine
from wiremeter.server.store.schema import DATABASE, Table
from wiremeter.server.store.sql import assignments, bound, quoted, settings_clause

#: Longest a statement of ours may run before the engine is taken to hang.
STATEMENT_SECONDS = 300.0
#: The same for queries of users, beyond their own limit.
HANG_SECONDS = 30.0
#: Connections that are kept for the next call.
_KEPT = 4


class Embedded:
    """The backend of one directory. Arguments and errors as Engine."""

    is_alone = True

    def __init__(self, directory: Path, *, on_lost: Callable[[str], None], memory_bytes: int) -> None:
        self.engine = Engine(directory, on_lost=on_lost, memory_bytes=memory_bytes)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []

    @property
    def restarts(self) -> int:
        return self.engine.restarts

    def define(self, table: Table) -> None:
        self.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        self.execute(create(table))

    def keep(self, table: Table, days: int) -> None:
        self.execute(f"ALTER TABLE {DATABASE}.{table.name} MODIFY TTL {ttl(table, days)}")

    def execute(self, sql: str, *, settings: Mapping[str, str | int] | None = None) -> None:
        connection = self._take()
        try:
            for _ in connection.run(sql + settings_clause(settings), seconds=STATEMENT_SECONDS):
                pass
        finally:
            self._give_back(connection)

    def insert(self, table: str, columns: Sequence[str], file: Path, *, token: str) -> None:
        names = ", ".join(f"`{name}`" for name in columns)
        settings = settings_clause({"insert_deduplication_token": token})
        self.execute(
            f"INSERT INTO {DATABASE}.{table} ({names}) FROM INFILE {quoted(str(file))}{settings} FORMAT ArrowStream"
        )

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, str | int] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Rows:
        connection = self._take()
        chunks = connection.run(
            sql + settings_clause(settings),
            {name: bound(value) for name, value in (parameters or {}).items()},
            rows=True,
            seconds=STATEMENT_SECONDS,
            on_progress=on_progress,
        )
        return _rows(chunks, lambda: self._give_back(connection))

    def one_line(self, sql: str) -> str:
        (row,) = self.query("SELECT formatQuerySingleLine({sql:String}) AS text", {"sql": sql}).records()
        return str(row["text"])

    def query_untrusted(self, text: str, limits: QueryLimits, *, on_progress: OnProgress | None = None) -> Rows:
        connection = self.engine.connect()  # one of its own: what is set there cannot be set back
        try:
            for statement in (f"USE {DATABASE}", f"SET {assignments({**limits.settings(), 'readonly': 1})}"):
                for _ in connection.run(statement, seconds=STATEMENT_SECONDS):
                    pass
        except BaseException:
            connection.close()
            raise
        chunks = connection.run(text, rows=True, seconds=limits.seconds + HANG_SECONDS, on_progress=on_progress)
        return _rows(chunks, connection.close)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        self.engine.close()

    def _take(self) -> Connection:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_usable:
                    return connection
        return self.engine.connect()

    def _give_back(self, connection: Connection) -> None:
        """Keeps it for the next call, or closes it, which also ends what still runs there."""
        with self._lock:
            if connection.is_usable and len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.close()


def _rows(chunks: Generator[bytearray, None, None], give_back: Callable[[], None]) -> Rows:
    """The answer that comes in chunks. give_back: called once, at its end."""

    def end() -> None:
        chunks.close()
        give_back()

    end_once = once(end)

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from first
            for chunk in chunks:
                yield from ipc.open_stream(chunk)
        finally:
            end_once()

    try:
        first = ipc.open_stream(next(chunks))
    except BaseException:
        end_once()
        raise
    return Rows(first.schema, batches(), end_once)
