"""What is tried only on a machine that is nobody else's: its clock is set, and a limit put on memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wiremeter import Monitor

MIB = 1 << 20
HOUR = 3600.0


def memory() -> str:
    """Under a memory limit of a cgroup of version 2 it meters, or says why not: it is never killed without a word."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("WIREMETER_")}
    with limited() as cgroup:
        for mebibytes, names, status in (
            (60, "dns", 2),
            (79, "none", 2),
            (80, "none", 0),
            (111, "dns", 2),
            (112, "dns", 0),
        ):
            (cgroup / "memory.max").write_text(str(mebibytes * MIB))
            entering = f'echo $$ > "{cgroup}/cgroup.procs"; exec "$@"'
            words = ("live", "--once", "--interface", "lo", "--names", names)
            argv = ["sh", "-c", entering, "sh", sys.executable, "-m", "wiremeter", *words]
            done = subprocess.run(argv, env=ours, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == status, f"{mebibytes} MiB, {names}: {done.returncode}, {done.stderr}"
            assert not status or f"may use {mebibytes} MiB" in done.stderr, done.stderr
    return "cgroup 2: 80 MiB, and 112 with names, are enough; less is refused with a word"


@contextmanager
def limited() -> Iterator[Path]:
    """A cgroup of version 2 whose memory is limited."""
    root = Path("/run/cgroup")
    root.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "cgroup", root], check=True)
    try:
        (root / "cgroup.subtree_control").write_text("+memory")
        inner = root / "wiremeter"
        inner.mkdir()
        yield inner
        inner.rmdir()
    finally:
        subprocess.run(["umount", root], check=True)


def clock() -> str:
    """The clock is set an hour ahead, then three back: times of day follow, and no duration does."""
    told = []
    with Monitor("lo", interval=1.0) as monitor:
        batches = iter(monitor)
        next(batches)
        for step in (HOUR, -3 * HOUR, 2 * HOUR):
            time.clock_settime(time.CLOCK_REALTIME, time.time() + step)
            batch, after = next(batches), next(batches)
            told.append(batch.health.clock_step_seconds)
            assert abs(told[-1] - step) < 0.5, f"set by {step} s, told {told[-1]} s"
            assert after.health.clock_step_seconds == 0
            assert 0 < batch.seconds < 60, batch.seconds
            assert 0 < after.seconds < 60, after.seconds
            assert abs(after.start_ns - batch.end_ns - step * 1e9) < 1e9
            assert 0 <= time.time() - after.end_ns / 1e9 < 60
    return f"told {', '.join(f'{step:+.1f} s' for step in told)}; intervals of a second"


CHECKS: dict[str, Callable[[], str]] = {"memory limit": memory, "clock set": clock}
