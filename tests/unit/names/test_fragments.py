"""Datagrams out of IP fragments: in any order, twice, in part, and never more than there is room for."""

from __future__ import annotations

import itertools
import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.names.decoders.fragments import DATAGRAMS_MAX, MORE_FRAGMENTS, PATIENCE_NS, Fragments, is_fragment
from wiremeter.names.payloads import Payload

from .payload_records import DNS, MS, START_NS, UDP, key, payload

FLOW = key(server_port=53, protocol=UDP)
DATA = bytes(range(256)) * 5


def parts(data: bytes = DATA, cuts: tuple[int, ...] = (192, 592), *, seq: int = 7) -> list[Payload]:
    """Fragments of a datagram that is cut behind so many bytes of its payload; offsets include the UDP header."""
    ends = [*cuts, len(data)]
    made = []
    for begin, end in zip([0, *cuts], ends, strict=True):
        flow = FLOW if begin == 0 else FLOW._replace(src_port=0, dst_port=0)
        offset = (begin + 8) // 8 if begin else 0
        flags = offset | (MORE_FRAGMENTS if end < len(data) else 0)
        made.append(payload(flow, data[begin:end], seq=seq, flags=flags, source=DNS))
    return made


WHOLE = (1, payload(FLOW, DATA, seq=7, source=DNS))  # after its device


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_the_parts_of_a_datagram_make_it_in_whatever_order_they_come(order: tuple[int, ...]) -> None:
    fragments = Fragments()
    out: list[tuple[int, Payload]] = []
    for at in order:
        out += fragments.add(1, parts()[at])
    assert out == [WHOLE]
    assert list(fragments.expire(START_NS + 2 * PATIENCE_NS)) == []


@given(
    st.integers(2, 2000),
    st.lists(st.integers(1, 240), max_size=6, unique=True),
    st.randoms(use_true_random=False),
)
def test_any_cuts_in_any_order_with_repetitions_make_the_datagram(
    length: int, eights: list[int], random: Random
) -> None:
    data = bytes(at * 7 & 0xFF for at in range(length))
    cuts = tuple(sorted(8 * eight for eight in eights if 8 * eight < length))
    made = parts(data, cuts)
    repeated = [*made, *made[:-1]]
    random.shuffle(repeated)
    fragments = Fragments()
    out: list[tuple[int, Payload]] = []
    for fragment in repeated:
        out += fragments.add(1, fragment)
        if out:
            break
    assert [(whole.data, whole.flow, whole.length, whole.tcp_flags) for _, whole in out] == [(data, FLOW, length, 0)]


def test_the_datagram_has_the_time_of_the_part_that_completed_it() -> None:
    fragments, (first, middle, last) = Fragments(), parts()
    assert not [*fragments.add(1, first), *fragments.add(1, middle)]
    ((_, whole),) = fragments.add(1, last._replace(time_ns=START_NS + 5 * MS))
    assert whole.time_ns == START_NS + 5 * MS


def test_a_repeated_part_changes_nothing() -> None:
    fragments, (first, middle, last) = Fragments(), parts()
    out = [
        whole
        for part in (first, middle, middle._replace(data=bytes(400)), first, last)
        for whole in fragments.add(1, part)
    ]
    assert out == [WHOLE]


def test_datagrams_are_told_apart_by_device_addresses_and_identification() -> None:
    fragments, (first, middle, last) = Fragments(), parts()
    other = first.flow._replace(dst_addr=key(server=98).dst_addr)
    assert not [*fragments.add(1, first), *fragments.add(2, middle), *fragments.add(1, middle._replace(seq=8))]
    assert not [*fragments.add(1, middle._replace(flow=other)), *fragments.add(1, last)]
    assert list(fragments.add(1, middle)) == [WHOLE]


@pytest.mark.parametrize("missing", [1, 2])
def test_of_a_datagram_whose_rest_does_not_come_its_beginning_is_told_as_cut(missing: int) -> None:
    fragments = Fragments()
    for at, part in enumerate(parts()):
        if at != missing:
            assert list(fragments.add(1, part)) == []
    ((device, cut),) = fragments.expire(START_NS + PATIENCE_NS)
    assert DATA.startswith(cut.data)
    assert len(cut.data) == (192 if missing == 1 else 592)
    assert len(cut.data) < cut.length <= len(DATA)
    assert not is_fragment(cut)
    assert device == 1


def test_of_a_datagram_whose_beginning_does_not_come_nothing_is_told() -> None:
    fragments, (_, middle, last) = Fragments(), parts()
    assert not [*fragments.add(1, middle), *fragments.add(1, last), *fragments.expire(START_NS + 2 * PATIENCE_NS)]


def test_a_part_that_was_cut_by_the_limit_ends_what_can_be_read() -> None:
    fragments, (first, middle, last) = Fragments(), parts()
    out = [whole for part in (first._replace(data=first.data[:64]), middle, last) for whole in fragments.add(1, part)]
    assert out == []
    ((_, cut),) = fragments.expire(START_NS + PATIENCE_NS)
    assert (cut.data, cut.length > 64) == (DATA[:64], True)


def test_other_fragments_end_the_wait_for_old_ones() -> None:
    fragments, (first, *_) = Fragments(), parts()
    assert list(fragments.add(1, first)) == []
    ((_, cut),) = fragments.add(1, first._replace(seq=8, time_ns=START_NS + PATIENCE_NS))
    assert (cut.seq, cut.time_ns) == (7, START_NS)


def test_only_so_many_datagrams_are_waited_for() -> None:
    fragments, (first, *_) = Fragments(), parts()
    out = [cut for seq in range(1000) for _, cut in fragments.add(1, first._replace(seq=seq))]
    assert [cut.seq for cut in out] == list(range(1000 - DATAGRAMS_MAX))


def test_a_datagram_of_any_number_of_parts_takes_bounded_memory_and_time() -> None:
    """Offsets are 13 bits, so there are 8,192 at most, each kept once, and each is joined to the others once."""
    fragments = Fragments()
    part = parts()[1]
    began = time.thread_time()
    for offset in range(1, 1 << 13):
        assert not list(fragments.add(1, part._replace(tcp_flags=offset | MORE_FRAGMENTS, data=b"12345678", length=8)))
    assert time.thread_time() - began < 3, "some 0.1 s; 26 s when all were joined again with each"


def test_what_is_a_fragment() -> None:
    assert [is_fragment(payload(FLOW, flags=flags)) for flags in (0, 1, 0x1FFF, MORE_FRAGMENTS)] == [
        False,
        True,
        True,
        True,
    ]
