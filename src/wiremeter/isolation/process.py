"""One reader process: started, fed, asked, and ended; and how it ended, where nobody asked it to."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec

from wiremeter.isolation.messages import (
    FRAME_BYTES_MAX,
    LENGTH,
    Advance,
    Answer,
    Command,
    Done,
    Failed,
    Feed,
    Read,
    Ready,
    Told,
    answers,
    framed,
)
from wiremeter.isolation.places import MEMORY_BYTES, PLACES, Places, parts
from wiremeter.isolation.told import NotCredibleError, pass_on
from wiremeter.names.payloads import PayloadBlock
from wiremeter.names.records import QUESTIONS_MAX

if TYPE_CHECKING:
    from wiremeter.names.reader import Audience

#: A reader that is silent for so long, while something is waited for, is ended.
PATIENCE_SECONDS = 10.0
#: Of a reader's end, when it is asked for; what a reader tells lies in the socket until it is taken.
_END_SECONDS = 2.0
_SOCKET_BYTES = 4 << 20
# What Python has no name for (fcntl.h, asm-generic/socket.h).
_SEAL_FUTURE_WRITE, _SO_SNDBUFFORCE = 0x10, 32
_RECEIVED_AT_ONCE = 1 << 18
_BOOT = (
    "import sys; sys.path[:] = sys.argv[1].split('\\n'); "
    "from wiremeter.isolation.child import main; main(*sys.argv[2:])"
)
#: All of the environment that it gets: where shared libraries are.
_ENVIRONMENT = ("LD_LIBRARY_PATH", "LANG", "LC_ALL")


def _python(words: list[str], descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """This interpreter in another process. Raises OSError."""

    def start(executable: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *words],
            executable=executable,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            cwd="/",
        )

    try:
        return start(sys.executable)
    except PermissionError:
        # Whoever started this process could look into directories that this user may not: under /root, for one.
        return start("/proc/self/exe")


class ReaderOptions(NamedTuple):
    """As Reader's."""

    redact: bool = True
    ja4s: bool = False
    questions: int = QUESTIONS_MAX

    def words(self) -> tuple[str, str, str]:
        """As the reader's `main` takes them."""
        return "redact" * self.redact, "ja4s" * self.ja4s, str(self.questions)


class ReaderEnded(Exception):
    """It is no more, and this is why."""


class ReaderProcess:
    """A sealed process that reads payloads. Every method but `close` raises ReaderEnded when it has ended, or was ended
    because it hung or told what cannot be."""

    def __init__(self, options: ReaderOptions) -> None:
        """Starts it; it is `ready` some 0.2 s later. Raises OSError if it cannot be started at all."""
        self._socket, theirs = socket.socketpair()
        self._received = bytearray()
        self._free = list(range(PLACES))  # the last is taken first, so that few are ever touched where few will do
        self._taken: deque[int] = deque()
        self._awaits_done = False
        self.ready = False
        memory = os.memfd_create("wiremeter-payloads", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            try:
                os.ftruncate(memory, MEMORY_BYTES)
                self._places = Places(memory, mmap.PROT_READ | mmap.PROT_WRITE)
                # From now on nobody else can write it, nor cut it off under us.
                fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _SEAL_FUTURE_WRITE)
                for end in (self._socket, theirs):
                    _widen(end)
                arguments = ["\n".join(sys.path), str(theirs.fileno()), str(memory), *options.words()]
                self._process = _python(["-I", "-c", _BOOT, *arguments], (theirs.fileno(), memory))
            finally:
                os.close(memory)
            undo.pop_all()
        self._socket.setblocking(False)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when `look` should be called."""
        return self._socket.fileno()

    def has_room(self) -> bool:
        """Whether a block can be fed now."""
        return self.ready and bool(self._free)

    def wait_until_ready(self) -> None:
        """Takes as long as it takes to start."""
        self._wait(lambda: self.ready, None)

    def feed(self, block: PayloadBlock, devices: Mapping[int, int] | None, audience: Audience) -> None:
        """As Reader.feed: the block may be gone when this returns, but may not be read yet. Waits for a place."""
        known = None if devices is None else dict(devices)
        for data, offsets in parts(block):
            self._wait(self.has_room, audience)
            place = self._free.pop()
            self._taken.append(place)
            self._places.write(place, data, offsets)
            self._send(Feed(place, len(data), len(offsets), block.origin_ns, known), audience)

    def advance(self, end_ns: int, audience: Audience, *, is_last: bool) -> None:
        """As Reader.advance, or Reader.end: returns when all is told."""
        self._wait(lambda: self.ready, audience)
        self._awaits_done = True
        self._send(Advance(end_ns, is_last), audience)
        self._wait(lambda: not self._awaits_done, audience)

    def look(self, audience: Audience | None) -> None:
        """Takes what has come. Never waits."""
        while True:
            try:
                part = self._socket.recv(_RECEIVED_AT_ONCE)
            except BlockingIOError:
                return
            except OSError:
                part = b""
            if not part:
                self._has_ended()
            self._received += part
            self._take(audience)
            if len(part) < _RECEIVED_AT_ONCE:
                return

    def close(self) -> None:
        """Ends it, if it has not ended. A second call does nothing."""
        self._socket.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()

    # --- what comes and goes

    def _take(self, audience: Audience | None) -> None:
        at = 0
        while len(self._received) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._received, at)
            if length > FRAME_BYTES_MAX:
                self._end("it sent a message that is too long")
            begin = at + LENGTH.size
            if len(self._received) - begin < length:
                break
            at = begin + length
            try:
                self._obey(answers.decode(memoryview(self._received)[begin:at]), audience)
            except (msgspec.MsgspecError, NotCredibleError, UnicodeDecodeError) as error:
                self._end(f"it told what cannot be ({error})")
        del self._received[:at]

    def _obey(self, answer: Answer, audience: Audience | None) -> None:
        match answer:
            case Ready() if not self.ready:
                self.ready = True
            case Read() if self._taken:
                self._free.append(self._taken.popleft())
            case Told() if audience is not None:
                pass_on(answer, audience)
            case Done() if self._awaits_done:
                self._awaits_done = False
            case Failed(reason):
                self._end(reason)
            case _:
                raise NotCredibleError(f"{type(answer).__name__} when nobody asked")

    def _send(self, command: Command, audience: Audience) -> None:
        left = memoryview(framed(command))
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                self._wait_for(select.POLLIN | select.POLLOUT, time.monotonic() + PATIENCE_SECONDS)
                self.look(audience)
            except OSError:
                self._has_ended()

    def _wait(self, is_enough: Callable[[], bool], audience: Audience | None) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        self.look(audience)
        while not is_enough():
            self._wait_for(select.POLLIN, until)
            self.look(audience)

    def _wait_for(self, events: int, until: float) -> None:
        poll = select.poll()
        poll.register(self._socket, events)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            self._end(f"it did not answer for {PATIENCE_SECONDS:g} s")

    # --- the end

    def _has_ended(self) -> NoReturn:
        """Raises ReaderEnded with what the system says of it."""
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._end("it closed its end of the connection")
        if status == -signal.SIGSYS:
            raise ReaderEnded("it was killed for a system call that it may not make (SIGSYS)")
        if status < 0:
            raise ReaderEnded(f"it was killed by signal {_signal_name(-status)}")
        raise ReaderEnded(f"it ended with status {status}")

    def _end(self, why: str) -> NoReturn:
        self._kill()
        raise ReaderEnded(why)

    def _kill(self) -> None:
        """Root without CAP_KILL may not kill nobody's process: that ends as soon as it finds its socket closed."""
        self._socket.close()
        with contextlib.suppress(PermissionError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait(_END_SECONDS)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _widen(end: socket.socket) -> None:
    """As much room in the socket as may be had: who may not exceed the host's limit gets that."""
    for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
            return
