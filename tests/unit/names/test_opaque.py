"""Packets of which nothing can be read are told apart at once, nothing else is, and what begins late is still read."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.datapath.rows import conversation_hashes
from wiremeter.names.block_reader import CONVERSATIONS_MAX, BlockReader
from wiremeter.names.decoders.applications import may_begin, tcp_application
from wiremeter.names.namer import Namer
from wiremeter.names.payloads import Payload, packed
from wiremeter.names.reader import SILENCE_NS
from wiremeter.names.records import FlowKey

from .payload_records import ACK, FIRST, MS, SECOND_NS, START_NS, UDP, feed, key, payload, reader_of, rows_of
from .tls_hellos import client_hello, records, server_name

WEB = key()
OPAQUE = bytes(range(130, 230))
PROXY = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)
HELLO = records(client_hello(((0, server_name(b"site.example")),)))


def namer() -> Namer:
    return Namer(conversation_hashes)


def domain(names: Namer, flow: FlowKey = WEB, *, seconds: int = 1) -> str | None:
    rows = rows_of(flow, at_ns=START_NS)
    told = names.close_interval(rows, rows["attachment"].astype("i8"), START_NS + seconds * SECOND_NS)
    name: str | None = told.names[told.flow_names[0]].domain
    return name


def segment(data: bytes, seq: int, *, at_ns: int = START_NS, flow: FlowKey = WEB) -> Payload:
    return payload(flow, data, at_ns=at_ns, seq=seq, flags=ACK, source=FIRST)


def read(reader: BlockReader, *payloads: Payload) -> list[bool]:
    """Which of them were read, not opaque."""
    found = []
    for each in payloads:
        before = reader.opaque
        assert not list(reader.read(packed([each])))
        found.append(reader.opaque == before)
    return found


# --- opaque


def test_opaque_packets_leave_nothing_behind_and_are_counted() -> None:
    names = namer()
    feed(names, [segment(OPAQUE, 1, flow=key(port=1000 + number)) for number in range(5000)])
    feed(names, [payload(key(port=9, protocol=UDP), OPAQUE, source=FIRST)])
    assert (reader_of(names)._blocks.connections, reader_of(names)._blocks.opaque) == (0, 5001)


@pytest.mark.parametrize("data", [OPAQUE, b"\x17\x03\x03\x01\0" + OPAQUE, b"\xff" * 64, bytes(64)])
def test_what_begins_nothing_is_opaque(data: bytes) -> None:
    assert not may_begin(data, 50000, 9000)


@pytest.mark.parametrize(
    "data", [b"\x16", b"SSH-", b"GET /a", b"any text at all, as of a chat\n", b"\0\0\0\x26", HELLO]
)
def test_what_may_become_something_is_not(data: bytes) -> None:
    assert may_begin(data, 50000, 9000)


@given(st.binary(max_size=80), st.sampled_from([25, 53, 80, 389, 443, 3306, 50000]))
def test_what_one_side_proves_is_never_opaque(data: bytes, port: int) -> None:
    if tcp_application(data, b"", port):
        assert may_begin(data, 50001, port)
    if tcp_application(b"", data, port):
        assert may_begin(data, port, 50001)


# --- all of a conversation that is read


def test_every_packet_of_a_conversation_is_read_from_its_beginning_on() -> None:
    reader = BlockReader(lambda told: None)
    begins, both = segment(HELLO, 1), [segment(OPAQUE, 500), segment(OPAQUE, 1, flow=WEB.reversed())]
    other = segment(OPAQUE, 1, flow=key(port=41000))
    assert read(reader, begins, *both, other) == [True, True, True, False]
    assert read(reader, *both) == [True, True]
    reader.advance(START_NS + 2, START_NS + 1)
    assert (reader.connections, read(reader, *both)) == (0, [False, False])


def test_conversations_of_other_devices_are_others() -> None:
    reader = BlockReader(lambda told: None)
    block = [segment(HELLO, 1), *(segment(OPAQUE, 9)._replace(attachment=other) for other in (1, 2, 9))]
    assert not list(reader.read(packed(block), {0: 7, 1: 8, 2: 7}))
    assert (reader.connections, reader.opaque) == (1, 1)  # what is on device 8; of attachment 9 nobody asked


def test_a_conversation_that_is_silent_is_forgotten() -> None:
    names = namer()
    feed(names, [segment(HELLO, 1)])
    assert reader_of(names)._blocks.connections == 1
    domain(names, seconds=SILENCE_NS // SECOND_NS + 2)
    feed(names, [segment(OPAQUE, 1)])
    assert (reader_of(names)._blocks.connections, reader_of(names)._blocks.opaque) == (0, 1)


@pytest.mark.parametrize("in_one_block", [True, False])
def test_a_hello_whose_second_segment_came_first_is_read(in_one_block: bool) -> None:
    cut = 20
    second, first = segment(HELLO[cut:], 1 + cut), segment(HELLO[:cut], 1, at_ns=START_NS + MS)
    assert not may_begin(second.data, WEB.src_port, WEB.dst_port)
    names = namer()
    for packets in [[second, first]] if in_one_block else [[second], [first]]:
        feed(names, packets)
    assert domain(names) == "site.example"


def test_of_packets_that_came_before_only_the_latest_are_kept_and_for_a_moment() -> None:
    cut = 20
    second, first = segment(HELLO[cut:], 1 + cut), segment(HELLO[:cut], 1, at_ns=START_NS + MS)
    flood = [segment(OPAQUE, 1, flow=key(port=1000 + number)) for number in range(64)]
    for between, at_ns, expected in ((flood[:63], MS, "site.example"), (flood, MS, None), ([], 101 * MS, None)):
        names = namer()
        feed(names, [second, *between, first._replace(time_ns=START_NS + at_ns)])
        assert domain(names) == expected


def test_more_conversations_than_there_is_room_for_wait_until_others_are_let_go() -> None:
    names, count = namer(), CONVERSATIONS_MAX + 3000
    flows = [key(client=1 + number // 50_000, port=1000 + number % 50_000) for number in range(count)]
    feed(names, [segment(b"SSH-2.0-OpenSSH_9.2\r\n", 1, flow=flow) for flow in flows])
    rows = rows_of(*flows)
    told = names.close_interval(rows, rows["attachment"].astype("i8"), START_NS + SECOND_NS)
    assert {told.names[number].application for number in told.flow_names} == {"ssh"}


def test_reading_and_letting_go_in_any_order_loses_none() -> None:
    rng = random.Random(7)
    reader = BlockReader(lambda told: None)
    flows = [key(port=1000 + number) for number in range(300)]
    heard: dict[FlowKey, int] = {}
    for number in range(3000):
        now_ns = START_NS + number * MS
        if rng.random() < 0.02:
            reader.advance(now_ns, now_ns - 300 * MS)
            heard = {flow: at_ns for flow, at_ns in heard.items() if at_ns >= now_ns - 300 * MS}
        flow = rng.choice(flows)
        read(reader, segment(HELLO, 1, flow=flow, at_ns=now_ns))
        heard[flow] = now_ns
        assert reader.connections == len(heard)
    late_ns = START_NS + 10 * SECOND_NS
    is_read = read(reader, *(segment(OPAQUE, 900, flow=flow, at_ns=late_ns) for flow in flows))
    assert {flow for flow, yes in zip(flows, is_read, strict=True) if yes} == set(heard)


def test_udp_conversations_are_left_to_others_until_they_are_forgotten() -> None:
    reader, flow = BlockReader(lambda told: None), key(port=123, server_port=123, protocol=UDP)
    ntp, other = payload(flow, b"\x23" + bytes(47), source=FIRST), payload(flow.reversed(), OPAQUE, source=FIRST)
    for _ in range(2):
        assert [list(reader.read(packed([each]))) for each in (other, ntp, other)] == [[], [(0, ntp)], [(0, other)]]
        reader.forget(0, flow.reversed())
