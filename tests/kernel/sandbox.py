"""What a process is refused in containers and hardened services, for one that a test has forked."""

from __future__ import annotations

import ctypes
import os
import struct

#: By machine: the audit architecture is not looked at, since the process calls by its own numbers only.
SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}[os.uname().machine]

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_SECCOMP_RET_ALLOW, _SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
_LD_W_ABS, _JEQ, _RET = 0x20, 0x15, 0x06  # classic BPF


def refuse(system_call: int, error: int) -> None:
    """From now on the kernel answers a system call of this process with an error number (seccomp(2))."""

    def instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    program = ctypes.create_string_buffer(
        instruction(_LD_W_ABS, 0, 0, 0)  # struct seccomp_data begins with the number
        + instruction(_JEQ, 0, 1, system_call)
        + instruction(_RET, 0, 0, _SECCOMP_RET_ERRNO | error)
        + instruction(_RET, 0, 0, _SECCOMP_RET_ALLOW)
    )
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(program)))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_):
        raise OSError(ctypes.get_errno(), "prctl")
