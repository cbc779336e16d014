"""The seal: behind it a process computes, talks over what it has, and dies of anything else."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wiremeter.isolation.seal import NOBODY, seal


def outcome(act: Callable[[], object]) -> int:
    """How a sealed process ends that does this: 0, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        try:
            seal()
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_memory() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def make_runnable(memory: mmap.mmap) -> None:
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC)


FORBIDDEN: dict[str, Callable[[], object]] = {
    "opening a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "looking at a file": lambda: os.stat("/"),
    "listing a directory": lambda: os.listdir("/"),
    "a socket": socket.socket,
    "a process": os.fork,
    "a thread": lambda: threading.Thread(target=time.sleep, args=(1,)).start(),
    "another program": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "a signal to another": lambda: os.kill(os.getppid(), signal.SIGUSR1),
    "a signal to itself": lambda: os.kill(os.getpid(), signal.SIGUSR1),
    "another user": lambda: os.setuid(0),
    "another descriptor": lambda: os.dup(0),
    "memory to run": run_memory,
    "memory that becomes such": lambda: make_runnable(mmap.mmap(-1, mmap.PAGESIZE)),
    "BPF": lambda: ctypes.CDLL(None).syscall({"x86_64": 321, "aarch64": 280}[os.uname().machine], 0, None, 0),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_forbidden_call_kills(what: str) -> None:
    assert outcome(FORBIDDEN[what]) == -signal.SIGSYS


COMPUTING = """
import ctypes, mmap, os, time
from wiremeter.isolation.seal import seal

libc = ctypes.CDLL(None)
seal()
blocks = [bytearray(1 << size) for size in range(24)]  # memory of every size
blocks.clear()
memory = mmap.mmap(-1, mmap.PAGESIZE)
assert libc.mprotect(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory))), mmap.PAGESIZE, 1) == 0
os.write(1, b"told" + str(time.monotonic() > 0).encode() + os.urandom(1))
os._exit(0)
"""


def test_computing_and_talking_is_allowed() -> None:
    """In a process of its own: what other tests left in this one may be more memory than the seal allows."""
    done = subprocess.run([sys.executable, "-c", COMPUTING], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout[:8]) == (0, b"toldTrue"), done.stderr


def test_nothing_is_left_of_privileges() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        seal()
        os.write(writing, b"x")
        while True:
            os.read(0, 1)
    try:
        os.read(reading, 1)
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)
    assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0, 0, 0, 0]
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    if os.geteuid() == 0:
        assert int(status["CapBnd"], 16) == 0
        assert status["Uid"].split() == status["Gid"].split() == [str(NOBODY)] * 4
        assert not status["Groups"].split()
