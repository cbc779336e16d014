"""Objects that are not the meter's: programs of others, and the meter's own sources changed so as to be refused."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wiremeter.libbpf.objects import BpfObject

SOURCES = Path(__file__).parents[2] / "bpf"
CLANGS = [f"clang-{version}" for version in range(19, 13, -1)] + ["clang"]  # as the Makefile looks for them

OTHERS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("tc") int other_ends_chain(struct __sk_buff *skb) { return 2; } /* TCX_DROP */
SEC("tc") int other_goes_on(struct __sk_buff *skb) { return -1; } /* TCX_NEXT */
SEC("xdp") int other_xdp(struct xdp_md *xdp) { return XDP_PASS; }
"""


def compile_bpf(source: Path, object_file: Path, *, include: Path = SOURCES, btf: bool = True) -> Path:
    """Compile C to a BPF object, by default with BTF."""
    clang = next(filter(None, map(shutil.which, CLANGS)))
    flags = ["-target", "bpf", "-mcpu=v3", "-O2", f"-I/usr/include/{platform.machine()}-linux-gnu", f"-I{include}"]
    command = [clang, *flags, *(["-g"] if btf else []), "-c", str(source), "-o", str(object_file)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return object_file


def changed_meter(folder: Path, file: str, old: str, new: str) -> Path:
    """The meter's object, built in `folder` with the first `old` in one of its source files replaced by `new`."""
    sources = shutil.copytree(SOURCES, folder / "bpf")
    text = (sources / file).read_text()
    assert old in text, f"{file} has no {old!r}: change this test with it"
    (sources / file).write_text(text.replace(old, new, 1))
    return compile_bpf(sources / "wiremeter.bpf.c", folder / "changed.bpf.o", include=sources)


@contextmanager
def others(folder: Path, name: str) -> Iterator[int]:
    """A loaded program of somebody else, as a file descriptor."""
    (folder / "others.bpf.c").write_text(OTHERS)
    with BpfObject(compile_bpf(folder / "others.bpf.c", folder / "others.bpf.o")) as opened:
        opened.load(name)
        program_fd = opened.program_fd(name)
    try:
        yield program_fd
    finally:
        os.close(program_fd)
