"""A meter whose batches also go elsewhere, each before it is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Protocol, Self, cast

from wiremeter.flows.batch import FlowBatch


class Source(Protocol):
    """What a Monitor is here."""

    def __enter__(self) -> object: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...
    def __iter__(self) -> Iterator[FlowBatch]: ...
    def __aiter__(self) -> AsyncIterator[FlowBatch]: ...
    def close(self) -> None: ...


class Handing:
    """Hands on what `source` yields. Opens and closes it; `elsewhere` is opened before it and closed after it."""

    def __init__(self, source: Source, elsewhere: AbstractContextManager[Callable[[FlowBatch], None]]) -> None:
        self._source = source
        self._elsewhere = elsewhere
        self._resources = ExitStack()
        self._write: Callable[[FlowBatch], None] = lambda batch: None

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self._write = opening.enter_context(self._elsewhere)
            opening.enter_context(cast("AbstractContextManager[object]", self._source))
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
