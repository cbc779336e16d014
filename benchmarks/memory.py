"""What a meter takes: CPU time, and what it has resident, the flow tables apart; of all its processes."""

from __future__ import annotations

import os
from pathlib import Path

#: What a mapping of a table is called in /proc/PID/smaps.
_TABLE = "bpf-map"


_TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and those that it has started: the reader of payloads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [pid, *(int(child) for task in tasks for child in (task / "children").read_text().split())]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mb(pid: int) -> tuple[float, float]:
    """Resident memory in MB (10^6 bytes): all but the tables, and the tables."""
    own = tables = 0
    is_table = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            is_table = _TABLE in rest
        elif name == "Rss:":
            kib = int(rest.split()[0])
            tables, own = (tables + kib, own) if is_table else (tables, own + kib)
    return own * 1024 / 1e6, tables * 1024 / 1e6


def share_mb(pid: int) -> float:
    """Resident memory in MB; pages that several processes have count in parts (PSS), so that a sum is right."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    return int(rollup[rollup.index("Pss:") + 1]) * 1024 / 1e6
