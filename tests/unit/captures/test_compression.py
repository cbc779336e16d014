"""Compressed captures: all that decompresses counts, cut, damaged, joined or out of a pipe, in bounded memory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.captures.compression import HEAD_BYTES, DecompressedStream, compression_of

Compress = Callable[[bytes], bytes]


def zstd_checked(data: bytes) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


def lz4_checked(data: bytes) -> bytes:
    # Small blocks: a damaged block gives nothing.
    return bytes(lz4.frame.compress(data, content_checksum=True, block_size=lz4.frame.BLOCKSIZE_MAX64KB))


COMPRESSIONS: dict[str, Compress] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd_checked,
    "lz4": lz4_checked,
}
#: Most that a block holds, which its damage or end takes along.
BLOCK_BYTES = {"gzip": 0, "bzip2": 900_000, "xz": 0, "zstd": 1 << 17, "lz4": 1 << 16}
_BYTES = random.Random(1)
SMALL = _BYTES.randbytes(600)
LARGE = b"".join(_BYTES.randbytes(40) * 3 + b"some text" for _ in range(8_000))
every = pytest.mark.parametrize("name", COMPRESSIONS)


class Read:
    """What a file of this content holds, decompressed."""

    def __init__(self, raw: io.FileIO, piece: int = 1 << 18) -> None:
        head = raw.read(HEAD_BYTES)
        found = compression_of(head)
        assert found
        stream = DecompressedStream(raw, head, found)
        out, buffer = bytearray(), memoryview(bytearray(piece))
        while got := stream.readinto(buffer):
            out += buffer[:got]
        self.data, self.problem = bytes(out), stream.problem


def of_file(path: Path, content: bytes, piece: int = 1 << 18) -> Read:
    path.write_bytes(content)
    with io.FileIO(path) as raw:
        return Read(raw, piece)


def of_pipe(content: bytes) -> Read:
    read_end, write_end = os.pipe()

    def write() -> None:
        with open(write_end, "wb") as file:
            file.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    with io.FileIO(read_end) as raw:
        found = Read(raw)
        while raw.read(1 << 16):
            pass
    writer.join()
    return found


@every
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_whole_files_joined_ones_and_padded_ones(tmp_path: Path, name: str, data: bytes) -> None:
    whole = COMPRESSIONS[name](data)
    for content, expected in ((whole, data), (whole * 3, data * 3), (whole + bytes(512), data), (whole, data)):
        for found in (of_file(tmp_path / "file", content), of_pipe(content)):
            assert (found.data, found.problem) == (expected, None)
    assert of_file(tmp_path / "file", whole, piece=100).data == data


def byte_by_byte(name: str, content: bytes) -> bytes:
    """What the library has decompressed before it fails or lacks more."""
    found = compression_of(content[:HEAD_BYTES])
    assert found
    decoder, out = found.decoder(), b""
    with contextlib.suppress(Exception):
        for byte in content:
            out += (got := decoder.decompress(bytes([byte]), 1 << 20))
            while got:
                out += (got := decoder.decompress(b"", 1 << 20))
    return out


@every
@pytest.mark.parametrize("data", [SMALL, LARGE[:300_000]], ids=["small", "large"])
def test_a_cut_file_gives_all_that_decompresses(tmp_path: Path, name: str, data: bytes) -> None:
    whole = COMPRESSIONS[name](data)
    for part in (0.4, 0.9, 1 - 10 / len(whole)):
        cut = whole[: int(len(whole) * part)]
        expected = byte_by_byte(name, cut)
        assert len(expected) >= min(part, 0.9) * len(data) * 0.7 - BLOCK_BYTES[name]
        for found in (of_file(tmp_path / "file", cut), of_pipe(cut)):
            assert found.problem == "the compressed data end early; what came before is counted"
            assert found.data == expected


@given(cut=st.integers(1, len(gzip.compress(LARGE[:20_000])) - HEAD_BYTES))
def test_a_cut_gzip_gives_what_zlib_has(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = gzip.compress(LARGE[:20_000])[:-cut]
    found = of_file(tmp_path_factory.getbasetemp() / "cut.gz", whole)
    assert found.data == zlib.decompressobj(31).decompress(whole)


@every
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_wrong_checksum_at_the_end_loses_nothing(tmp_path: Path, name: str, data: bytes) -> None:
    whole = bytearray(COMPRESSIONS[name](data))
    whole[{"gzip": -8, "bzip2": -6, "xz": -5, "zstd": -1, "lz4": -1}[name]] ^= 0x55
    found = of_file(tmp_path / "file", bytes(whole))
    assert found.data == data
    assert found.problem
    assert found.problem.startswith("the compressed data are damaged (")


@given(at=st.integers(12, 7_500), value=st.binary(min_size=1, max_size=4))
def test_a_damaged_gzip_gives_what_is_before_that(
    at: int, value: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(gzip.compress(LARGE[:20_000], mtime=0))
    whole[at : at + len(value)] = value
    expected = byte_by_byte("gzip", bytes(whole))
    for found in (of_file(tmp_path_factory.getbasetemp() / "damaged.gz", bytes(whole)), of_pipe(bytes(whole))):
        assert found.data.startswith(expected)
        assert len(found.data) <= len(expected) + 8 * 258  # symbols of the byte in which the damage shows


@every
def test_damage_in_the_middle(tmp_path: Path, name: str) -> None:
    whole = bytearray(COMPRESSIONS[name](LARGE))
    at = len(whole) * 2 // 3
    whole[at : at + 4] = b"\xff\xff\xff\xff"
    found = of_file(tmp_path / "file", bytes(whole))
    assert found.problem
    assert len(found.data) > 0.6 * len(LARGE) - BLOCK_BYTES[name]
    common = next(n for n, (got, meant) in enumerate(zip(found.data, LARGE, strict=False)) if got != meant)
    assert common > 0.6 * len(LARGE) - BLOCK_BYTES[name]
    piped = of_pipe(bytes(whole))
    assert len(found.data) - len(piped.data) <= (1 << 18 if name != "gzip" else 0)
    assert ("that a pipe cannot give again" in str(piped.problem)) == (name != "gzip")


@every
def test_what_follows_and_is_not_compressed_is_told(tmp_path: Path, name: str) -> None:
    found = of_file(tmp_path / "file", COMPRESSIONS[name](SMALL) + b"trailing garbage")
    assert found.data == SMALL
    assert found.problem == f"16 bytes or more that are no {name} follow the compressed data; they are not read"
    assert "3 bytes or more" in str(of_file(tmp_path / "file", COMPRESSIONS[name](SMALL) + b"abc").problem)


def test_a_frame_to_skip_comes_before_zstd_ones(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"pzst"
    found = of_file(tmp_path / "file", (skipped + zstd.compress(SMALL)) * 2)
    assert (found.data, found.problem) == (SMALL * 2, None)


@pytest.mark.parametrize("name", ["gzip", "zstd", "lz4"])
def test_what_was_flushed_into_a_pipe_comes_out_before_more_does(name: str) -> None:
    read_end, write_end = os.pipe()
    parts: list[bytes]
    if name == "gzip":
        deflate = zlib.compressobj(wbits=31)
        parts = [deflate.compress(SMALL) + deflate.flush(zlib.Z_SYNC_FLUSH) for _ in range(3)]
    elif name == "zstd":
        encoder = zstd.ZstdCompressor()
        parts = [encoder.compress(SMALL, encoder.FLUSH_BLOCK) for _ in range(3)]
    else:
        frame = lz4.frame.LZ4FrameCompressor(auto_flush=True)
        parts = [frame.begin() + frame.compress(SMALL), frame.compress(SMALL), frame.compress(SMALL)]
    buffer = memoryview(bytearray(1 << 18))
    with io.FileIO(read_end) as raw, io.FileIO(write_end, "w") as to:
        to.write(parts[0])
        head = raw.read(HEAD_BYTES)
        found = compression_of(head)
        assert found
        stream = DecompressedStream(raw, head, found)
        for part in (*parts[1:], None):
            got = b""
            while len(got) < len(SMALL):
                got += buffer[: stream.readinto(buffer)]
            assert got == SMALL
            if part:
                to.write(part)


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_bomb_costs_bounded_memory(tmp_path: Path, name: str) -> None:
    """A capture whose one block of no interest is 64 MiB of zeros."""
    size = 64 << 20
    head = bytes.fromhex("0a0d0d0a1c0000004d3c2b1a01000000ffffffffffffffff1c000000")
    head += b"\xad\x0b\0\0" + (size + 12).to_bytes(4, "little")
    path = tmp_path / "bomb"
    _write_compressed(path, name, head, size)
    assert path.stat().st_size < 2 << 20
    code = (
        "import resource, sys; from wiremeter.captures.file import CaptureFile\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "file = CaptureFile(sys.argv[1]); list(file.frames())\n"
        "print(file.offset, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    offset, grown_kib = map(int, done.stdout.split())
    assert offset > size
    assert grown_kib < 32 << 10


def _write_compressed(path: Path, name: str, head: bytes, zeros: int) -> None:
    opened = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open, "zstd": zstd.open, "lz4": lz4.frame.open}[name]
    with opened(path, "wb") as file:
        file.write(head)
        for _ in range(zeros >> 20):
            file.write(bytes(1 << 20))


def test_a_window_that_would_take_too_much_memory_is_refused(tmp_path: Path) -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 31,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    encoder = zstd.ZstdCompressor(options=options)
    content = encoder.compress(SMALL) + encoder.flush()
    found = of_file(tmp_path / "file", content)
    assert (found.data, found.problem is not None) == (b"", True)
    assert "memory" in str(found.problem)


def test_libraries_are_loaded_when_a_file_needs_them(tmp_path: Path) -> None:
    code = "import sys, wiremeter.captures.replay; print([m for m in sys.modules if 'zstd' in m or 'lz4' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
