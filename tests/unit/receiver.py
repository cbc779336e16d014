"""A server of the tests' own that takes what agents ship, as the contract says, over real sockets."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pyarrow as pa

from wiremeter.shipment.identity import About, Identity, read_content_digest
from wiremeter.shipment.schema import MEDIA_TYPE

#: A status, what else the headers say, and a body.
Answer = tuple[int, dict[str, str], bytes]


class Receiver:
    """Keeps batches by identity. A context manager.

    before: asked with path and headers ahead of each request; what it gives is answered instead. after: the same when
    the batch is kept already, so that the agent is not told.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.batches: dict[Identity, bytes] = {}
        self.order: list[Identity] = []
        self.repeated = 0
        self.conflicts: list[Identity] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.before: Callable[[str, dict[str, str]], Answer | None] = lambda path, headers: None
        self.after: Callable[[str, dict[str, str]], Answer | None] = lambda path, headers: None
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", "0")))
                status, more, said = receiver._answer(self.path, headers, body)
                if not status:  # hangs up
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {"Content-Length": str(len(said)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._http = Server((host, port), Handler)
        self.port = self._http.server_address[1]
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        with self._lock:
            self.requests.append((path, headers))
            if instead := self.before(path, headers):
                return instead
            if path == "/v1/heartbeats":
                self.heartbeats.append(json.loads(body))
                return 200, {}, b"{}"
            assert (path, headers["content-type"]) == ("/v1/batches", MEDIA_TYPE)
            assert read_content_digest(headers["content-digest"]) == hashlib.sha256(body).digest()
            metadata = pa.ipc.open_stream(body).schema.metadata
            identity = About.from_metadata({key.decode(): value.decode() for key, value in metadata.items()}).identity
            known = self.batches.get(identity)
            if known is not None and known != body:
                self.conflicts.append(identity)
                return 409, {}, b'{"error": "the same identity, other content"}'
            if known is None:
                self.batches[identity] = body
                self.order.append(identity)
            else:
                self.repeated += 1
            return self.after(path, headers) or (200, {}, json.dumps({"stored": known is None}).encode())
