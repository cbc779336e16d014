"""Segments in any order become a stream again, with holes named."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wiremeter.names.decoders.streams import (
    FAR_BYTES,
    HELD_BYTES,
    HELD_NS,
    HELD_SEGMENTS,
    START_NS,
    Chunk,
    Gap,
    StreamReader,
)

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
    assert give(reader, 1, bytes(HELD_BYTES)) == []
    assert len(give(reader, 1 + HELD_BYTES, b"x")) == 3


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
    assert len(reader._held) <= HELD_SEGMENTS


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
        assert len(reader._held) <= HELD_SEGMENTS
        assert reader._held_bytes == sum(len(piece.data) for piece in reader._held)
    reader.give_up()
    assert not reader.holds


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
