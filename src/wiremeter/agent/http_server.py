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
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from wiremeter.agent.http import Application
from wiremeter.linux.listening import bind
from wiremeter.settings import Listen

#: Gives what secures the next connection; None: nothing does.
Tls = Callable[[], ssl.SSLContext | None]

#: Connections at a time, and answers at a time that wait to be taken.
MAX_CONNECTIONS, MAX_UNSENT = 128, 16
#: Seconds a client has to send its request, and again to take the answer.
CLIENT_SECONDS = 10.0
#: Most bytes of request line and headers.
MAX_REQUEST_BYTES = 16 * 1024

#: How long a stop waits for answers on their way.
_LAST_SECONDS = 1


@contextlib.contextmanager
def serve(
    listen: Listen, app: Application, tls: Callable[[], ssl.SSLContext | None] = lambda: None
) -> Iterator[Listen]:
    """Serves `app` in a thread of its own while the block runs; gives the address that was taken.

    tls: asked at each connection, so that certificates can be renewed; None: in clear.
    Raises InputError if the address is not ours, cannot be resolved, or is in use, then naming who has it;
    PermissionNeeded for a port below 1024 without the capability.
    """
    with bind(listen) as listening:
        server = _Server(
            uvicorn.Config(
                app,
                http=partial(_Connection, tls),  # type: ignore[arg-type]
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
    _early: bytearray | None = None

    def __init__(self, tls: Tls, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._tls = tls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The bounds hold from here on: a client that never ends its handshake is one that only waits, as others."""
        super().connection_made(transport)
        self._socket: socket.socket = transport.get_extra_info("socket")
        self.made = self.loop.time()
        self._give_time()
        connections = self._all()
        if len(connections) > MAX_CONNECTIONS:
            _hang_up([each for each in connections if each.awaits_client()], len(connections) - MAX_CONNECTIONS)
        if context := self._tls():
            transport.pause_reading()  # what is sent belongs to the handshake
            self._early = bytearray()
            self._securing = self.loop.create_task(self._secure(transport, context))

    def data_received(self, data: bytes) -> None:
        if self._early is None:
            super().data_received(data)
        else:  # it came with the end of the handshake: an answer now would go out in clear
            self._early += data

    async def _secure(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secure = await self.loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=CLIENT_SECONDS
            )
        except (OSError, RuntimeError):  # ssl.SSLError is one of these; RuntimeError: the loop is closing
            self.hang_up()
            self.connection_lost(None)
        else:
            assert secure
            super().connection_made(secure)
            early, self._early = self._early, None
            if early and not self._is_cut_off:
                super().data_received(bytes(early))

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
