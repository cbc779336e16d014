"""Which flows of a batch belong to what is known, and which of them opened a connection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.datapath.rows import conversation_hashes
from wiremeter.flows.columns import FLOW
from wiremeter.names.matching import HashIndex, openers, rows_of_keys
from wiremeter.names.records import FlowKey

from .payload_records import ACK, MS, START_NS, SYN, UDP, key, rows_of

NEVER = np.zeros(0, np.uint64)
FIN = 0x01
THERE = key()
BACK = THERE.reversed()


@given(st.lists(st.integers(0, 20), unique=True), st.lists(st.integers(0, 20)))
def test_an_index_finds_every_hash_that_is_there_and_no_other(known: list[int], wanted: list[int]) -> None:
    found = HashIndex(np.array(known, np.uint64)).positions(np.array(wanted, np.uint64))
    assert found.tolist() == [known.index(each) if each in known else -1 for each in wanted]


def test_of_equal_hashes_the_first_is_found() -> None:
    assert HashIndex(np.array([5, 9, 5, 9], np.uint64)).positions(np.array([9, 5], np.uint64)).tolist() == [1, 0]


def test_the_greatest_and_the_least_hash_are_found() -> None:
    most = (1 << 64) - 1
    index = HashIndex(np.array([most, 0], np.uint64))
    assert index.positions(np.array([0, most, 1], np.uint64)).tolist() == [1, 0, -1]


def test_keys_become_rows_column_by_column() -> None:
    keys = [key(1, 2, 3, 4), key(5, 6, 7, 8, UDP), FlowKey(bytes(range(16)), 65535, bytes(range(16, 32)), 0, 17, 6)]
    rows = rows_of_keys(keys, FLOW)
    assert [
        FlowKey(
            row["src_addr"].tobytes(), int(row["src_port"]), row["dst_addr"].tobytes(), int(row["dst_port"]),
            int(row["protocol"]), int(row["family"]),
        )
        for row in rows
    ] == keys  # fmt: skip
    assert not rows["packets"].any()
    assert len(rows_of_keys([], FLOW)) == 0


def test_both_flows_of_a_conversation_have_its_hash() -> None:
    there, back, other = conversation_hashes(rows_of_keys([THERE, BACK, key(port=40001)], FLOW)).tolist()
    assert there == back != other


def opened(rows: np.ndarray, before: np.ndarray = NEVER) -> tuple[list[int], np.ndarray]:
    """The rows that opened, and their hashes for the next interval."""
    hashes = conversation_hashes(rows)
    found = openers(rows, hashes, before)
    return found.tolist(), hashes[found]


def two(there: int | None, back: int | None, *, back_later: int = MS) -> np.ndarray:
    """The flows of a conversation with these TCP flags; None: that one is not there."""
    rows = []
    if there is not None:
        rows.append(rows_of(THERE, flags=there))
    if back is not None:
        rows.append(rows_of(BACK, flags=back, at_ns=START_NS + back_later))
    return np.concatenate(rows)


@pytest.mark.parametrize(
    ("what", "rows", "expected"),
    [
        ("a handshake in one interval", two(SYN | ACK, SYN | ACK), [0]),
        ("a handshake whose answer's packets were first in the batch", two(SYN | ACK, SYN | ACK)[::-1], [1]),
        ("a handshake within one tick: the higher port is the client's", two(SYN | ACK, SYN | ACK, back_later=0), [0]),
        ("a SYN without an answer", two(SYN, None), [0]),
        ("a SYN that was refused by a reset", two(SYN, 0x04 | ACK), [0]),
        ("only the client's flow was seen", two(SYN | ACK, None), [0]),
        ("an answer alone, to a SYN of the interval before", two(ACK, SYN | ACK), []),
        ("an answer alone, the other way not seen", two(None, SYN | ACK), [0]),
        ("no SYN at all", two(ACK, ACK | FIN), []),
        ("SYN and the connection's end", two(SYN | ACK | FIN, SYN | ACK | FIN), [0]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_who_opened(what: str, rows: np.ndarray, expected: list[int]) -> None:
    assert opened(rows)[0] == expected


def test_a_handshake_that_a_flip_divides_is_one_connection() -> None:
    first, known = opened(two(SYN, None))
    then, known = opened(two(ACK, SYN | ACK), known)
    last, _ = opened(two(ACK, ACK), known)
    assert (first, then, last) == ([0], [], [])


def test_a_syn_that_is_sent_again_in_the_next_interval_is_the_same_connection() -> None:
    first, known = opened(two(SYN, None))
    again, known = opened(two(SYN, None), known)
    assert (first, again, len(known)) == ([0], [], 0)


def test_the_same_ports_may_open_again_two_intervals_later() -> None:
    _, known = opened(two(SYN | ACK, SYN | ACK))
    _, known = opened(two(ACK | FIN, ACK | FIN), known)
    assert opened(two(SYN | ACK, SYN | ACK), known)[0] == [0]


def test_udp_opens_nothing_whatever_its_row_says() -> None:
    rows = rows_of(key(protocol=UDP))
    rows["tcp_flags"] = SYN
    assert opened(rows)[0] == []


def test_every_one_of_many_connections_counts_once() -> None:
    keys = [key(port=1024 + number) for number in range(3000)]
    rows = np.concatenate(
        [rows_of(*keys, flags=SYN | ACK), rows_of(*(k.reversed() for k in keys), flags=SYN | ACK, at_ns=START_NS + MS)]
    )
    shuffled = rows[np.random.default_rng(1).permutation(len(rows))]
    found = shuffled[opened(shuffled)[0]]
    assert len(found) == 3000
    assert (found["dst_port"] == 443).all()
