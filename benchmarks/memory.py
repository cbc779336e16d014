"""What a process has resident, the flow tables apart."""

from __future__ import annotations

from pathlib import Path

#: What a mapping of a table is called in /proc/PID/smaps.
_TABLE = "bpf-map"


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
