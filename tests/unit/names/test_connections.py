"""Whole TCP conversations: segments in, transactions and a name out."""

from __future__ import annotations

import struct
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wiremeter.names import block_reader
from wiremeter.names.decoders.http2 import PREFACE
from wiremeter.names.payloads import Payload, packed
from wiremeter.names.records import NAMELESS, FlowName, HttpTransaction, TlsHandshake

from .tcp_wire import ACK, PSH, SYN, SYN_ACK, Wire, statuses

HELD_NS = 10**9

GET = b"GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def extension(number: int, data: bytes) -> bytes:
    return struct.pack("!HH", number, len(data)) + data


def hello(kind: int, body: bytes) -> bytes:
    message = bytes([kind]) + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + struct.pack("!H", len(message)) + message


def client_hello(sni: bytes = b"example.com") -> bytes:
    name = extension(0, struct.pack("!HBH", len(sni) + 3, 0, len(sni)) + sni)
    extensions = name + extension(16, b"\0\3\2h2") + extension(43, b"\2\3\4")
    head = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0"
    return hello(1, head + struct.pack("!H", len(extensions)) + extensions)


SERVER_HELLO = hello(2, b"\3\3" + bytes(32) + b"\0\x13\x01\0" + b"\0\6" + extension(43, b"\3\4"))


# --- what it is


def test_http_conversation_gives_its_transactions_and_its_name() -> None:
    wire = Wire().shake().client(GET)
    assert wire.name == FlowName("http", "example.com", "http_host", http_method="GET")
    wire.server(OK)
    assert wire.out == [HttpTransaction(30, wire.flow, "1.1", "GET", "example.com", "/a", 200, 10)]
    assert wire.name.http_status == 200
    assert wire.name.application == "http"


def test_name_is_the_same_object_while_nothing_is_learnt() -> None:
    wire = Wire()
    assert wire.name == NAMELESS
    wire.client(GET).server(OK)
    name = wire.name
    wire.client(GET).server(OK)
    assert wire.name is name


def test_a_request_that_waited_for_its_first_line_is_read_before_its_response() -> None:
    wire = Wire().client(b"X!y /where/it/is HTTP/").client(b"1.1\r\nHost: h\r\n\r\n").server(OK)
    assert [(one.method, one.status) for one in wire.requests] == [("X!y", 200)]


def test_address_as_host_is_no_domain() -> None:
    for host in (b"192.0.2.1", b"[2001:db8::1]"):
        wire = Wire().client(GET.replace(b"example.com", host)).server(OK)
        assert wire.name.domain is None


@pytest.mark.parametrize("ja4s", [False, True])
def test_tls_conversation_gives_its_handshake_and_its_name_and_ja4s_only_if_asked_to(ja4s: bool) -> None:
    wire = Wire(443, ja4s=ja4s).shake().client(client_hello()).server(SERVER_HELLO)
    (record,) = wire.out
    assert isinstance(record, TlsHandshake)
    assert (record.sni, record.version, record.flow) == ("example.com", "1.3", wire.flow)
    name = wire.name
    assert (name.application, name.domain, name.domain_source) == ("tls", "example.com", "sni")
    assert (name.tls_version, name.ja4, name.ja4s) == ("1.3", record.ja4, record.ja4s)
    assert (record.ja4s is not None) == ja4s


def test_hello_in_segments_out_of_order_without_a_syn_is_read() -> None:
    data = client_hello(b"split.example")
    wire = Wire(443)
    wire.raw(True, 1000 + 50, data[50:])
    wire.raw(True, 1000, data[:50])
    (record,) = wire.end()
    assert isinstance(record, TlsHandshake)
    assert record.sni == "split.example"


def test_dns_messages_over_tcp_are_told_with_the_flow_they_were_sent_on() -> None:
    query = bytes.fromhex("123401000001000000000000") + b"\3www\7example\0\0\1\0\1"
    response = query[:2] + b"\x81\x83" + query[4:]
    wire = Wire(53).shake()
    for message in (query, query, response):
        data = struct.pack("!H", len(message)) + message
        is_query = message is query
        (wire.client if is_query else wire.server)(data[:20])
        (wire.client if is_query else wire.server)(data[20:])
    assert [(one.flow, one.retry, one.rcode) for one in wire.dns] == [(wire.flow, False, None), (wire.flow, True, 3)]
    assert wire.name == FlowName("dns", dns_query="www.example", dns_rcode=3)


def test_dns_message_of_which_only_the_beginning_was_captured_is_told_as_cut() -> None:
    response = bytes.fromhex("123481800001000100000000") + b"\3www\0\0\1\0\1" + b"\xc0\x0c\0\1"
    wire = Wire(53).shake().server(struct.pack("!H", 3000) + response, length=3002)
    wire.end()
    (told,) = wire.dns
    assert told.cut


def test_a_dns_message_that_finds_no_cell_is_told_as_cut_and_the_connection_is_read_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block_reader, "CELLS_MAX", 165)
    wire, rounds = Wire(53).shake(), 12  # more than the messages that are none which end a connection
    short = bytes.fromhex("000c 0007 8182 0000 0000 0000 0000")
    answer = bytes.fromhex("c00c 0010 0001 00000000 0100 ff") + bytes(255)
    long = bytes.fromhex("0008 8180 0001 0050 0000 0000") + b"\3www\7example\0\0\1\0\1" + 80 * answer
    wire.server(short)
    for number in range(400):  # those that were silent for longest go when there are few cells: here they free none
        other = wire.flow._replace(src_port=50_000 + number, dst_port=22)
        assert not list(wire.reader.read(packed([Payload(wire.now_ns, other, 1, 11, 0, ACK, 4, b"SSH-2.0-x\r\n")])))
    wire.skip(True, 100)
    for _ in range(28):  # behind a hole: five cells each
        wire.client(bytes(2000))
    assert wire.reader.lost == 0
    for _ in range(rounds):
        said = struct.pack("!H", len(long)) + long + short
        for at in range(0, len(said), 4000):
            wire.server(said[at : at + 4000])
    assert [(one.rcode, one.cut) for one in wire.dns] == [(2, False)] + rounds * [(0, True), (2, False)]
    assert wire.reader.lost == rounds


def test_http2_conversation_is_read_from_its_preface() -> None:
    settings_frame = bytes.fromhex("000000040000000000")
    request = bytes.fromhex("82868441") + b"\x0bexample.com"  # RFC 7541, appendix C.3.1
    headers = len(request).to_bytes(3, "big") + b"\1\4\0\0\0\1" + request
    answer = b"\0\0\1\1\4\0\0\0\1\x88"
    wire = Wire().shake().client(PREFACE + settings_frame + headers).server(settings_frame + answer)
    assert statuses(wire.out) == [("/", 200)]
    assert (wire.name.application, wire.name.domain) == ("http", "example.com")


@pytest.mark.parametrize(
    ("application", "server", "client"),
    [
        ("ssh", b"SSH-2.0-x\r\n", b""),
        ("smtp", b"220 mx ESMTP\r\n", b""),
        ("smtp", b"220 ready\r\n", b"EHLO me\r\n"),
        ("redis", b"", b"*1\r\n$4\r\nPING\r\n"),
        ("unknown", b"\x7f\1\2\3", b"\x7f\4\5\6"),
        ("unknown", b"", b""),
    ],
)
@pytest.mark.parametrize("first", ["client", "server"])
def test_other_protocols_are_named(application: str, server: bytes, client: bytes, first: str) -> None:
    wire = Wire(first=first)
    wire.server(server).client(client)
    wire.end()
    assert wire.name.application == application


def test_tls_after_starttls_is_read_and_the_application_stays() -> None:
    wire = Wire(587).shake().server(b"220 mx ESMTP\r\n").client(b"EHLO me\r\n").server(b"250 STARTTLS\r\n")
    wire.client(b"STARTTLS\r\n").server(b"220 go ahead\r\n").client(client_hello()).server(SERVER_HELLO)
    (record,) = wire.out
    assert isinstance(record, TlsHandshake)
    assert record.flow == wire.flow
    name = wire.name
    assert (name.application, name.domain, name.tls_version) == ("smtp", "example.com", "1.3")


def test_tls_through_a_proxy_is_read_after_connect() -> None:
    wire = Wire(3128).shake().client(b"CONNECT far.example:443 HTTP/1.1\r\n\r\n").server(b"HTTP/1.1 200 Go\r\n\r\n")
    wire.client(client_hello(b"far.example")).server(SERVER_HELLO)
    assert [type(record) for record in wire.out] == [HttpTransaction, TlsHandshake]
    assert wire.name.application == "http"


PROXY_1 = b"PROXY TCP4 203.0.113.9 198.51.100.20 50000 443\r\n"
PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)


@pytest.mark.parametrize("prelude", [PROXY_1, b"PROXY UNKNOWN\r\n", PROXY_2], ids=["1", "1, unknown", "2"])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("shaken", [True, False])  # engines send no SYN
def test_what_a_proxy_says_first_hides_nothing(prelude: bytes, together: bool, shaken: bool) -> None:
    for begin, answer in ((client_hello(), SERVER_HELLO), (GET, OK)):
        wire = Wire().shake() if shaken else Wire()
        wire = wire.client(prelude + begin) if together else wire.client(prelude).client(begin)
        wire.server(answer)
        assert len(wire.out) == 1
        name = wire.name
        assert (name.application, name.domain) == ("tls" if begin != GET else "http", "example.com")


SSL_REQUEST, CONNECT = bytes.fromhex("0000000804d2162f"), b"CONNECT far.example:443 HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("port", "turns", "application"),
    [
        (5432, [(True, SSL_REQUEST + client_hello()), (False, b"S" + SERVER_HELLO)], "postgresql"),
        (5432, [(True, SSL_REQUEST), (False, b"S"), (True, client_hello()), (False, SERVER_HELLO)], "postgresql"),
        (3128, [(True, CONNECT + client_hello()), (False, b"HTTP/1.1 200 Go\r\n\r\n" + SERVER_HELLO)], "http"),
        (3128, [(True, CONNECT + client_hello()), (False, b"HTTP/1.1 200 Go\r\n\r\n"), (False, SERVER_HELLO)], "http"),
        (
            587,
            [
                (False, b"220 mx ESMTP\r\n"),
                (True, b"EHLO me\r\n"),
                (False, b"250 STARTTLS\r\n"),
                (True, b"STARTTLS\r\n" + client_hello()),
                (False, b"220 go ahead\r\n" + SERVER_HELLO),
            ],
            "smtp",
        ),
        (
            143,
            [
                (False, b"* OK IMAP4rev1\r\n"),
                (True, b"a STARTTLS\r\n" + client_hello()),
                (False, b"a OK\r\n" + SERVER_HELLO),
            ],
            "imap",
        ),
    ],
)
def test_a_hello_in_the_packet_of_what_asks_for_it_is_read(
    port: int, turns: list[tuple[bool, bytes]], application: str
) -> None:
    wire = Wire(port).shake()
    for side, data in turns:
        wire.say(side, data)
    (record,) = (one for one in wire.end() if isinstance(one, TlsHandshake))
    assert (record.flow, record.sni, record.version, record.cipher is not None) == (
        wire.flow, "example.com", "1.3", True,
    )  # fmt: skip
    assert (wire.name.application, wire.name.domain) == (application, "example.com")


def test_http2_behind_an_upgrade_is_read() -> None:
    settings_frame = bytes.fromhex("000000040000000000")
    asked = b"GET /up HTTP/1.1\r\nHost: example.com\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    request = bytes.fromhex("82868441") + b"\x0bexample.com"
    headers = len(request).to_bytes(3, "big") + b"\1\4\0\0\0\3" + request
    first, second = b"\0\0\1\1\4\0\0\0\1\x88", b"\0\0\1\1\4\0\0\0\3\x8d"
    for together in (True, False):
        wire = Wire().shake().client(asked)
        wire = wire.server(switching + settings_frame) if together else wire.server(switching).server(settings_frame)
        wire.client(PREFACE + settings_frame).server(first).client(headers).server(second)
        assert statuses(wire.end()) == [("/up", 200), ("/", 404)]
        assert {record.version for record in wire.out if isinstance(record, HttpTransaction)} == {"2"}


def test_a_websocket_is_one_request_and_what_it_carries_is_none() -> None:
    asked = b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\r\n"
    wire = Wire().shake().client(asked).server(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
    wire.server(b"\x81\x15" + GET).client(GET)
    assert statuses(wire.end()) == [("/chat", 101)]


def test_hello_behind_something_unknown_is_found() -> None:
    wire = Wire().shake().client(b"\x7fpreamble of its own").client(client_hello()).server(SERVER_HELLO)
    assert wire.name.application == "tls"
    wire = Wire()
    for _ in range(20):
        wire.client(bytes(600)).server(bytes(600))
    wire.skip(True, 1 << 22).client(GET).server(OK)
    assert wire.name.application == "http"
    assert statuses(wire.out) == [("/a", 200)]


# --- who the client is


def test_sender_of_the_request_is_the_client_whatever_the_ports() -> None:
    wire = Wire(port=50000, client_port=80).client(GET).server(OK)
    assert wire.requests[0].flow == wire.flow
    alone = Wire(port=50000, client_port=80).server(OK)
    assert alone.requests[0].flow == alone.flow


QUERY = bytes.fromhex("001d 1234 0100 0001 0000 0000 0000 03777777 07 6578616d706c65 00 0001 0001")


def test_syn_tells_the_client_where_no_request_does() -> None:
    wire = Wire(port=50000, client_port=53).client(QUERY)
    wire.end()
    assert [one.flow for one in wire.dns] == [wire.flow]  # the side with port 53 is the server, and asks
    wire = Wire(port=50000, client_port=53)
    wire.raw(False, 4999, b"", flags=SYN_ACK)
    wire.client(QUERY).end()
    assert (wire.dns, wire.name.application) == ([], "unknown")


def test_higher_port_is_the_client_where_nothing_else_tells() -> None:
    for first in ("client", "server"):
        wire = Wire(53, first=first).client(QUERY)
        assert (wire.name.application, wire.name.dns_query) == ("dns", None)


# --- segments


def test_unsent_part_of_a_body_does_not_delay_the_next_response() -> None:
    wire = Wire().client(GET).server(OK.replace(b"0\r", b"90000\r") + bytes(100)).skip(False, 89900)
    wire.client(GET).server(OK)
    assert statuses(wire.out) == [("/a", 200), ("/a", 200)]


def test_unsent_part_of_a_body_of_unknown_length_delays_no_record_for_long() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n"
    wire = Wire().client(GET).server(chunked).skip(False, 40_000).client(GET).server(OK)
    assert len(wire.out) == 1
    wire.advance(wire.now_ns + HELD_NS)
    assert statuses(wire.out) == [("/a", 200), ("/a", 200)]


def test_request_behind_an_unsent_upload_meets_its_response() -> None:
    upload = b"POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n"
    wire = Wire().client(upload).skip(True, 40_000).server(OK).client(GET).server(OK.replace(b"200", b"404"))
    assert statuses(wire.out) == [("/up", 200), ("/a", 404)]


def test_super_packet_of_which_the_beginning_was_captured_is_read() -> None:
    wire = Wire().client(GET).server(OK.replace(b"0\r", b"60000\r") + bytes(2000), length=39 + 4 + 60_000)
    wire.client(GET).server(OK)
    assert statuses(wire.out) == [("/a", 200), ("/a", 200)]


def test_port_used_again_begins_a_new_connection_and_ends_the_old_one() -> None:
    wire = Wire().shake().client(GET)
    wire.seq = {True: 777_001, False: 888_001}
    wire.raw(True, 777_000, b"", flags=SYN)
    assert statuses(wire.out) == [("/a", None)]
    assert wire.name == NAMELESS
    wire.raw(False, 888_000, b"", flags=SYN_ACK)
    wire.client(client_hello()).server(SERVER_HELLO)
    assert wire.name.application == "tls"


def test_repeated_syn_changes_nothing() -> None:
    wire = Wire().shake().client(GET)
    wire.raw(True, 999, b"", flags=SYN)
    wire.raw(False, 4999, b"", flags=SYN_ACK)
    assert statuses(wire.server(OK).out) == [("/a", 200)]


def test_flush_twice_gives_nothing_twice() -> None:
    wire = Wire().client(GET)
    assert len(wire.end()) == 1
    assert len(wire.end()) == 1


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nGET / HTT"
DIALOGUES = {
    "http": [(True, GET + POST), (False, CHUNKED + OK), (True, GET), (False, OK)],
    "tls": [(True, client_hello()), (False, SERVER_HELLO), (True, bytes(40))],
    "smtp": [(False, b"220 mx ESMTP\r\n"), (True, b"EHLO x\r\n"), (True, client_hello()), (False, SERVER_HELLO)],
}


@given(st.sampled_from(sorted(DIALOGUES)), st.data())
@settings(deadline=None)
def test_any_cuts_order_and_copies_give_the_same_transactions(application: str, data: st.DataObject) -> None:
    """Within each turn; what comes later in a dialogue isn't sent before the turn was received."""
    plain, cut = Wire().shake(), Wire().shake()
    for side, message in DIALOGUES[application]:
        plain.say(side, message)
        begin = cut.seq[side]
        # Within a conversation hellos are looked for where packets begin, and waited for a few packets.
        is_hello = message.startswith(b"\x16")
        positions = st.integers(11 if is_hello else 0, len(message))
        cuts = sorted({0, len(message), *data.draw(st.lists(positions, max_size=2 if is_hello else 8))})
        pieces = list(pairwise(cuts))
        pieces += data.draw(st.lists(st.sampled_from(pieces), max_size=2))
        for at, end in data.draw(st.permutations(pieces)):
            cut.now_ns = plain.now_ns - 10
            cut.raw(side, begin + at, message[at:end])
        cut.seq[side] = begin + len(message)
    assert cut.end() == plain.end()
    assert cut.name == plain.name
    assert cut.name.application == application


# --- hostile input

FLAGS = st.sampled_from([PSH, PSH, PSH, ACK, SYN, SYN_ACK, 0x04, 0x11])
ANY_DATA = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [GET, OK, CHUNKED, POST, client_hello(), SERVER_HELLO, PREFACE, b"220 x\r\n", b"\0\x1e" + bytes(30)]
    ),
)


@given(
    st.sampled_from([53, 80, 25]),
    st.lists(
        st.tuples(
            st.booleans(), st.integers(0, 400) | st.integers(0, (1 << 32) - 1), ANY_DATA, FLAGS, st.integers(0, 70_000)
        ),
        max_size=30,
    ),
)
@settings(deadline=None)
def test_no_segments_make_a_conversation_raise(port: int, segments: list[tuple[bool, int, bytes, int, int]]) -> None:
    wire = Wire(port)
    for side, seq, data, flags, length in segments:
        wire.raw(side, seq, data, flags=flags, length=length)
        wire.advance()
    wire.end()
    assert isinstance(wire.name, FlowName)


@given(st.sampled_from(sorted(DIALOGUES)), st.data())
@settings(deadline=None)
def test_no_damage_makes_a_conversation_raise(application: str, data: st.DataObject) -> None:
    wire = Wire(data.draw(st.sampled_from([53, 80, 25])))
    for side, message in DIALOGUES[application]:
        damaged = bytearray(message)
        for at in data.draw(st.lists(st.integers(0, len(message) - 1), max_size=4)):
            damaged[at] = data.draw(st.integers(0, 255))
        wire.say(side, bytes(damaged), data.draw(st.none() | st.integers(len(message), 5000)))
    wire.end()


def test_hostile_conversations_cost_bounded_memory_and_time() -> None:
    """Segments by the thousand with holes between them, of every kind of beginning."""
    began = time.process_time()
    tracemalloc.start()
    for beginning in (GET, client_hello()[:60], PREFACE, b"\x7f", b"\0\xff" + bytes(30)):
        wire = Wire(53 if beginning.startswith(b"\0") else 80).shake().client(beginning)
        for n in range(2000):
            wire.raw(True, wire.seq[True] + 1 + 2 * (n * 7919 % 2000), b"G")
            wire.raw(False, wire.seq[False] + 1 + 2000 * n, beginning[:1] * 1000)
        wire.end()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    assert time.process_time() - began < 20
