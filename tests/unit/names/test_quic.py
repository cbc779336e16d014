"""ClientHellos in QUIC: the vectors of the RFCs, packets sealed here, and connections of aioquic."""

from __future__ import annotations

import random
import time
import tracemalloc
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from wiremeter.names.decoders.quic import VERSIONS, QuicDecoder, client_keys, looks_like_quic_initial
from wiremeter.names.records import QuicHandshake

from .tls_hellos import ALPN, ECH, QUIC_FLOW, SNI, SUPPORTED_VERSIONS, client_hello, protocols, server_name, versions

V1, V2 = 0x00000001, 0x6B3343CF
# RFC 9001, appendix A, and RFC 9369, appendix A, have this connection id and this CRYPTO frame.
DESTINATION = bytes.fromhex("8394c8f03e515708")
RFC_CRYPTO_FRAME = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c000004130113"
    "02010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d00170018001000070005"
    "04616c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce1"
    "5d43e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c0002400100"
    "3900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806"
    "048000ffff"
)
HELLO = client_hello(
    ((SNI, server_name(b"example.com")), (ALPN, protocols(b"h3")), (SUPPORTED_VERSIONS, versions(0x0304)), (57, b""))
)
LONG_HELLO = client_hello(((51, bytes(3000)), (SNI, server_name(b"example.com")), (ALPN, protocols(b"h3"))))


def varint(value: int) -> bytes:
    for length, prefix in ((1, 0), (2, 0x40), (4, 0x80), (8, 0xC0)):
        if value < 1 << (8 * length - 2):
            encoded = value.to_bytes(length, "big")
            return bytes([encoded[0] | prefix]) + encoded[1:]
    raise ValueError(value)


def crypto(offset: int, data: bytes) -> bytes:
    return b"\x06" + varint(offset) + varint(len(data)) + data


def seal(
    frames: bytes,
    number: int = 0,
    version: int = V1,
    destination: bytes = DESTINATION,
    keys_of: bytes | None = None,
    number_bytes: int = 4,
    token: bytes = b"",
    size: int = 0,
) -> bytes:
    """A client's Initial packet (RFC 9001, section 5). keys_of: its first destination id, if that is another one.

    size: pad with PADDING frames so that the packet has so many bytes.
    """
    facts = VERSIONS[version]
    keys = client_keys(facts, destination if keys_of is None else keys_of)
    first = 0xC0 | facts.initial << 4 | number_bytes - 1
    start = bytes([first]) + version.to_bytes(4, "big") + bytes([len(destination)]) + destination + b"\0"
    start += varint(len(token)) + token
    shown = (number & (1 << 8 * number_bytes) - 1).to_bytes(number_bytes, "big")
    frames = frames.ljust(max(size - len(start) - 2 - number_bytes - 16, 4), b"\0")
    header = start + (len(shown) + len(frames) + 16 | 0x4000).to_bytes(2, "big") + shown
    nonce = (int.from_bytes(keys.iv, "big") ^ number).to_bytes(12, "big")
    packet = bytearray(header + AESGCM(keys.key).encrypt(nonce, frames, header))
    at = len(header) - number_bytes
    mask = Cipher(algorithms.AES(keys.hp), modes.ECB()).encryptor().update(bytes(packet[at + 4 : at + 20]))
    packet[0] ^= mask[0] & 0x0F
    for index in range(number_bytes):
        packet[at + index] ^= mask[1 + index]
    return bytes(packet)


def decode(*datagrams: bytes) -> tuple[QuicHandshake, ...]:
    decoder = QuicDecoder(QUIC_FLOW)
    found: list[QuicHandshake] = []
    for time_ns, datagram in enumerate(datagrams):
        found += decoder.datagram(True, datagram, time_ns)
    return (*found, *decoder.flush())


# --- vectors


@pytest.mark.parametrize(
    ("version", "key", "iv", "hp"),
    [
        (V1, "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2"),
        (V2, "8b1a0bc121284290a29e0971b5cd045d", "91f73e2351d8fa91660e909f", "45b95e15235d6f45a6b19cbcb0294ba9"),
    ],
)
def test_keys_are_those_of_the_rfc(version: int, key: str, iv: str, hp: str) -> None:
    assert client_keys(VERSIONS[version], DESTINATION) == tuple(map(bytes.fromhex, (key, iv, hp)))


@pytest.mark.parametrize(
    ("version", "name", "begins", "ends"),
    [
        (
            V1,
            "1",
            "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c",
            "e221af44860018ab0856972e194cd934",
        ),
        (
            V2,
            "2",
            "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04de806071bf03dceebfa162e75d6c",
            "a18b2faa745b6fe189cf772a9f84cbfc",
        ),
    ],
)
def test_client_initial_of_the_rfc_is_read(version: int, name: str, begins: str, ends: str) -> None:
    packet = seal(RFC_CRYPTO_FRAME, number=2, version=version, size=1200)
    # Its end is the tag over all of it, so this is the RFC's packet in every byte.
    assert packet.startswith(bytes.fromhex(begins))
    assert packet.endswith(bytes.fromhex(ends))
    assert looks_like_quic_initial(packet)
    (found,) = decode(packet)
    assert (found.sni, found.version, found.alpn, found.ech) == ("example.com", name, ("alpn",), False)
    assert found.ja4 is not None
    assert found.ja4.startswith("q13d0211an_")


# --- aioquic


def aioquic_client(version: int = V1, protocols: int = 1) -> list[bytes]:
    """The first datagrams of a connection that aioquic opens."""
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.connection import QuicConnection

    names = ["h3", *(f"protocol-{number:03}" for number in range(1, protocols))]
    configuration = QuicConfiguration(alpn_protocols=names, server_name="Example.COM", is_client=True)
    configuration.original_version = version
    configuration.supported_versions = [version]
    connection = QuicConnection(configuration=configuration)
    connection.connect(("192.0.2.1", 443), now=0.0)
    return [datagram for datagram, _ in connection.datagrams_to_send(now=0.0)]


@pytest.mark.parametrize(("version", "name"), [(V1, "1"), (V2, "2")])
def test_connection_of_aioquic_tells_its_name(version: int, name: str) -> None:
    (datagram,) = aioquic_client(version)
    decoder = QuicDecoder(QUIC_FLOW)
    (found,) = decoder.datagram(True, datagram, 77)
    assert decoder.done
    assert (found.time_ns, found.flow) == (77, QUIC_FLOW)
    assert (found.sni, found.version, found.alpn) == ("example.com", name, ("h3",))
    assert found.ja4 is not None
    assert found.ja4.startswith("q13d03")
    assert decoder.datagram(True, datagram, 78) == decoder.flush() == []


@pytest.mark.parametrize("version", [V1, V2])
def test_large_hello_of_aioquic_is_read_from_several_datagrams_in_any_order(version: int) -> None:
    datagrams = aioquic_client(version, protocols=200)
    assert len(datagrams) >= 3
    (whole,) = decode(*datagrams)
    assert whole.sni == "example.com"
    assert len(whole.alpn) == 200
    for order in (datagrams[::-1], datagrams[1:] + datagrams[:1], [each for one in datagrams for each in (one, one)]):
        (found,) = decode(*order)
        assert (found.sni, found.alpn, found.ja4) == (whole.sni, whole.alpn, whole.ja4)
        assert found.time_ns == 0  # of the first datagram to come
    assert decode(*datagrams[1:]) == ()
    (partial,) = decode(*datagrams[:-1])
    assert partial.ja4 is None


# --- packets


@pytest.mark.parametrize("version", [V1, V2])
def test_packets_share_a_datagram_with_others(version: int) -> None:
    """A 0-RTT packet before, a Handshake packet between, and something short behind."""
    initial = VERSIONS[version].initial
    other = [
        bytes([0xC0 | kind << 4]) + version.to_bytes(4, "big") + b"\x08" + DESTINATION + b"\0" + varint(30) + bytes(30)
        for kind in (initial + 1, initial + 2)
    ]
    parts = [seal(crypto(at, LONG_HELLO[at : at + 1600]), number=at, version=version) for at in (0, 1600)]
    (found,) = decode(other[0] + parts[0] + other[1] + parts[1] + b"\x40" + bytes(40))
    assert found.sni == "example.com"
    assert found.ja4 is not None


def test_later_packets_go_to_the_id_of_the_server_under_the_same_keys() -> None:
    decoder = QuicDecoder(QUIC_FLOW)
    chosen = b"server's"
    assert decoder.datagram(True, seal(crypto(0, LONG_HELLO[:1000])), 5) == []
    assert decoder.datagram(False, b"\xc0whatever the server says", 6) == []
    (found,) = decoder.datagram(
        True, seal(crypto(1000, LONG_HELLO[1000:]), 1, destination=chosen, keys_of=DESTINATION), 7
    )
    assert (found.sni, found.time_ns) == ("example.com", 5)
    assert decoder.undecodable == 0


def test_after_a_retry_the_keys_follow_from_the_new_id() -> None:
    decoder = QuicDecoder(QUIC_FLOW)
    parts = LONG_HELLO[:1500], LONG_HELLO[1500:]
    assert decoder.datagram(True, seal(crypto(0, parts[0])), 5) == []
    retried = b"retry with an id"
    assert decoder.datagram(True, seal(crypto(0, parts[0]), 1, destination=retried, token=b"token" * 30), 7) == []
    (found,) = decoder.datagram(True, seal(crypto(1500, parts[1]), 2, destination=retried, token=b"token" * 30), 8)
    assert (found.sni, found.time_ns) == ("example.com", 5)


def test_other_frames_are_stepped_over() -> None:
    ack = b"\x02" + varint(100) + varint(5) + varint(1) + varint(3) + varint(0) + varint(70)
    ack_ecn = b"\x03" + varint(9) + varint(5) + varint(0) + varint(3) + varint(1) + varint(2) + varint(1 << 40)
    close = b"\x1c" + varint(0x128) + varint(6) + varint(5) + b"sorry"
    frames = b"\0\1" + ack + crypto(50, HELLO[50:]) + b"\0" * 30 + ack_ecn + close + crypto(0, HELLO[:50]) + b"\1"
    (found,) = decode(seal(frames))
    assert found.sni == "example.com"


@pytest.mark.parametrize("frame", [b"\x08\0\0", b"\x1d\0\0", b"\x06\0\x7f\xff", b"\x02\0\0\xff\xff\xff\xff"])
def test_packet_with_malformed_frames_is_counted_and_changes_nothing(frame: bytes) -> None:
    decoder = QuicDecoder(QUIC_FLOW)
    assert decoder.datagram(True, seal(crypto(0, b"\xff" * 9) + frame), 0) == []
    assert decoder.undecodable == 1
    (found,) = decoder.datagram(True, seal(crypto(0, HELLO), 1), 1)
    assert found.sni == "example.com"


def test_packet_number_that_began_high_and_is_sent_short_is_completed() -> None:
    start = 0x12345FE
    decoder = QuicDecoder(QUIC_FLOW)
    assert decoder.datagram(True, seal(crypto(0, LONG_HELLO[:9]), start), 0) == []
    assert decoder.datagram(True, seal(crypto(9, LONG_HELLO[9:99]), start + 3, number_bytes=1), 0) == []
    assert decoder.datagram(True, seal(crypto(99, LONG_HELLO[99:999]), start + 1, number_bytes=1), 0) == []
    (found,) = decoder.datagram(True, seal(crypto(999, LONG_HELLO[999:]), start + 4, number_bytes=2), 0)
    assert found.sni == "example.com"


def test_forged_packets_are_counted_and_do_not_hinder() -> None:
    decoder = QuicDecoder(QUIC_FLOW)
    rng = random.Random(1)
    for number in range(20):
        forged = bytearray(seal(crypto(0, b"\x01\0\0\x09forged"), number, destination=rng.randbytes(8)))
        forged[-1] ^= 1
        assert decoder.datagram(True, bytes(forged), 0) == []
    assert decoder.undecodable == 20
    damaged = bytearray(seal(crypto(0, LONG_HELLO[:1500])))
    damaged[400] ^= 1
    assert decoder.datagram(True, bytes(damaged), 0) == []
    assert decoder.datagram(True, seal(crypto(0, LONG_HELLO[:1500])), 1) == []
    assert decoder.undecodable == 21
    # One connection that is well-formed, of somebody else, between two packets of ours.
    assert decoder.datagram(True, seal(crypto(0, b"\x01\0\x09\0"), destination=b"somebody"), 2) == []
    (found,) = decoder.datagram(True, seal(crypto(1500, LONG_HELLO[1500:]), 1), 3)
    assert found.sni == "example.com"


def test_encrypted_hello_is_recognised() -> None:
    (found,) = decode(seal(crypto(0, client_hello(((SNI, server_name(b"public.example")), (ECH, bytes(200)))))))
    assert (found.ech, found.sni) == (True, "public.example")


def test_hello_that_is_none_ends_it() -> None:
    for message in (b"\x02" + HELLO[1:], b"\x01\0\0\x05hello"):
        decoder = QuicDecoder(QUIC_FLOW)
        assert decoder.datagram(True, seal(crypto(0, message)), 0) == []
        assert (decoder.done, decoder.undecodable) == (True, 1)


# --- what is missing


def test_datagram_that_was_cut_tells_what_is_there() -> None:
    """Its tag is missing, so nothing proves the bytes; those of other keys would be noise."""
    packet = seal(crypto(0, HELLO), size=1250)
    hello_at = 18 + 4 + 4  # behind the packet's header and number, and the head of the frame
    hello_ends = hello_at + len(HELLO)
    name_ends = hello_at + HELLO.index(b"example.com") + len(b"example.com")
    (whole,) = decode(packet)
    for length in range(len(packet)):
        found = decode(packet[:length])
        if length >= hello_ends:
            assert found == (whole,)
        elif length >= name_ends:
            assert [(each.sni, each.ja4) for each in found] == [("example.com", None)]
        else:
            assert all((each.sni, each.ja4) == (None, None) for each in found)


def test_cut_packet_of_other_keys_is_counted() -> None:
    decoder = QuicDecoder(QUIC_FLOW)
    for number in range(50):
        packet = seal(crypto(0, HELLO), number, destination=b"unseen-%02d" % number, keys_of=DESTINATION, size=1250)
        assert decoder.datagram(True, packet[:700], 0) == []
    assert decoder.undecodable >= 48
    assert decoder.flush() == []


def test_flush_tells_the_beginning_once() -> None:
    decoder = QuicDecoder(QUIC_FLOW)
    assert decoder.datagram(True, seal(crypto(0, HELLO[:-5])), 4) == []
    (found,) = decoder.flush()
    assert (found.time_ns, found.sni, found.ja4) == (4, "example.com", None)
    assert decoder.done
    assert decoder.flush() == []


# --- looks


@pytest.mark.parametrize("version", [V1, V2])
def test_beginning_of_an_initial_looks_like_one(version: int) -> None:
    packet = seal(crypto(0, HELLO), version=version, token=b"t" * 70, size=1200)
    header = 1 + 4 + 1 + len(DESTINATION) + 1 + 2 + 70 + 2
    assert all(looks_like_quic_initial(packet[:length]) for length in range(header, len(packet)))
    assert not any(looks_like_quic_initial(packet[:length]) for length in range(header))


@pytest.mark.parametrize(
    "start",
    [
        "",
        "40000000010011223344",
        "80000000010011223344",
        "c0000000000000",  # version negotiation
        "c0ff00001d00000044d0",  # a draft
        "d0000000010000449e",  # 0-RTT
        "f0000000010000449e",  # a Retry
        "c00000000115" + "00" * 21 + "0000449e",  # a connection id that is too long
        "c000000001000000" + "13",  # a packet that is too short for its sample
        "160301",
    ],
)
def test_other_payloads_do_not(start: str) -> None:
    assert not looks_like_quic_initial(bytes.fromhex(start))
    assert not looks_like_quic_initial(bytes.fromhex(start) + b"\xff" * 30) or start == ""
    assert decode(bytes.fromhex(start)) == ()


# --- anything


def shuffled_pieces(rng: random.Random, hello: bytes, count: int) -> list[bytes]:
    cuts = sorted({0, len(hello), *(rng.randrange(len(hello)) for _ in range(count))})
    frames = [crypto(a, hello[a:b]) for a, b in pairwise(cuts)]
    rng.shuffle(frames)
    return frames


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.randoms(use_true_random=False))
def test_hello_in_any_pieces_in_any_order_is_the_same(pieces: int, datagrams: int, rng: random.Random) -> None:
    frames = shuffled_pieces(rng, HELLO, pieces)
    packets = [seal(b"\0\1".join(frames[at::datagrams]), at) for at in range(datagrams)]
    again = packets + rng.sample(packets, len(packets))
    (found,) = decode(*again)
    (whole,) = decode(seal(crypto(0, HELLO)))
    assert (found.sni, found.alpn, found.ja4) == (whole.sni, whole.alpn, whole.ja4)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=5))
def test_any_datagrams_are_harmless(datagrams: list[tuple[bool, bytes]]) -> None:
    decoder = QuicDecoder(QUIC_FLOW)
    for from_client, datagram in datagrams:
        looks_like_quic_initial(datagram)
        assert len(decoder.datagram(from_client, datagram, 0)) <= 1
    decoder.flush()
    assert decoder.done


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_frames_and_changed_packets_are_harmless(data: st.DataObject) -> None:
    """Frames under the right keys, since everybody can make those; then what the network did to the packet."""
    frame = st.one_of(
        st.binary(max_size=40),
        st.builds(crypto, st.integers(0, 1 << 17), st.binary(max_size=60)),
        st.builds(lambda at, n: crypto(at, HELLO[at : at + n]), st.integers(0, len(HELLO)), st.integers(0, 99)),
    )
    decoder = QuicDecoder(QUIC_FLOW)
    for number in range(data.draw(st.integers(1, 4))):
        packet = bytearray(seal(b"".join(data.draw(st.lists(frame, max_size=6))), number))
        for at, value in data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=2)):
            packet[at % len(packet)] = value
        cut = data.draw(st.integers(0, len(packet)))
        for found in decoder.datagram(True, bytes(packet[:cut]), 0) + decoder.datagram(True, bytes(packet), 1):
            assert found.sni is None or found.sni.isprintable()
    decoder.flush()


def test_thousands_of_fragments_cost_little() -> None:
    """Frames of one byte: forwards, backwards and interleaved, as large as a datagram can be; some 50 ms each."""
    hello = client_hello(((SNI, server_name(b"example.com")), (51, bytes(12_000))))
    forwards = [crypto(at, hello[at : at + 1]) for at in range(len(hello))]
    started = time.perf_counter()
    (found,) = decode(*(seal(b"".join(forwards[at : at + 2500]), at) for at in range(0, len(forwards), 2500)))
    assert found.sni == "example.com"
    for frames in (forwards[::-1], forwards[1::2] + forwards[2::2], [crypto(60_000, b"x")] * 10_000):
        decoder = QuicDecoder(QUIC_FLOW)
        for at in range(0, len(frames), 2500):
            assert decoder.datagram(True, seal(b"".join(frames[at : at + 2500]), at), 0) == []
        assert decoder.undecodable == -(-len(frames) // 2500)  # more pieces wait than any client sends
    assert time.perf_counter() - started < 3


def test_hostile_conversation_keeps_little_memory_and_ends() -> None:
    decoder = QuicDecoder(QUIC_FLOW)
    rng = random.Random(2)
    packets = [
        seal(crypto(rng.randrange(1, 64_000), bytes(1100)), number, destination=rng.randbytes(8))
        for number in range(300)
    ]
    decoder.datagram(True, packets[0], 0)  # imports what it needs
    tracemalloc.start()
    for packet in packets[1:]:
        assert decoder.datagram(True, packet, 0) == []
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000
    assert decoder.done


def test_offsets_beyond_any_hello_are_counted() -> None:
    decoder = QuicDecoder(QUIC_FLOW)
    for offset in (65_536, 1 << 30, 1 << 61):
        decoder.datagram(True, seal(crypto(offset, b"far")), 0)
    assert decoder.undecodable == 3
    (found,) = decoder.datagram(True, seal(crypto(0, HELLO)), 0)
    assert found.sni == "example.com"
