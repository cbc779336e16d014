"""JA4 and JA4S against published fingerprints: of the technical descriptions, and of FoxIO's examples and captures."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.names.decoders.tls import CLIENT_HELLO, read_client_hello
from wiremeter.names.library import ffi, lib

from .tls_hellos import (
    ALPN,
    SIGNATURE_ALGORITHMS,
    SNI,
    SUPPORTED_VERSIONS,
    algorithms,
    client_hello_body,
    handshake,
    protocols,
    read_server_hello,
    server_hello_body,
    server_name,
    versions,
)

GREASE = 0x8A8A
VERSIONS = {"13": 0x0304, "12": 0x0303, "11": 0x0302, "10": 0x0301, "s3": 0x0300}
CHROME_CIPHERS = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"
CHROME_ALGORITHMS = "0403,0804,0401,0503,0805,0501,0806,0601"


def codes(text: str) -> tuple[int, ...]:
    return tuple(int(code, 16) for code in text.split(",")) if text else ()


def ja4(body: bytes, transport: Literal["t", "q", "d"] = "t") -> str | None:
    return read_client_hello(handshake(CLIENT_HELLO, body), transport).ja4


def offered(raw: str, protocol: bytes = b"h2", *, grease: bool = False) -> bytes:
    """The hello of which `raw` is the fingerprint in the raw form with original order (JA4_ro), by way of its bytes.

    Extensions that are only named there are left empty. grease: mix in values that are to be ignored.
    """
    first, ciphers, extensions, signatures = [*raw.split("_"), ""][:4]
    contents = {
        SNI: server_name(b"example.com"),
        ALPN: protocols(protocol, b"http/1.1"),
        SIGNATURE_ALGORITHMS: algorithms(*((GREASE,) if grease else ()), *codes(signatures)),
        SUPPORTED_VERSIONS: versions(*((GREASE,) if grease else ()), VERSIONS[first[1:3]], 0x0303),
    }
    listed = [(number, contents.get(number, b"")) for number in codes(extensions)]
    suites = codes(ciphers)
    if grease:
        listed = [(0x0A0A, b""), *listed, (0xFAFA, b"\0")]
        suites = (GREASE, *suites)
    version = VERSIONS["12" if SUPPORTED_VERSIONS in dict(listed) else first[1:3]]
    return client_hello_body(tuple(listed), suites, version)


def chrome(extensions: str) -> str:
    return f"t13d1516h2_{CHROME_CIPHERS}_{extensions}_{CHROME_ALGORITHMS}"


PUBLISHED = [
    # The description's own example.
    (
        "t13d1516h2_8daaf6152771_e5627efa2ab1",
        chrome("001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"),
    ),
    # Chrome as the project's front page lists it: plain, resumed, padded, and over QUIC.
    (
        "t13d1516h2_8daaf6152771_02713d6af862",
        chrome("fe0d,001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a"),
    ),
    (
        "t13d1517h2_8daaf6152771_b0da82dd1658",
        chrome("fe0d,001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0029"),
    ),
    (
        "t13d1517h2_8daaf6152771_b1ff8ab2d16f",
        chrome("fe0d,001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"),
    ),
    (
        "q13d0312h3_55b375c5d22e_06cda9e17597",
        "q13d0312h3_1301,1302,1303"
        "_0033,000a,0000,000d,0039,0010,002b,4469,001b,002d,fe0d,0029_0403,0804,0401,0503,0805,0501,0806,0601,0201",
    ),
    (
        "q13d0310h3_55b375c5d22e_cd85d2d88918",
        "q13d0310h3_1301,1302,1303"
        "_0000,0010,000d,4469,0039,0033,002b,001b,000a,002d_0403,0804,0401,0503,0805,0501,0806,0601,0201",
    ),
    # latest.pcapng
    (
        "t13d1516h2_8daaf6152771_9b887d9acb53",
        chrome("000d,0010,0000,000b,0023,4469,ff01,0033,000a,002d,002b,0005,0017,0012,001b,0029"),
    ),
    (
        "t12d190800_d83cc789557e_7af1ed941c26",
        "t12d190800_c02c,c02b,c030,c02f,c024,c023,c028,c027,c00a,c009,c014,c013,009d,009c,003d,003c,0035,002f,000a"
        "_0000,0005,000a,000b,000d,0023,0017,ff01_0804,0805,0806,0401,0501,0201,0403,0503,0203,0202,0601,0603",
    ),
    # badcurveball.pcap
    (
        "t13d1615h2_46e7e9700bed_45f260be83e2",
        f"t13d1615h2_{CHROME_CIPHERS},000a_0000,0017,ff01,000a,000b,0023,0010,0005,000d,0012,0033,002d,002b,001b,0015"
        f"_{CHROME_ALGORITHMS},0201",
    ),
    # sigalg-grease.pcapng, whose signature algorithms had a value of GREASE among them
    (
        "t13d1517h2_8daaf6152771_cb7bf5808d99",
        f"t13d1517h2_{CHROME_CIPHERS}_fe0d,0010,0017,0033,44cd,ff01,000a,000d,0023,002b,000b,ca34,002d,0000,0005,001b,0012"
        f"_0904,0905,0906,{CHROME_ALGORITHMS}",
    ),
    # socks-https-example.pcap: nothing is left of the extensions without the name
    (
        "t10d230100_6a57a6f57151_000000000000",
        "t10d230100_0039,0038,0035,0016,0013,000a,0033,0032,002f,009a,0099,0096,0005,0004,0015,0012,0009,0014,0011,0008"
        ",0006,0003,00ff_0000",
    ),
]


@pytest.mark.parametrize("grease", [False, True], ids=["plain", "with-grease"])
@pytest.mark.parametrize(("fingerprint", "raw"), PUBLISHED, ids=[fingerprint for fingerprint, _ in PUBLISHED])
def test_client_has_its_published_fingerprint_with_and_without_grease(fingerprint: str, raw: str, grease: bool) -> None:
    transport: Literal["t", "q"] = "q" if raw.startswith("q") else "t"
    hello = offered(raw, b"h3" if transport == "q" else b"h2", grease=grease)
    assert ja4(hello, transport) == fingerprint


def test_hello_without_signature_algorithms_is_described_by_its_extensions_alone() -> None:
    listed = codes("0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01")
    contents = {SIGNATURE_ALGORITHMS: algorithms(), SUPPORTED_VERSIONS: versions(0x0304)}
    body = client_hello_body(tuple((code, contents.get(code, b"")) for code in listed), codes(CHROME_CIPHERS))
    assert ja4(body) == "t13i151400_8daaf6152771_6d807ffa2a79"


@pytest.mark.parametrize(
    ("protocol", "ends"),
    [
        ("6832", "h2"),
        ("687474702f312e31", "h1"),
        ("78", "xx"),
        ("", "00"),
        ("ab", "ab"),
        ("abcd", "ad"),
        ("30ab", "3b"),
        ("3031abcd", "3d"),
        ("30abcd31", "01"),
        ("2f61", "21"),
    ],
)
def test_protocol_is_shown_by_its_first_and_last_character_or_hexadecimal_digit(protocol: str, ends: str) -> None:
    body = client_hello_body(((ALPN, protocols(bytes.fromhex(protocol), b"h2")),), ())
    assert ja4(body) == f"t12i0001{ends}_000000000000_000000000000"


@pytest.mark.parametrize(
    ("version", "supported", "shown"),
    [
        (0x0300, (), "s3"),
        (0x0002, (), "s2"),
        (0x0303, (0x0303, 0x0304), "13"),
        (0x0303, (GREASE,), "12"),
        (0x0303, (0x7F12, 0x0304), "00"),
        (0x0399, (), "00"),
        (0xFEFD, (), "d2"),
        (0xFEFD, (0xFEFF, 0xFEFC, 0xFEFD), "d3"),
    ],
)
def test_version_is_the_highest_offered_and_what_has_no_name_is_00(
    version: int, supported: tuple[int, ...], shown: str
) -> None:
    extensions = ((SUPPORTED_VERSIONS, versions(*supported)),) if supported else ()
    found = ja4(client_hello_body(extensions, (), version), "d")
    assert found is not None
    assert found[:3] == f"d{shown}"


def test_counts_stop_at_99_and_the_lists_go_on() -> None:
    extensions = tuple((number, b"") for number in range(100, 300))
    found = ja4(client_hello_body(extensions, tuple(range(120))))
    assert found is not None
    assert re.fullmatch("t12i999900_[0-9a-f]{12}_[0-9a-f]{12}", found)
    assert found != ja4(client_hello_body(extensions, tuple(range(121))))


def expected(ciphers: list[int], extensions: list[int]) -> str:
    """After the description, of a hello of TLS 1.2 without a name or protocols."""

    def digest(numbers: list[int]) -> str:
        return sha256(",".join(f"{each:04x}" for each in sorted(numbers)).encode()).hexdigest()[:12]

    counts = f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}"
    return f"t12i{counts}00_{digest(ciphers)}_{digest(extensions)}"


@given(
    st.lists(st.integers(0x1000, 0x1FFF).filter(lambda each: each != 0x1A1A), min_size=1, max_size=1024),
    st.lists(st.integers(0x1000, 0x1FFF).filter(lambda each: each != 0x1A1A), min_size=1, max_size=300),
)
def test_lists_are_hashed_in_order_of_their_numbers(ciphers: list[int], extensions: list[int]) -> None:
    body = client_hello_body(tuple((number, b"") for number in extensions), tuple(ciphers))
    assert ja4(body) == expected(ciphers, extensions)


def test_more_than_any_client_lists_has_no_fingerprint() -> None:
    body = client_hello_body((), tuple(range(0x1000, 0x1400)))
    assert ja4(body) is not None
    assert ja4(client_hello_body((), tuple(range(0x1000, 0x1401)))) is None
    assert ja4(client_hello_body(tuple((0x1000 + each, b"") for each in range(1025)), (0x1301,))) is None


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_hash_is_that_of_hashlib(parts: list[bytes]) -> None:
    sha = ffi.new("struct wm_sha256 *")
    lib.wm_sha256_begin(sha)
    for part in parts:
        lib.wm_sha256_add(sha, ffi.from_buffer(part), len(part))
    digest = ffi.new("uint8_t[32]")
    lib.wm_sha256_end(sha, digest)
    assert bytes(digest) == sha256(b"".join(parts)).digest()


def test_name_that_cannot_be_shown_is_still_a_name() -> None:
    body = client_hello_body(((SNI, server_name(b"caf\xc3\xa9.example")),))
    assert (ja4(body) or "").startswith("t12d")


@pytest.mark.parametrize(
    ("fingerprint", "extensions", "protocol"),
    [
        ("t120400_c030_4e8089b08790", "0005,0017,ff01,0000", b""),  # the description's own example
        ("t1206h2_c02f_3603f09c43ba", "0000,000b,ff01,0010,0023,0017", b"h2"),
        ("t120600_c02f_51ad275821ba", "0000,000b,ff01,0005,0023,0017", b""),
        ("t1205h1_c02b_845f7282a956", "0000,ff01,000b,0023,0010", b"http/1.1"),
        ("t130300_1301_6bbbaf601ed8", "0029,0033,002b", b""),
        ("t130200_1302_234ea6891581", "0033,002b", b""),
        ("q130200_1301_234ea6891581", "0033,002b", b""),
        ("t100100_0005_bc98f8e001b5", "ff01", b""),
    ],
)
def test_server_has_its_published_fingerprint(fingerprint: str, extensions: str, protocol: bytes) -> None:
    contents = {SUPPORTED_VERSIONS: bytes.fromhex("0304"), ALPN: protocols(protocol)}
    version = VERSIONS[fingerprint[1:3]]
    body = server_hello_body(
        tuple((number, contents.get(number, b"")) for number in codes(extensions)),
        int(fingerprint.split("_")[1], 16),
        0x0303 if version == 0x0304 else version,
    )
    assert read_server_hello(body).ja4s == f"t{fingerprint[1:]}", "as one over TCP; the first letter alone says so"


def test_server_without_extensions_has_nothing_to_hash() -> None:
    assert read_server_hello(server_hello_body((), 0x002F, 0x0301)).ja4s == "t100000_002f_000000000000"
