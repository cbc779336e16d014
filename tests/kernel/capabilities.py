"""Giving up capabilities, in a process that is there for that."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Collection

CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 12, 21, 38, 39  # linux/capability.h
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def give_up(numbers: Collection[int]) -> None:
    """From now on the calling process lacks these capabilities; it stays root, so it may still read files."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(24)  # effective, permitted, inheritable: the lower 32 bits, then the upper ones
    _call(_libc.capget(header, data))
    lower, upper = struct.unpack_from("=I", data, 4)[0], struct.unpack_from("=I", data, 16)[0]
    left = (lower | upper << 32) & ~sum(1 << number for number in numbers)
    struct.pack_into("=6I", data, 0, left & 0xFFFFFFFF, left & 0xFFFFFFFF, 0, left >> 32, left >> 32, 0)
    _call(_libc.capset(header, data))


def _call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "capset")
