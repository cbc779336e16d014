"""Facts about this host that decide whether and how it can be metered. Reading them needs no privilege."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from wiremeter.errors import MORE_FILES, KernelError

KernelFeature = Literal["tcx", "native_xdp_facts", "kernel_context"]
Version = tuple[int, int, int]

#: The oldest kernel that takes the programs, of those that were tried (docs/kernels.md): 5.15 refuses them.
MINIMUM_KERNEL: Version = (6, 1, 0)


class Since(NamedTuple):
    """When Linux learned something, and what it is good for here."""

    version: Version
    purpose: str


#: Newest first.
KERNEL_FEATURES: dict[KernelFeature, Since] = {
    "tcx": Since((6, 6, 0), "tcx: attach at tc by links that die with the process"),
    "native_xdp_facts": Since((6, 3, 0), "ask drivers whether they take native XDP"),
    "kernel_context": Since((6, 2, 0), "exact segments of encapsulated super-packets"),
}

#: Bits of the capability sets (linux/capability.h).
_CAPABILITY_BITS = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_UNLIMITED = 1 << 62  # cgroup v1 says "no limit" by a number near 2^63


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host, as seen by this process.

    has_btf: the kernel carries its own type information; capabilities: effective, of those that matter here;
    is_initial_userns: whether these count for the kernel's BPF; jit, unprivileged_bpf_disabled: the sysctls
    net.core.bpf_jit_enable (as a truth) and kernel.unprivileged_bpf_disabled, None where not visible;
    cpu_numbers: one more than the highest number of an online CPU, so many regions the tables need;
    cgroup_limit_bytes: the tightest memory limit of this process's cgroups, None without one.
    """

    kernel_release: str
    kernel_version: Version
    has_btf: bool = True
    is_preempt_rt: bool = False
    capabilities: frozenset[str] = frozenset()
    is_initial_userns: bool = True
    online_cpus: int = 1
    cpu_numbers: int = 1
    possible_cpus: int = 1
    ram_bytes: int = 0
    available_bytes: int = 0
    cgroup_limit_bytes: int | None = None
    jit: bool | None = True
    unprivileged_bpf_disabled: int | None = None

    @property
    def memory_limit_bytes(self) -> int:
        """The smaller of RAM and cgroup limit: what the tables must fit into."""
        return min(self.ram_bytes, self.cgroup_limit_bytes or self.ram_bytes)

    def can(self, feature: KernelFeature) -> bool:
        """Whether a kernel of this version has `feature`."""
        return self.kernel_version >= KERNEL_FEATURES[feature].version

    @property
    def missing_capabilities(self) -> tuple[str, ...]:
        """Capabilities without which programs cannot be loaded and attached. CAP_SYS_ADMIN stands for the BPF ones."""
        needed = ["CAP_NET_ADMIN"]
        if "CAP_SYS_ADMIN" not in self.capabilities:
            needed.append("CAP_BPF")
            if self.can("kernel_context"):  # programs that follow kernel pointers: bpf_allow_ptr_leaks()
                needed.append("CAP_PERFMON")
        return tuple(name for name in needed if name not in self.capabilities)

    def missing_capabilities_for(self, requested: str) -> tuple[str, ...]:
        """The same for one way of attaching: packet sockets (`capture`) need another."""
        if requested != "capture":
            return self.missing_capabilities
        return () if "CAP_NET_RAW" in self.capabilities else ("CAP_NET_RAW",)


def read_host(root: Path = Path("/")) -> HostFacts:
    """The facts of the host whose /proc and /sys lie under `root`; what cannot be read is taken as absent.

    Raises KernelError where this process may open no more files.
    """
    proc, sys = root / "proc", root / "sys"
    release = _read(proc / "sys/kernel/osrelease")
    version = _read(proc / "sys/kernel/version")
    memory = _read_meminfo(_read(proc / "meminfo"))
    if root == Path("/"):  # parts of /proc may be hidden (ProcSubset=pid in systemd.exec(5)); the kernel tells, too
        release, version = release or os.uname().release, version or os.uname().version
        memory = {"MemTotal": _pages("SC_PHYS_PAGES"), "MemAvailable": _pages("SC_AVPHYS_PAGES")} | memory
    cpus = sys / "devices/system/cpu"
    jit = _read_number(proc / "sys/net/core/bpf_jit_enable")
    return HostFacts(
        kernel_release=release,
        kernel_version=parse_version(release),
        has_btf=(sys / "kernel/btf/vmlinux").exists(),
        is_preempt_rt=_read(sys / "kernel/realtime") == "1" or "PREEMPT_RT" in version,
        capabilities=parse_capabilities(_read(proc / "self/status")),
        is_initial_userns=_read(proc / "self/uid_map").split() in (["0", "0", "4294967295"], []),
        online_cpus=count_cpus(_read(cpus / "online")),
        cpu_numbers=highest_cpu(_read(cpus / "online")) + 1,
        possible_cpus=count_cpus(_read(cpus / "possible")),
        ram_bytes=memory.get("MemTotal", 0),
        available_bytes=memory.get("MemAvailable", 0),
        cgroup_limit_bytes=_read_cgroup_limit(root),
        jit=None if jit is None else jit != 0,
        unprivileged_bpf_disabled=_read_number(proc / "sys/kernel/unprivileged_bpf_disabled"),
    )


def parse_version(release: str) -> Version:
    """The numbers that a kernel release begins with; (0, 0, 0) if it begins otherwise.

    >>> parse_version("6.1.0-18-amd64")
    (6, 1, 0)
    >>> parse_version("6.19-rc3")
    (6, 19, 0)
    """
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if not found:
        return (0, 0, 0)
    major, minor, patch = (int(number or 0) for number in found.groups())
    return (major, minor, patch)


def parse_capabilities(status: str) -> frozenset[str]:
    """Effective capabilities named in _CAPABILITY_BITS, from the text of /proc/self/status.

    >>> sorted(parse_capabilities("CapEff:\\t0000008000001000"))
    ['CAP_BPF', 'CAP_NET_ADMIN']
    """
    found = re.search(r"^CapEff:\s*([0-9a-fA-F]+)", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    return frozenset(name for name, bit in _CAPABILITY_BITS.items() if effective >> bit & 1)


def count_cpus(cpu_list: str) -> int:
    """How many CPUs a list such as the kernel's names; 1 for an empty one.

    >>> count_cpus("0-3,8,10-11")
    7
    """
    count = 0
    for part in filter(None, cpu_list.split(",")):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count or 1


def highest_cpu(cpu_list: str) -> int:
    """The greatest number in a list such as the kernel's; 0 for an empty one.

    >>> highest_cpu("0-3,8,10-11")
    11
    """
    return max((int(number) for number in re.findall(r"\d+", cpu_list)), default=0)


class _CgroupMount(NamedTuple):
    """Where a cgroup hierarchy with a memory controller is seen: its directory `root` is mounted at `point`."""

    is_v2: bool
    root: str
    point: Path


def _read_cgroup_limit(root: Path) -> int | None:
    """The tightest limit on the way from this process's cgroups up to the mounts; None without one."""
    paths = dict(_cgroup_paths(_read(root / "proc/self/cgroup")))
    limits = []
    for mount in _cgroup_mounts(_read(root / "proc/self/mountinfo"), root):
        if mount.is_v2 not in paths:
            continue
        name = "memory.max" if mount.is_v2 else "memory.limit_in_bytes"
        for directory in _ways_up(mount, paths[mount.is_v2]):
            limit = _read_number(directory / name)
            if limit is not None and limit < _UNLIMITED:
                limits.append(limit)
    return min(limits, default=None)


def _cgroup_paths(text: str) -> Iterator[tuple[bool, str]]:
    """(is v2, path) of each hierarchy in /proc/self/cgroup that may limit memory."""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield True, path
        elif "memory" in controllers.split(","):
            yield False, path


def _cgroup_mounts(text: str, root: Path) -> Iterator[_CgroupMount]:
    """The cgroup mounts of /proc/self/mountinfo (proc_pid_mountinfo(5)) that may hold memory limits."""
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        _, _, _, mounted, point, *_ = fields.split(" ")
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            yield _CgroupMount(kind == "cgroup2", mounted, root / point.lstrip("/"))


def _ways_up(mount: _CgroupMount, path: str) -> Iterator[Path]:
    """The directory of cgroup `path` under `mount` and all above it that can be seen.

    In a container only a part of the hierarchy is mounted: `path` then begins with that part's own path, or, seen from
    a cgroup namespace, may lead out of it by `..`; then the mount itself is the nearest directory there is.
    """
    inside = PurePosixPath(path)
    if inside.is_relative_to(mount.root):
        inside = inside.relative_to(mount.root)
    directory = mount.point if ".." in inside.parts else mount.point / str(inside).lstrip("/")
    while not directory.is_dir() and directory != mount.point:
        directory = directory.parent
    yield directory
    while directory != mount.point:
        directory = directory.parent
        yield directory


def _pages(name: str) -> int:
    """Bytes of so many pages of memory (sysconf(3))."""
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")


def _read_meminfo(text: str) -> dict[str, int]:
    """Bytes by name from /proc/meminfo, whose unit is KiB."""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def _read_number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdecimal() else None


def _read(path: Path) -> str:
    """The text of a file without surrounding space; "" where there is none that may be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # says nothing of the host
            raise KernelError(f"{path}: {error.strerror}; {MORE_FILES}", call="open", errno=error.errno) from error
        return ""
