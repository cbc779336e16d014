"""Which process holds a TCP port, from /proc: so that "address in use" can say who has to move."""

from __future__ import annotations

import os
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h


def port_holder(port: int, proc: Path = Path("/proc")) -> str | None:
    """The process that listens on TCP `port` in this network namespace, such as "nginx (pid 812)".

    None if nobody does, or if this process may not see whose socket it is.
    """
    inodes = set(_listening_inodes(port, proc))
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in proc.glob("[0-9]*"):
        try:
            if any(os.readlink(entry) in wanted for entry in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:  # it ended meanwhile, or is not ours to look at
            continue
    return None


def _listening_inodes(port: int, proc: Path) -> list[str]:
    """proc(5), /proc/net/tcp: local address in column 1 with the port in hex, state in 3, inode in 9."""
    found = []
    for name in ("tcp", "tcp6"):
        try:
            rows = (proc / "self" / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, rows):
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                found.append(columns[9])
    return found
