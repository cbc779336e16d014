"""JA4 and JA4S against published fingerprints: of the technical descriptions, and of FoxIO's examples and captures."""

from __future__ import annotations

import re

import pytest

from wiremeter.names.decoders.hellos import ClientHello, ServerHello
from wiremeter.names.decoders.ja4 import Transport, ja4, ja4s
from wiremeter.names.decoders.tls import parse_client_hello, parse_server_hello

from .tls_hellos import (
    ALPN,
    SIGNATURE_ALGORITHMS,
    SNI,
    SUPPORTED_VERSIONS,
    algorithms,
    client_hello_body,
    protocols,
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


def offered(raw: str, protocol: bytes = b"h2", *, grease: bool = False) -> ClientHello:
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
    return parse_client_hello(client_hello_body(tuple(listed), suites, version))


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
    transport: Transport = "q" if raw.startswith("q") else "t"
    hello = offered(raw, b"h3" if transport == "q" else b"h2", grease=grease)
    assert ja4(hello, transport) == fingerprint


def test_hello_without_signature_algorithms_is_described_by_its_extensions_alone() -> None:
    listed = "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01"
    hello = ClientHello(0x0303, codes(CHROME_CIPHERS), codes(listed), supported_versions=(0x0304,))
    assert ja4(hello, "t") == "t13i151400_8daaf6152771_6d807ffa2a79"


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
    hello = ClientHello(0x0303, (), (ALPN,), alpn=(bytes.fromhex(protocol), b"h2"))
    assert ja4(hello, "t") == f"t12i0001{ends}_000000000000_000000000000"


@pytest.mark.parametrize(
    ("offer", "shown"),
    [
        (ClientHello(0x0300, (), ()), "s3"),
        (ClientHello(0x0002, (), ()), "s2"),
        (ClientHello(0x0303, (), (), supported_versions=(0x0303, 0x0304)), "13"),
        (ClientHello(0x0303, (), (), supported_versions=(GREASE,)), "12"),
        (ClientHello(0x0303, (), (), supported_versions=(0x7F12, 0x0304)), "00"),
        (ClientHello(0x0399, (), ()), "00"),
        (ClientHello(0xFEFD, (), ()), "d2"),
        (ClientHello(0xFEFD, (), (), supported_versions=(0xFEFF, 0xFEFC, 0xFEFD)), "d3"),
    ],
)
def test_version_is_the_highest_offered_and_what_has_no_name_is_00(offer: ClientHello, shown: str) -> None:
    assert ja4(offer, "d")[:3] == f"d{shown}"


def test_counts_stop_at_99_and_the_lists_go_on() -> None:
    hello = ClientHello(0x0303, tuple(range(120)), tuple(range(100, 300)))
    assert re.fullmatch("t12i999900_[0-9a-f]{12}_[0-9a-f]{12}", ja4(hello, "t"))
    assert ja4(hello, "t") != ja4(ClientHello(0x0303, tuple(range(121)), tuple(range(100, 300))), "t")


def test_name_that_cannot_be_shown_is_still_a_name() -> None:
    body = client_hello_body(((SNI, server_name(b"caf\xc3\xa9.example")),))
    assert ja4(parse_client_hello(body), "t").startswith("t12d")


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
    assert ja4s(parse_server_hello(body), "q" if fingerprint.startswith("q") else "t") == fingerprint


def test_server_without_extensions_has_nothing_to_hash() -> None:
    assert ja4s(ServerHello(0x0301, 0x002F, ()), "t") == "t100000_002f_000000000000"
