"""One direction of a TCP connection: segments in any order in, bytes in their order out, holes named as such."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

#: A hole is waited for until this much has come after it, or this long by the clock of the packets.
HELD_BYTES = 128 << 10
HELD_SEGMENTS = 64
HELD_NS = 1_000_000_000
#: A segment this far from where the stream stands isn't reordered: what lies between was not sent to us.
FAR_BYTES = 1 << 20
#: Where no SYN told the beginning, data that don't look like one wait this long for such that do.
START_SEGMENTS = 3
START_NS = 100_000_000

_SEQUENCE = 1 << 32


class Chunk(NamedTuple):
    """Bytes that follow those before. time_ns: of the packet that brought them."""

    time_ns: int
    data: bytes


class Gap(NamedTuple):
    """Bytes that were not seen. length: how many, or None where that can't be told. time_ns: of the packet after it."""

    time_ns: int
    length: int | None


class _Piece(NamedTuple):
    """A segment or a part of one. `start` and `end` are positions that never wrap; `data` may be fewer bytes."""

    start: int
    end: int
    time_ns: int
    data: bytes

    def part(self, start: int, end: int) -> _Piece:
        return _Piece(start, end, self.time_ns, self.data[max(0, start - self.start) : end - self.start])


class StreamReader:
    """Puts the segments of one direction in order (RFC 9293, section 3.4), in bounded memory.

    Where copies overlap the first one wins, as most receivers have it.
    """

    def __init__(self, begins: Callable[[bytes], bool] = bool) -> None:
        """begins: whether data look like the beginning of what a stream may say; asked only where no SYN was seen."""
        self._begins = begins
        self._start: int | None = None  # sequence number of the first byte
        self._next: int | None = None  # position of the next byte in order; equal to its sequence number modulo 2³²
        self._held: list[_Piece] = []  # sorted by position, without overlaps
        self._held_bytes = 0
        self._optional = 0  # how many of the next bytes nobody needs

    @property
    def is_fresh(self) -> bool:
        """Whether nothing was seen yet."""
        return self._next is None and not self._held

    @property
    def holds(self) -> bool:
        """Whether something waits for a hole to be filled."""
        return bool(self._held)

    def is_start(self, seq: int) -> bool:
        """Whether the stream began, or may have begun, with the SYN that bears `seq`."""
        start = self._held[0].start if self._next is None and self._held else self._start
        return start is not None and (seq + 1 - start) % _SEQUENCE == 0

    def segment(self, time_ns: int, seq: int, data: bytes, length: int, syn: bool = False) -> list[Chunk | Gap]:
        """What is in order now that this segment came.

        seq: its sequence number, the SYN's own if `syn`. data: the first bytes of its `length` bytes of payload.
        """
        if syn:
            return self._open(seq) + self.segment(time_ns, seq + 1, data, length)
        length = max(length, len(data))
        if not length:
            return self.expire(time_ns)
        if self._next is None:
            return self._before_start(time_ns, seq % _SEQUENCE, data, length)
        ahead = _distance(self._next, seq)
        if not -FAR_BYTES <= ahead <= FAR_BYTES:
            return self._jump(time_ns, seq % _SEQUENCE, data, length)
        start = self._next + ahead
        piece = _Piece(start, start + length, time_ns, data)
        if ahead <= 0 and not self._held:
            return self._deliver(piece)
        self._hold(piece)
        return self._in_order() + self.expire(time_ns)

    def allow_missing(self, count: int) -> list[Chunk | Gap]:
        """Of the next `count` bytes none is needed, such as of a body: a hole that ends among them isn't waited for."""
        self._optional = count
        return self._in_order() if self._held else []

    def expire(self, now_ns: int) -> list[Chunk | Gap]:
        """Declares the holes that were waited for long enough."""
        out: list[Chunk | Gap] = []
        while self._held and self._waited_enough(now_ns):
            out += self._skip_hole()
        return out

    def give_up(self) -> list[Chunk | Gap]:
        """Declares all holes; everything held comes out."""
        out: list[Chunk | Gap] = []
        while self._held:
            out += self._skip_hole()
        return out

    def _open(self, seq: int) -> list[Chunk | Gap]:
        """Stands before the first byte after a SYN. A SYN sent again changes nothing."""
        if not self.is_start(seq):
            self._held, self._held_bytes, self._next = [], 0, None
        if self._next is None:
            self._start = self._next = (seq + 1) % _SEQUENCE
        return self._in_order()

    def _before_start(self, time_ns: int, seq: int, data: bytes, length: int) -> list[Chunk | Gap]:
        """Data of a stream whose SYN was not seen: wait a little for what looks like its beginning."""
        start = self._held[0].start + _distance(self._held[0].start, seq) if self._held else seq
        if self._held and abs(start - self._held[0].start) > FAR_BYTES:
            return self._skip_hole() + self.segment(time_ns, seq, data, length)
        self._hold(_Piece(start, start + length, time_ns, data))
        if self._begins(data) or len(self._held) >= START_SEGMENTS or self._waited_enough(time_ns):
            return self._skip_hole()
        return []

    def _jump(self, time_ns: int, seq: int, data: bytes, length: int) -> list[Chunk | Gap]:
        """Goes on at a segment that is far away, unless it is only old.

        Backwards lies an old copy, a place more than 2 GiB ahead, or another connection; the last two matter only where
        something begins.
        """
        if self._held:
            return self.give_up() + self.segment(time_ns, seq, data, length)
        assert self._next is not None
        ahead = _distance(self._next, seq)
        if ahead < 0 and not self._begins(data):
            return []
        self._next, self._optional = seq, 0
        missing = ahead if ahead > 0 else None
        return [Gap(time_ns, missing), *self._deliver(_Piece(seq, seq + length, time_ns, data))]

    def _waited_enough(self, now_ns: int) -> bool:
        oldest = min(piece.time_ns for piece in self._held)
        if self._next is None:
            return now_ns - oldest >= START_NS
        return now_ns - oldest >= HELD_NS or self._held_bytes > HELD_BYTES or len(self._held) > HELD_SEGMENTS

    def _skip_hole(self) -> list[Chunk | Gap]:
        """Goes on with the first piece that is held, whatever is missing before it."""
        first = self._held[0]
        if self._next is None:
            self._start, self._next = first.start % _SEQUENCE, first.start
            return self._in_order()
        missing = first.start - self._next
        self._next = first.start
        return [Gap(first.time_ns, missing), *self._in_order()]

    def _in_order(self) -> list[Chunk | Gap]:
        """Delivers of the held pieces what is next in order."""
        out: list[Chunk | Gap] = []
        while self._held and self._next is not None:
            first = self._held[0]
            missing = first.start - self._next
            if missing > self._optional:
                break
            if missing > 0:
                out.append(Gap(first.time_ns, missing))
                self._advance(missing)
            del self._held[0]
            self._held_bytes -= len(first.data)
            out += self._deliver(first)
        return out

    def _deliver(self, piece: _Piece) -> list[Chunk | Gap]:
        """The part of a piece that is new, given that it begins no later than the next byte."""
        assert self._next is not None
        if piece.end <= self._next:
            return []
        if piece.start < self._next:
            piece = piece.part(self._next, piece.end)
        out: list[Chunk | Gap] = []
        if piece.data:
            out.append(Chunk(piece.time_ns, piece.data))
        missing = piece.end - piece.start - len(piece.data)
        if missing:
            out.append(Gap(piece.time_ns, missing))
        self._advance(piece.end - piece.start)
        return out

    def _advance(self, count: int) -> None:
        assert self._next is not None
        self._next += count
        self._optional = max(0, self._optional - count)

    def _hold(self, piece: _Piece) -> None:
        """Keeps what of a piece is not held yet."""
        at = bisect_left(self._held, piece.start, key=lambda held: held.end)
        while at < len(self._held) and piece.start < piece.end:
            held = self._held[at]
            if piece.end <= held.start:
                break
            if piece.start < held.start:
                self._insert(at, piece.part(piece.start, held.start))
                at += 1
            piece = piece.part(max(piece.start, held.end), max(piece.end, held.end))
            at += 1
        if piece.start < piece.end:
            self._insert(at, piece)

    def _insert(self, at: int, piece: _Piece) -> None:
        self._held.insert(at, piece)
        self._held_bytes += len(piece.data)


def _distance(position: int, seq: int) -> int:
    """How far ahead of a position a sequence number lies, from -2³¹ to 2³¹ - 1.

    >>> _distance(0xFFFFFFFF, 1), _distance(1, 0xFFFFFFFF)
    (2, -2)
    """
    return (seq - position + (1 << 31)) % _SEQUENCE - (1 << 31)
