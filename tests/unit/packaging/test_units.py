"""The units of systemd: what its own tools say of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[3] / "packaging" / "systemd"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("systemd-analyze"), reason="systemd is not installed"
)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(("name", "most"), [("wiremeter-agent", 25), ("wiremeter-server", 15)])
def test_units_expose_no_more_than_they_need(name: str, most: int) -> None:
    """In tenths, of 100: what systemd thinks a service could do to a host if it were taken over."""
    told = analyze("security", "--offline=yes", f"--threshold={most}", str(UNITS / f"{name}.service"))
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("name", ["wiremeter-agent", "wiremeter-server"])
def test_units_are_understood(name: str, tmp_path: Path) -> None:
    program = shutil.which("true")
    assert program
    unit = tmp_path / f"{name}.service"
    unit.write_text((UNITS / unit.name).read_text().replace("/usr/bin/wiremeter", program))
    told = analyze("verify", "--man=no", str(unit))
    assert (told.returncode, [line for line in told.stderr.splitlines() if name in line]) == (0, []), told.stderr
