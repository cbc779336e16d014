"""What a host runs in, by its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from wiremeter.linux.inventory import read_inventory
from wiremeter.linux.surroundings import read_surroundings

DMI = "sys/class/dmi/id"


def put(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    return root


def test_an_empty_host_says_nothing(tmp_path: Path) -> None:
    found = read_surroundings(tmp_path, {})
    assert found.hostname
    assert found.kernel
    assert found[2:] == (None,) * 5


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"', "Debian GNU/Linux 12 (bookworm)"),
        ("PRETTY_NAME='Alpine Linux v3.20'", "Alpine Linux v3.20"),
        ("PRETTY_NAME=Void", "Void"),
        ('PRETTY_NAME=""', None),
        ("NAME=x", None),
    ],
)
def test_the_operating_system_by_its_pretty_name(line: str, expected: str | None, tmp_path: Path) -> None:
    put(tmp_path, {"etc/os-release": f"ID=x\n{line}"})
    assert read_surroundings(tmp_path, {}).os == expected


@pytest.mark.parametrize(
    ("files", "environment", "expected"),
    [
        ({".dockerenv": ""}, {}, "docker"),
        ({"run/.containerenv": ""}, {}, "podman"),
        ({"run/systemd/container": "systemd-nspawn"}, {}, "systemd-nspawn"),
        ({}, {"container": "lxc"}, "lxc"),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"proc/1/cgroup": "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope"}, {}, "kubernetes"),
        ({"proc/1/cgroup": "12:memory:/docker/0123456789abcdef"}, {}, "docker"),
        ({"proc/1/cgroup": "0::/init.scope"}, {}, None),
    ],
)
def test_whose_container_it_is(
    files: dict[str, str], environment: dict[str, str], expected: str | None, tmp_path: Path
) -> None:
    assert read_surroundings(put(tmp_path, files), environment).container == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({f"{DMI}/sys_vendor": "Amazon EC2", f"{DMI}/product_name": "m5.large"}, "amazon"),
        ({f"{DMI}/sys_vendor": "QEMU", f"{DMI}/product_name": "Standard PC (Q35 + ICH9, 2009)"}, "qemu"),
        ({f"{DMI}/sys_vendor": "Microsoft Corporation", f"{DMI}/product_name": "Virtual Machine"}, "hyper-v"),
        ({f"{DMI}/sys_vendor": "Microsoft Corporation", f"{DMI}/product_name": "Surface Pro"}, None),
        ({f"{DMI}/sys_vendor": "Dell Inc.", f"{DMI}/product_name": "PowerEdge R740"}, None),
        ({"sys/hypervisor/type": "xen"}, "xen"),
        ({"proc/cpuinfo": "processor : 0\nflags\t\t: fpu vme hypervisor sse"}, "unknown"),
        ({"proc/cpuinfo": "processor : 0\nflags\t\t: fpu vme sse"}, None),
    ],
)
def test_which_virtual_machine_it_is(files: dict[str, str], expected: str | None, tmp_path: Path) -> None:
    assert read_surroundings(put(tmp_path, files), {}).virtual_machine == expected


def test_a_node_by_the_downward_api(tmp_path: Path) -> None:
    assert read_surroundings(tmp_path, {"NODE_NAME": "node-7"}).kubernetes_node == "node-7"


def test_devices_of_this_host() -> None:
    (loopback,) = read_inventory({1})
    assert (loopback.name, loopback.mac, loopback.speed_mbits) == ("lo", "00:00:00:00:00:00", None)
    assert loopback.mtu >= 1280
    assert not loopback.addresses or "127.0.0.1/8" in loopback.addresses
    assert read_inventory({999_999}) == ()
