"""The seal compiles without a warning where it seals, and where it can only say that it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parents[3] / "src" / "wiremeter" / "isolation" / "seal.c"
SEALED = ("x86_64-linux-gnu", "x86_64-linux-musl", "aarch64-linux-gnu", "aarch64-linux-musl")
NOT_SEALED = ("s390x-linux-gnu", "riscv64-linux-gnu", "arm-linux-gnueabihf")


@pytest.mark.parametrize("target", [*SEALED, *NOT_SEALED])
def test_it_compiles(target: str, tmp_path: Path) -> None:
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2"]
    argv = [sys.executable, "-m", "ziglang", "cc", "-target", target, *flags, "-c", str(SOURCE)]
    done = subprocess.run([*argv, "-o", str(tmp_path / "seal.o")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
