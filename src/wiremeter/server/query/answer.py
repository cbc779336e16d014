"""An answer: rows as they come, and what is to be known of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import pyarrow as pa


class Answer:
    """schema: the rows' columns. about: facts of the whole, plain values. Iterate it once, and close it.

    next_page: called behind the last row, the word that continues a search, None where there is no more.
    """

    def __init__(
        self,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        about: Mapping[str, Any],
        close: Callable[[], None] = lambda: None,
        next_page: Callable[[], str | None] | None = None,
    ) -> None:
        self.schema = schema
        self.about = dict(about)
        self.next_page = next_page
        self._batches = batches
        self._close = close

    @classmethod
    def of(cls, table: pa.Table, about: Mapping[str, Any]) -> Self:
        """All of it at once."""
        return cls(table.schema, iter(table.to_batches()), about)

    def table(self) -> pa.Table:
        """All rows."""
        with self:
            return pa.Table.from_batches(list(self), self.schema)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches

    def close(self) -> None:
        """Ends the query, if it is not at its end."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
