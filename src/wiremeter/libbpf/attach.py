"""Putting programs on devices and finding out what is there: links for XDP and tcx, filters for clsact."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple, Self

from wiremeter.libbpf._ffi import checked, ffi, lib, messages, text

XDP, TCX_INGRESS, TCX_EGRESS = 37, 46, 47  # enum bpf_attach_type
XDP_FLAGS_SKB, XDP_FLAGS_DRIVER = 1 << 1, 1 << 2
BEFORE = 1 << 3  # BPF_F_BEFORE with no one named: first in the chain


class Link:
    """A program on a hook, held by a file descriptor: closing it, or the end of the process, detaches, unless it is
    pinned."""

    def __init__(self, program_fd: int, ifindex: int, attach_type: int, flags: int, what: str) -> None:
        self.fd = checked(lib.wm_link_create(program_fd, ifindex, attach_type, flags), "BPF_LINK_CREATE", what)

    @classmethod
    def of(cls, fd: int) -> Self:
        """A link that is there already, as one that was pinned."""
        link = cls.__new__(cls)
        link.fd = fd
        return link

    @property
    def is_severed(self) -> bool:
        """Whether its device is gone."""
        return not checked(lib.wm_link_ifindex(self.fd), "BPF_OBJ_GET_INFO_BY_FD", "asking about a link")

    def update(self, program_fd: int) -> None:
        """Puts another program of the same kind in the place of this one; no packet passes without one."""
        checked(lib.wm_link_update(self.fd, program_fd), "BPF_LINK_UPDATE", "replacing a program")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of it. A second call does nothing."""
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


def xdp_programs(ifindex: int) -> tuple[int, int]:
    """Ids of the native and of the generic XDP program of a device, 0 where there is none."""
    native, generic = ffi.new("unsigned int *"), ffi.new("unsigned int *")
    checked(lib.wm_xdp_query(ifindex, native, generic), "RTM_GETLINK", f"XDP programs on device {ifindex}")
    return int(native[0]), int(generic[0])


#: Our place among a device's clsact filters. The handle spells "wm".
FILTER_HANDLE, FILTER_PRIORITY = 0x776D, 1


def make_qdisc(ifindex: int, what: str) -> bool:
    """Makes a device's clsact qdisc; False where it has one. Raises KernelError or PermissionNeeded."""
    return bool(checked(lib.wm_tc_make_qdisc(ifindex), "RTM_NEWQDISC", what))


def attach_filter(program_fd: int, ifindex: int, egress: bool, what: str, *, replace: bool = False) -> None:
    """Puts a program among the filters of a device's clsact qdisc, where it outlives this process.

    replace: in the place of the one at our place; no packet passes without one.
    Raises KernelError, EEXIST where there is one at our place already, or PermissionNeeded.
    """
    result = lib.wm_tc_attach(ifindex, egress, program_fd, FILTER_HANDLE, FILTER_PRIORITY, replace)
    checked(result, "RTM_NEWTFILTER", what)


def detach_filter(ifindex: int, egress: bool) -> bool:
    """Removes the filter at our place; False if there is none. Raises KernelError."""
    result = lib.wm_tc_detach(ifindex, egress, FILTER_HANDLE, FILTER_PRIORITY)
    return _was_there(result, "RTM_DELTFILTER", f"removing the filter from device {ifindex}")


def filter_program(ifindex: int, egress: bool) -> int:
    """Id of the program at our place among the clsact filters, 0 if there is none. Raises KernelError."""
    found = ffi.new("unsigned int *")
    result = lib.wm_tc_query(ifindex, egress, FILTER_HANDLE, FILTER_PRIORITY, found)
    there = _was_there(result, "RTM_GETTFILTER", f"asking for the filter on device {ifindex}")
    return int(found[0]) if there else 0


def _was_there(result: int, call: str, what: str) -> bool:
    """False for the errors that mean: no such filter, no such qdisc or chain, no such device."""
    if -result in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
        messages()
        return False
    checked(result, call, what)
    return True


def remove_qdisc(ifindex: int) -> None:
    """Removes the clsact qdisc with all filters that are on it, whoever put them there. Raises KernelError."""
    checked(lib.wm_tc_remove_qdisc(ifindex), "RTM_DELQDISC", f"removing the clsact qdisc from device {ifindex}")


def enable_statistics() -> int:
    """Turns the kernel's BPF run time statistics on; they stay on until the returned file descriptor is closed."""
    return checked(lib.bpf_enable_stats(0), "BPF_ENABLE_STATS", "turning BPF statistics on (Linux 5.8)")
