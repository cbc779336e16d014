"""Starts the engine's process, hands out connections to it, and starts it again when it ended or hangs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from wiremeter.server.store.channel import ChannelClosed, receive, send
from wiremeter.server.store.errors import Refused, TooMuch, Unavailable
from wiremeter.server.store.files import engine_files

#: Seconds until the engine must be there; it looks through all parts when it starts.
START_SECONDS = 120
#: Seconds that the directory of a server that was just killed may still be held.
LOCK_SECONDS = 10.0
#: Seconds between two starts: this at first, twice as many each time, up to the second.
RESTART_SECONDS, RESTART_SECONDS_MAX = 0.5, 30.0
#: What stands before an error's words, for its authors.
_PREFIX = re.compile(r"^(Streaming query failed: )?(Code: \d+\. )?(DB::Exception: )?")
#: A process that lasted for so many seconds is no failed start.
_STABLE_SECONDS = 60
#: Errors that say that a query was too much: time, memory, rows or bytes to read, to answer, rows in sets.
_TOO_MUCH = frozenset({158, 159, 160, 191, 241, 307, 396, 394})


class EngineLost(Unavailable):
    """The engine's process ended or hung amid a call: what became of it is not known."""


class Engine:
    """The engine of one directory, in a process of its own.

    directory: where its data is; made if it is not there.
    on_lost: called with what happened whenever the process is found dead or hanging; from any thread.
    Raises Unavailable if another process has the directory, or the engine does not start.
    """

    def __init__(self, directory: Path, *, on_lost: Callable[[str], None], memory_bytes: int) -> None:
        self.directory = directory
        self._on_lost = on_lost
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._generation = 0
        self._started = 0.0
        self._wait = RESTART_SECONDS
        self._not_before = 0.0
        self._is_closed = False
        self.restarts = 0
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory_lock = _lock(directory / "lock")
        try:
            with self._lock:
                self._start()
        except BaseException:
            os.close(self._directory_lock)
            raise

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        process = self._process
        return process.pid if process and process.poll() is None else None

    def connect(self) -> Connection:
        """A new connection. Starts the engine again if it is gone. Raises Unavailable while it cannot be had."""
        with self._lock:
            if self._is_closed:
                raise Unavailable("the store is closed")
            if self._process is None or self._process.poll() is not None:
                self._find_lost("ended")
                self._start()
            assert self._control is not None
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    socket.send_fds(self._control, [b"c"], [theirs.fileno()])
                except OSError as error:
                    ours.close()
                    self._end_process()
                    raise EngineLost(f"the store's engine is gone ({error}); it is started again") from error
            return Connection(self, ours, self._generation)

    def lose(self, generation: int, how: str) -> None:
        """Told by a connection: the process of that generation ended or hangs. What is left of it is killed."""
        with self._lock:
            if generation == self._generation and not self._is_closed:
                self._find_lost(how)

    def close(self) -> None:
        """Ends the process, and waits for that."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._end_process()
                os.close(self._directory_lock)

    def _find_lost(self, how: str) -> None:
        """Counts and tells of a process that is gone, once."""
        if self._process is None:
            return
        pid, lasted = self._process.pid, time.monotonic() - self._started
        status = self._end_process()
        if lasted > _STABLE_SECONDS:
            self._wait = RESTART_SECONDS
        self._not_before = time.monotonic() + (0 if lasted > _STABLE_SECONDS else self._wait)
        self._wait = min(2 * self._wait, RESTART_SECONDS_MAX)
        self.restarts += 1
        self._on_lost(f"the store's engine, process {pid}, {how} ({_ending(status)}); it is started again")

    def _start(self) -> None:
        if (wait := self._not_before - time.monotonic()) > 0:
            raise Unavailable("the store's engine ended; it is started again in a moment", retry_after=wait)
        config = engine_files(self.directory / "engine", memory_bytes=self._memory_bytes)
        (self.directory / "data").mkdir(mode=0o700, exist_ok=True)
        connection_string = f"{self.directory.resolve() / 'data'}?config-file={config.resolve()}"
        control, theirs = socket.socketpair()
        log = self.directory / "engine" / "stderr"
        # A home and a directory of its own: it reads ./config.xml and ~/.clickhouse-local unasked.
        environment = {**os.environ, "HOME": str(config.parent.resolve()), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-P", "-m", "wiremeter.server.store.child", connection_string]
        with theirs, log.open("wb") as errors:
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=errors,
                stderr=errors,
                cwd=config.parent,
                env=environment,
                pass_fds=[self._directory_lock],  # so the directory stays locked until the engine is gone, too
                start_new_session=True,  # signals to the server's group are for the server
            )
        self._control, self._process = control, process
        self._generation += 1
        self._started = time.monotonic()
        control.settimeout(START_SECONDS)
        try:
            is_ready = control.recv(1) == b"+"
            how = "ended when it started"
        except TimeoutError:
            is_ready, how = False, f"did not start within {START_SECONDS} s"
        if not is_ready:
            self._find_lost(how)
            said = log.read_bytes()[-2000:].decode(errors="replace").strip()
            raise Unavailable(f"the store's engine {how}: {said or 'it said nothing'}", retry_after=self._wait)
        control.settimeout(10)

    def _end_process(self) -> int | None:
        """Ends the process whatever it does; its exit status, None if there was none."""
        control, process = self._control, self._process
        self._control = self._process = None
        if control:
            control.close()
        if process is None:
            return None
        try:
            return process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


class Connection:
    """One connection to the engine, for one call at a time.

    is_usable: False while a call is under way, and for good after EngineLost or an answer that was not read through.
    """

    def __init__(self, engine: Engine, sock: socket.socket, generation: int) -> None:
        self._engine = engine
        self._sock = sock
        self._generation = generation
        self.is_usable = True

    def run(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        seconds: float,
        rows: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Generator[bytearray, None, None]:
        """Runs one statement; the chunks of its answer, each an Arrow IPC stream, none unless rows are asked for.

        seconds: the longest wait for the next sign of life; then the process is taken to hang, and is replaced.
        Raises Refused or TooMuch for what the engine says, EngineLost when it is gone.
        """
        self.is_usable = False  # until the end of the answer was read
        request = {"sql": sql, "parameters": dict(parameters or {}), "rows": rows, "progress": on_progress is not None}
        try:
            self._sock.settimeout(seconds)
            send(self._sock, request)
            while True:
                header, body = receive(self._sock)
                match header["kind"]:
                    case "rows":
                        yield body
                    case "progress" if on_progress:
                        on_progress(header["rows"], header["total"])
                    case "end":
                        self.is_usable = True
                        return
                    case "error":  # not usable again: what is asked next there may be answered with no rows
                        raise refusal(header["message"], header["code"])
        except TimeoutError as error:
            self._lost(f"did not answer within {seconds:g} s", error)
        except (ChannelClosed, OSError) as error:
            self._lost("ended", error)

    def close(self) -> None:
        """Closes it; a query that runs there is ended at its next chunk."""
        self.is_usable = False
        self._sock.close()

    def _lost(self, how: str, error: Exception) -> None:
        self.close()
        self._engine.lose(self._generation, how)
        raise EngineLost(f"the store's engine {how}; it is started again") from error


def refusal(message: str, code: int) -> Refused:
    """The error for what ClickHouse said, in its words without what only its authors need."""
    text = _PREFIX.sub("", message.split("Stack trace:")[0].strip())
    return (TooMuch if code in _TOO_MUCH else Refused)(text, code=code)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock. Raises Unavailable if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS  # what is left of a server that was killed ends by itself
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            raise Unavailable(f"{path.parent}: another process has this store open; end it, or give another") from None
        else:
            return descriptor


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"status {status}"
