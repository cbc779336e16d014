"""The compiled binding, and what its return codes mean to a person."""

from __future__ import annotations

import os
from typing import Any

from wiremeter.errors import InputError, KernelError, PermissionNeeded

try:
    from wiremeter.libbpf._libbpf import ffi, lib  # type: ignore[import-not-found,unused-ignore]
except ImportError as error:  # pragma: no cover - only without a Linux build
    raise InputError(
        f"the libbpf binding is not built ({error}); live metering needs Linux: run `make build` there"
    ) from error

lib.wm_keep_messages()

__all__ = ["checked", "ffi", "lib", "messages", "text"]


def text(c_string: Any) -> str:
    """A C string as str; "" for NULL."""
    return "" if c_string == ffi.NULL else ffi.string(c_string).decode(errors="replace")


def messages() -> str:
    """What libbpf said on this thread since the last call, and forgets it."""
    buffer = ffi.new("char[]", 16384)
    return bytes(ffi.buffer(buffer, lib.wm_messages_take(buffer, len(buffer)))).decode(errors="replace").strip()


def checked(result: int, call: str, what: str) -> int:
    """`result`, if it is not negative; else the error it means.

    Raises PermissionNeeded for EPERM and EACCES, KernelError with call and errno otherwise.
    """
    if result >= 0:
        messages()
        return result
    errno = -result if result < -1 else ffi.errno or 1
    said = messages()
    detail = f"{what}: {os.strerror(errno)}" + (f" ({said})" if said else "")
    if errno in (1, 13):
        raise PermissionNeeded(
            f"{detail}; run as root, or with the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        )
    raise KernelError(detail, call=call, errno=errno)
