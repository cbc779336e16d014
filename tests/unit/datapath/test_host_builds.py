"""The host library and the decoders compile without a warning wherever they may be used: compilers, systems, words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # dozens of runs of compilers

BPF = Path(__file__).parents[3] / "bpf"
SOURCES = sorted((*(BPF / "host").glob("*.c"), *(BPF / "names").glob("*.c")))
CLANGS = [f"clang-{version}" for version in range(19, 13, -1)] + ["clang"]  # as the Makefile looks for them
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fPIC", f"-I{BPF / 'host'}", f"-I{BPF / 'names'}"]
ZIG = [sys.executable, "-m", "ziglang", "cc"]

#: What a shared library begins with: the magic number of Mach-O, and the processor.
MACOS = {"x86_64-macos": b"\xcf\xfa\xed\xfe\x07\x00\x00\x01", "aarch64-macos": b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01"}
#: ELF class (1: 32 bits) and byte order (2: big-endian).
OTHERS = {
    "x86-linux-musl": (1, 1),
    "arm-linux-musleabihf": (1, 1),
    "powerpc64-linux-musl": (2, 2),
    "s390x-linux-musl": (2, 2),
}


def compiled(command: list[str], output: Path) -> bytes:
    """What a compiler makes of the library; it must not have anything to say."""
    done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return output.read_bytes()


@pytest.mark.parametrize("optimisation", ["-O0", "-O2", "-O3"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("sanitizers", ["", "-fsanitize=address,undefined"])
def test_a_linux_compiler_has_no_complaint(compiler: str, sanitizers: str, optimisation: str, tmp_path: Path) -> None:
    found = shutil.which(compiler) if compiler == "gcc" else next(filter(None, map(shutil.which, CLANGS)), None)
    assert found, f"no {compiler} here: run `make setup-test`"
    wanted = [optimisation, *([sanitizers] if sanitizers else ["-Wl,-z,defs"])]
    assert compiled([found, *FLAGS, *wanted, "-shared", *map(str, SOURCES)], tmp_path / "host.so")


@pytest.mark.parametrize("target", MACOS)
def test_it_links_for_macos(target: str, tmp_path: Path) -> None:
    made = compiled([*ZIG, "-target", target, *FLAGS, "-O2", "-shared", *map(str, SOURCES)], tmp_path / "host.dylib")
    assert made[:8] == MACOS[target]


@pytest.mark.parametrize("target", OTHERS)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_it_compiles_for_other_word_sizes_and_byte_orders(target: str, source: Path, tmp_path: Path) -> None:
    made = compiled([*ZIG, "-target", target, *FLAGS, "-O2", "-c", str(source)], tmp_path / "host.o")
    assert (made[4], made[5]) == OTHERS[target]
