"""Where batches come from, as those see it who show them or hand them on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Protocol, Self

from wiremeter.flows.batch import FlowBatch


class BatchSource(Protocol):
    """A Monitor, or what stands before one. Its batches are read once, by one reader."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...
    def __iter__(self) -> Iterator[FlowBatch]: ...
    def __aiter__(self) -> AsyncIterator[FlowBatch]: ...
    def close(self) -> None:
        """Asks it to end."""
