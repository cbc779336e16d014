"""A WSGI server that slow and hostile clients cannot occupy, on the standard library's.

A client gets one request, a few kilobytes to say it in and a few seconds to be done. Requests are served by a bounded
number of threads; when all are taken, a connection that only waits for its client is closed for the new one, so
clients that hold connections cannot keep the others out.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from socketserver import TCPServer
from typing import IO, TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from wiremeter.errors import InputError, PermissionNeeded, WiremeterError
from wiremeter.linux.holders import port_holder
from wiremeter.settings import Listen

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

#: Requests served at a time.
MAX_CONNECTIONS = 16
#: Seconds a client has to send its request, and again to take the answer.
CLIENT_SECONDS = 10.0
#: Most bytes of request line and headers.
MAX_REQUEST_BYTES = 16 * 1024

#: No event of poll's.
_NOTHING = 0


@contextlib.contextmanager
def serve(listen: Listen, app: WSGIApplication) -> Iterator[Listen]:
    """Serves `app` in threads of its own while the block runs; gives the address that was taken.

    Raises InputError if the address is not ours, cannot be resolved, or is in use, then naming who has it;
    PermissionNeeded for a port below 1024 without the capability.
    """
    server = _bind(listen)
    server.set_app(app)
    thread = threading.Thread(target=server.accept_until_stopped, name="http", daemon=True)
    thread.start()
    try:
        yield server.taken
    finally:
        server.stop()
        thread.join()
        server.server_close()


def _bind(listen: Listen) -> _Server:
    try:
        candidates = socket.getaddrinfo(
            listen.host or None, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot listen on {listen}: its host does not resolve ({error}); change --listen") from error
    # Without a host, the IPv6 wildcard takes IPv4 as well; a machine without IPv6 takes the other.
    candidates.sort(key=lambda candidate: candidate[0] != socket.AF_INET6 and not listen.host)
    refusal = OSError(errno.EADDRNOTAVAIL, "no address")
    for family, _, _, _, address in candidates:
        try:
            return _Server(family, address)
        except OSError as error:
            refusal = error
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                break
    raise _refused(listen, refusal) from refusal


def _refused(listen: Listen, error: OSError) -> WiremeterError:
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(listen.port) or "another process"
        return InputError(
            f"cannot listen on {listen}: {holder} has that port already; stop it, "
            "or choose another address with --listen (or WIREMETER_LISTEN, or listen in the file)"
        )
    if error.errno == errno.EACCES:
        return PermissionNeeded(f"cannot listen on {listen}: ports below 1024 need root or CAP_NET_BIND_SERVICE")
    if error.errno == errno.EADDRNOTAVAIL:
        return InputError(f"cannot listen on {listen}: no device of this machine has that address; change --listen")
    return InputError(f"cannot listen on {listen}: {error.strerror}; change --listen")


class _Server(WSGIServer):
    """A thread a connection, at most MAX_CONNECTIONS of them."""

    request_queue_size = 128

    def __init__(self, family: socket.AddressFamily, address: Any) -> None:
        self.address_family = family
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._awaits: dict[socket.socket, int] = {}  # what of its client, as poll's event; oldest connection first
        self._stopping = False
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks DNS for our own name, which can take long.
        TCPServer.server_bind(self)
        host, port = self.socket.getsockname()[:2]
        self.server_name, self.server_port = host, port
        self.taken = Listen(host, port)
        self.setup_environ()

    def accept_until_stopped(self) -> None:
        """Takes connections until `stop`. Not serve_forever, which wakes up twice a second to see whether to stop."""
        while not self._stopping:
            try:
                request, client_address = self.get_request()
            except OSError as error:  # stopped, or no file descriptor to be had
                if not self._stopping:
                    log.warning("cannot take a connection", extra={"error": str(error)})
                    time.sleep(0.1)
            else:
                self.process_request(request, client_address)

    def stop(self) -> None:
        """Ends `accept_until_stopped`; may be called from any thread."""
        self._stopping = True
        self.socket.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        patience = 0.0
        while not self._slots.acquire(timeout=patience):
            self._hang_up_one()
            patience = 0.05
        with self._lock:
            self._awaits[request] = _NOTHING
        try:
            threading.Thread(target=self._serve, args=(request, client_address), name="http", daemon=True).start()
        except RuntimeError:  # no thread to be had
            self._done(request)

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception as error:  # whatever a client does, only its own connection ends
            log.debug("request ended early: %s: %s", type(error).__name__, error)
        finally:
            self._done(request)

    def _done(self, request: socket.socket) -> None:
        with self._lock:
            self._awaits.pop(request, None)
        self.shutdown_request(request)
        self._slots.release()

    def awaits(self, request: socket.socket, event: int) -> None:
        """What the connection's thread needs of its client now: POLLIN, POLLOUT, or nothing while it works."""
        with self._lock:
            if request in self._awaits:
                self._awaits[request] = event

    def _hang_up_one(self) -> None:
        """Closes the oldest connection whose client has us wait, if there is one."""
        with self._lock:
            idle = (request for request, event in self._awaits.items() if event and not _poll(request, event, 0))
            request = next(idle, None)
            if request:
                del self._awaits[request]
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


def _poll(connection: socket.socket, event: int, seconds: float) -> bool:
    """Whether the event, or an end of the connection, came in time."""
    poll = select.poll()
    poll.register(connection, event)
    return bool(poll.poll(seconds * 1000))


class _Handler(WSGIRequestHandler):
    """One request a connection."""

    server: _Server
    timeout = CLIENT_SECONDS  # for the answer; sendall takes it as a whole

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_RequestBytes(self.connection, self.server), MAX_REQUEST_BYTES)

    def parse_request(self) -> bool:
        is_good = super().parse_request()
        self.server.awaits(self.connection, select.POLLOUT)
        return is_good

    def get_stderr(self) -> IO[str]:
        return io.StringIO()  # wsgiref's tracebacks: a client that went away; ours are logged by the application

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("http: " + format, *args)


class _RequestBytes(io.RawIOBase):
    """The bytes of a request, up to a size and a moment: byte by byte gains a client nothing."""

    def __init__(self, connection: socket.socket, server: _Server) -> None:
        self._connection = connection
        self._server = server
        self._left = MAX_REQUEST_BYTES
        self._deadline = time.monotonic() + CLIENT_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            raise TimeoutError("the request is too large")
        # Wait first and take the bytes then: a connection with bytes to take is never one that has us wait.
        self._server.awaits(self._connection, select.POLLIN)
        in_time = _poll(self._connection, select.POLLIN, max(0.0, self._deadline - time.monotonic()))
        self._server.awaits(self._connection, _NOTHING)
        if not in_time:
            raise TimeoutError("the request took too long")
        count = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count
