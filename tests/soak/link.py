"""The network between agents and the server: a forwarder that can be cut and slowed down."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from typing import Self


class Link:
    """Listens on a port of its own, which stays the same while the server's changes. A context manager."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.target = ("127.0.0.1", 0)
        #: Seconds that each piece is held up.
        self.delay = 0.0
        #: Connections that were open at a time, at most.
        self.most_open = 0
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_ended = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ended = True
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Ends all connections, and takes no new ones, until `mend`."""
        self._is_cut = True
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Lets through again, at once."""
        self._is_cut, self.delay = False, 0.0

    def _accept(self) -> None:
        while not self._is_ended:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(near,), daemon=True).start()

    def _forward(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            if self._is_cut:
                return
            with socket.create_connection(self.target, 5) as far:
                with self._lock:
                    self._open |= {near, far}
                    self.most_open = max(self.most_open, len(self._open) // 2)
                try:
                    self._pump(near, far)
                finally:
                    with self._lock:
                        self._open -= {near, far}

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while not self._is_cut:
                for key, _ in ready.select(1.0):
                    piece = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not piece:
                        return
                    time.sleep(self.delay)
                    key.data.sendall(piece)
