"""uvicorn on a thread of its own, so that slow and hostile clients cannot occupy it.

A client gets one request, a few kilobytes to say it in and a few seconds to be done. uvicorn by itself waits for a
request for ever, and holds any number of connections and of answers that nobody takes. Here both are bounded; beyond,
the oldest connection that only waits for its client is closed for the new one, so clients that hold connections cannot
keep the others out.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from wiremeter.agent.http import Application
from wiremeter.linux.listening import bind
from wiremeter.settings import Listen

#: Connections at a time, and answers at a time that wait to be taken.
MAX_CONNECTIONS, MAX_UNSENT = 128, 16
#: Seconds a client has to send its request, and again to take the answer.
CLIENT_SECONDS = 10.0
#: Most bytes of request line and headers.
MAX_REQUEST_BYTES = 16 * 1024

#: How long a stop waits for answers on their way.
_LAST_SECONDS = 1


@contextlib.contextmanager
def serve(listen: Listen, app: Application) -> Iterator[Listen]:
    """Serves `app` in a thread of its own while the block runs; gives the address that was taken.

    Raises InputError if the address is not ours, cannot be resolved, or is in use, then naming who has it;
    PermissionNeeded for a port below 1024 without the capability.
    """
    with bind(listen) as listening:
        server = _Server(
            uvicorn.Config(
                app,
                http=_Connection,
                loop="asyncio",
                ws="none",
                lifespan="off",
                headers=[("Connection", "close")],
                server_header=False,
                log_config=None,
                log_level="critical",  # what clients do wrong is theirs; what the application does is logged by it
                access_log=False,
                h11_max_incomplete_event_size=MAX_REQUEST_BYTES,
                timeout_graceful_shutdown=_LAST_SECONDS,
            )
        )
        thread = threading.Thread(target=server.run_until_stopped, args=(listening,), name="http", daemon=True)
        thread.start()
        try:
            yield Listen(*listening.getsockname()[:2])
        finally:
            server.stop()
            thread.join()


class _Server(uvicorn.Server):
    """uvicorn, which a call ends, and which otherwise wakes up once a second instead of ten times."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._event_loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()

    def run_until_stopped(self, listening: socket.socket) -> None:
        """Serves on a bound socket until `stop`."""
        with asyncio.Runner(loop_factory=lambda: self._event_loop) as runner:
            runner.run(self.serve(sockets=[listening]))

    def stop(self) -> None:
        """Ends `run_until_stopped`; may be called from any thread, before it has begun too."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._event_loop.call_soon_threadsafe(self._stopped.set)

    async def main_loop(self) -> None:
        while not self._stopped.is_set():
            await self.on_tick(0)  # what responses have as their Date
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), 1.0)


class _Connection(H11Protocol):
    """One request, and no client that has us wait for long."""

    _cut_off: asyncio.TimerHandle | None = None
    _is_cut_off = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._socket: socket.socket = transport.get_extra_info("socket")
        self.made = self.loop.time()
        self._give_time()
        connections = self._all()
        if len(connections) > MAX_CONNECTIONS:
            _hang_up([each for each in connections if each.awaits_client()], len(connections) - MAX_CONNECTIONS)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cut_off:
            self._cut_off.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._give_time()
        unsent = [each for each in self._all() if each.transport.get_write_buffer_size()]
        _hang_up(unsent, len(unsent) - MAX_UNSENT)

    def awaits_client(self) -> bool:
        """Whether nothing can be done now until the client does something."""
        if self._is_at_work():
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT if self.cycle else select.POLLIN)
        return not poll.poll(0)

    def hang_up(self) -> None:
        """Closes the connection at once; what the client has not taken is forgotten, in the kernel too."""
        self._is_cut_off = True
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _give_time(self) -> None:
        """To send the request, or to take the answer: each time as much, however many bytes come meanwhile."""
        if self._cut_off:
            self._cut_off.cancel()
        self._cut_off = self.loop.call_later(CLIENT_SECONDS, self._end_unless_at_work)

    def _end_unless_at_work(self) -> None:
        if self._is_at_work():
            self._give_time()
        else:
            self.hang_up()

    def _is_at_work(self) -> bool:
        """Whether the application has the request, and has not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _all(self) -> list[_Connection]:
        return [each for each in cast("set[_Connection]", self.connections) if not each._is_cut_off]


def _hang_up(connections: list[_Connection], count: int) -> None:
    """Closes the oldest."""
    for connection in sorted(connections, key=lambda each: each.made)[: max(count, 0)]:
        connection.hang_up()
