"""uvicorn with what it lacks: certificates that are read again, whom a client's certificate names, and time limits.

uvicorn waits for a request for ever and does not tell applications of certificates. Here a client has some seconds to
say its headers in; the body's time is the application's business (ingest.body).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wiremeter.server.http.tls import TlsFiles

log = logging.getLogger(__name__)

#: Seconds that a client has for the headers of a request, the TLS handshake included.
HEADER_SECONDS = 10.0
#: Seconds for which the rest of a body is passed over, once the answer was given.
LINGER_SECONDS = 5.0
#: Seconds that a connection may be idle between two requests.
IDLE_SECONDS = 60
#: Connections at a time.
CONNECTIONS_MAX = 4096
#: Seconds that a stop waits for requests on their way.
_LAST_SECONDS = 10
_LOOK_SECONDS = 5.0

Application = Callable[..., Awaitable[None]]


class Serving(uvicorn.Server):
    """Serves an application on a socket that listens, until `stop`. Signals are others' business."""

    def __init__(self, app: Application, tls: TlsFiles | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,
                loop="asyncio",
                ws="none",
                lifespan="off",
                server_header=False,
                date_header=True,
                proxy_headers=False,
                log_config=None,
                log_level="critical",  # what clients do wrong is theirs; what the application does is logged by it
                access_log=False,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=_LAST_SECONDS,
            )
        )
        self._tls = tls
        self._stopped = asyncio.Event()

    async def serve_on(self, listening: socket.socket) -> None:
        """Until `stop` is called, from the same thread."""
        self.config.load()
        self.config.ssl = self._tls.context if self._tls else None
        await self._serve(sockets=[listening])

    def stop(self) -> None:
        """Takes no more connections, and ends when the requests on their way have their answers."""
        self._stopped.set()

    async def main_loop(self) -> None:
        looked = asyncio.get_running_loop().time()
        while not self._stopped.is_set():
            await self.on_tick(0)  # what responses have as their Date
            now = asyncio.get_running_loop().time()
            if self._tls and now - looked >= _LOOK_SECONDS:
                looked = now
                self._tls.look()
            try:
                async with asyncio.timeout(1.0):
                    await self._stopped.wait()
            except TimeoutError:
                continue


class _Connection(HttpToolsProtocol):
    """A client, which must say its headers soon; with the URIs of its certificate in the scope."""

    _cut_off: asyncio.TimerHandle | None = None
    _is_body_whole = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert")
        self._uris = uris_of(certificate) if certificate else ()
        self._give_time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_time()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_body_whole = False
        extensions = self.scope.setdefault("extensions", {})
        extensions["wiremeter.certificate"] = {"uris": self._uris}
        extensions["wiremeter.connection"] = {"abort": self.transport.abort}  # for who does not read what it asked for
        if self._cut_off is None:
            self._give_time()

    def on_headers_complete(self) -> None:
        self._take_time()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_body_whole = True
        self._take_time()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Who hangs up while bytes come destroys the answer on its way: so what still comes is passed over for a while.
        if not self._is_body_whole and self._cut_off is None:
            self._give_time(LINGER_SECONDS)

    def _give_time(self, seconds: float = HEADER_SECONDS) -> None:
        self._cut_off = self.loop.call_later(seconds, self.transport.abort)

    def _take_time(self) -> None:
        if self._cut_off:
            self._cut_off.cancel()
            self._cut_off = None


def uris_of(certificate: dict[str, Any]) -> tuple[str, ...]:
    """The URIs among a certificate's subject alternative names, as ssl tells them.

    >>> uris_of({"subjectAltName": (("DNS", "a.example"), ("URI", "urn:wiremeter:agent:web-1"))})
    ('urn:wiremeter:agent:web-1',)
    """
    return tuple(value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI")
