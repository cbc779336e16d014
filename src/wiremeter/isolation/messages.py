"""What the meter and its reader say to each other: frames of MessagePack, each behind its length.

The meter believes nothing that a reader says: types and sizes are checked here, places in columns in told.py.
"""

from __future__ import annotations

import struct
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.msgpack import Decoder, Encoder

#: Twice as long as any frame that a reader sends: what fills the columns of the decoders, 8 MB.
FRAME_BYTES_MAX = 16 << 20
LENGTH = struct.Struct("<I")


class Feed(Struct, tag="feed", array_like=True):
    """To the reader: a block lies in a place of the shared memory. The rest as PayloadBlock and Reader.feed."""

    place: int
    data_bytes: int
    count: int
    origin_ns: int
    devices: dict[int, int] | None


class Advance(Struct, tag="advance", array_like=True):
    """To the reader: Reader.advance, or Reader.end where it is the last."""

    end_ns: int
    is_last: bool


class Ready(Struct, tag="ready", array_like=True):
    """From the reader, once: it is sealed, and waits."""


class Read(Struct, tag="read", array_like=True):
    """From the reader: the oldest block that it has is read, and its place free."""


class Told(Struct, tag="told", array_like=True):
    """From the reader: what the Audience is told, in columns."""

    columns: dict[Annotated[str, Meta(max_length=64)], bytes]


class Done(Struct, tag="done", array_like=True):
    """From the reader: all is told that came before Advance."""


class Failed(Struct, tag="failed", array_like=True):
    """From the reader, before it ends."""

    reason: Annotated[str, Meta(max_length=1000)]


Command = Feed | Advance
Answer = Ready | Read | Told | Done | Failed

_ENCODER = Encoder()
commands: Decoder[Command] = Decoder(Command)
answers: Decoder[Answer] = Decoder(Answer)


def framed(message: Command | Answer) -> bytes:
    """A message as it is sent."""
    frame = bytearray(LENGTH.size)
    _ENCODER.encode_into(message, frame, LENGTH.size)
    LENGTH.pack_into(frame, 0, len(frame) - LENGTH.size)
    return bytes(frame)
