"""A receiver of webhooks: a real HTTP server that keeps what it is sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Receiver:
    """A context manager. taken: the documents that it answered with 200. is_away: it answers 503."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.refused = 0
        self.is_away = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._take))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def states(self) -> list[tuple[str, str]]:
        """Each alert that was told, by its name, and its status, in order."""
        return [(alert["labels"]["alertname"], alert["status"]) for each in self.taken for alert in each["alerts"]]

    def _take(self, body: bytes, key: str | None) -> int:
        if self.is_away:
            self.refused += 1
            return 503
        self.taken.append(json.loads(body))
        self.keys.append(key)
        return 200

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(take: Callable[[bytes, str | None], int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = take(body, self.headers["Idempotency-Key"])
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
