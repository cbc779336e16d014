"""What the store needs of a database; embedded.py and native.py are two that have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import pyarrow as pa

    from wiremeter.server.store.schema import Table

#: Called with rows read so far, and how many there are to read, 0 where that is not known.
OnProgress = Callable[[int, int], None]


def once(function: Callable[[], None]) -> Callable[[], None]:
    """Calls `function` the first time, and does nothing after that."""
    rest = [function]

    def call() -> None:
        if rest:
            rest.pop()()

    return call


class Rows:
    """An answer: its columns, and its rows as they come. Iterate it once, and close it, or use it as a context.

    schema: the columns, there before any row. Iterating gives record batches; raises TooMuch, Refused or Unavailable
    when the engine stops amid the answer.
    """

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], close: Callable[[], None]) -> None:
        self.schema = schema
        self._batches = batches
        self._close = close

    def then(self, function: Callable[[], None]) -> Self:
        """Calls `function` once, too, when it ends or is closed."""
        batches, close = self._batches, self._close
        call = once(function)

        def all_of_it() -> Iterator[pa.RecordBatch]:
            try:
                yield from batches
            finally:
                call()

        def close_both() -> None:
            close()
            call()

        self._batches, self._close = all_of_it(), close_both
        return self

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches

    def table(self) -> pa.Table:
        """All of it. Closes."""
        import pyarrow as pa

        with self:
            return pa.Table.from_batches(list(self._batches), self.schema)

    def records(self) -> list[dict[str, Any]]:
        """All of it as Python objects, one dict a row. Closes."""
        found: list[dict[str, Any]] = self.table().to_pylist()
        return found

    def close(self) -> None:
        """Ends the query, if it is not at its end."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # whoever forgot it shall not hold a connection, and a place among queries


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """What one query of a user may take: time, memory of the engine, and rows and bytes of its answer."""

    seconds: float = 30.0
    memory_bytes: int = 200 << 20
    rows: int = 1_000_000
    result_bytes: int = 256 << 20

    def settings(self) -> dict[str, str | int]:
        """As the engine's settings. What goes beyond is an error, nothing is cut off in silence."""
        return {
            "max_execution_time": max(1, round(self.seconds)),
            "timeout_overflow_mode": "throw",
            "max_memory_usage": self.memory_bytes,
            "max_result_rows": self.rows,
            "max_result_bytes": self.result_bytes,
            "result_overflow_mode": "throw",
            "max_threads": 2,
            "max_subquery_depth": 20,
            "max_ast_depth": 200,
            "max_ast_elements": 10_000,
            "max_expanded_ast_elements": 50_000,
        }


class Backend(Protocol):
    """A database. All methods may be called from any thread, and raise Refused, TooMuch or Unavailable."""

    #: Whether only this process writes there.
    is_alone: bool

    @property
    def restarts(self) -> int:
        """How often its engine was started again."""

    def define(self, table: Table) -> None:
        """Makes a table, and the database, if they are not there."""

    def keep(self, table: Table, days: int) -> None:
        """Has rows that are older dropped."""

    def execute(self, sql: str, *, settings: Mapping[str, str | int] | None = None) -> None:
        """Runs a statement that has no rows to answer."""

    def insert(self, table: str, columns: Sequence[str], file: Path, *, token: str) -> None:
        """Inserts a file with an Arrow IPC stream of exactly these columns. All its rows or none are visible then.

        token: what was inserted with it before is not inserted again.
        """

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, str | int] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Rows:
        """Runs a query of ours. parameters: for `{name:Type}` in it."""

    def one_line(self, sql: str) -> str:
        """One statement as the engine reads it, on one line without comments. Raises Refused if it is not one."""

    def query_untrusted(self, text: str, limits: QueryLimits, *, on_progress: OnProgress | None = None) -> Rows:
        """Runs text that sandbox.allowed_text gave, in the store's database, read-only and within limits."""

    def close(self) -> None:
        """Ends it. Queries that still run end with Unavailable."""
