"""Something that is made while its maker waits for the kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Meanwhile(Generic[T]):
    """Calls `make` in a thread of its own, from now on. A context manager: at its end `undo` is called with what was
    made, whether anybody asked for it or not."""

    def __init__(self, make: Callable[[], T], undo: Callable[[T], None], name: str) -> None:
        self._make = make
        self._undo = undo
        self._made: list[T] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join()
        for made in self._made:
            self._undo(made)

    def result(self) -> T:
        """What was made, as soon as it is. Raises what `make` raised."""
        self._thread.join()
        if self._failure:
            raise self._failure
        return self._made[0]

    def _run(self) -> None:
        try:
            self._made.append(self._make())
        except BaseException as failure:
            self._failure = failure
