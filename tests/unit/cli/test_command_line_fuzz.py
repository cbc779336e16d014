"""A bounded number of what `make fuzz-cli` does 5,000 times."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUNS = 60


@pytest.mark.slow
def test_no_command_line_leaves_a_traceback_or_hangs() -> None:
    """In a process of its own, which forks: this one may have threads."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.command_line", "--runs", str(RUNS)],
        env={"PYTHONPATH": "tests", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
