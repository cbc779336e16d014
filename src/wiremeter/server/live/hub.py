"""Hands what was just stored to those who watch, each within bounds: who is too slow is let go, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Self

import msgspec
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from wiremeter.server.live.interval import View, event, metered_batch
from wiremeter.server.store import Batch, Unavailable

log = logging.getLogger(__name__)

#: Who may watch at a time.
CLIENTS_MAX = 100
#: Events that may wait for one of them; with more it is too slow.
WAITING_MAX = 64
#: Batches that may wait to be looked at; of more the oldest are left out.
BATCHES_MAX = 16
#: Seconds of silence after which a comment says that the connection lives.
HEARTBEAT_SECONDS = 15.0
#: Seconds that one who does not read has at the end, before it is cut off.
_LAST_SECONDS = 1.0


class _Client:
    """One who watches. abort: cuts its connection off, whatever is on its way."""

    def __init__(self, view: View, abort: Callable[[], None]) -> None:
        self.view = view
        self.abort = abort
        self.waiting: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_MAX)


class Live(Collector):
    """A context around a running event loop. `take` may be called from any thread; all else from the loop's."""

    def __init__(self) -> None:
        self._clients: set[_Client] = set()
        self._batches: deque[Batch] = deque()
        self._lock = threading.Lock()
        self._has_batches = asyncio.Event()
        self._is_closed = False
        self._counts: Counter[str] = Counter(slow=0, skipped=0)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._hand_out())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def take(self, batch: Batch) -> None:
        """A batch that is stored now."""
        if not self._clients or self._is_closed:
            return
        with self._lock:
            self._batches.append(batch)
            if len(self._batches) > BATCHES_MAX:
                self._batches.popleft()
                self._counts["skipped"] += 1
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._has_batches.set)

    def watch(self, view: View, abort: Callable[[], None]) -> AsyncIterator[bytes]:
        """Events as JSON; b"" where there was none for a while. Ends when the server does, or for one too slow.

        Raises Unavailable where too many watch.
        """
        if self._is_closed or len(self._clients) >= CLIENTS_MAX:
            raise Unavailable(f"{len(self._clients)} watch already; try again later", retry_after=5)
        return self._events(_Client(view, abort))

    async def _events(self, client: _Client) -> AsyncIterator[bytes]:
        self._clients.add(client)  # here, since what follows is left only if it was begun
        try:
            yield b""
            while not self._is_closed:
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        found = await client.waiting.get()
                except TimeoutError:
                    found = b""
                if found is None:
                    return
                yield found
        finally:
            self._clients.discard(client)

    def close(self) -> None:
        """Ends what all see; who does not read is cut off."""
        if self._is_closed:
            return
        self._is_closed = True
        for client in list(self._clients):
            with contextlib.suppress(asyncio.QueueFull):
                client.waiting.put_nowait(None)
            self._loop.call_later(_LAST_SECONDS, self._cut_off, client)

    def _cut_off(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            client.abort()

    async def _hand_out(self) -> None:
        while True:
            await self._has_batches.wait()
            with self._lock:
                batch = self._batches.popleft() if self._batches else None
                if not self._batches:
                    self._has_batches.clear()
            if batch is None:
                continue
            agent = batch.about.identity.agent
            views = {client.view for client in self._clients if client.view.agent in ("", agent)}
            if not views:
                continue
            try:
                events = await asyncio.to_thread(_events, batch, views)
            except Exception:
                log.exception("an interval cannot be shown", extra={"agent": agent})
                continue
            for client in list(self._clients):
                if client.view in events:
                    self._give(client, events[client.view])

    def _give(self, client: _Client, event: bytes) -> None:
        try:
            client.waiting.put_nowait(event)
        except asyncio.QueueFull:
            self._counts["slow"] += 1
            self._cut_off(client)

    def collect(self) -> Iterator[Metric]:
        """Who watches, and what was lost on them."""
        yield GaugeMetricFamily("wiremeter_server_live_clients", "Who watches /v1/live.", value=len(self._clients))
        for name, key, about in (
            ("wiremeter_server_live_slow_clients", "slow", "Who watched /v1/live and was cut off, being too slow."),
            (
                "wiremeter_server_live_skipped_batches",
                "skipped",
                "Batches left out of /v1/live, of too many at once.",
            ),
        ):
            yield CounterMetricFamily(name, about, value=self._counts[key])

    def describe(self) -> list[Metric]:
        """Nothing: the names are checked when they are collected."""
        return []


def _events(batch: Batch, views: set[View]) -> dict[View, bytes]:
    metered = metered_batch(batch)
    return {view: msgspec.json.encode(event(batch, metered, view)) for view in views}
