"""What this process runs in, from local files alone: operating system, container, virtual machine, cloud, node.

Nothing is asked of a network: a cloud's metadata service would be one more thing that may hang.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from wiremeter.linux.identity import cloud_instance

#: Of /sys/class/dmi/id: sys_vendor and product_name begin with this.
_MACHINES = (
    ("Amazon EC2", "amazon"),
    ("Google", "google"),
    ("DigitalOcean", "digitalocean"),
    ("Hetzner", "hetzner"),
    ("OpenStack", "openstack"),
    ("VMware", "vmware"),
    ("innotek", "virtualbox"),
    ("Oracle Corporation VirtualBox", "virtualbox"),
    ("Xen", "xen"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Microsoft Corporation Virtual Machine", "hyper-v"),
    ("QEMU", "qemu"),
    ("Red Hat KVM", "kvm"),
    ("KVM", "kvm"),
)
#: Of the paths in /proc/1/cgroup and /proc/self/mountinfo, which say whose container this is.
_RUNTIMES = (
    ("kubepods", "kubernetes"),
    ("libpod", "podman"),
    ("docker", "docker"),
    ("lxc", "lxc"),
    ("machine.slice/systemd-nspawn", "systemd-nspawn"),
    ("cri-containerd", "containerd"),
    ("containerd", "containerd"),
)
_NODE_VARIABLES = ("NODE_NAME", "KUBERNETES_NODE_NAME", "K8S_NODE_NAME")


class Surroundings(NamedTuple):
    """None where nothing tells.

    container: whose. os: in a container, its image's. kubernetes_node: by the downward API, in a variable called
    NODE_NAME, KUBERNETES_NODE_NAME or K8S_NODE_NAME.
    """

    hostname: str
    kernel: str
    os: str | None
    container: str | None
    virtual_machine: str | None
    kubernetes_node: str | None
    cloud_instance: str | None


def read_surroundings(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> Surroundings:
    """As the files under `root` and the environment say. Raises nothing."""
    return Surroundings(
        hostname=_read(root / "proc/sys/kernel/hostname") or socket.gethostname(),
        kernel=_read(root / "proc/sys/kernel/osrelease") or os.uname().release,
        os=_os(_read(root / "etc/os-release") or _read(root / "usr/lib/os-release")),
        container=_container(root, environment),
        virtual_machine=_virtual_machine(root),
        kubernetes_node=next(filter(None, map(environment.get, _NODE_VARIABLES)), None),
        cloud_instance=cloud_instance(root) or None,
    )


def _os(release: str) -> str | None:
    """The pretty name of os-release(5)."""
    found = re.search(r"""^PRETTY_NAME=(["']?)(.*)\1$""", release, re.MULTILINE)
    return found[2] or None if found else None


def _container(root: Path, environment: Mapping[str, str]) -> str | None:
    """As systemd-detect-virt(1) does: files that runtimes leave, then the paths of cgroups and mounts."""
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "kubernetes"
    if named := _read(root / "run/systemd/container") or environment.get("container", ""):
        return named.split()[0]
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    cgroup = _read(root / "proc/1/cgroup")
    return next((name for mark, name in _RUNTIMES if mark in cgroup), None)


def _virtual_machine(root: Path) -> str | None:
    dmi = root / "sys/class/dmi/id"
    vendor, product = _read(dmi / "sys_vendor"), _read(dmi / "product_name")
    for mark, name in _MACHINES:
        if f"{vendor} {product}".startswith(mark) or product.startswith(mark):
            return name
    if hypervisor := _read(root / "sys/hypervisor/type"):
        return hypervisor
    # The bit that hypervisors set for their guests; which one, nothing says.
    is_guest = re.search(r"^flags\s*:.*\bhypervisor\b", _read(root / "proc/cpuinfo"), re.MULTILINE)
    return "unknown" if is_guest else None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
