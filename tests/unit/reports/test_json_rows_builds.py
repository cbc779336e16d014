"""The writer of JSON compiles without a warning, whatever the width of numbers and the C library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parents[3] / "src" / "wiremeter" / "reports" / "json_rows.c"


@pytest.mark.parametrize("target", ["aarch64-linux-musl", "s390x-linux-gnu", "arm-linux-gnueabihf", "x86_64-macos"])
def test_it_compiles(target: str, tmp_path: Path) -> None:
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2"]
    argv = [sys.executable, "-m", "ziglang", "cc", "-target", target, *flags, "-c", str(SOURCE)]
    done = subprocess.run([*argv, "-o", str(tmp_path / "json_rows.o")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
