"""ClientHellos without number, whole and damaged, read here and by tshark: the same is said of each that both can read.

JA4 is made anew from the numbers that tshark found.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from wiremeter.names.decoders.tls import ClientHello, read_client_hello
from wiremeter.names.records import DecodeError

from .tls_hellos import (
    ALPN,
    ECH,
    SIGNATURE_ALGORITHMS,
    SNI,
    SUPPORTED_VERSIONS,
    algorithms,
    client_hello,
    protocols,
    records,
    server_name,
    vector,
    versions,
)

#: TLS_HELLOS=300000 for a long run.
HELLOS = int(os.environ.get("TLS_HELLOS", "3000"))

FIELDS = {
    "frame": "frame.number",
    "type": "tls.handshake.type",
    "name": "tls.handshake.extensions_server_name",
    "kind": "tls.handshake.extensions_server_name_type",
    "length": "tls.handshake.extensions_server_name_len",
    "alpn": "tls.handshake.extensions_alpn_str",
    "version": "tls.handshake.version",
    "versions": "tls.handshake.extensions.supported_version",
    "ciphers": "tls.handshake.ciphersuite",
    "algorithms": "tls.handshake.sig_hash_alg",
    "extensions": "tls.handshake.extension.type",
    "wrong": "_ws.malformed",
    "expert": "_ws.expert.message",
}
NAMES = (b"example.com", b"WWW.Example.NET", b"a.very." + b"long" * 40 + b".example", b"xn--bcher-kva.example", b"x_y")
PROTOCOLS = (b"h2", b"http/1.1", b"h3", b"acme-tls/1", b"imap", b"x")
VERSIONS = {"0x0304": "13", "0x0303": "12", "0x0302": "11", "0x0301": "10", "0x0300": "s3", "0x0002": "s2"}


def is_grease(number: int) -> bool:
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


def some_hello(chance: random.Random) -> bytes:
    """A message with extensions in any order, GREASE among them."""
    grease = 0x0A0A + 0x1010 * chance.randrange(16)
    extensions = [
        (SNI, server_name(chance.choice(NAMES))),
        (ALPN, protocols(*chance.sample(PROTOCOLS, chance.randrange(1, 5)))),
        (
            SUPPORTED_VERSIONS,
            versions(grease, *chance.sample((0x0304, 0x0303, 0x0302, 0x0301), chance.randrange(1, 5))),
        ),
        (SIGNATURE_ALGORITHMS, algorithms(*chance.sample((0x0403, 0x0804, 0x0401, 0x0503, 0x0805), 3))),
        (ECH, b"\0\0\1\0\1\x42" + vector(bytes(32)) + vector(bytes(chance.randrange(100, 200)))),
        (grease, b""),
        (0x0017, b""),
        (0xFF01, b"\0"),
        (0x0023, bytes(chance.randrange(200))),
        (0x4469, protocols(b"h2")),
    ]
    chosen = chance.sample(extensions, chance.randrange(len(extensions) + 1))
    suites = chance.sample((grease, 0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC030, 0xCCA9, 0x009C, 0x0035), 6)
    return client_hello(tuple(chosen), tuple(suites), chance.choice((0x0303, 0x0303, 0x0301)))


def damaged(chance: random.Random, message: bytes) -> bytes:
    """With up to three bytes changed behind its type and length."""
    changed = bytearray(message)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 3))):
        changed[chance.randrange(4, len(changed))] = chance.choice((0, 1, 0x2E, 0x61, 0xFF, chance.randrange(256)))
    return bytes(changed)


def write_capture(path: Path, messages: Sequence[bytes]) -> None:
    """Each as the only packet of its connection, frames numbered from 1."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
        for number, message in enumerate(messages):
            data = records(message)
            tcp = struct.pack(">HHIIBBHHH", 1024 + number % 60_000, 443, 1, 1, 0x50, 0x18, 64000, 0, 0)
            ends = bytes([10, 0, 0, 1 + number // 60_000, 10, 0, 0, 250])
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0) + ends
            file.write(struct.pack("<IIII", number, 0, 40 + len(data), 40 + len(data)) + ip + tcp + data)


def tshark(capture: Path) -> Iterator[dict[str, str]]:
    """What it finds in each frame, of each field all values with `|` between them."""
    program = shutil.which("tshark")
    assert program, "no tshark here: run `make setup-test`"
    fields = [word for name in FIELDS.values() for word in ("-e", name)]
    command = [program, "-n", "-r", str(capture), "-T", "fields", "-E", "separator=/t", "-E", "aggregator=|", *fields]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout.split("\n")
    return (dict(zip(FIELDS, line.split("\t"), strict=True)) for line in lines[:-1])


def numbers(text: str) -> list[int]:
    return [number for each in text.split("|") if each and not is_grease(number := int(each, 0))]


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12] if text else "0" * 12


def listed(values: Sequence[int]) -> str:
    return ",".join(f"{value:04x}" for value in values)


def ja4_of(theirs: dict[str, str], first: str) -> str:
    """After the description, from tshark's numbers and the first protocol."""
    ciphers, extensions = numbers(theirs["ciphers"]), numbers(theirs["extensions"])
    offered = numbers(theirs["versions"]) or [int(theirs["version"], 0)]
    version = max(offered, key=lambda each: -each if each >> 8 == 0xFE else each)  # those of DTLS count downwards
    ends = (first[0] + first[-1]) if first else "00"
    described = listed(sorted(each for each in extensions if each not in (SNI, ALPN)))
    if described and (signed := listed(numbers(theirs["algorithms"]))):
        described += f"_{signed}"
    return (
        f"t{VERSIONS.get(f'{version:#06x}', '00')}{'d' if SNI in extensions else 'i'}{min(len(ciphers), 99):02}"
        f"{min(len(extensions), 99):02}{ends}_{digest(listed(sorted(ciphers)))}_{digest(described)}"
    )


def is_comparable(theirs: dict[str, str], ours: ClientHello) -> bool:
    """Whether tshark read one hello to its end, and both mean the same by what they say of it."""
    extensions = [each for each in theirs["extensions"].split("|") if each]
    texts = theirs["name"], *(each.decode("latin-1") for each in ours.alpn)
    return (
        theirs["type"] == "1"
        and not theirs["wrong"]
        and not theirs["expert"]
        and len(extensions) == len(set(extensions))  # of several the first counts here, all of them there
        and not {"34", "50"} & set(extensions)  # they have signature algorithms of their own
        and theirs["kind"] in ("", "0")  # a host name; it shows any
        and int(theirs["length"] or 0) == len(theirs["name"])  # it ends one at a byte of zero
        and all(text.isascii() and text.isprintable() and not set(text) & set("|\\ ") for text in texts)
        and all(each and each.isalnum() for name in ours.alpn[:1] for each in (name[:1], name[-1:]))
    )


def test_what_is_read_of_hellos_is_what_tshark_reads(tmp_path: Path) -> None:
    chance = random.Random(11)
    messages = [damaged(chance, some_hello(chance)) for _ in range(HELLOS)]
    write_capture(tmp_path / "hellos.pcap", messages)
    compared = refused = 0
    for message, theirs in zip(messages, tshark(tmp_path / "hellos.pcap"), strict=True):
        try:
            ours = read_client_hello(message)
        except DecodeError:
            refused += 1
            continue
        if not is_comparable(theirs, ours):
            continue
        compared += 1
        name = theirs["name"].lower().removesuffix(".")
        assert (ours.sni or "") == name, message.hex()
        assert [each.decode() for each in ours.alpn] == [each for each in theirs["alpn"].split("|") if each], (
            message.hex()
        )
        assert ours.ja4 == ja4_of(theirs, ours.alpn[0].decode() if ours.alpn else ""), message.hex()
        assert ours.ech == (str(ECH) in theirs["extensions"].split("|")), message.hex()
    assert compared > HELLOS * 0.6
    assert refused < HELLOS * 0.3


@pytest.mark.parametrize("number", range(3))
def test_a_whole_hello_is_always_compared(number: int, tmp_path: Path) -> None:
    message = some_hello(random.Random(number))
    write_capture(tmp_path / "hello.pcap", [message])
    (theirs,) = tshark(tmp_path / "hello.pcap")
    assert is_comparable(theirs, read_client_hello(message))
