"""The guest's file system as an initramfs: Debian's Python, our package and tests, and a kernel's modules.

Nothing in it was installed, only unpacked, so that it can be made for a machine that cannot run here.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from .kernels import DEBIAN, MACHINES, Kernel

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "guests"
SUITE = "bookworm"
PYTHON = "3.11"  # of SUITE
PACKAGES = ("python3", "libstdc++6", "libbpf1", "iproute2", "ethtool", "bpftool", "kmod", "busybox-static")
WHEELS = ("numpy", "cffi", "msgspec", "dnspython", "prometheus-client", "typing_extensions", "pytest")
MODULES = ("veth", "sch_ingress", "cls_bpf", "dummy", "bridge", "vxlan", "tun", "af_packet", "failover")
MERGED = "/usr/share/mmdebstrap/hooks/merged-usr"
#: Writes a module's source and prints its name and how it is compiled.
DESCRIBE = """
import json, runpy, sys
ffi = runpy.run_path(sys.argv[1])["ffi"]
ffi.emit_c_code(sys.argv[2])
name, _, _, options = ffi._assigned_source
print(json.dumps([name, options]))
"""
#: The first process. Whatever happens, the machine ends.
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/app/src:/app/tests:/app/site PYTHONDONTWRITEBYTECODE=1
export HOME=/tmp WIREMETER_TEST_PATIENCE=20
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf; mount -t tmpfs tmp /tmp; mkdir -p /run/netns
ln -sf /proc/self/fd /dev/fd
for module in {modules}; do modprobe -q $module; done
ip link set lo up
echo guest-begins
cd /app && python3 -m guests.check --alone
echo guest-ends
poweroff -f
"""


def run(*argv: str | Path, **more: object) -> None:
    """Run a command; CalledProcessError, after it said why, if it fails."""
    print("+", shlex.join(map(str, argv)), flush=True)
    subprocess.run(argv, check=True, **more)  # type: ignore[call-overload]


def unpacked(mirror: str, suite: str, deb: str, packages: tuple[str, ...], to: Path) -> Path:
    """Packages of a suite with what they need, unpacked in a folder; as they were if it is there already."""
    done, wanted = to / ".done", f"{mirror} {suite} {deb} {packages}"
    if done.exists() and done.read_text() == wanted:
        return to
    shutil.rmtree(to, ignore_errors=True)
    to.parent.mkdir(parents=True, exist_ok=True)
    options = [
        "--quiet",
        "--mode=root",
        "--variant=extract",
        f"--architectures={deb}",
        f"--include={','.join(packages)}",
    ]
    if Path(MERGED).is_dir():
        options.append(f"--hook-dir={MERGED}")
    # Debian has not Ubuntu's keys. What comes unsigned runs in a guest without network, and nowhere else.
    trust = " [trusted=yes]" if mirror != DEBIAN else ""
    run("mmdebstrap", *options, suite, to, f"deb{trust} {mirror} {suite} main")
    done.write_text(wanted)
    return to


def system(name: str) -> Path:
    """The part of the guest that is the same for all kernels of a machine, as a cpio archive."""
    machine = MACHINES[name]
    root = unpacked(DEBIAN, SUITE, machine.deb, PACKAGES, BUILD / f"system-{machine.deb}")
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache", "var/lib/apt"):
        shutil.rmtree(root / folder, ignore_errors=True)
    app = root / "app"
    site = app / "site"
    wheels = site / ".wheels"
    if not wheels.exists() or wheels.read_text() != str(WHEELS):
        shutil.rmtree(site, ignore_errors=True)
        platform = ("--platform", machine.wheels, "--platform", machine.wheels.replace("2014", "_2_28"))
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--python-version", PYTHON)
        run(*pip, *platform, "--target", site, *WHEELS)
        wheels.write_text(str(WHEELS))
    for source in ("src", "tests"):
        shutil.rmtree(app / source, ignore_errors=True)
        shutil.copytree(ROOT / source, app / source, ignore=shutil.ignore_patterns("__pycache__", "_*.so", "unit"))
    for script in sorted((ROOT / "src").rglob("*build.py")):
        binding(name, script, root)
    init = root / "init"
    init.write_text(INIT.format(modules=" ".join(MODULES)))
    init.chmod(0o755)
    return packed(root, BUILD / f"system-{machine.deb}.cpio")


def binding(name: str, script: Path, root: Path) -> None:
    """One of our modules of C, compiled for the machine; with zig where that is not this one."""
    made = BUILD / "binding.c"
    # As cffi does it for setuptools. The limited API's headers are the same on all machines of 64 bits.
    described = subprocess.run(
        [sys.executable, "-c", DESCRIBE, script, made], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    module, options = json.loads(described.splitlines()[-1])
    to = root / "app" / "src" / Path(*module.split(".")).with_suffix(".abi3.so")
    if name == os.uname().machine:
        shutil.copy(ROOT / to.relative_to(root / "app"), to)
        return
    triplet = MACHINES[name].triplet
    libraries = [root / "usr" / "lib" / triplet / f"lib{library}.so.1" for library in options.get("libraries", ())]
    # Of this machine's headers libbpf's alone: zig has those of the C library and of Linux.
    headers = BUILD / "include"
    headers.mkdir(exist_ok=True)
    shutil.copytree("/usr/include/bpf", headers / "bpf", dirs_exist_ok=True)
    includes = [sysconfig.get_path("include"), *options.get("include_dirs", ()), headers]
    sources = [ROOT / source for source in options.get("sources", ())]
    zig = (sys.executable, "-m", "ziglang", "cc", "-target", triplet, "-shared", "-fPIC", "-w")
    flags = (*options.get("extra_compile_args", ()), *(f"-I{ROOT / path}" for path in includes))
    run(*zig, *flags, made, *sources, *libraries, "-o", to)


def kernel(wanted: Kernel) -> tuple[Path, Path, str]:
    """The kernel's image, an archive of the modules that are needed, and its version."""
    deb = MACHINES[wanted.machine].deb
    root = unpacked(wanted.mirror, wanted.suite, deb, wanted.packages, BUILD / f"kernel-{wanted.name}")
    (image,) = (root / "boot").glob("vmlinuz-*")
    version = image.name.removeprefix("vmlinuz-")
    run("depmod", "-b", root, version)
    slim = BUILD / f"modules-{wanted.name}"
    shutil.rmtree(slim, ignore_errors=True)
    for module in MODULES:
        # Its files in the order of loading, or nothing where it is part of the kernel or not there.
        listed = subprocess.run(
            ["modprobe", "-d", root, "-S", version, "--show-depends", module],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        for line in listed.splitlines():
            if line.startswith("insmod "):
                path = Path(line.split()[1])
                to = slim / "usr" / path.relative_to(root).relative_to("usr" if "usr/lib" in str(path) else ".")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to)
    folder = slim / "usr" / "lib" / "modules" / version
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(root / "lib" / "modules" / version / name, folder)
    run("depmod", "-b", slim / "usr", version)
    return image, packed(slim, BUILD / f"modules-{wanted.name}.cpio"), version


def packed(folder: Path, to: Path) -> Path:
    """A folder as a cpio archive in the form that kernels unpack."""
    names = subprocess.run(
        ["find", ".", "-mindepth", "1", "-print0"], cwd=folder, capture_output=True, check=True
    ).stdout
    with to.open("wb") as archive:
        subprocess.run(
            ["cpio", "--quiet", "--null", "--create", "--format=newc", "--owner=0:0"],
            cwd=folder, input=names, stdout=archive, check=True,
        )  # fmt: skip
    return to
