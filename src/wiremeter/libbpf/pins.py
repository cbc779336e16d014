"""Names for maps, programs and links in a bpffs, where they outlive the process. Mechanism, no policy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from wiremeter.libbpf._ffi import checked, ffi, lib, messages


def is_bpffs(directory: Path) -> bool:
    """Whether things can be pinned there. Raises KernelError, ENOENT where there is no such directory."""
    return bool(checked(lib.wm_is_bpffs(os.fsencode(directory)), "statfs", str(directory)))


def pin(fd: int, path: Path) -> None:
    """Gives what is behind a file descriptor a name. Raises KernelError, EEXIST where the name is taken."""
    checked(lib.bpf_obj_pin(fd, os.fsencode(path)), "BPF_OBJ_PIN", f"pinning {path}")


def pinned(path: Path) -> int:
    """A file descriptor of what has this name, to be closed; -1 where there is nothing. Raises KernelError."""
    fd = lib.bpf_obj_get(os.fsencode(path))
    if fd < 0 and -fd in (errno.ENOENT,):
        messages()
        return -1
    return checked(fd, "BPF_OBJ_GET", f"opening {path}")


def read_value(map_fd: int, size: int, place: int = 0) -> bytes:
    """A value of an array. size: of the value, in bytes."""
    key, value = ffi.new("unsigned int *", place), ffi.new("char[]", -(-size // 8) * 8)
    checked(lib.bpf_map_lookup_elem(map_fd, key, value), "BPF_MAP_LOOKUP_ELEM", "reading a map")
    return bytes(ffi.buffer(value, size))


def write_value(map_fd: int, value: bytes, place: int = 0) -> None:
    """Sets a value of an array: all of it, whenever this process ends."""
    key = ffi.new("unsigned int *", place)
    checked(lib.bpf_map_update_elem(map_fd, key, value, 0), "BPF_MAP_UPDATE_ELEM", "writing a map")


def make_array(name: str, value_bytes: int, places: int = 1) -> int:
    """An array; its file descriptor, to be closed."""
    return checked(lib.wm_map_create_array(name.encode(), value_bytes, places), "BPF_MAP_CREATE", f"making {name}")


def map_size(map_fd: int) -> int:
    """Bytes of a map's value."""
    shape = ffi.new("struct wm_map_shape *")
    checked(lib.wm_map_shape_of(map_fd, shape), "BPF_OBJ_GET_INFO_BY_FD", "asking about a map")
    return int(shape.value_size)
