"""What a process and its children cost, by a control group of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from wiremeter.errors import KernelError

#: Mappings that are not the process's own: the flow tables, which are counted whole, touched or not.
_TABLES = "bpf-map"
#: Of all that a comparison makes outside its own memory; its process number follows.
PREFIX = "wiremeter-compare-"


class Group:
    """A cgroup (v2) for one meter. A context manager; leaving it ends whatever is still inside."""

    def __init__(self, name: str) -> None:
        """Raises KernelError where there is no cgroup2 file system to write to."""
        self._path = _mount() / f"{PREFIX}{os.getpid()}-{name}"
        try:
            self._path.mkdir()
        except OSError as error:
            raise KernelError(f"making the cgroup {self._path}: {error.strerror}", call="mkdir") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        deadline = time.monotonic() + 5
        while self.pids() and time.monotonic() < deadline:
            for pid in self.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            time.sleep(0.01)
        with suppress(OSError):
            self._path.rmdir()

    def enter(self) -> None:
        """For a child between fork and exec: it and all it starts are in the group."""
        (self._path / "cgroup.procs").write_text(str(os.getpid()))

    def pids(self) -> list[int]:
        """The processes that are in it now."""
        with suppress(OSError):
            return [int(line) for line in (self._path / "cgroup.procs").read_text().split()]
        return []

    def cpu_seconds(self) -> float:
        """CPU time of all that ever were in it, user and kernel, interrupts that came upon them included."""
        fields = dict(line.split() for line in (self._path / "cpu.stat").read_text().splitlines())
        return int(fields["usage_usec"]) / 1e6

    def map_bytes(self) -> int:
        """Memory that the kernel holds for BPF maps of its processes, each map once (`memlock` in fdinfo)."""
        maps: dict[str, int] = {}
        for pid in self.pids():
            with suppress(OSError):
                for path in Path(f"/proc/{pid}/fdinfo").iterdir():
                    maps |= _map_of(path)
        return sum(maps.values())

    def memory_bytes(self) -> int:
        """Proportional resident memory (PSS) of its processes, mapped packet rings included, BPF maps left out."""
        return sum(_own_pss(pid) for pid in self.pids())


def remove_stale() -> None:
    """Removes what comparisons left that were killed: groups, and folders of their meters.

    Namespaces and processes end with the comparison that made them, however that ends.
    """
    for path in (*_mount().glob(f"{PREFIX}*-*"), *Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*")):
        if Path("/proc", path.name.removeprefix(PREFIX).split("-")[0]).exists():
            continue
        if path.is_relative_to(_mount()):
            with suppress(OSError):
                path.rmdir()
        else:
            shutil.rmtree(path, ignore_errors=True)


def _mount() -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            return Path(left.split()[4])
    raise KernelError("no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup", call="cgroup2")


def _map_of(fdinfo: Path) -> dict[str, int]:
    """Bytes by the map's id, if the descriptor is one of a map."""
    with suppress(OSError):
        fields = dict(line.split(":", 1) for line in fdinfo.read_text().splitlines() if ":" in line)
        if "map_id" in fields and "memlock" in fields:
            return {fields["map_id"].strip(): int(fields["memlock"])}
    return {}


def _own_pss(pid: int) -> int:
    total, is_table = 0, False
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    for line in lines:
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            is_table = _TABLES in rest
        elif name == "Pss:" and not is_table:
            total += int(rest.split()[0]) * 1024
    return total


class Host:
    """The kernel threads that receive packets when there are too many to do it in the interrupt."""

    def __init__(self) -> None:
        self._softirq_pids = [
            int(path.name)
            for path in Path("/proc").iterdir()
            if path.name.isdigit() and _name(path).startswith("ksoftirqd/")
        ]

    def softirq_seconds(self) -> float:
        """Their run time so far, on all CPUs."""
        total = 0
        for pid in self._softirq_pids:
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        return total / 1e9


def _name(path: Path) -> str:
    with suppress(OSError):
        return (path / "comm").read_text().strip()
    return ""
