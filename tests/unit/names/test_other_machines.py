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
IS_DNS, FROM_CLIENT, IS_GAP, BEGINS = 1, 2, 4, 8


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
    pieces.write_bytes(b"".join(conversations(random.Random(7))))
    here = run([str(build(None, tmp_path)), str(pieces)])
    assert len(here) > 10_000
    assert sum(" ja4=t13d" in line and " ja4s=t1" in line for line in here) > 200
    assert sum("name.example" in line and line.startswith("dns") for line in here) > 500
    assert run([emulator, str(build(target, tmp_path)), str(pieces)]) == here
