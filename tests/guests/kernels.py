"""Which kernels are tried, and where their packages come from."""

from __future__ import annotations

from typing import NamedTuple

DEBIAN = "http://deb.debian.org/debian"
UBUNTU = "http://archive.ubuntu.com/ubuntu"


class Machine(NamedTuple):
    """A computer that qemu plays. deb: what Debian calls it. wheels: pip's platform tag. triplet: of its C library."""

    deb: str
    wheels: str
    triplet: str
    emulator: tuple[str, ...]
    console: str
    image: str  # of the kernel, as it is packed


MACHINES = {
    "x86_64": Machine(
        "amd64", "manylinux2014_x86_64", "x86_64-linux-gnu", ("qemu-system-x86_64", "-cpu", "max"), "ttyS0", "vmlinuz"
    ),
    "aarch64": Machine(
        "arm64",
        "manylinux2014_aarch64",
        "aarch64-linux-gnu",
        ("qemu-system-aarch64", "-machine", "virt", "-cpu", "max,pauth-impdef=on"),
        "ttyAMA0",
        "vmlinuz",
    ),
}


class Kernel(NamedTuple):
    """A kernel as a distribution packs it: the packages of the newest one in a suite."""

    name: str
    machine: str
    mirror: str
    suite: str
    packages: tuple[str, ...]


KERNELS = (
    Kernel("ubuntu-5.15", "x86_64", UBUNTU, "jammy", ("linux-image-virtual",)),
    Kernel("debian-6.1", "x86_64", DEBIAN, "bookworm", ("linux-image-cloud-amd64",)),
    Kernel("ubuntu-6.8", "x86_64", UBUNTU, "noble", ("linux-image-virtual",)),
    Kernel("debian-6.12", "x86_64", DEBIAN, "trixie", ("linux-image-cloud-amd64",)),
    Kernel("debian-6.1-arm64", "aarch64", DEBIAN, "bookworm", ("linux-image-cloud-arm64",)),
    Kernel("debian-6.12-arm64", "aarch64", DEBIAN, "trixie", ("linux-image-cloud-arm64",)),
)
