"""The decoders tell the same on a big-endian machine and on one of 32 bits, byte for byte."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .payload_records import answer, query
from .test_http1_differential import some_dialogue
from .tls_hellos import (
    ALPN,
    RETRY_RANDOM,
    SIGNATURE_ALGORITHMS,
    SNI,
    SUPPORTED_VERSIONS,
    algorithms,
    client_hello,
    protocols,
    records,
    server_hello,
    server_name,
    versions,
)

NAMES = Path(__file__).parents[3] / "bpf" / "names"
#: And what runs its programs; none where this machine does.
MACHINES = {"s390x-linux-musl": "qemu-s390x", "x86-linux-musl": "qemu-i386"}

# tests/unit/names/told.c
IS_DNS, FROM_CLIENT, IS_GAP, BEGINS, IS_TCP, IS_LATER = 1, 2, 4, 8, 16, 32
SYN, ACK = 0x02, 0x10


def piece(kind: int, data: bytes) -> bytes:
    return bytes([kind]) + len(data).to_bytes(2, "big") + data


def damaged(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((0, 0, 1, 2, 5))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed[: chance.choice((len(changed), len(changed), chance.randrange(len(changed))))])


def conversations(chance: random.Random) -> Iterator[bytes]:
    """Hellos and DNS messages, whole and damaged, in parts of any size, with gaps."""
    offer = client_hello(
        (
            (SNI, server_name(b"Machine.example.")),
            (ALPN, protocols(b"h2", b"http/1.1")),
            (SUPPORTED_VERSIONS, versions(0x0A0A, 0x0303, 0x0304)),
            (SIGNATURE_ALGORITHMS, algorithms(0x0403, 0x0804, 0x0401)),
            (51, bytes(1200)),
            (0xFE0D, bytes(30)),
        ),
        tuple(range(0x1305, 0x1300, -1)),
    )
    answers = (
        server_hello(((SUPPORTED_VERSIONS, b"\3\4"), (51, bytes(36))), 0x1301),
        server_hello(((ALPN, protocols(b"h2")), (0xFF01, b"\0"))),
        server_hello(random=RETRY_RANDOM) + server_hello(),
    )
    for number in range(1500):
        client = damaged(chance, records(offer, chance.choice((1 << 14, 600, 40))))
        server = damaged(chance, records(chance.choice(answers), chance.choice((1 << 14, 30))))
        begins = BEGINS
        for side, data in ((FROM_CLIENT, client), (0, server)):
            size = chance.choice((2000, 700, 64, 9))
            for at in range(0, len(data), size):
                yield piece(side | begins, data[at : at + size])
                begins = 0
            if chance.random() < 0.3:
                yield piece(side | IS_GAP, b"")
        yield piece(IS_DNS | FROM_CLIENT, damaged(chance, query("name.example", number)))
        yield piece(IS_DNS, damaged(chance, answer("name.example", number, number)))


def connections(chance: random.Random, number: int, server_port: int, client: bytes, server: bytes) -> Iterator[bytes]:
    """The segments of a connection: of any size, some late, some twice, some not at all."""
    ports = (1024 + number).to_bytes(2, "big") + server_port.to_bytes(2, "big")
    client_seq, server_seq = chance.randrange(1 << 32), (1 << 32) - 5

    def segment(from_client: bool, at: int, flags: int, data: bytes) -> bytes:
        seq = ((client_seq if from_client else server_seq) + at) % (1 << 32)
        return piece(IS_TCP | FROM_CLIENT * from_client, ports + seq.to_bytes(4, "big") + bytes([flags]) + data)

    sent = []
    if chance.random() < 0.7:
        sent += [segment(True, 0, SYN, b""), segment(False, 0, SYN | ACK, b"")]
    for from_client, data in ((True, client), (False, server)):
        size = chance.choice((4000, 1400, 200, 33))
        sent += [segment(from_client, 1 + at, ACK, data[at : at + size]) for at in range(0, len(data), size)]
    if chance.random() < 0.3:
        at = chance.randrange(len(sent))
        sent[at : at + 4] = chance.sample(sent[at : at + 4], len(sent[at : at + 4]))
    for each in sent:
        yield from [each] * chance.choices((1, 2, 0), (20, 1, 1))[0]
    if chance.random() < 0.05:
        yield piece(IS_LATER, b"")


def segments(chance: random.Random) -> Iterator[bytes]:
    """Connections of HTTP, TLS, DNS and others, whole and damaged."""
    offer = records(
        client_hello(((SNI, server_name(b"tcp.example")), (SUPPORTED_VERSIONS, versions(0x0304)), (51, bytes(1500))))
    )
    chosen = records(server_hello(((SUPPORTED_VERSIONS, b"\3\4"), (51, bytes(36))), 0x1301))
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")

    def dns(message: bytes) -> bytes:
        return len(message).to_bytes(2, "big") + message

    for number in range(1200):
        http = some_dialogue(chance)
        server_port, client, server = chance.choice(
            (
                (80, http.client, http.server),
                (80, http.client, http.server),
                (443, damaged(chance, offer), damaged(chance, chosen)),
                (25, b"EHLO me\r\nSTARTTLS\r\n" + offer, b"220 mx ESMTP\r\n250 STARTTLS\r\n220 go\r\n" + chosen),
                (53, dns(query("tcp.example", number)) * 3, damaged(chance, dns(answer("tcp.example", 7, number)))),
                (8080, preface + http.client, preface[24:]),
                (22, b"SSH-2.0-x\r\n", b"SSH-2.0-y\r\n"),
                (9999, bytes(40), chance.randbytes(60)),
            )
        )
        yield from connections(chance, number, server_port, client, server)
    yield from [piece(IS_LATER, b"")] * 3


def build(target: str | None, folder: Path) -> Path:
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-static"] if target else ["gcc"]
    program = folder / (target or "here")
    sources = [Path(__file__).parent / "told.c", *sorted(NAMES.glob("*.c"))]
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", f"-I{NAMES}"]
    subprocess.run([*compiler, *flags, *map(str, sources), "-o", str(program)], check=True)
    return program


def run(command: list[str]) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.slow
@pytest.mark.timeout(900)  # a C library for each machine is built once
@pytest.mark.parametrize("target", MACHINES)
def test_another_machine_tells_the_same(target: str, tmp_path: Path) -> None:
    emulator = shutil.which(MACHINES[target])
    assert emulator, f"no {MACHINES[target]} here: run `make setup-test`"
    pieces = tmp_path / "pieces"
    pieces.write_bytes(b"".join([*conversations(random.Random(7)), *segments(random.Random(8))]))
    here = run([str(build(None, tmp_path)), str(pieces)])
    assert len(here) > 10_000
    assert sum(" ja4=t13d" in line and " ja4s=t1" in line for line in here) > 200
    assert sum("name.example" in line and line.startswith("dns") for line in here) > 500
    for told, least in (("http", 500), ("hello", 100), ("name", 500), ("piece", 100), ("dns latency=", 2000)):
        assert sum(line.startswith(told) for line in here) > least, told
    assert not [line for line in here if line.startswith("tcp ")][-1].endswith("lost=0"), "cells run short"
    assert run([emulator, str(build(target, tmp_path)), str(pieces)]) == here
