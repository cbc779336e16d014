"""HTTP/1.x requests, their responses and the latency between them."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.names.decoders.applications import looks_like_http1
from wiremeter.names.decoders.http1 import (
    MAX_HEAD_BYTES,
    MAX_OUTSTANDING,
    Http1Decoder,
    host_name,
)
from wiremeter.names.records import FlowKey, HttpTransaction

FLOW = FlowKey(bytes(15) + b"\1", 40000, bytes(15) + b"\2", 80, 6, 6)
GET = b"GET /a?b=c HTTP/1.1\r\nHost: Example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def decoder(redact: bool = False) -> Http1Decoder:
    return Http1Decoder(FLOW, redact)


def exchange(*messages: tuple[bool, bytes], redact: bool = False) -> list[HttpTransaction]:
    """What a dialogue of (from_client, bytes) gives; the n-th message comes at 10·n ns."""
    http = decoder(redact)
    out = [record for n, (side, data) in enumerate(messages) for record in http.data(side, data, 10 * n)]
    return out + http.flush()


def said(records: list[HttpTransaction]) -> list[tuple[str | None, str | None, int | None]]:
    return [(record.method, record.path, record.status) for record in records]


# --- one request


def test_request_and_response_are_one_record() -> None:
    assert exchange((True, GET), (False, OK)) == [
        HttpTransaction(0, FLOW, "1.1", "GET", "example.com", "/a?b=c", 200, 10)
    ]


def test_path_is_left_out_unless_asked_for() -> None:
    (record,) = Http1Decoder(FLOW).data(True, GET, 0) or exchange((True, GET), (False, OK), redact=True)
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
    http = decoder()
    assert http.data(True, GET, 0) == []
    assert (http.method, http.host, http.expects_response) == ("GET", "example.com", True)


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
    http = decoder()
    records = []
    for side, stream in ((True, request_head + NEXT), (False, response + OK)):
        for at in range(0, len(stream), step):
            records += http.data(side, stream[at : at + step], 0)
    assert [record.path for record in records][-1] == "/next"
    assert len(records) == 2
    assert records[-1].status == 200


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
    http = decoder()
    http.data(True, request_head, 0)
    (record,) = http.data(False, response + b"\x82\x01x", 1)
    assert record.status in (200, 101)
    assert http.done


def test_response_to_an_unseen_request_may_be_one_to_head() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    assert [record.status for record in exchange((False, head), (False, OK))] == [200, 200]


# --- gaps


def test_gap_within_a_body_of_known_length_is_body() -> None:
    http = decoder()
    http.data(True, GET, 0)
    records = http.data(False, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + bytes(10), 1)
    assert http.optional_bytes(False) == 90
    assert http.gap(False, 80) == []
    http.data(True, NEXT, 2)
    records += http.data(False, bytes(10) + OK, 3)
    assert said(records) == [("GET", "/a?b=c", 200), ("GET", "/next", 200)]


def test_gap_within_a_chunk_is_body() -> None:
    http = decoder()
    http.data(True, GET, 0)
    http.data(False, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n", 1)
    http.gap(False, 255)
    http.data(True, NEXT, 2)
    assert said(http.data(False, b"\r\n0\r\n\r\n" + OK, 3)) == [("GET", "/next", 200)]


def test_after_a_gap_elsewhere_the_next_packet_that_begins_like_a_head_is_one() -> None:
    http = decoder()
    http.data(True, GET, 0)
    http.data(False, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n", 1)
    http.gap(False, 3000)
    assert http.data(False, b"rest of the body HTTP/1.1 200 OK\r\n\r\n", 1) == []
    http.data(True, NEXT, 2)
    assert said(http.data(False, OK, 3)) == [("GET", "/next", 200)]


def test_lost_response_does_not_shift_those_that_follow() -> None:
    http = decoder()
    http.data(True, GET, 0)
    http.data(True, NEXT, 10)
    http.gap(False, None)
    records = http.data(False, OK, 20)
    assert said(records) == [("GET", "/a?b=c", None), ("GET", "/next", 200)]
    assert records[1].latency_ns == 10


def test_lost_request_leaves_its_response_alone() -> None:
    http = decoder()
    http.gap(True, 100)
    records = http.data(False, OK, 5)
    http.data(True, NEXT, 10)
    records += http.data(False, OK, 20)
    assert said(records) == [(None, None, 200), ("GET", "/next", 200)]


def test_head_whose_end_is_missing_still_tells_method_host_and_status() -> None:
    http = decoder()
    http.data(True, b"GET /long HTTP/1.1\r\nHost: example.com\r\nCookie: aaaa", 0)
    assert http.gap(True, 3000) == []
    http.data(True, b"aaa\r\n\r\n", 5)
    http.data(False, b"HTTP/1.1 302 Found\r\nSet-Cookie: bb", 15)
    (record,) = http.gap(False, 3000)
    assert (record.method, record.host, record.path, record.status) == ("GET", "example.com", "/long", 302)
    assert record.latency_ns == 10


def test_gap_in_a_body_of_more_than_4_gib_may_be_longer_than_it_seems() -> None:
    http = decoder()
    http.data(True, GET, 0)
    http.data(False, b"HTTP/1.1 200 OK\r\nContent-Length: 6000000000\r\n\r\n", 1)
    http.gap(False, 1_705_032_704)
    http.data(True, NEXT, 2)
    assert said(http.data(False, OK, 3)) == [("GET", "/next", 200)]


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


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60), st.integers(0, 100) | st.none()), max_size=20))
def test_any_bytes_and_gaps_raise_nothing(items: list[tuple[bool, bytes, int | None]]) -> None:
    http = decoder()
    for side, data, missing in items:
        http.data(side, data, 0)
        http.gap(side, missing)
    http.flush()


@given(st.data())
def test_damaged_dialogues_raise_nothing_and_lose_no_count(data: st.DataObject) -> None:
    http = decoder()
    for side, stream in ((True, GET * 3), (False, OK * 3)):
        damaged = bytearray(stream)
        for at in data.draw(st.lists(st.integers(0, len(stream) - 1), max_size=5)):
            damaged[at] = data.draw(st.integers(0, 255))
        records = http.data(side, bytes(damaged), 0)
    assert len(records) + len(http.flush()) <= 6


def test_hostile_streams_cost_bounded_memory_and_time() -> None:
    streams = [
        b"GET /" + b"x" * 2000,  # a head without end
        b"GET / HTTP/1.1\r\n" * 100,  # fields without end
        b"a" * 2000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 2000,
        GET * 40,  # requests without responses
    ]
    began = time.process_time()
    tracemalloc.start()
    for first in streams:
        http = decoder()
        for _ in range(200):
            http.data(True, first, 0)
        assert len(http.flush()) <= MAX_OUTSTANDING
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    assert time.process_time() - began < 20
