"""Putting programs on devices and finding out what is there: links for XDP and tcx, filters for clsact."""

from __future__ import annotations

import os
from typing import NamedTuple, Self

from wiremeter.errors import KernelError
from wiremeter.libbpf._ffi import checked, ffi, lib, messages, text

XDP, TCX_INGRESS, TCX_EGRESS = 37, 46, 47  # enum bpf_attach_type
XDP_FLAGS_SKB, XDP_FLAGS_DRIVER = 1 << 1, 1 << 2
BEFORE = 1 << 3  # BPF_F_BEFORE with no one named: first in the chain


class Link:
    """A program on a hook, held by a file descriptor: closing it, or the end of the process, detaches."""

    def __init__(self, program_fd: int, ifindex: int, attach_type: int, flags: int, what: str) -> None:
        self.fd = checked(lib.wm_link_create(program_fd, ifindex, attach_type, flags), "BPF_LINK_CREATE", what)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Detaches. A second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ProgramInfo(NamedTuple):
    """What the kernel knows of a loaded program; run time and count only grow while BPF statistics are on."""

    id: int
    name: str
    run_ns: int
    runs: int
    jited_bytes: int


def program_info(fd: int) -> ProgramInfo:
    """About the program behind a file descriptor."""
    info = ffi.new("struct wm_prog_info *")
    checked(lib.wm_prog_info(fd, info), "BPF_OBJ_GET_INFO_BY_FD", "asking about a program")
    return ProgramInfo(info.id, text(info.name), info.run_ns, info.runs, info.jited_bytes)


def program_name(program_id: int) -> str:
    """A program's name by id; "" when it is gone."""
    fd = lib.bpf_prog_get_fd_by_id(program_id)
    messages()
    if fd < 0:
        return ""
    try:
        return program_info(fd).name
    finally:
        os.close(fd)


def tcx_programs(ifindex: int, attach_type: int) -> list[int]:
    """Ids of the programs on a tcx hook, in the order in which they run.

    Raises KernelError: ENODEV if the device is gone, EINVAL where the kernel has no tcx.
    """
    ids, count = ffi.new("unsigned int[64]"), ffi.new("unsigned int *", 64)
    checked(lib.wm_prog_query(ifindex, attach_type, ids, count), "BPF_PROG_QUERY", f"programs on device {ifindex}")
    return [int(ids[i]) for i in range(count[0])]


def tc_programs(ifindex: int) -> list[tuple[str, int]]:
    """(hook, program id) of what is at a device's tc hooks: all of tcx in order, and our own clsact filters."""
    found = []
    for hook, side in (("tcx ingress", TCX_INGRESS), ("tcx egress", TCX_EGRESS)):
        try:
            found += [(hook, program) for program in tcx_programs(ifindex, side)]
        except KernelError:  # no tcx before Linux 6.6
            break
    for hook, egress in (("clsact ingress", False), ("clsact egress", True)):
        program = filter_program(ifindex, egress)
        if program:
            found.append((hook, program))
    return found


def xdp_programs(ifindex: int) -> tuple[int, int]:
    """Ids of the native and of the generic XDP program of a device, 0 where there is none."""
    native, generic = ffi.new("unsigned int *"), ffi.new("unsigned int *")
    checked(lib.wm_xdp_query(ifindex, native, generic), "RTM_GETLINK", f"XDP programs on device {ifindex}")
    return int(native[0]), int(generic[0])


#: Our place among a device's clsact filters. The handle spells "wm".
FILTER_HANDLE, FILTER_PRIORITY = 0x776D, 1


#: Devices that had no clsact qdisc before this process put a filter on them.
_qdiscs_made: set[int] = set()


class Filter:
    """A program as clsact filter. The kernel keeps it when the process dies: `remove_stale_filters` is for that."""

    def __init__(self, program_fd: int, ifindex: int, egress: bool, what: str) -> None:
        made = ffi.new("int *")
        checked(
            lib.wm_tc_attach(ifindex, egress, program_fd, FILTER_HANDLE, FILTER_PRIORITY, made), "RTM_NEWTFILTER", what
        )
        self._ifindex, self._egress = ifindex, egress
        if made[0]:
            _qdiscs_made.add(ifindex)

    def close(self) -> None:
        """Removes the filter, and the clsact qdisc if we made it and this was its last. A second call does nothing."""
        if self._ifindex:
            lib.wm_tc_detach(self._ifindex, self._egress, FILTER_HANDLE, FILTER_PRIORITY)
            if self._ifindex in _qdiscs_made and not _others_use_qdisc(self._ifindex):
                lib.wm_tc_remove_qdisc(self._ifindex)
                _qdiscs_made.discard(self._ifindex)
            messages()
            self._ifindex = 0


def filter_program(ifindex: int, egress: bool) -> int:
    """Id of the program at our place among the clsact filters, 0 if there is none."""
    found = ffi.new("unsigned int *")
    result = lib.wm_tc_query(ifindex, egress, FILTER_HANDLE, FILTER_PRIORITY, found)
    messages()
    return int(found[0]) if result == 0 else 0


def remove_stale_filters(ifindex: int) -> list[str]:
    """Removes clsact filters of ours that an earlier process left on a device; returns the directions found."""
    removed = []
    for egress in (False, True):
        program = filter_program(ifindex, egress)
        if program and program_name(program).startswith("wm_"):
            lib.wm_tc_detach(ifindex, egress, FILTER_HANDLE, FILTER_PRIORITY)
            removed.append("tx" if egress else "rx")
    if removed and not _others_use_qdisc(ifindex):
        lib.wm_tc_remove_qdisc(ifindex)
    messages()
    return removed


def _others_use_qdisc(ifindex: int) -> bool:
    from wiremeter.libbpf.filters import count_filters

    return count_filters(ifindex) > 0


def enable_statistics() -> int:
    """Turns the kernel's BPF run time statistics on; they stay on until the returned file descriptor is closed."""
    return checked(lib.bpf_enable_stats(0), "BPF_ENABLE_STATS", "turning BPF statistics on (Linux 5.8)")
