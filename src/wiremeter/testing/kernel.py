"""Entering and making namespaces: the few calls of the C library that Python has only from 3.12 on."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

from wiremeter.errors import InputError
from wiremeter.testing.errors import CannotMeter

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h

_libc = ctypes.CDLL(None, use_errno=True)


def enter(path: str, kind: int) -> None:
    """Moves this thread into a namespace; into a user namespace only a process with one thread. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, kind), "setns", path)
    finally:
        os.close(fd)


def enter_network(path: str) -> None:
    """Moves this thread into a network namespace that is there.

    Raises InputError where there is none, CannotMeter where this process may not enter it.
    """
    try:
        enter(path, CLONE_NEWNET)
    except PermissionError as error:
        raise CannotMeter(f"the network {path} cannot be entered ({error.strerror}): run the tests as root") from error
    except OSError as error:
        raise InputError(f"there is no network to meter at {path}: {error.strerror}") from error


def make_network(*, own_user: bool) -> None:
    """Moves this process into a new network namespace with loopback up.

    own_user: and into a user namespace in which it is root, which needs no privilege. Raises CannotMeter.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        _check(_libc.unshare(CLONE_NEWNET | (CLONE_NEWUSER if own_user else 0)), "unshare")
        if own_user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as error:
        raise CannotMeter(
            f"no network of its own can be made here ({error}): run the tests as root, or allow unprivileged user "
            "namespaces (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, "
            "user.max_user_namespaces; in a container, its seccomp profile)"
        ) from error
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = bytearray(struct.pack("16sH22x", b"lo", 0))
        fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("H", request, 16)
        struct.pack_into("H", request, 16, flags | _IFF_UP)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)


def _check(result: int, call: str, path: str | None = None) -> None:
    if result:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{call}: {os.strerror(errno)}", path)
