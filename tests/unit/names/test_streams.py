"""Segments in any order become a stream again, with holes named."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from wiremeter.names.library import ffi, lib

FAR_BYTES, HELD_BYTES, HELD_SEGMENTS = lib.WM_FAR_BYTES, lib.WM_HELD_BYTES, lib.WM_HELD_SEGMENTS
HELD_NS, START_NS = lib.WM_HELD_NS, lib.WM_START_NS


class Chunk(NamedTuple):
    """Bytes that follow those before. time_ns: of the packet that brought them."""

    time_ns: int
    data: bytes


class Gap(NamedTuple):
    """Bytes that were not seen; None: nobody can tell how many. time_ns: of the packet after it."""

    time_ns: int
    length: int | None


class StreamReader:
    """One direction, as bpf/names/streams.c puts it in order; read by who takes all that comes at once."""

    def __init__(self, begins: Callable[[bytes], bool] = bool) -> None:
        self._begins = begins
        self._memory = ffi.new("struct wm_cell[]", 4 * HELD_SEGMENTS + 2 * HELD_BYTES // 500)
        self._cells = ffi.new("struct wm_cells *", {"cells": self._memory, "capacity": len(self._memory)})
        self._stream = ffi.new("struct wm_stream *")
        self._room = ffi.new("uint8_t[]", lib.WM_SEGMENT_ROOM)
        self._next = ffi.new("struct wm_next *")

    @property
    def holds(self) -> bool:
        """Whether something waits for a hole to be filled."""
        return bool(self._stream.held)

    @property
    def held(self) -> tuple[int, int]:
        """Segments and bytes of them that wait."""
        return self._stream.held_count, self._stream.held_bytes

    @property
    def cells(self) -> int:
        """In use."""
        return int(self._cells.count)

    def is_start(self, seq: int) -> bool:
        """Whether the stream began, or may have begun, with the SYN that bears `seq`."""
        return bool(lib.wm_stream_is_start(self._stream, self._cells, seq))

    def segment(self, time_ns: int, seq: int, data: bytes, length: int, syn: bool = False) -> list[Chunk | Gap]:
        """What is in order now that this segment came."""
        out: list[Chunk | Gap] = []
        if syn:
            lib.wm_stream_open(self._stream, self._cells, seq)
            out += self._in_order(time_ns)
            seq = (seq + 1) % (1 << 32)
        data = data[: lib.WM_SEGMENT_ROOM]
        segment = ffi.new(
            "struct wm_segment *", (time_ns, ffi.from_buffer(data), len(data), max(length, len(data)), seq)
        )
        begins = self._begins(data)
        took = lib.wm_stream_take(self._stream, self._cells, segment, begins, self._next)
        if took == lib.WM_STREAM_WAITS:
            out += self.give_up()
            took = lib.wm_stream_take(self._stream, self._cells, segment, begins, self._next)
        assert took in (lib.WM_STREAM_HELD, lib.WM_STREAM_NEXT)
        if took == lib.WM_STREAM_NEXT:
            out += self._items()
        return out + self._in_order(time_ns)

    def allow_missing(self, count: int) -> list[Chunk | Gap]:
        """Of the next `count` bytes none is needed."""
        self._stream.optional = count
        return self._in_order(0)

    def expire(self, now_ns: int) -> list[Chunk | Gap]:
        """What was waited for long enough."""
        return self._in_order(now_ns)

    def give_up(self) -> list[Chunk | Gap]:
        """All that is held."""
        return self._in_order(0, give_up=True)

    def _in_order(self, now_ns: int, *, give_up: bool = False) -> list[Chunk | Gap]:
        out: list[Chunk | Gap] = []
        while lib.wm_stream_next(self._stream, self._cells, now_ns, give_up, self._room, self._next):
            out += self._items()
        return out

    def _items(self) -> list[Chunk | Gap]:
        found = self._next
        out: list[Chunk | Gap] = []
        if found.gap:
            out.append(Gap(found.time_ns, None if found.gap < 0 else found.gap))
        if found.bytes:
            out.append(Chunk(found.time_ns, ffi.buffer(found.data, found.bytes)[:]))
        if found.missing:
            out.append(Gap(found.time_ns, found.missing))
        return out


ISN = 1000
MESSAGE = bytes(range(256)) * 4


def opened(isn: int = ISN) -> StreamReader:
    reader = StreamReader()
    assert reader.segment(0, isn, b"", 0, syn=True) == []
    return reader


def give(reader: StreamReader, at: int, data: bytes, length: int = 0, time_ns: int = 1) -> list[Chunk | Gap]:
    """A segment at a position counted from the first byte after the SYN."""
    return reader.segment(time_ns, (ISN + 1 + at) % (1 << 32), data, length or len(data))


def joined(items: list[Chunk | Gap]) -> bytes:
    return b"".join(item.data for item in items if isinstance(item, Chunk))


# --- order


def test_segments_in_order_come_out_as_they_are_with_their_times() -> None:
    reader = opened()
    assert give(reader, 0, b"ab", time_ns=5) == [Chunk(5, b"ab")]
    assert give(reader, 2, b"c", time_ns=6) == [Chunk(6, b"c")]


def test_segment_after_a_hole_waits_for_what_is_missing() -> None:
    reader = opened()
    assert give(reader, 2, b"cd", time_ns=5) == []
    assert reader.holds
    assert give(reader, 0, b"ab", time_ns=6) == [Chunk(6, b"ab"), Chunk(5, b"cd")]
    assert not reader.holds


def test_retransmission_is_trimmed_to_what_is_new() -> None:
    reader = opened()
    give(reader, 0, b"abc")
    assert give(reader, 0, b"abc") == []
    assert give(reader, 1, b"bcde") == [Chunk(1, b"de")]


def test_first_copy_of_a_byte_wins_also_while_it_is_held() -> None:
    reader = opened()
    give(reader, 3, b"DE")
    give(reader, 1, b"xxxxxx")
    assert joined(give(reader, 0, b"a")) == b"axxDExx"


def test_sequence_numbers_wrap() -> None:
    reader = opened(0xFFFFFFFD)
    assert reader.segment(1, 0, b"cd", 2) == []
    assert joined(reader.segment(1, 0xFFFFFFFE, b"ab", 2)) == b"abcd"
    assert joined(reader.segment(1, 2, b"ef", 2)) == b"ef"


def test_keep_alive_probe_adds_nothing() -> None:
    reader = opened()
    give(reader, 0, b"abc")
    assert give(reader, 2, b"\0") == []


@given(st.binary(min_size=1, max_size=300), st.integers(0, (1 << 32) - 1), st.data())
def test_stream_survives_any_cuts_order_and_copies(stream: bytes, isn: int, data: st.DataObject) -> None:
    cuts = sorted({0, len(stream), *data.draw(st.lists(st.integers(0, len(stream)), max_size=12))})
    pieces = list(pairwise(cuts))
    extra = st.tuples(st.integers(0, len(stream) - 1), st.integers(1, 40)).map(lambda p: (p[0], p[0] + p[1]))
    pieces += data.draw(st.lists(extra, max_size=6))
    reader = StreamReader()
    out = reader.segment(0, isn, b"", 0, syn=True)
    for at, end in data.draw(st.permutations(pieces)):
        part = stream[at:end]
        out += reader.segment(1, (isn + 1 + at) % (1 << 32), part, len(part))
    assert joined(out) == stream
    assert not any(isinstance(item, Gap) for item in out)


# --- holes


def test_segment_captured_in_part_is_followed_by_a_gap() -> None:
    reader = opened()
    assert give(reader, 0, b"ab", length=10, time_ns=3) == [Chunk(3, b"ab"), Gap(3, 8)]
    assert joined(give(reader, 10, b"k")) == b"k"


def test_caller_can_stop_waiting() -> None:
    reader = opened()
    give(reader, 2, b"c")
    give(reader, 5, b"f", time_ns=9)
    assert reader.give_up() == [Gap(1, 2), Chunk(1, b"c"), Gap(9, 2), Chunk(9, b"f")]
    assert give(reader, 0, b"ab") == []


def test_hole_is_declared_when_time_has_passed() -> None:
    reader = opened()
    give(reader, 2, b"c", time_ns=10)
    assert reader.expire(9 + HELD_NS) == []
    assert reader.expire(10 + HELD_NS) == [Gap(10, 2), Chunk(10, b"c")]


def test_hole_is_declared_when_much_came_after_it() -> None:
    reader = opened()
    out = [item for n in range(HELD_SEGMENTS + 1) for item in give(reader, 1 + 2 * n, b"x")]
    assert out == [Gap(1, 1), Chunk(1, b"x")]
    reader = opened()
    for at in range(0, HELD_BYTES, 4096):
        assert give(reader, 1 + at, bytes(4096)) == []
    assert len(give(reader, 1 + HELD_BYTES, b"x")) == 2 + HELD_BYTES // 4096


def test_hole_among_bytes_that_nobody_needs_is_declared_at_once() -> None:
    reader = opened()
    assert reader.allow_missing(10) == []
    assert give(reader, 4, b"efg") == [Gap(1, 4), Chunk(1, b"efg")]
    assert give(reader, 10, b"head") == [Gap(1, 3), Chunk(1, b"head")]
    assert give(reader, 20, b"next") == []


def test_what_is_held_comes_out_when_the_hole_before_it_turns_out_to_be_a_body() -> None:
    reader = opened()
    give(reader, 10, b"next")
    assert joined(give(reader, 0, b"head")) == b"head"
    assert reader.allow_missing(6) == [Gap(1, 6), Chunk(1, b"next")]


def test_segment_far_ahead_is_not_waited_for() -> None:
    reader = opened()
    give(reader, 0, b"a")
    give(reader, 2, b"c", time_ns=2)
    out = give(reader, 3 + FAR_BYTES + 100, b"z", time_ns=3)
    assert out == [Gap(2, 1), Chunk(2, b"c"), Gap(3, FAR_BYTES + 100), Chunk(3, b"z")]


def test_segment_far_behind_counts_only_where_something_begins() -> None:
    reader = StreamReader(lambda data: data.startswith(b"GET"))
    reader.segment(0, ISN, b"", 0, syn=True)
    assert give(reader, -2 * FAR_BYTES, b"old") == []
    assert give(reader, -2 * FAR_BYTES, b"GET", time_ns=7) == [Gap(7, None), Chunk(7, b"GET")]


def test_thousands_of_tiny_segments_out_of_order_are_held_within_bounds() -> None:
    reader = opened()
    positions = list(range(1, 20_000, 2))
    random.Random(1).shuffle(positions)
    out = [item for at in positions for item in give(reader, at, b"x")]
    assert len(joined(out)) <= 10_000
    assert reader.held[0] <= HELD_SEGMENTS


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * HELD_NS),
            st.one_of(st.integers(0, 300), st.integers(0, (1 << 32) - 1)),
            st.binary(max_size=20),
            st.integers(0, 1 << 17),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_any_segments_keep_the_reader_within_bounds(segments: list[tuple[int, int, bytes, int, bool]]) -> None:
    reader = StreamReader(lambda data: data.startswith(b"\0"))
    for segment in segments:
        for item in reader.segment(*segment):
            assert item.data if isinstance(item, Chunk) else item.length is None or item.length > 0
        assert reader.held[0] <= HELD_SEGMENTS
    reader.give_up()
    assert (reader.holds, reader.held, reader.cells) == (False, (0, 0), 0)


# --- beginnings


def test_stream_without_a_syn_begins_with_what_looks_like_a_beginning() -> None:
    reader = StreamReader(lambda data: data.startswith(b"GET"))
    assert give(reader, 3, b" / HTTP/1.1", time_ns=1) == []
    assert joined(give(reader, 0, b"GET", time_ns=2)) == b"GET / HTTP/1.1"


def test_stream_without_a_beginning_starts_with_the_earliest_of_its_first_segments() -> None:
    reader = StreamReader(lambda data: False)
    assert give(reader, 4, b"ef") == []
    assert give(reader, 2, b"cd") == []
    assert joined(give(reader, 0, b"ab")) == b"abcdef"


def test_beginning_is_waited_for_only_so_long() -> None:
    reader = StreamReader(lambda data: False)
    assert give(reader, 0, b"ab", time_ns=5) == []
    assert reader.expire(4 + START_NS) == []
    assert reader.expire(5 + START_NS) == [Chunk(5, b"ab")]


def test_syn_may_carry_data_and_may_be_repeated() -> None:
    reader = StreamReader()
    assert reader.segment(1, ISN, b"fast", 4, syn=True) == [Chunk(1, b"fast")]
    assert reader.is_start(ISN)
    assert reader.segment(2, ISN, b"fast", 4, syn=True) == []
    assert joined(give(reader, 4, b"er")) == b"er"


def test_syn_after_the_data_that_follow_it_changes_nothing() -> None:
    reader = StreamReader(lambda data: False)
    assert give(reader, 0, b"ab") == []
    assert reader.is_start(ISN)
    assert reader.segment(1, ISN, b"", 0, syn=True) == [Chunk(1, b"ab")]


def test_another_syn_begins_another_stream() -> None:
    reader = opened()
    give(reader, 0, b"ab")
    give(reader, 5, b"held")
    assert not reader.is_start(77)
    assert reader.segment(1, 77, b"", 0, syn=True) == []
    assert not reader.holds
    assert joined(reader.segment(1, 78, b"new", 3)) == b"new"
