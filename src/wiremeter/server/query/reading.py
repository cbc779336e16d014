"""What questions read the store by: the store itself, or one that tells how far it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from wiremeter.errors import WiremeterError
from wiremeter.server.store import Rows, Store
from wiremeter.server.store.source import Source


class Reads(Protocol):
    """All that questions need of a Store; methods as there."""

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """As Store.query."""

    def query_untrusted(self, sql: str) -> Rows:
        """As Store.query_untrusted."""

    def source(self, columns: Collection[str], start_ns: int, end_ns: int, *, step: int = 0) -> Source:
        """As Store.source."""


class Progress(NamedTuple):
    """rows: read so far. total: that are to be read as far as is known, 0 if it is not."""

    rows: int
    total: int


class Abandoned(WiremeterError):
    """Nobody waits for the answer."""


class Watched:
    """A store whose progress can be looked at, from another thread, while one question is asked of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_abandoned = False
        self.progress: Progress | None = None

    def abandon(self) -> None:
        """Has the question end soon, with Abandoned."""
        self._is_abandoned = True

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        return self._store.query(sql, parameters, on_progress=self._note)

    def query_untrusted(self, sql: str) -> Rows:
        return self._store.query_untrusted(sql, on_progress=self._note)

    def source(self, columns: Collection[str], start_ns: int, end_ns: int, *, step: int = 0) -> Source:
        return self._store.source(columns, start_ns, end_ns, step=step)

    def _note(self, rows: int, total: int) -> None:
        if self._is_abandoned:
            raise Abandoned("nobody waits for the answer")
        self.progress = Progress(rows, total)
