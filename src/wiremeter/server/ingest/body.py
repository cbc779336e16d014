"""A request's body, taken in as it comes: within bounds of size, of time, and of what it decompresses to."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator

from wiremeter.errors import InputError
from wiremeter.server.ingest.refusal import Refusal
from wiremeter.shipment.identity import read_content_digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Most bytes of one body, as it is sent and as it decompresses.
BODY_BYTES_MAX = 64 << 20
#: Seconds within which the next bytes must come, and bytes a second that must have come on the whole, after the first
#: seconds: a client that sends a byte now and then would hold a connection for ever.
STALL_SECONDS = 20.0
LEAST_BYTES_PER_SECOND = 4096
#: Of the memory that a frame may make its decompressor take: 32 MiB.
_WINDOW_BITS = 25
#: Bytes of all bodies that are on their way, together.
WAITING_BYTES_MAX = 256 << 20


class Room:
    """The memory for bodies that are on their way. For one event loop."""

    def __init__(self, most: int = WAITING_BYTES_MAX) -> None:
        self._left = most

    def take(self, size: int) -> None:
        """Raises Refusal if there is not so much left."""
        if size > self._left:
            raise Refusal(503, "busy", "too many bodies at once; send it again", is_final=False, retry_after=2)
        self._left -= size

    def give(self, size: int) -> None:
        """Gives back what was taken."""
        self._left += size


async def read_body(
    chunks: AsyncIterator[bytes],
    *,
    length: int | None,
    encoding: str,
    digest: str | None,
    room: Room,
    most: int = BODY_BYTES_MAX,
) -> tuple[bytes, bytes]:
    """The body, decompressed, and its SHA-256 as that of a batch's file.

    length, encoding, digest: the headers Content-Length, Content-Encoding, Content-Digest (RFC 9530).
    Raises Refusal for one that is too large, too slow, damaged or encoded otherwise.
    """
    if length is not None and length > most:
        raise _too_large(most)
    if encoding not in ("", "identity", "zstd"):
        raise Refusal(415, "encoding", f"Content-Encoding {encoding[:40]!r}: expected zstd or none")
    wanted = _wanted(digest)
    sent = hashlib.sha256()
    parts: list[bytes] = []
    size = taken = 0
    decompressor = _decompressor() if encoding == "zstd" else None
    try:
        async for chunk in _timed(chunks):
            sent.update(chunk)
            taken += len(chunk)
            part = _decompressed(decompressor, chunk, most + 1 - size) if decompressor else chunk
            if size + len(part) > most or taken > most:
                raise _too_large(most)
            room.take(len(part))
            size += len(part)
            parts.append(part)
    finally:
        room.give(size)
    if decompressor and not decompressor.eof:
        raise Refusal(400, "damaged", "the body ends within its zstd frame")
    if wanted is not None and wanted != sent.digest():
        # Agents give up what has a 4xx for an answer, and the same may arrive whole the next time.
        text = "the body is not that of Content-Digest: it was damaged on the way"
        raise Refusal(503, "digest", text, is_final=False, retry_after=1)
    content = b"".join(parts)
    return content, hashlib.sha256(content).digest() if decompressor else sent.digest()


def _decompressor() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_BITS})


def _decompressed(decompressor: zstd.ZstdDecompressor, chunk: bytes, room: int) -> bytes:
    """What a chunk decompresses to, `room` bytes at most: what is beyond is never made."""
    if decompressor.eof:
        raise _more_than_a_frame()
    try:
        part = decompressor.decompress(chunk, max_length=max(room, 1))
        while not decompressor.eof and not decompressor.needs_input and len(part) < room:
            part += decompressor.decompress(b"", max_length=room - len(part))
    except zstd.ZstdError as error:
        raise Refusal(400, "damaged", f"the body is no zstd: {error}") from error
    if decompressor.unused_data:
        raise _more_than_a_frame()
    return bytes(part)


async def _timed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    began, size = loop.time(), 0
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise _too_slow() from None
        if chunk is None:
            return
        size += len(chunk)
        if size < (loop.time() - began - STALL_SECONDS) * LEAST_BYTES_PER_SECOND:
            raise _too_slow()
        yield chunk


def _wanted(digest: str | None) -> bytes | None:
    try:
        return None if digest is None else read_content_digest(digest)
    except InputError as error:
        raise Refusal(400, "digest", str(error)) from error


def _more_than_a_frame() -> Refusal:
    return Refusal(400, "damaged", "there is something behind the body's zstd frame")


def _too_large(most: int) -> Refusal:
    return Refusal(413, "too_large", f"more than {most >> 20} MiB: a batch must be smaller")


def _too_slow() -> Refusal:
    return Refusal(408, "too_slow", "the body comes too slowly; send it again", is_final=False)
