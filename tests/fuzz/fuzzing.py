"""Building the fuzzers with sanitizers, making their seeds, and running them for a bounded time."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from wiremeter.captures.file import CaptureFile
from wiremeter.datapath.host import LINK_ETHERNET
from wiremeter.errors import InputError

ROOT = Path(__file__).parents[2]
#: Captures of other projects, beside the repository where they are.
CAPTURES = ROOT.parent / "shared" / "captures"
FUZZERS = ("frame", "capture")
CLANGS = [f"clang-{version}" for version in range(19, 13, -1)] + ["clang"]  # as the Makefile looks for them
FLAGS = ["-g", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]
SANITIZERS = "-fsanitize=address,undefined,fuzzer"

MAX_INPUT_BYTES = 4096
TIMEOUT_SECONDS = 10  # one input takes some 50 µs
MEMORY_MB = 1024  # of which the address sanitizer keeps 256 MB of freed memory back

# tests/fuzz/fuzz_frame.c: struct recipe, and the places in LINKS whose frames are not all Ethernet.
RECIPE = struct.Struct("<HBBB3s")
LINKS = {LINK_ETHERNET: 0, 0x0800: 2, 0x86DD: 3, 0x8100: 4, 0x88A8: 5}
LINK_OTHER = 6  # WM_ETHERTYPE_LLC; at odd places a frame is Ethernet whatever stands there


def find_clang() -> str:
    """The newest clang, which must bring libFuzzer."""
    clang = next(filter(None, map(shutil.which, CLANGS)), None)
    if not clang:
        raise InputError(f"no clang found of {CLANGS}: run `make setup-test`")
    return clang


def build(name: str, folder: Path, *, host: Path = ROOT / "bpf" / "host") -> Path:
    """Compile one fuzzer with the host library of `host` into `folder`. Raises InputError with the compiler's words."""
    program = folder / f"fuzz_{name}"
    sources = [ROOT / "tests" / "fuzz" / f"fuzz_{name}.c", *sorted(host.glob("*.c"))]
    command = [find_clang(), *FLAGS, SANITIZERS, f"-I{host}", *map(str, sources), "-o", str(program)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise InputError(f"fuzz_{name} does not compile; is libFuzzer there (`make setup-test`)?\n{made.stderr}")
    return program


def captures() -> list[Path]:
    """Capture files to take seeds from; none where there are none."""
    return sorted(file for file in CAPTURES.glob("*.pcap*") if file.suffix in (".pcap", ".pcapng"))


def make_seeds(name: str, folder: Path) -> Path:
    """Fill `folder` with seeds for a fuzzer: from captures, and from a few frames made here."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = frame_seeds() if name == "frame" else capture_seeds()
    for number, (origin, seed) in enumerate(seeds):
        (folder / f"seed-{number:04}-{origin}").write_bytes(seed[:MAX_INPUT_BYTES])
    return folder


def frame_seeds() -> Iterator[tuple[str, bytes]]:
    """Inputs of a few frames each, every one of them whole."""
    for limit in range(4):  # of payload bytes, in the upper bits: fuzz_frame.c's LIMITS
        yield f"made-{limit}", bytes([limit << 6]) + b"".join(map(recipe, MADE_FRAMES))
    yield "made-many", bytes([0xC1]) + b"".join(recipe(frame, repeat=63, vary=29) for frame in MADE_FRAMES)
    for path in captures():
        seed = b"\xc0"
        for link, frame in first_frames(path, 30):
            one = recipe(frame, link=LINKS.get(link, LINK_OTHER))
            if len(seed) + len(one) > MAX_INPUT_BYTES:
                break
            seed += one
        yield path.name, seed


def first_frames(path: Path, most: int) -> Iterator[tuple[int, bytes]]:
    """The first frames of a capture, each with its link."""
    try:
        with CaptureFile(str(path)) as file:
            for frames in file.frames():
                for i in range(min(most, len(frames))):
                    at = int(frames.offsets[i])
                    data = bytes(memoryview(frames.data)[at : at + int(frames.captured[i])])
                    yield int(frames.links[i]), data
                return
    except InputError:
        return  # of a link type that is not read: there are some on purpose


def recipe(frame: bytes, *, link: int = 0, repeat: int = 0, vary: int = 255) -> bytes:
    """One frame as fuzz_frame.c takes it."""
    return RECIPE.pack(len(frame), link, repeat, vary, b"\0\0\0") + frame


def capture_seeds() -> Iterator[tuple[str, bytes]]:
    """Inputs of a byte of settings and a file, cut where it is too long."""
    for endian in "<>":
        for magic in (0xA1B2C3D4, 0xA1B23C4D):
            for link in (0, 1, 101, 108, 113, 228, 229, 276):
                header = struct.pack(f"{endian}IHHIIII", magic, 2, 4, 0, 0, 65535, link)
                records = b"".join(
                    struct.pack(f"{endian}IIII", i, i, len(frame), len(frame)) + frame
                    for i, frame in enumerate(MADE_FRAMES)
                )
                yield f"pcap-{link}", b"\x0d" + header + records
        yield "pcapng", b"\x0d" + pcapng(endian)
    for path in captures():
        yield path.name, b"\x07" + path.read_bytes()[: MAX_INPUT_BYTES - 1]


def pcapng(endian: str) -> bytes:
    """A section with an interface of each resolution, a frame in each kind of block, and one of no interest."""

    def block(kind: int, body: bytes) -> bytes:
        padded = body + bytes(-len(body) % 4)
        length = struct.pack(f"{endian}I", 12 + len(padded))
        return struct.pack(f"{endian}I", kind) + length + padded + length

    def packed(form: str, *values: int) -> bytes:
        return struct.pack(endian + form, *values)

    frame = MADE_FRAMES[0]
    file = block(0x0A0D0D0A, packed("IHHq", 0x1A2B3C4D, 1, 0, -1))
    for resolution in (6, 9, 3, 12, 0x80 | 20, 0x80 | 40):
        option = packed("HHB3x", 9, 1, resolution) + packed("HHq", 14, 8, -3600) + packed("HH", 0, 0)
        file += block(1, packed("HHI", 1, 0, 65535) + option)
    for interface in range(6):
        file += block(6, packed("IIIII", interface, 1, 2, len(frame), len(frame)) + frame)
    file += block(5, bytes(20)) + block(2, packed("HHIIII", 1, 0, 1, 2, len(frame), len(frame)) + frame)
    return file + block(3, packed("I", len(frame)) + frame)


def _made_frames() -> tuple[bytes, ...]:
    macs = bytes.fromhex("027700000002027700000001")
    ports, tcp = struct.pack("!HH", 40001, 443), bytes(8) + b"\x50\x12" + bytes(6)
    four = bytes.fromhex("450000280000400040060000c0000201c6336407")
    six = bytes.fromhex("60000000001c0040") + bytes(32)
    chain = bytes([43, 0, 1, 4, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, 51, 0, 0, 0, 0, 0, 0, 7, 17, 4]) + bytes(22)
    return (
        macs + b"\x08\x00" + four + ports + tcp,
        macs + b"\x86\xdd" + six[:6] + b"\x11" + six[7:] + ports + bytes(20),
        macs + b"\x86\xdd" + six[:4] + b"\0\x40\0" + six[7:] + chain + ports + bytes(12),
        macs + b"\x88\xa8\0\x07\x81\x00\0\x4d\x08\x00" + four + ports + tcp,
        macs + b"\x08\x06" + bytes(28),
        macs + b"\x00\x26\x42\x42\x03" + bytes(35),
        four + ports + tcp,
    )


MADE_FRAMES = _made_frames()


def run(
    program: Path, corpus: Path, seeds: Path, seconds: float, *, watched: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a fuzzer for a time. New inputs go to `corpus`; one that fails, into the folder of `program`.

    watched: progress goes to the terminal, and each run differs; for a long one.
    """
    arguments = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={TIMEOUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={program.parent}/",
        "-print_final_stats=1",
        *([] if watched else ["-seed=7", "-verbosity=0"]),
    ]
    corpus.mkdir(parents=True, exist_ok=True)
    command = [str(program), *arguments, str(corpus), str(seeds)]
    return subprocess.run(command, capture_output=not watched, text=True, errors="replace")
