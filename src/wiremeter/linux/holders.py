"""Which process holds a TCP port or a BPF program, from /proc: so that an error can say who has to move."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
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
    return next((_named(entry.parents[1]) for entry, target in _descriptors(proc) if target in wanted), None)


def program_holder(program_id: int, proc: Path = Path("/proc")) -> str | None:
    """A process that has a BPF program open, such as "wiremeter (pid 812)"; it may be this one.

    None if nobody has, or none whose descriptors this process may see. A hook that holds a program is no process.
    """
    wanted = f"prog_id:\t{program_id}"
    for entry, target in _descriptors(proc):
        if target == "anon_inode:bpf-prog":
            with contextlib.suppress(OSError):
                if wanted in (entry.parents[1] / "fdinfo" / entry.name).read_text().splitlines():
                    return _named(entry.parents[1])
    return None


def _descriptors(proc: Path) -> Iterator[tuple[Path, str]]:
    """(/proc/PID/fd/N, what it is) of all open files that this process may see."""
    for process in proc.glob("[0-9]*"):
        try:
            entries = list((process / "fd").iterdir())
        except OSError:  # it ended meanwhile, or is not ours to look at
            continue
        for entry in entries:
            with contextlib.suppress(OSError):
                yield entry, os.readlink(entry)


def _named(process: Path) -> str:
    with contextlib.suppress(OSError):
        return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return f"pid {process.name}"


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
