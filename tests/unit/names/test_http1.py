"""HTTP/1.x requests, their responses and the latency between them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.names.decoders.applications import looks_like_http1
from wiremeter.names.decoders.http2 import host_name
from wiremeter.names.library import lib
from wiremeter.names.records import HttpTransaction

from .tcp_wire import Wire

FLOW = Wire().flow
GET = b"GET /a?b=c HTTP/1.1\r\nHost: Example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
MAX_HEAD_BYTES, MAX_OUTSTANDING = 64 << 10, 256
FAR = 5 << 20  # so much is missing that nobody waits for it


def exchange(*messages: tuple[bool, bytes], redact: bool = False) -> list[HttpTransaction]:
    """What a dialogue of (from_client, bytes) gives; the n-th packet comes at 10·n ns."""
    wire = Wire(redact=redact)
    wire.now_ns = -10
    for side, data in messages:
        for at in range(0, len(data), 4000):
            wire.say(side, data[at : at + 4000])
    wire.end()
    return wire.requests


def said(records: list[HttpTransaction]) -> list[tuple[str | None, str | None, int | None]]:
    return [(record.method, record.path, record.status) for record in records]


# --- one request


def test_request_and_response_are_one_record() -> None:
    assert exchange((True, GET), (False, OK)) == [
        HttpTransaction(0, FLOW, "1.1", "GET", "example.com", "/a?b=c", 200, 10)
    ]


def test_path_is_left_out_unless_asked_for() -> None:
    (record,) = exchange((True, GET), (False, OK), redact=True)
    assert (record.method, record.host, record.path, record.status) == ("GET", "example.com", None, 200)


def test_request_without_response_ends_with_the_connection() -> None:
    (record,) = exchange((True, GET))
    assert (record.method, record.status, record.latency_ns) == ("GET", None, None)


def test_response_without_request_stands_alone() -> None:
    assert exchange((False, OK)) == [HttpTransaction(0, FLOW, "1.1", None, None, None, 200, None)]


def test_latency_is_from_the_last_byte_of_the_body_to_the_first_of_the_response() -> None:
    post = b"POST /u HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc"
    (record,) = exchange((True, post), (True, b"def"), (False, OK[:9]), (False, OK[9:]))
    assert (record.time_ns, record.latency_ns) == (0, 10)


def test_final_status_counts_not_the_interim_one() -> None:
    post = b"POST /u HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    (record,) = exchange(
        (True, post), (False, b"HTTP/1.1 100 Continue\r\n\r\n"), (True, b"abc"), (False, OK.replace(b"200", b"404"))
    )
    assert (record.status, record.latency_ns) == (404, 10)


def test_host_and_method_of_a_request_are_known_before_its_response() -> None:
    wire = Wire().client(GET)
    assert (wire.requests, wire.name.http_method, wire.name.domain) == ([], "GET", "example.com")


@pytest.mark.parametrize(
    ("head", "host", "path"),
    [
        (b"GET / HTTP/1.1\r\nhost:  EXAMPLE.com:8080 \r\n\r\n", "example.com", "/"),
        (b"GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n\r\n", "[2001:db8::1]", "/"),
        (b"GET / HTTP/1.0\r\n\r\n", None, "/"),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", None, "/"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", None, "/"),
        (b"GET / HTTP/1.1\r\nX: y\r\n folded\r\nHost:\r\n example.com\r\n\r\n", "example.com", "/"),
        (b"GET / HTTP/1.1\nHost: example.com\n\n", "example.com", "/"),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", "/"),
        (b"GET http://proxied.example:81/x?y HTTP/1.1\r\nHost: other\r\n\r\n", "proxied.example", "/x?y"),
        (b"GET http://proxied.example HTTP/1.1\r\nHost: other\r\n\r\n", "proxied.example", "/"),
        (b"CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n", "far.example", "far.example:443"),
        (b"GET \t/tab\x0bHTTP/1.1 \t\r\nHost: example.com\r\n\r\n", "example.com", "/tab"),
        (b"GET /cr\rHTTP/1.1\r\r\nHost : example.com\r\n\r\n", "example.com", "/cr"),
        (b"GET / HTTP/1.1\r\n ignored: x\r\nHost: example.com\r\n\r\n", "example.com", "/"),
        (b"OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", "*"),
        (b"FROBNICATE /x HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", "/x"),
        (b"GET /\xc3\xa4\xff HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", "/ä\\xff"),
    ],
)
def test_heads_as_they_come(head: bytes, host: str | None, path: str) -> None:
    (record,) = exchange((True, head))
    assert (record.host, record.path) == (host, path)


def test_host_is_what_is_left_without_user_port_and_last_dot() -> None:
    assert host_name(b"user:pw@Example.com.:80") == "example.com"
    assert host_name(b"x" * 300) is None
    assert host_name(b"a/b") is None


# --- where messages end

NEXT = GET.replace(b"/a?b=c", b"/next")


@pytest.mark.parametrize(
    ("request_head", "response"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nHTTP/"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
            b"4;x=y\r\nHTTP\r\nA\r\n/1.1 200 O\r\n0\r\nTrailer: x\r\n\r\n",
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\nGET\n0\n\n", OK),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 407 Who\r\nContent-Length: 2\r\n\r\nno"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_next_message_is_found_behind_every_kind_of_body(request_head: bytes, response: bytes, step: int) -> None:
    wire = Wire()
    for side, stream in ((True, request_head + NEXT), (False, response + OK)):
        for at in range(0, len(stream), step):
            wire.say(side, stream[at : at + step])
    assert [record.path for record in wire.requests][-1] == "/next"
    assert len(wire.requests) == 2
    assert wire.requests[-1].status == 200


def test_pipelined_requests_are_answered_in_their_order() -> None:
    requests = b"".join(GET.replace(b"/a?b=c", path) for path in (b"/1", b"/2", b"/3"))
    responses = b"".join(OK.replace(b"200", status) for status in (b"201", b"404", b"500"))
    assert said(exchange((True, requests), (False, responses))) == [
        ("GET", "/1", 201),
        ("GET", "/2", 404),
        ("GET", "/3", 500),
    ]


def test_body_up_to_the_end_of_the_connection_is_no_head() -> None:
    records = exchange((True, GET), (False, b"HTTP/1.0 200 OK\r\n\r\nsome HTTP/1.1 500 text"), (False, b"more text"))
    assert said(records) == [("GET", "/a?b=c", 200)]


@pytest.mark.parametrize(
    ("request_head", "response"),
    [
        (b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 Established\r\n\r\n"),
        (
            b"GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        ),
    ],
)
def test_tunnel_or_upgrade_ends_the_decoding(request_head: bytes, response: bytes) -> None:
    records = exchange((True, request_head), (False, response + b"\x82\x01x"), (True, GET), (False, OK))
    assert [record.status in (200, 101) for record in records] == [True]


def test_response_to_an_unseen_request_may_be_one_to_head() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    assert [record.status for record in exchange((False, head), (False, OK))] == [200, 200]


# --- gaps


def heard(*segments: tuple[bool, bytes, int]) -> list[HttpTransaction]:
    """What segments give, behind each of which so many bytes are missing; the n-th comes at 10·n ns."""
    wire = Wire()
    wire.now_ns = -10
    for side, data, missing in segments:
        wire.say(side, data, len(data) + missing)
    wire.end()
    return wire.requests


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n"


def test_gap_within_a_body_of_known_length_is_body() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + bytes(10)
    records = heard((True, GET, 0), (False, head, 80), (True, NEXT, 0), (False, bytes(10) + OK, 0))
    assert said(records) == [("GET", "/a?b=c", 200), ("GET", "/next", 200)]


def test_gap_within_a_chunk_is_body() -> None:
    records = heard((True, GET, 0), (False, CHUNKED, 255), (True, NEXT, 0), (False, b"\r\n0\r\n\r\n" + OK, 0))
    assert said(records) == [("GET", "/a?b=c", 200), ("GET", "/next", 200)]


def test_after_a_gap_elsewhere_the_next_packet_that_begins_like_a_head_is_one() -> None:
    rest = b"rest of the body HTTP/1.1 200 OK\r\n\r\n"
    records = heard((True, GET, 0), (False, CHUNKED, 3000), (False, rest, 0), (True, NEXT, 0), (False, OK, 0))
    assert said(records) == [("GET", "/a?b=c", 200), ("GET", "/next", 200)]


def test_lost_response_does_not_shift_those_that_follow() -> None:
    records = heard((True, GET, 0), (True, NEXT, 0), (False, OK[:-30], 30), (False, OK, 0))
    assert said(records) == [("GET", "/a?b=c", None), ("GET", "/next", 200)]
    assert records[1].latency_ns == 20


def test_lost_request_leaves_its_response_alone() -> None:
    records = heard((True, GET[:5], 100), (False, OK, 0), (True, NEXT, 0), (False, OK, 0))
    assert said(records) == [(None, None, 200), ("GET", "/next", 200)]


def test_head_whose_end_is_missing_still_tells_method_host_and_status() -> None:
    (record,) = heard(
        (True, b"GET /long HTTP/1.1\r\nHost: example.com\r\nCookie: aaaa", 3000),
        (True, b"aaa\r\n\r\n", 0),
        (False, b"HTTP/1.1 302 Found\r\nSet-Cookie: bb", 3000),
    )
    assert (record.method, record.host, record.path, record.status) == ("GET", "example.com", "/long", 302)
    assert record.latency_ns == 10


def test_gap_in_a_body_of_more_than_4_gib_may_be_longer_than_it_seems() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 6000000000\r\n\r\n"
    wire = Wire().client(GET).server(head).skip(False, 1_705_032_704).client(NEXT).server(OK)
    assert said(wire.requests) == [("GET", "/a?b=c", 200), ("GET", "/next", 200)]


# --- what is no HTTP


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"GET /pa", b"POST http://x/ HT", b"HTTP/1.1 200", b"X-Y /z HTTP/1.0\n"]
)
def test_beginnings_of_heads_look_like_http(data: bytes) -> None:
    assert looks_like_http1(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET",
        b"GET key\r\n",
        b"GET / HTTP/2\r\n",
        b"HTTP/1.1",
        b"HTTP/1.1 999 x",
        b"RTSP/1.0 200 OK\r\n",
        b"INVITE sip:a SIP/2.0\r\n",
        b"G\xffT / HTTP/1.1\r\n",
        b"GET /\0 HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
    ],
)
def test_other_beginnings_do_not(data: bytes) -> None:
    assert not looks_like_http1(data)


@pytest.mark.parametrize(
    "bad",
    [
        b"no request at all\r\n\r\n",
        b"\x00\x01\x02",
        b"GET / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_after_what_can_not_be_read_the_next_head_is_found(bad: bytes) -> None:
    records = exchange((True, bad), (True, b"more of it"), (True, NEXT))
    assert records[-1].path == "/next"


@pytest.mark.parametrize(
    "long",
    [
        b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * MAX_HEAD_BYTES + b"\r\n",
    ],
)
def test_what_is_longer_than_is_read_is_counted(long: bytes) -> None:
    wire = Wire()
    for at in range(0, len(long), 4000):
        wire.client(long[at : at + 4000])
    assert wire.reader.lost == 1


def test_a_path_is_told_whole_or_not_at_all_and_counted() -> None:
    wire = Wire()
    for bytes_of_path in (8192, 8193):
        for part in (b"GET /" + b"x" * 4000, b"x" * (bytes_of_path - 4001), b" HTTP/1.1\r\nHost: a.example\r\n\r\n"):
            for at in range(0, len(part), 4000):
                wire.client(part[at : at + 4000])
    wire.end()
    assert [(one.host, one.path and len(one.path)) for one in wire.requests] == [
        ("a.example", 8192),
        ("a.example", None),
    ]
    assert wire.reader.lost == 1


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=60), st.integers(0, 100)), max_size=20))
def test_any_bytes_and_gaps_do_no_harm(items: list[tuple[bool, bytes, int]]) -> None:
    heard((True, GET, 0), *items)


@given(st.data())
def test_damaged_dialogues_lose_no_count(data: st.DataObject) -> None:
    wire = Wire()
    for side, stream in ((True, GET * 3), (False, OK * 3)):
        damaged = bytearray(stream)
        for at in data.draw(st.lists(st.integers(0, len(stream) - 1), max_size=5)):
            damaged[at] = data.draw(st.integers(0, 255))
        wire.say(side, bytes(damaged))
    wire.end()
    assert len(wire.requests) <= 6


def test_hostile_streams_cost_bounded_memory_and_time() -> None:
    streams = [
        GET + b"GET /" + b"x" * 2000,  # a head without end
        b"GET / HTTP/1.1\r\n" * 100,  # fields without end
        GET + b"a" * 2000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 2000,
        GET * 40,  # requests without responses
    ]
    began = time.process_time()
    for first in streams:
        wire = Wire()
        for n in range(200):
            wire.client(first if not n else first[len(GET) :] if first.startswith(GET + b"G") else first)
            assert lib.wm_tcp_cells(wire.reader._tcp) <= 2 * MAX_HEAD_BYTES // 500 + 2 * MAX_OUTSTANDING + 4
        told = len(wire.requests)
        wire.end()
        assert len(wire.requests) - told <= MAX_OUTSTANDING
        assert lib.wm_tcp_cells(wire.reader._tcp) == 0
    assert time.process_time() - began < 20
