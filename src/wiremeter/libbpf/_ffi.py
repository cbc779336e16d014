"""The compiled binding, and what its return codes mean to a person."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from wiremeter.errors import MORE_FILES, InputError, KernelError, PermissionNeeded

try:
    from wiremeter.libbpf._libbpf import ffi, lib  # type: ignore[import-not-found,unused-ignore]
except ImportError as error:  # pragma: no cover - only without a Linux build
    raise InputError(
        f"the libbpf binding is not built ({error}); live metering needs Linux: run `make build` there"
    ) from error

lib.wm_keep_messages()

__all__ = ["checked", "ffi", "lib", "messages", "refusal", "text"]


def text(c_string: Any) -> str:
    """A C string as str; "" for NULL."""
    return "" if c_string == ffi.NULL else ffi.string(c_string).decode(errors="replace")


def messages() -> str:
    """What libbpf said on this thread since the last call, and forgets it."""
    buffer = ffi.new("char[]", 16384)
    return bytes(ffi.buffer(buffer, lib.wm_messages_take(buffer, len(buffer)))).decode(errors="replace").strip()


def checked(result: int, call: str, what: str) -> int:
    """`result`, if it is not negative; else raises what `refusal` makes of it."""
    if result >= 0:
        messages()
        return result
    number = -result if result < -1 else ffi.errno or 1
    said = messages()
    raise refusal(f"{what}: {os.strerror(number)}" + (f" ({said})" if said else ""), call, number)


def refusal(text: str, call: str, number: int) -> KernelError | PermissionNeeded:
    """The error that a refusal of the kernel's is to a person, with what to do.

    PermissionNeeded if this process lacks a capability. Where it has them all and is refused nevertheless, being root
    does not help: KernelError, as for any other number.
    """
    if number in (errno.EPERM, errno.EACCES):
        missing = _missing_capabilities()
        if missing:
            return PermissionNeeded(f"{text}; run as root, or with the capabilities {' and '.join(missing)}")
        text += (
            "; this process has the capabilities, so a sandbox around it refuses: a seccomp filter, a security module"
            " (SELinux, AppArmor, lockdown) or a user namespace. Let it call bpf() (docker: --security-opt"
            " seccomp=FILE; systemd: SystemCallFilter=bpf), or use --attach capture, which does without"
        )
    elif number == errno.ENOSYS:
        text += "; this kernel has no such call, or a seccomp filter hides it: use --attach capture, which does without"
    elif number in (errno.EMFILE, errno.ENFILE):
        text += f"; {MORE_FILES}"
    return KernelError(text, call=call, errno=number)


def _missing_capabilities() -> tuple[str, ...]:
    """Of those that programs need (linux/capability.h), those not in effect; CAP_SYS_ADMIN stands for the BPF ones."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # no /proc: who is root has them, as a rule
        return () if os.geteuid() == 0 else ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON")
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    needed = {"CAP_NET_ADMIN": 12} if effective >> 21 & 1 else {"CAP_BPF": 39, "CAP_NET_ADMIN": 12, "CAP_PERFMON": 38}
    return tuple(name for name, bit in needed.items() if not effective >> bit & 1)
