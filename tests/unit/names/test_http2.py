"""HTTP/2 in clear: header blocks, their compression, and what ends the decoding."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.names.decoders.applications import looks_like_http2
from wiremeter.names.decoders.http2 import MAX_OUTSTANDING, PREFACE, Http2Decoder
from wiremeter.names.records import DecodeError, FlowKey, HttpTransaction

FLOW = FlowKey(bytes(15) + b"\1", 40000, bytes(15) + b"\2", 80, 6, 6)
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, CONTINUATION = 0, 1, 3, 4, 5, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x1, 0x4, 0x8, 0x20
NO_SETTINGS = bytes(3) + bytes([SETTINGS]) + bytes(5)


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Peer:
    """One side of a connection, with the state of its header compression."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    def block(self, **fields: str) -> bytes:
        """Fields by name; `_x` is the pseudo-header `:x`, and `a_b` the field `a-b`."""
        named = [(name.replace("_", ":", 1) if name[0] == "_" else name.replace("_", "-")) for name in fields]
        return bytes(self.encoder.encode(zip(named, fields.values(), strict=True)))

    def get(self, stream: int, path: str = "/", **fields: str) -> bytes:
        fields = {"_method": "GET", "_scheme": "http", "_authority": "Example.com:81", "_path": path, **fields}
        return frame(HEADERS, stream, self.block(**fields), END_HEADERS | END_STREAM)

    def respond(self, stream: int, status: int) -> bytes:
        return frame(HEADERS, stream, self.block(_status=str(status), server="x"), END_HEADERS)


def opened(redact: bool = False) -> tuple[Http2Decoder, Peer, Peer]:
    http = Http2Decoder(FLOW, redact)
    http.data(True, PREFACE + NO_SETTINGS, 0)
    http.data(False, NO_SETTINGS, 0)
    return http, Peer(), Peer()


def test_request_and_response_are_one_record() -> None:
    http, client, server = opened()
    assert http.data(True, client.get(1, "/a?b"), 10) == []
    assert (http.method, http.host, http.application) == ("GET", "example.com", "http")
    assert http.data(False, server.respond(1, 200), 25) == [
        HttpTransaction(10, FLOW, "2", "GET", "example.com", "/a?b", 200, 15)
    ]


def test_path_is_left_out_unless_asked_for() -> None:
    http, client, server = opened(redact=True)
    http.data(True, client.get(1, "/secret"), 0)
    (record,) = http.data(False, server.respond(1, 200), 0)
    assert (record.method, record.path) == ("GET", None)


def test_streams_are_answered_in_any_order_with_the_compression_state_kept() -> None:
    http, client, server = opened()
    http.data(True, client.get(1, "/1") + client.get(3, "/3") + client.get(5, "/5"), 0)
    records = http.data(False, server.respond(5, 404) + server.respond(1, 200), 1)
    assert [(record.path, record.status) for record in records] == [("/5", 404), ("/1", 200)]
    assert [(record.path, record.status) for record in http.flush()] == [("/3", None)]


def test_latency_is_from_the_last_byte_of_the_body_to_the_first_of_the_response() -> None:
    http, client, server = opened()
    post = client.block(_method="POST", _authority="h", _path="/", content_type="application/grpc+proto")
    http.data(True, frame(HEADERS, 1, post, END_HEADERS) + frame(DATA, 1, b"abcdef")[:12], 10)
    http.data(True, b"def", 20)
    response = server.respond(1, 200)
    assert http.data(False, response[:4], 50) == []
    (record,) = http.data(False, response[4:], 60)
    assert (record.time_ns, record.latency_ns) == (10, 30)
    assert http.application == "grpc"


def test_interim_responses_and_trailers_are_no_answers() -> None:
    http, client, server = opened()
    http.data(True, client.get(1) + frame(HEADERS, 1, client.block(x="trailer"), END_HEADERS), 0)
    assert http.data(False, server.respond(1, 103), 1) == []
    (record,) = http.data(False, server.respond(1, 200) + frame(HEADERS, 1, server.block(x="y"), END_HEADERS), 2)
    assert record.status == 200


def test_reset_stream_ends_its_request() -> None:
    http, client, _ = opened()
    http.data(True, client.get(1), 0)
    (record,) = http.data(False, frame(RST_STREAM, 1, bytes(4)), 1)
    assert record.status is None


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_padding_priority_and_continuations_are_understood_however_they_are_cut(step: int) -> None:
    http, client, server = opened()
    block = client.block(_method="GET", _authority="example.com", _path="/long", cookie="x" * 100)
    stream = (
        frame(HEADERS, 1, b"\x02" + bytes(5) + block[:10] + bytes(2), PADDED | PRIORITY)
        + frame(CONTINUATION, 1, block[10:20])
        + frame(CONTINUATION, 1, block[20:], END_HEADERS)
    )
    promise = server.block(_method="GET", _authority="example.com", _path="/pushed")
    answer = frame(PUSH_PROMISE, 1, b"\1" + bytes(4) + promise + b"\0", PADDED | END_HEADERS) + server.respond(1, 200)
    records = []
    for side, data in ((True, stream), (False, answer)):
        for at in range(0, len(data), step):
            records += http.data(side, data[at : at + step], 0)
    assert [(record.path, record.status) for record in records] == [("/long", 200)]


def test_gap_within_a_body_is_body() -> None:
    http, client, server = opened()
    http.data(True, client.get(1), 0)
    assert len(http.data(False, server.respond(1, 200) + frame(DATA, 1, bytes(5000))[:100], 1)) == 1
    assert http.optional_bytes(False) == 4909
    http.gap(False, 4909)
    assert not http.done
    http.data(True, client.get(3), 2)
    assert len(http.data(False, server.respond(3, 200), 3)) == 1


@pytest.mark.parametrize("missing", [None, 1])
def test_gap_elsewhere_loses_the_compression_state_and_ends_the_decoding(missing: int | None) -> None:
    http, client, _ = opened()
    http.data(True, client.get(1, "/1"), 0)
    http.gap(False, missing)
    assert http.done
    assert [record.path for record in http.flush()] == ["/1"]
    assert http.data(True, client.get(3), 1) == []


def test_preface_is_known_by_its_beginning() -> None:
    assert looks_like_http2(PREFACE + NO_SETTINGS)
    assert not looks_like_http2(PREFACE[:8])
    assert not looks_like_http2(b"PRI * HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        PREFACE + frame(DATA, 1, b"x"),
        PREFACE + NO_SETTINGS + frame(CONTINUATION, 1, b"", END_HEADERS),
        PREFACE + NO_SETTINGS + frame(HEADERS, 1, b"") + frame(DATA, 1, b""),
        PREFACE + NO_SETTINGS + frame(HEADERS, 1, b"\x09x", PADDED | END_HEADERS),
        PREFACE + NO_SETTINGS + frame(HEADERS, 1, b"", PADDED | END_HEADERS),
        PREFACE + NO_SETTINGS + frame(HEADERS, 1, b"\xff\xff\xff\xff\x7f", END_HEADERS),
        PREFACE + NO_SETTINGS + b"\xff\xff\xff\1\4\0\0\0\1",
    ],
)
def test_what_is_no_http2_is_refused_once(stream: bytes) -> None:
    http = Http2Decoder(FLOW)
    with pytest.raises(DecodeError):
        http.data(True, stream, 0)
    assert http.done
    assert http.data(True, stream, 0) == []


def test_compression_bomb_is_refused_in_bounded_memory() -> None:
    """One large entry of the table, then thousands of references to it, a byte each."""
    http, client, _ = opened()
    http.data(True, client.get(1, x="y" * 4000), 0)
    tracemalloc.start()
    with pytest.raises(DecodeError):
        http.data(True, frame(HEADERS, 3, b"\xbe" * 60_000, END_HEADERS), 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    assert http.done


def test_endless_header_blocks_and_requests_are_bounded() -> None:
    http, _, _ = opened()
    http.data(True, frame(HEADERS, 1, b"\x82"), 0)
    with pytest.raises(DecodeError):
        http.data(True, frame(CONTINUATION, 1, bytes(1000)) * 1000, 0)
    http, client, _ = opened()
    began = time.process_time()
    ended = [record for n in range(1000) for record in http.data(True, client.get(2 * n + 1), 0)]
    assert len(ended) == 1000 - MAX_OUTSTANDING
    assert time.process_time() - began < 5


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=10), st.booleans())
def test_any_bytes_raise_only_the_error_of_decoders(chunks: list[tuple[bool, bytes]], framed: bool) -> None:
    http, _, _ = opened()
    for side, data in chunks:
        try:
            http.data(side, frame(HEADERS, 1, data, END_HEADERS) if framed else data, 0)
        except DecodeError:
            assert http.done
    http.flush()


@given(st.data())
def test_damaged_connections_raise_only_the_error_of_decoders(data: st.DataObject) -> None:
    client = Peer()
    stream = bytearray(PREFACE + NO_SETTINGS + b"".join(client.get(n, "/" + "x" * n, a="b" * n) for n in (1, 3, 5)))
    for at in data.draw(st.lists(st.integers(0, len(stream) - 1), max_size=6)):
        stream[at] = data.draw(st.integers(0, 255))
    http = Http2Decoder(FLOW)
    try:
        http.data(True, bytes(stream), 0)
    except DecodeError:
        assert http.done
    assert len(http.flush()) <= 3
