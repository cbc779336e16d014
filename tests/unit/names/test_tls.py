"""TLS hellos: built by hand, and by OpenSSL through Python's ssl module."""

from __future__ import annotations

import datetime
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wiremeter.names.decoders.applications import looks_like_tls
from wiremeter.names.decoders.tls import CLIENT_HELLO, ClientHello, read_client_hello
from wiremeter.names.records import DecodeError, TlsHandshake

from .tls_decoder import TlsDecoder
from .tls_hellos import (
    ALPN,
    ECH,
    FLOW,
    RETRY_RANDOM,
    SNI,
    SUPPORTED_VERSIONS,
    client_hello,
    client_hello_body,
    handshake,
    numbers,
    protocols,
    read_server_hello,
    records,
    server_hello,
    server_hello_body,
    server_name,
    vector,
    versions,
)

NAMED = (
    (SNI, server_name(b"example.com")),
    (ALPN, protocols(b"h2", b"http/1.1")),
    (SUPPORTED_VERSIONS, versions(0x0304)),
)
CHANGE_CIPHER_SPEC = bytes.fromhex("140303000101")
APPLICATION_DATA = bytes.fromhex("170303000400010203")
# A hello as OpenSSL 0.9.8 sent it: SSL 2.0 in form, offering TLS 1.0.
OLD_HELLO = bytes.fromhex("802e0103010015000000100000390000380000350000160000ff0700c0010080") + b"\x42" * 16


def decode(*chunks: tuple[bool, bytes], ja4s: bool = True) -> tuple[TlsHandshake, ...]:
    """What one conversation tells: chunks of bytes and whether the client sent them, each a nanosecond apart."""
    decoder = TlsDecoder(FLOW, ja4s)
    found: list[TlsHandshake] = []
    for time_ns, (from_client, chunk) in enumerate(chunks):
        found += decoder.data(from_client, chunk, time_ns)
    return (*found, *decoder.flush())


def parsed(body: bytes) -> ClientHello:
    return read_client_hello(handshake(CLIENT_HELLO, body))


def answered(*chunks: bytes) -> TlsHandshake:
    """What a server's bytes make of a client's hello, without more to come."""
    decoder = TlsDecoder(FLOW, ja4s=True)
    assert decoder.data(True, records(client_hello(NAMED)), 0) == []
    told = [each for chunk in chunks for each in decoder.data(False, chunk, 1)]
    assert decoder.done
    (found,) = told
    return found


# --- OpenSSL


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "example.com")])
    now = datetime.datetime(2024, 1, 1)
    signed = (x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=36500))).sign(
        key, hashes.SHA256()
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


Setting = Callable[[ssl.SSLContext], object]


def shake_hands(
    certificate: Path,
    name: str | None = "example.com",
    client: Setting = lambda context: None,
    server: Setting = lambda context: None,
) -> list[tuple[bool, bytes]]:
    """What a client and a server of OpenSSL send each other, and whether the client sent it."""
    contexts = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    contexts[0].check_hostname = False
    contexts[0].verify_mode = ssl.CERT_NONE
    contexts[1].load_cert_chain(certificate)
    client(contexts[0])
    server(contexts[1])
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        contexts[0].wrap_bio(to_client, to_server, server_hostname=name),
        contexts[1].wrap_bio(to_server, to_client, server_side=True),
    )
    sent: list[tuple[bool, bytes]] = []
    for _ in range(4):
        for end, is_client in zip(ends, (True, False), strict=True):
            to = to_server if is_client else to_client
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                sent.append((is_client, to.read()))
                return sent
            if to.pending:
                sent.append((is_client, to.read()))
                to.write(sent[-1][1])
    return sent


def at_most(version: ssl.TLSVersion) -> Setting:
    def set_version(context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version
        context.set_ciphers("DEFAULT:@SECLEVEL=0")

    return set_version


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize(
    ("maximum", "version", "ja4_start"),
    [
        (ssl.TLSVersion.TLSv1_3, "1.3", "t13d"),
        (ssl.TLSVersion.TLSv1_2, "1.2", "t12d"),
        (ssl.TLSVersion.TLSv1_1, "1.1", "t11d"),
        (ssl.TLSVersion.TLSv1, "1.0", "t10d"),
    ],
)
def test_handshake_of_openssl_tells_its_name_and_what_was_chosen(
    certificate: Path, maximum: ssl.TLSVersion, version: str, ja4_start: str
) -> None:
    sent = shake_hands(certificate, client=at_most(maximum), server=at_most(maximum))
    (found,) = decode(*sent)
    assert (found.flow, found.time_ns) == (FLOW, 0)
    assert (found.sni, found.version, found.alpn, found.ech) == ("example.com", version, (), False)
    assert found.cipher is not None
    assert found.cipher.startswith("TLS_AES_" if version == "1.3" else "TLS_ECDHE_RSA_WITH_AES_")
    assert found.ja4 is not None
    assert found.ja4.startswith(ja4_start)
    assert found.ja4s is not None
    assert found.ja4s.startswith(ja4_start[:3])
    (unasked,) = decode(*sent, ja4s=False)
    assert unasked == replace(found, ja4s=None)


def test_server_that_stays_at_tls_12_is_told_from_a_client_that_offers_13(certificate: Path) -> None:
    def offer(context: ssl.SSLContext) -> None:
        context.set_alpn_protocols(["h2", "http/1.1"])

    def choose(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])

    (found,) = decode(*shake_hands(certificate, client=offer, server=choose))
    assert (found.version, found.alpn, found.alpn_chosen) == ("1.2", ("h2", "http/1.1"), "http/1.1")
    assert found.ja4 is not None
    assert found.ja4.startswith("t13d")
    assert found.ja4[8:10] == "h2"


def test_protocol_that_a_tls_13_server_chooses_is_hidden(certificate: Path) -> None:
    def both(context: ssl.SSLContext) -> None:
        context.set_alpn_protocols(["h2"])

    (found,) = decode(*shake_hands(certificate, client=both, server=both))
    assert (found.version, found.alpn, found.alpn_chosen) == ("1.3", ("h2",), None)


def test_client_without_a_name_has_none(certificate: Path) -> None:
    (found,) = decode(*shake_hands(certificate, name=None))
    assert found.sni is None
    assert found.ja4 is not None
    assert found.ja4.startswith("t13i")


def test_retry_of_the_hello_is_one_handshake_with_the_first_offer_and_the_last_choice(certificate: Path) -> None:
    sent = shake_hands(certificate, server=lambda context: context.set_ecdh_curve("secp521r1"))
    hellos = [
        chunk for from_client, chunk in sent if from_client and looks_like_tls(chunk.removeprefix(CHANGE_CIPHER_SPEC))
    ]
    assert len(hellos) == 2  # the server has asked for another key share
    assert all(decode((True, hello)) for hello in hellos)
    (found,) = decode(*sent)
    assert (found.sni, found.version) == ("example.com", "1.3")
    assert found.ja4s is not None
    assert found.ja4s.startswith("t1302")
    # If nothing is seen after the retry, it has already bound the server.
    (early,) = decode(*sent[:2])
    assert (early.version, early.cipher, early.ja4s) == ("1.3", found.cipher, None)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_server_that_refuses_leaves_the_offer(certificate: Path) -> None:
    sent = shake_hands(
        certificate, client=at_most(ssl.TLSVersion.TLSv1), server=lambda context: context.set_ciphers("AESGCM")
    )
    decoder = TlsDecoder(FLOW)
    assert decoder.data(*sent[0], 0) == []
    (found,) = decoder.data(*sent[1], 1)
    assert decoder.done
    assert (found.sni, found.version, found.cipher, found.ja4s) == ("example.com", "1.0", None, None)


def test_handshake_is_the_same_however_the_stream_is_cut(certificate: Path) -> None:
    sent = shake_hands(certificate, client=lambda context: context.set_alpn_protocols(["h2"]))
    whole = decode(*sent)
    offer, answer = sent[0][1], sent[1][1]
    for at in range(len(offer)):
        assert decode((True, offer[:at]), (True, offer[at:]), (False, answer)) == whole
    for at in range(200):
        assert decode((True, offer), (False, answer[:at]), (False, answer[at:])) == whole
    bytewise = [(True, offer[at : at + 1]) for at in range(len(offer))]
    bytewise += [(False, answer[at : at + 1]) for at in range(len(answer))]
    assert decode(*bytewise) == whole


def test_directions_may_come_in_either_order(certificate: Path) -> None:
    sent = shake_hands(certificate)
    ((early,), (late,)) = decode(*sent), decode(sent[1], sent[0])
    assert early.cipher is not None
    assert replace(early, time_ns=1) == late


# --- records and messages


@pytest.mark.parametrize("size", [1, 3, 4, 100, 1 << 14])
def test_hello_may_be_spread_over_records_of_any_size(size: int) -> None:
    (found,) = decode((True, records(client_hello(NAMED), size)))
    hello = parsed(client_hello_body(NAMED))
    assert (found.sni, found.version, found.alpn) == ("example.com", "1.3", ("h2", "http/1.1"))
    assert found.ja4 == hello.ja4 is not None


def test_reader_stops_at_the_hello_whatever_follows() -> None:
    rest = records(server_hello() + handshake(11, bytes(5000)), 1000) + b"\xff" * 99
    assert answered(rest) == answered(records(server_hello()))
    decoder = TlsDecoder(FLOW)
    assert decoder.data(True, records(client_hello(NAMED) + handshake(20, bytes(12)), 1000) + b"\xff" * 99, 0) == []
    assert decoder.data(True, b"not TLS at all", 0) == []
    assert len(decoder.data(False, rest, 0)) == 1


def test_other_messages_before_a_hello_are_stepped_over() -> None:
    """A HelloRequest (RFC 5246, section 7.4.1.1), and what nobody knows, however large."""
    stream = handshake(0, b"") + handshake(99, bytes(40_000))
    assert answered(records(stream + server_hello())) == answered(records(server_hello()))
    assert decode((True, records(stream + client_hello(NAMED)))) == decode((True, records(client_hello(NAMED))))


def test_warning_and_change_cipher_spec_before_a_hello_are_stepped_over() -> None:
    unrecognized_name = bytes.fromhex("15030300020170")
    stream = unrecognized_name + CHANGE_CIPHER_SPEC + records(server_hello())
    for at in range(len(stream)):
        assert answered(stream[:at], stream[at:]) == answered(records(server_hello()))


@pytest.mark.parametrize(
    "ending",
    [APPLICATION_DATA, bytes.fromhex("15030300020228"), bytes.fromhex("15030300020100"), b"\x15\3\3\0\x20" + bytes(32)],
    ids=["application data", "fatal alert", "close notify", "encrypted alert"],
)
def test_reader_is_done_where_no_hello_can_follow(ending: bytes) -> None:
    assert answered(ending).cipher is None
    decoder = TlsDecoder(FLOW)
    assert decoder.data(True, ending, 0) == []
    assert decoder.done


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x02\x00\x00\x05",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x00",
        b"\x19\x03\x01\x00\x01",
        b"\x80\x2e\x01\x02" + bytes(20),
        records(b"\x01\x00\x00\x26abc") + CHANGE_CIPHER_SPEC,
        records(b"\x01\x01\x00\x01"),
    ],
    ids=["http", "major", "long", "empty", "type", "ssl2", "interrupted", "hello"],
)
def test_what_is_no_tls_is_refused_once(stream: bytes) -> None:
    decoder = TlsDecoder(FLOW)
    with pytest.raises(DecodeError):
        decoder.data(True, stream, 0)
    assert decoder.done
    assert decoder.data(True, stream, 0) == []
    assert answered(stream).cipher is None


def test_reader_gives_up_on_a_stream_without_a_hello() -> None:
    """So much is looked through, and next to nothing of it is kept."""
    decoder = TlsDecoder(FLOW)
    chunk = records(handshake(0, b"")) * 100
    for _ in range(145):
        assert decoder.data(True, chunk, 0) == []
    assert decoder.cells == 0
    with pytest.raises(DecodeError):
        decoder.data(True, chunk, 0)


def test_hello_in_the_form_of_ssl_2_offers_its_suites_and_no_name() -> None:
    assert looks_like_tls(OLD_HELLO)
    assert len(OLD_HELLO) == 48
    for at in range(len(OLD_HELLO)):
        (found,) = decode(
            (True, OLD_HELLO[:at]), (True, OLD_HELLO[at:]), (False, records(server_hello(version=0x0301)))
        )
        assert (found.sni, found.version, found.cipher) == (None, "1.0", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
        assert found.ja4 is not None
        assert found.ja4.startswith("t10i050000_")


# --- looks


@pytest.mark.parametrize("data", [records(client_hello()), records(client_hello(), 1), records(server_hello())])
def test_beginning_of_a_stream_that_is_a_hello_looks_like_one(data: bytes) -> None:
    assert all(looks_like_tls(data[:length]) for length in range(6, len(data) + 1))
    assert not any(looks_like_tls(data[:length]) for length in range(6))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        APPLICATION_DATA,
        b"\x16\x03\x05" + records(client_hello())[3:],
        b"\x16\x03\x01\xff\xff\x01\x00\x00\x80",
        b"\x16\x03\x01\x01\x00\x01\xff\x00\x00",
        b"\x16\x03\x01\x01\x00\x01\x00\x00\x10",
        b"\x16\x03\x01\x01\x00\x0b\x00\x00\x80",
    ],
)
def test_other_beginnings_do_not(data: bytes) -> None:
    assert not looks_like_tls(data)


# --- hellos


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b"WWW.Example.COM", "www.example.com"),
        (b"example.com.", "example.com"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"_dmarc.example-1.com", "_dmarc.example-1.com"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"a" * 255, "a" * 255),
        (b"a" * 256, None),
        (b"", None),
        (b".", None),
        (b"evil\0.example.com", None),
        (b"evil.example.com\n", None),
        (b"\x1b[31mred", None),
        (b"two words", None),
        ("bücher.example".encode(), None),
        (b"\xff\xfe", None),
    ],
)
def test_name_is_lower_case_ascii_or_none(sent: bytes, name: str | None) -> None:
    assert parsed(client_hello_body(((SNI, server_name(sent)),))).sni == name


def test_only_a_host_name_is_a_name() -> None:
    other = vector(b"\7" + vector(b"other") + b"\0" + vector(b"example.com"))
    assert parsed(client_hello_body(((SNI, other),))).sni == "example.com"
    assert parsed(client_hello_body(((SNI, server_name(b"example.com", kind=7)),))).sni is None
    assert parsed(client_hello_body(((SNI, b""),))).sni is None


def test_of_extensions_that_come_twice_the_first_counts() -> None:
    twice = ((SNI, server_name(b"first.example")), (SNI, server_name(b"second.example")))
    hello = parsed(client_hello_body(twice))
    assert (hello.sni, hello.ja4) == ("first.example", "t12d020200_c1929292aa6b_000000000000")


def test_encrypted_hello_is_recognised_and_its_name_is_the_public_one() -> None:
    (found,) = decode((True, records(client_hello(((SNI, server_name(b"public.example")), (ECH, bytes(180)))))))
    assert (found.ech, found.sni) == (True, "public.example")


def test_hello_without_extensions_is_whole() -> None:
    hello = parsed(client_hello_body(None, version=0x0300))
    assert (hello.ja4, hello.version, hello.is_complete) == ("ts3i020000_c1929292aa6b_000000000000", 0x0300, True)
    (found,) = decode((True, records(client_hello(None, version=0x0300))))
    assert found.version == "ssl3"


def test_names_of_protocols_are_shown_so_that_they_can_be_printed() -> None:
    (found,) = decode((True, records(client_hello(((ALPN, protocols(b"h2", b"\x1b[0m\xff")),)))))
    assert found.alpn == ("h2", "\\x1b[0m\\xff")


def test_version_and_cipher_without_a_name_are_numbers() -> None:
    (found,) = decode((True, records(client_hello())), (False, records(server_hello(cipher=0xC0FF, version=0x03FF))))
    assert (found.cipher, found.version) == ("0xc0ff", "0x03ff")


@pytest.mark.parametrize(
    "body",
    [
        client_hello_body() + b"\0",
        client_hello_body()[:-1],
        client_hello_body(((SNI, b"\0"),)),
        client_hello_body(((SNI, vector(b"\0\0\5abc")),)),
        client_hello_body(((ALPN, vector(b"\5h2")),)),
        client_hello_body(((SUPPORTED_VERSIONS, b"\3\3\4\3"),)),
        client_hello_body(((13, b"\0\1\4"),)),
        bytes(34) + b"\0" + vector(b"\x13\1\x13") + b"\1\0",
        b"",
    ],
    ids=["longer", "shorter", "name list", "name", "protocol", "versions", "algorithms", "ciphers", "empty"],
)
def test_malformed_hello_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        parsed(body)
    with pytest.raises(DecodeError):
        TlsDecoder(FLOW).data(True, records(handshake(CLIENT_HELLO, body)) + APPLICATION_DATA, 0)


def test_server_hello_tells_version_cipher_and_retry() -> None:
    body = server_hello_body(((SUPPORTED_VERSIONS, numbers((0x0304,))), (51, bytes(36))), cipher=0x1302)
    hello = read_server_hello(body)
    assert (hello.version, hello.cipher, hello.ja4s, hello.is_retry) == (
        0x0304,
        0x1302,
        "t130200_1302_a56c5b993250",
        False,
    )
    assert read_server_hello(server_hello_body(random=RETRY_RANDOM)).is_retry
    assert read_server_hello(server_hello_body(((ALPN, protocols(b"h2")),))).alpn == b"h2"
    with pytest.raises(DecodeError):
        read_server_hello(body[:-1])


# --- what is missing


def test_every_prefix_of_a_hello_tells_what_is_whole_in_it() -> None:
    message = client_hello(NAMED)
    name_at = message.index(b"example.com") + len(b"example.com")
    for length in range(len(message)):
        prefix = message[:length]
        if length < 6:
            with pytest.raises(DecodeError):
                read_client_hello(prefix)
            continue
        hello = read_client_hello(prefix)
        assert not hello.is_complete
        assert hello.sni == ("example.com" if length >= name_at else None)
    assert read_client_hello(message).is_complete


def test_gap_in_the_hello_leaves_its_beginning_and_the_answer_still_counts() -> None:
    decoder = TlsDecoder(FLOW)
    assert decoder.data(True, records(client_hello(NAMED))[:-3], 5) == []
    assert decoder.gap(True) == []
    assert decoder.data(True, b"what follows the gap", 6) == []
    (found,) = decoder.data(False, records(server_hello()), 7)
    assert (found.time_ns, found.sni, found.alpn, found.ja4) == (5, "example.com", ("h2", "http/1.1"), None)
    assert found.cipher == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    assert decoder.done


def test_gap_in_the_answer_leaves_the_offer() -> None:
    decoder = TlsDecoder(FLOW)
    decoder.data(True, records(client_hello(NAMED)), 0)
    decoder.data(False, records(server_hello())[:20], 1)
    (found,) = decoder.gap(False)
    assert (found.sni, found.version, found.cipher) == ("example.com", "1.3", None)
    assert found.ja4 is not None
    assert decoder.done


def test_gap_before_anything_was_seen_ends_it() -> None:
    decoder = TlsDecoder(FLOW)
    assert decoder.gap(True) == []
    assert decoder.done
    assert decoder.flush() == []


def test_answer_that_is_no_tls_leaves_the_offer() -> None:
    (found,) = decode((True, records(client_hello(NAMED))), (False, b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    assert (found.sni, found.cipher) == ("example.com", None)


def test_flush_gives_what_waits_for_an_answer_once() -> None:
    decoder = TlsDecoder(FLOW)
    decoder.data(True, records(client_hello(NAMED)), 3)
    (found,) = decoder.flush()
    assert (found.time_ns, found.sni, found.ja4s) == (3, "example.com", None)
    assert decoder.done
    assert decoder.flush() == decoder.gap(True) == decoder.data(False, records(server_hello()), 9) == []


def test_answer_alone_is_no_handshake() -> None:
    assert decode((False, records(server_hello()))) == ()


def test_client_that_sends_no_tls_is_refused_once() -> None:
    decoder = TlsDecoder(FLOW)
    with pytest.raises(DecodeError):
        decoder.data(True, b"SSH-2.0-client\r\n", 0)
    assert decoder.done
    assert decoder.data(True, b"SSH-2.0-client\r\n", 1) == decoder.flush() == []


# --- anything


def feed_anything(chunks: list[tuple[bool, bytes]]) -> None:
    decoder = TlsDecoder(FLOW)
    found: list[TlsHandshake] = []
    for from_client, chunk in chunks:
        try:
            found += decoder.data(from_client, chunk, 0)
        except DecodeError:
            assert decoder.done
    found += decoder.flush()
    assert decoder.done
    assert len(found) <= 1
    for each in found:
        assert each.sni is None or (each.sni.isascii() and each.sni.isprintable() and 0 < len(each.sni) <= 255)
        assert all(name.isascii() and name.isprintable() for name in each.alpn)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=300)), max_size=6))
def test_any_bytes_are_a_handshake_or_a_decode_error(chunks: list[tuple[bool, bytes]]) -> None:
    feed_anything(chunks)
    for _, chunk in chunks:
        looks_like_tls(chunk)
        for parse in (parsed, read_server_hello, read_client_hello):
            try:
                parse(chunk)
            except DecodeError:
                continue


@settings(max_examples=300)
@given(st.data())
def test_changed_hellos_are_a_handshake_or_a_decode_error(data: st.DataObject) -> None:
    chunks: list[tuple[bool, bytes]] = []
    for from_client, message in ((True, client_hello(NAMED)), (False, server_hello(NAMED[1:2]))):
        stream = bytearray(records(message, data.draw(st.integers(1, 200))))
        for at, value in data.draw(
            st.lists(st.tuples(st.integers(0, len(stream) - 1), st.integers(0, 255)), max_size=4)
        ):
            stream[at] = value
        cut = data.draw(st.integers(0, len(stream)))
        chunks += [(from_client, bytes(stream[:cut])), (from_client, bytes(stream[cut:]))]
    feed_anything(chunks)


def test_largest_hellos_take_bounded_time() -> None:
    """64 KiB of empty extensions or one-letter protocols, also in records of five bytes: tens of milliseconds each."""
    extensions = client_hello(tuple((1000 + number, b"") for number in range(16_000)))
    letters = client_hello(((ALPN, protocols(*[b"a"] * 32_000)),))
    started = time.perf_counter()
    for message in (extensions, letters):
        for size in (1 << 14, 5):
            assert len(decode((True, records(message, size)))) == 1
    assert time.perf_counter() - started < 2
