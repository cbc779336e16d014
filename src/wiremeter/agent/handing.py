"""A meter whose batches also go elsewhere, each before it is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Self

from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.source import BatchSource


class Handing:
    """Hands on what `source` yields. Opens and closes it; `elsewhere` is opened before it and closed after it."""

    def __init__(self, source: BatchSource, elsewhere: AbstractContextManager[Callable[[FlowBatch], None]]) -> None:
        self._source = source
        self._elsewhere = elsewhere
        self._resources = ExitStack()
        self._write: Callable[[FlowBatch], None] = lambda batch: None

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self._write = opening.enter_context(self._elsewhere)
            opening.enter_context(self._source)
            self._resources = opening.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def close(self) -> None:
        """Asks the source to end."""
        self._source.close()

    def __iter__(self) -> Iterator[FlowBatch]:
        for batch in self._source:
            self._write(batch)
            yield batch

    async def __aiter__(self) -> AsyncIterator[FlowBatch]:
        async for batch in self._source:
            self._write(batch)
            yield batch
