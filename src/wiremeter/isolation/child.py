"""The reader's process: blocks of payloads in, what they tell out; sealed before the first byte comes.

Started as `python -c` (process.py). It loads what decoders may ever need, seals itself, and ends when the meter does.
"""

from __future__ import annotations

import gc
import importlib
import mmap
import os
import signal
import traceback

from wiremeter.isolation.messages import (
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
    commands,
    framed,
)
from wiremeter.isolation.places import Places
from wiremeter.isolation.seal import seal
from wiremeter.names.payloads import PayloadBlock
from wiremeter.names.reader import Reader
from wiremeter.names.records import RawTold

#: What decoders load at first use; behind the seal no file can be opened.
_LOADED = (
    "cryptography.exceptions",
    "cryptography.hazmat.primitives.ciphers",
    "cryptography.hazmat.primitives.ciphers.aead",
    "hpack",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
)
#: As agent.dedicated: records are many, and none is a cycle.
_THRESHOLDS = (100_000, 50, 1000)
#: The meter ends this process by closing its end; a signal to the whole group would end it before the last interval.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Teller:
    """Audience: sends on what is told."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def take(self, raw: RawTold) -> None:
        self._channel.send(Told(dict(raw)))


class _Channel:
    """The reader's end of the socket."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, message: Answer) -> None:
        left = memoryview(framed(message))
        while left:
            left = left[os.write(self._fd, left) :]

    def receive(self) -> Command:
        """Waits. Raises EOFError when the meter has ended."""
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        return commands.decode(self._read(length))

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            if not (part := os.read(self._fd, size - len(data))):
                raise EOFError
            data += part
        return bytes(data)


def main(socket_fd: str, memory_fd: str, redact: str, ja4s: str, questions: str) -> None:
    """Runs until the meter closes its end. Words of a command line: numbers, and "" for no."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    channel = _Channel(int(socket_fd))
    try:
        for module in _LOADED:
            importlib.import_module(module)
        places = Places(int(memory_fd), mmap.PROT_READ)
        os.close(int(memory_fd))
        reader = Reader(_Teller(channel), redact=bool(redact), ja4s=bool(ja4s), questions=int(questions))
        gc.set_threshold(*_THRESHOLDS)
        seal()
        channel.send(Ready())
        while True:
            _obey(channel.receive(), places, reader, channel)
    except (EOFError, BrokenPipeError):
        os._exit(0)
    except BaseException as error:
        channel.send(Failed(_what(error)))
        os._exit(1)


def _obey(command: Command, places: Places, reader: Reader, channel: _Channel) -> None:
    match command:
        case Feed(place, data_bytes, count, origin_ns, devices):
            data, offsets = places.read(place, data_bytes, count)
            reader.feed(PayloadBlock(data, offsets, origin_ns), devices)
            channel.send(Read())
        case Advance(end_ns, is_last):
            (reader.end if is_last else reader.advance)(end_ns)
            channel.send(Done())


def _what(error: BaseException) -> str:
    """An error and where it came from: without what packets wrote, and no file is opened for it."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    where = f"{os.path.basename(frame.f_code.co_filename)}:{line}"
    said = f": {error}" if isinstance(error, OSError | ImportError) else ""
    return f"{type(error).__name__}{said} ({where})"[:1000]
