"""Maps: memory shared with the programs, and the way to wait until none of them still uses an old value."""

from __future__ import annotations

import mmap
import os

from wiremeter.libbpf._ffi import checked, ffi, lib


def map_memory(fd: int, length: int) -> mmap.mmap:
    """An mmapable array map as writable memory; `length` in bytes, rounded up to pages."""
    page = mmap.PAGESIZE
    return mmap.mmap(fd, (length + page - 1) // page * page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def possible_cpus() -> int:
    """How many CPUs this host may ever have: any program runs on one numbered below."""
    return checked(lib.libbpf_num_possible_cpus(), "libbpf_num_possible_cpus", "counting the CPUs that there may be")


def put_program(map_fd: int, program_fd: int) -> None:
    """Puts a program into the first place of a map of programs, for others to go on to."""
    key, value = ffi.new("unsigned int *", 0), ffi.new("unsigned int *", program_fd)
    checked(lib.bpf_map_update_elem(map_fd, key, value, 0), "BPF_MAP_UPDATE_ELEM", "putting a program into a map")


class GracePeriod:
    """Waits until every program that runs now has ended.

    An update of a map of maps returns only after an RCU grace period (kernel/bpf/syscall.c,
    maybe_wait_bpf_programs(), since 4.20): what was written to shared memory before it is seen by every program
    that runs after it.
    """

    def __init__(self) -> None:
        self._inner = checked(lib.wm_map_create_array(b"wm_grace_inner", 4, 1), "BPF_MAP_CREATE", "making a map")
        self._outer = -1
        try:
            self._outer = checked(lib.wm_map_create_outer(b"wm_grace", self._inner), "BPF_MAP_CREATE", "making a map")
        except BaseException:
            self.close()
            raise

    def wait(self) -> None:
        """Takes some 10 ms; other threads run meanwhile."""
        key, value = ffi.new("unsigned int *", 0), ffi.new("unsigned int *", self._inner)
        checked(lib.bpf_map_update_elem(self._outer, key, value, 0), "BPF_MAP_UPDATE_ELEM", "waiting for programs")

    def close(self) -> None:
        """Frees the maps. A second call does nothing."""
        for fd in (self._inner, self._outer):
            if fd >= 0:
                os.close(fd)
        self._inner = self._outer = -1
