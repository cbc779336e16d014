"""Facts about the host, from /proc and /sys trees made by hand and from the running ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wiremeter.linux import host
from wiremeter.linux.host import (
    KERNEL_FEATURES,
    MINIMUM_KERNEL,
    HostFacts,
    count_cpus,
    parse_capabilities,
    parse_version,
    read_host,
)

GIB = 1 << 30
V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
V1_MOUNT = "35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
UNLIMITED_V1 = "9223372036854771712"


def tree(root: Path, **files: str) -> Path:
    """Files under `root`; a name's double underscores are slashes."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


def cgroup(root: Path, path: str, name: str, limit: str) -> None:
    directory = root / "sys/fs/cgroup" / path.strip("/")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(limit + "\n")


def test_a_whole_host_is_read(tmp_path: Path) -> None:
    files = {
        "proc__sys__kernel__osrelease": "6.8.0-45-generic",
        "proc__sys__kernel__version": "#45-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug 30",
        "proc__sys__kernel__unprivileged_bpf_disabled": "2",
        "proc__sys__net__core__bpf_jit_enable": "1",
        "proc__self__status": "Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t000000c000201000\nCapBnd:\t0",
        "proc__self__uid_map": "         0          0 4294967295",
        "proc__meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB",
        "sys__kernel__btf__vmlinux": "",
        "sys__devices__system__cpu__online": "0-6",
        "sys__devices__system__cpu__possible": "0-127",
    }
    assert read_host(tree(tmp_path, **files)) == HostFacts(
        kernel_release="6.8.0-45-generic",
        kernel_version=(6, 8, 0),
        has_btf=True,
        is_preempt_rt=False,
        capabilities=frozenset({"CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"}),
        is_initial_userns=True,
        online_cpus=7,
        cpu_numbers=7,
        possible_cpus=128,
        ram_bytes=16 * GIB,
        available_bytes=8 * GIB,
        cgroup_limit_bytes=None,
        jit=True,
        unprivileged_bpf_disabled=2,
    )


def test_what_cannot_be_read_is_absent(tmp_path: Path) -> None:
    host = read_host(tmp_path)
    assert (host.kernel_release, host.kernel_version, host.has_btf) == ("", (0, 0, 0), False)
    assert (host.jit, host.unprivileged_bpf_disabled, host.cgroup_limit_bytes) == (None, None, None)
    assert host.online_cpus == 1


@pytest.mark.parametrize(
    "files",
    [
        {"sys__kernel__realtime": "1"},
        {"proc__sys__kernel__version": "#1 SMP PREEMPT_RT Debian 6.1.76-1"},
    ],
)
def test_a_realtime_kernel_is_known(tmp_path: Path, files: dict[str, str]) -> None:
    assert read_host(tree(tmp_path, **files)).is_preempt_rt


def test_a_user_namespace_of_its_own_is_known(tmp_path: Path) -> None:
    assert not read_host(tree(tmp_path, proc__self__uid_map="         0       1000          1")).is_initial_userns


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    tree(tmp_path, proc__self__cgroup="0::/a/b/c", proc__self__mountinfo=V2_MOUNT.format(root="/"))
    for path, limit in {"a": "max", "a/b": str(2 * GIB), "a/b/c": str(3 * GIB)}.items():
        cgroup(tmp_path, path, "memory.max", limit)
    assert read_host(tmp_path).cgroup_limit_bytes == 2 * GIB


def test_no_limit_is_none(tmp_path: Path) -> None:
    tree(tmp_path, proc__self__cgroup="0::/a\n9:memory:/m", proc__self__mountinfo=V2_MOUNT.format(root="/"))
    tree(tmp_path, proc__self__mountinfo=V2_MOUNT.format(root="/") + V1_MOUNT.format(root="/"))
    cgroup(tmp_path, "a", "memory.max", "max")
    cgroup(tmp_path, "memory/m", "memory.limit_in_bytes", UNLIMITED_V1)
    assert read_host(tmp_path).cgroup_limit_bytes is None


def test_limits_of_both_hierarchies_count(tmp_path: Path) -> None:
    mounts = V2_MOUNT.format(root="/").replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ") + V1_MOUNT.format(root="/")
    tree(tmp_path, proc__self__cgroup="4:memory:/m\n1:cpu,cpuacct:/x\n0::/a", proc__self__mountinfo=mounts)
    cgroup(tmp_path, "unified/a", "memory.max", str(4 * GIB))
    cgroup(tmp_path, "memory/m", "memory.limit_in_bytes", str(1 * GIB))
    assert read_host(tmp_path).cgroup_limit_bytes == 1 * GIB


@pytest.mark.parametrize(
    ("path", "mounted"),
    [
        ("/docker/abc", "/docker/abc"),
        ("/", "/docker/abc"),
        ("/../../elsewhere", "/"),
        ("/docker/abc/sub", "/docker/abc"),
    ],
    ids=["host-namespace", "own-namespace", "outside", "below"],
)
def test_a_container_sees_its_own_limit(tmp_path: Path, path: str, mounted: str) -> None:
    tree(tmp_path, proc__self__cgroup=f"0::{path}", proc__self__mountinfo=V2_MOUNT.format(root=mounted))
    cgroup(tmp_path, "", "memory.max", str(GIB))
    assert read_host(tmp_path).cgroup_limit_bytes == GIB


def test_memory_is_the_smaller_of_ram_and_limit() -> None:
    assert HostFacts("", MINIMUM_KERNEL, ram_bytes=8 * GIB, cgroup_limit_bytes=GIB).memory_limit_bytes == GIB
    assert HostFacts("", MINIMUM_KERNEL, ram_bytes=8 * GIB, cgroup_limit_bytes=9 * GIB).memory_limit_bytes == 8 * GIB
    assert HostFacts("", MINIMUM_KERNEL, ram_bytes=8 * GIB).memory_limit_bytes == 8 * GIB


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.18.44-x", (6, 18, 44)),
        ("5.15.0-119-generic", (5, 15, 0)),
        ("6.6", (6, 6, 0)),
        ("6.19-rc3", (6, 19, 0)),
        ("", (0, 0, 0)),
        ("odd", (0, 0, 0)),
    ],
)
def test_kernel_releases_are_read(release: str, version: tuple[int, int, int]) -> None:
    assert parse_version(release) == version


def test_features_follow_the_version() -> None:
    host = HostFacts("6.1.0-18-amd64", (6, 1, 0))
    assert not any(host.can(feature) for feature in KERNEL_FEATURES)
    assert [feature for feature in KERNEL_FEATURES if HostFacts("", (6, 3, 0)).can(feature)] == [
        "native_xdp_facts",
        "kernel_context",
    ]
    assert all(HostFacts("", (6, 6, 0)).can(feature) for feature in KERNEL_FEATURES)


@pytest.mark.parametrize(
    ("held", "version", "missing"),
    [
        (set(), (6, 6, 0), ("CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON")),
        (set(), (6, 1, 0), ("CAP_NET_ADMIN", "CAP_BPF")),
        ({"CAP_SYS_ADMIN"}, (6, 6, 0), ("CAP_NET_ADMIN",)),
        ({"CAP_BPF", "CAP_NET_ADMIN"}, (6, 6, 0), ("CAP_PERFMON",)),
        ({"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}, (6, 6, 0), ()),
    ],
)
def test_missing_capabilities_are_named(
    held: set[str], version: tuple[int, int, int], missing: tuple[str, ...]
) -> None:
    assert HostFacts("", version, capabilities=frozenset(held)).missing_capabilities == missing


def test_capabilities_of_a_status_without_them_are_none() -> None:
    assert parse_capabilities("Name:\tx") == frozenset()


@pytest.mark.parametrize(("text", "count"), [("0", 1), ("0-3", 4), ("0,2-3,8-15", 11), ("", 1)])
def test_cpu_lists_are_counted(text: str, count: int) -> None:
    assert count_cpus(text) == count


def test_the_running_host_is_read() -> None:
    found = read_host()
    assert found.kernel_release == os.uname().release
    assert found.kernel_version > (3, 0, 0)
    assert 1 <= found.online_cpus <= found.possible_cpus
    assert found.online_cpus == os.sysconf("SC_NPROCESSORS_ONLN")
    assert found.ram_bytes >= found.available_bytes > 0
    assert 0 < found.memory_limit_bytes <= found.ram_bytes


def test_where_parts_of_proc_are_hidden_the_kernel_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ProcSubset=pid in systemd.exec(5)."""
    open_ = host._read
    hidden = (Path("/proc/sys"), Path("/proc/meminfo"))
    monkeypatch.setattr(host, "_read", lambda path: "" if any(map(path.is_relative_to, hidden)) else open_(path))
    found = read_host()
    assert found.kernel_release == os.uname().release
    assert found.kernel_version > (3, 0, 0)
    assert found.memory_limit_bytes > 0
    assert found.jit is None
