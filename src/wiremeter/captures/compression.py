"""Compressed captures as they come: every byte that decompresses, of cut and damaged files and of pipes too."""

from __future__ import annotations

import bz2
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

#: Bytes that compressions are told apart by.
HEAD_BYTES = 4
_PIECE_BYTES = 1 << 16
#: Memory that a file may make its decompressor take: what `xz -9` and `zstd --long` need.
_MEMORY_BITS = 27


class DamagedData(Exception):
    """What a decoder found, and what it has decompressed before that in the same call."""

    def __init__(self, why: object, before: bytes = b"") -> None:
        super().__init__(str(why))
        self.before = before


class Decoder(Protocol):
    """Decompresses one member, with the interface that bz2, lzma and compression.zstd share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Compression(NamedTuple):
    """A way of compressing, how it is told, and what decompresses it."""

    name: str
    head: re.Pattern[bytes]
    decoder: Callable[[], Decoder]


class _GzipDecoder:
    """zlib as a Decoder. A call that finds damage still gives what comes before it, also out of a pipe."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self.eof, self.needs_input, self.unused_data = False, True, b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        data = self._inflate.unconsumed_tail + data
        before = self._inflate.copy()
        try:
            out = self._inflate.decompress(data, max_length)
        except zlib.error as error:
            raise DamagedData(error, _inflate_until_damage(before, data, max_length)) from error
        self.eof, self.unused_data = self._inflate.eof, self._inflate.unused_data
        self.needs_input = not self._inflate.unconsumed_tail
        return out


def _inflate_until_damage(inflate: Any, data: bytes, max_length: int) -> bytes:
    """All that comes out of `data` before the call that fails: zlib has it, but Python lets go of it.

    The longest part of the input that passes, then the most output of the byte behind. What may still lack is the last
    byte before the damage, where both share a byte of the input.
    """

    def passes(state: Any, part: bytes, length: int) -> bool:
        try:
            state.copy().decompress(part, length)
        except zlib.error:
            return False
        return True

    whole = _last_that(lambda size: passes(inflate, data[:size], max_length), len(data) - 1)
    out = inflate.decompress(data[:whole], max_length)
    rest = inflate.unconsumed_tail + data[whole : whole + 1]
    more = (
        _last_that(lambda length: passes(inflate, rest, length), max_length - len(out)) if len(out) < max_length else 0
    )
    return bytes(out + inflate.decompress(rest, more) if more else out)


def _last_that(holds: Callable[[int], bool], most: int) -> int:
    """The greatest number up to `most` for which it holds, where it holds for all below; 0 if for none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _xz() -> Decoder:
    return lzma.LZMADecompressor(memlimit=1 << _MEMORY_BITS)


def _zstd() -> Decoder:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    limit: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _MEMORY_BITS}
    return cast(Decoder, zstd.ZstdDecompressor(options=limit))


def _lz4() -> Decoder:
    from lz4 import frame

    return cast(Decoder, frame.LZ4FrameDecompressor())


#: Those that are read. A frame to skip (RFC 8878, 3.1.2) is what pzstd begins with.
COMPRESSIONS = (
    Compression("gzip", re.compile(rb"\x1f\x8b"), _GzipDecoder),
    Compression("bzip2", re.compile(rb"BZh[1-9]"), bz2.BZ2Decompressor),
    Compression("xz", re.compile(rb"\xfd7zX"), _xz),
    Compression("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _zstd),
    Compression("lz4", re.compile(rb"\x04\x22\x4d\x18"), _lz4),
)


def compression_of(head: bytes) -> Compression | None:
    """By the first HEAD_BYTES of a file.

    >>> found = compression_of(b"BZh9")
    >>> found and found.name
    'bzip2'
    """
    return next((compression for compression in COMPRESSIONS if compression.head.match(head)), None)


class DecompressedStream:
    """What a compressed file holds. Members that follow each other are one stream, as their formats say."""

    def __init__(self, raw: io.FileIO, head: bytes, compression: Compression) -> None:
        """head: the bytes of `raw` that were read already. Raises InputError if a library is missing."""
        self._raw = raw
        self._compression = compression
        self._begin(head)
        self._rest = b""  # decompressed and not yet taken
        self._has_ended = False
        #: What is wrong with the compressed data, once all that can be read was.
        self.problem: str | None = None

    def readinto(self, to: memoryview) -> int:
        """At least one byte, or 0 at the end. Raises OSError where the file cannot be read."""
        while not self._rest and not self._has_ended:
            self._rest = self._next(len(to))
        taken, self._rest = self._rest[: len(to)], self._rest[len(to) :]
        to[: len(taken)] = taken
        return len(taken)

    def _begin(self, piece: bytes) -> None:
        """A member, whose first bytes are `piece`, all that was read of the file and not used yet."""
        self._decoder = self._compression.decoder()
        self._member_at = self._raw.tell() - len(piece) if self._raw.seekable() else 0
        self._piece = piece
        self._given = 0  # bytes of the member, decompressed
        self._is_drained = True  # the last call gave nothing: bz2 and lz4 may hold back more than they tell

    def _next(self, most: int) -> bytes:
        """What comes next: perhaps nothing, and more than `most` bytes only before damage."""
        if self._decoder.eof:
            self._end_member(bytes(self._decoder.unused_data or b""))
            return b""
        piece = b""
        if self._decoder.needs_input and self._is_drained:
            piece, self._piece = self._piece or self._read(), b""
            if not piece:
                self._end("the compressed data end early; what came before is counted")
                return b""
        try:
            out = self._decoder.decompress(piece, most)
        except DamagedData as error:
            out = error.before
            self._end(f"the compressed data are damaged ({error}); what came before is counted")
        except Exception as error:  # each library has its own, lz4 RuntimeError
            out = self._again(most)
            but = "" if self._raw.seekable() else f", but for up to {most >> 10} KiB that a pipe cannot give again"
            self._end(f"the compressed data are damaged ({error}); what came before is counted{but}")
        self._given += len(out)
        self._is_drained = not out
        return out

    def _read(self) -> bytes:
        return self._raw.read(_PIECE_BYTES) or b""

    def _end(self, problem: str | None = None) -> None:
        self.problem = problem
        self._has_ended = True

    def _end_member(self, behind: bytes) -> None:
        """Goes on with the member that follows, if one does; zeros between two are padding."""
        while len(behind := behind.lstrip(b"\0")) < HEAD_BYTES and (more := self._read()):
            behind += more
        if not behind:
            self._end()
        elif self._compression.head.match(behind):
            self._begin(behind)
        else:
            name = self._compression.name
            self._end(f"{len(behind)} bytes or more that are no {name} follow the compressed data; they are not read")

    def _again(self, most: int) -> bytes:
        """What a call that failed has decompressed and let go of: a second pass, with the last bytes one by one.

        Out of a pipe there is none.
        """
        if not self._raw.seekable():
            return b""
        end, decoder, given = self._raw.tell(), self._compression.decoder(), 0
        self._raw.seek(self._member_at)
        out = bytearray()
        try:
            while (left := end - self._raw.tell()) > 0:
                pieces = [self._raw.read(min(left, _PIECE_BYTES))]
                if left <= 2 * _PIECE_BYTES:
                    pieces = [bytes([byte]) for byte in pieces[0]]
                for piece in pieces:
                    got = decoder.decompress(piece, most)
                    while got:
                        out += got[max(self._given - given, 0) :]
                        given += len(got)
                        got = decoder.decompress(b"", most)
        except Exception:
            pass
        return bytes(out)
