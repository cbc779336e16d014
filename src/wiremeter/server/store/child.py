"""The engine's process: ClickHouse, embedded, alone with its threads. Started by engine.py as `python -m`.

It takes its orders from a control socket, which is its standard input: each message there brings the end of a new
socket, and each such socket is a connection of its own to the engine, answered by a thread of its own. When the control
socket closes, the server is gone, and the process ends at once: everything that it acknowledged is on disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from wiremeter.server.store.channel import ChannelClosed, receive, send

#: Seconds between two messages about a query's progress.
_PROGRESS_SECONDS = 0.2
_CODE = re.compile(r"Code: (\d+)\.")


def main() -> None:
    """Serves until the control socket closes."""
    import chdb  # 300 MB, so whoever imports this module to look at it goes without

    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # the server decides when its engine ends
    control = socket.socket(fileno=os.dup(0))
    connection_string = sys.argv[1]
    keep_alive = chdb.connect(connection_string)  # the engine lives as long as one of its connections
    keep_alive.query("SELECT 1")
    control.sendall(b"+")
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            # The end of this process must not wait for queries, or for a destructor that hangs.
            os._exit(0)
        for descriptor in descriptors:
            sock = socket.socket(fileno=descriptor)
            threading.Thread(target=_serve, args=(sock, chdb.connect(connection_string)), daemon=True).start()


def _serve(sock: socket.socket, connection: Any) -> None:
    """Answers what comes over one socket, one request after the other, until it is closed."""
    with sock, contextlib.closing(connection):
        answers = _Answers(sock)
        with contextlib.suppress(OSError):  # the reader is gone: so is this connection
            while True:
                try:
                    request, _ = receive(sock)
                except ChannelClosed:
                    return
                _answer(answers, connection, request)


def _answer(answers: _Answers, connection: Any, request: dict[str, Any]) -> None:
    began = time.monotonic()
    if request.get("progress"):
        connection.set_progress_callback(answers.progress)
    try:
        for chunk in _run(connection, request):
            answers.send({"kind": "rows"}, chunk)
    except OSError:
        raise  # of the socket
    except Exception as error:  # whatever the engine raises, whoever asked must hear of it
        message = str(error)
        found = _CODE.search(message)
        answers.send({"kind": "error", "message": message, "code": int(found[1]) if found else 0})
    else:
        answers.send({"kind": "end", "seconds": time.monotonic() - began})
    finally:
        if request.get("progress"):
            connection.set_progress_callback(None)


def _run(connection: Any, request: dict[str, Any]) -> Iterator[bytes]:
    """The chunks of an answer, each an Arrow IPC stream of its own; at least one if rows are asked for."""
    sql, parameters = request["sql"], request.get("parameters") or {}
    if not request["rows"]:
        connection.query(sql, "Null", params=parameters)
        return
    is_empty = True
    with connection.send_query(sql, "ArrowStream", params=parameters) as stream:
        for chunk in stream:
            if data := chunk.bytes():
                is_empty = False
                yield data
    if is_empty:  # a stream without rows does not tell its columns
        yield connection.query(sql, "ArrowStream", params=parameters).bytes()


class _Answers:
    """What is sent over one socket: progress comes from the engine's threads, while rows are sent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._next_progress = 0.0

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        with self._lock:
            send(self._sock, header, body)

    def progress(self, told: dict[str, int]) -> None:
        """Tells of a query's progress, not too often."""
        if time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + _PROGRESS_SECONDS
            with contextlib.suppress(OSError):  # sending rows will find out
                self.send({"kind": "progress", "rows": told["read_rows"], "total": told["total_rows_to_read"]})


if __name__ == "__main__":
    main()
