"""Network namespaces as hosts: made under names of ours, entered, run in, and always removed.

Names are `wmtest-<pid>-<number>-<role>`, so that what a killed test run leaves behind can be told from what a
living one uses, and `remove_stale` takes only the former away.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import select
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

PREFIX = "wmtest-"
NETNS_DIR = Path("/run/netns")
CLONE_NEWNET = 0x40000000  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h

#: How many times as long as usual tests wait for what has to happen: in a machine that is played in software.
PATIENCE = float(os.environ.get("WIREMETER_TEST_PATIENCE", "1"))

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = count(1)


class CommandFailed(Exception):
    """A command ended with another status than 0; the text holds what it printed."""


class JobFailed(Exception):
    """A function raised, died or ran out of time in its forked process; the text holds the traceback."""


def command(*argv: str, stdin: str | None = None, timeout: float = 60) -> str:
    """What `argv` prints. Raises CommandFailed with its error output."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, errors="replace", timeout=timeout * PATIENCE, check=False
    )
    if done.returncode:
        raise CommandFailed(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip() or done.stdout}")
    return done.stdout


def wait_until(claim: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Return once `claim` holds; looks again every millisecond. Raises TimeoutError naming `what`."""
    deadline = time.monotonic() + timeout * PATIENCE
    while not claim():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s in vain until {what}")
        time.sleep(0.001)


class Job:
    """A function running in a forked process. `result` waits for what it returns; `kill` ends it."""

    def __init__(self, pid: int, pipe: int, what: str) -> None:
        self.pid = pid
        self._pipe = pipe
        self._what = what
        self._ended = False

    def result(self, timeout: float = 120) -> Any:
        """What the function returned. Raises JobFailed with its traceback, or when `timeout` seconds have passed."""
        try:
            data = self._read_all(timeout)
        finally:
            self.kill()
        if not data:
            raise JobFailed(f"{self._what} died without an answer")
        worked, value = pickle.loads(data)
        if not worked:
            raise JobFailed(f"{self._what} raised in its process:\n{value}")
        return value

    @property
    def has_answered(self) -> bool:
        """Whether `result` has something to read: the answer, its beginning, or the process's death."""
        return self._ended or bool(select.select([self._pipe], [], [], 0)[0])

    def _read_all(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout * PATIENCE
        parts: list[bytes] = []
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._pipe], [], [], left)[0]:
                raise JobFailed(f"{self._what} did not end within {timeout} s")
            part = os.read(self._pipe, 1 << 20)
            if not part:
                return b"".join(parts)
            parts.append(part)

    def kill(self) -> None:
        """End the process at once, if it has not ended, and collect it."""
        if self._ended:
            return
        self._ended = True
        os.close(self._pipe)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def fork(function: Callable[..., Any], *args: Any, before: Callable[[], None] = lambda: None) -> Job:
    """Run `function(*args)` in a forked process, after `before()` there. The answer must pickle.

    The process dies with the thread that forked it.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Job(pid, reading, getattr(function, "__qualname__", repr(function)))
    status = 1
    try:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(reading)
        try:
            before()
            answer = pickle.dumps((True, function(*args)))
        except BaseException:
            answer = pickle.dumps((False, traceback.format_exc()))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        status = 0
    finally:
        os._exit(status)


class Host:
    """A named network namespace."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.name = f"{PREFIX}{os.getpid()}-{next(_numbers)}-{role}"
        self.path = NETNS_DIR / self.name
        self._jobs: list[Job] = []

    def __repr__(self) -> str:
        return f"Host({self.role})"

    def create(self) -> None:
        """Make the namespace, quiet: no IPv6 except where a device gets an address, no surprises in TCP."""
        command("ip", "netns", "add", self.name)
        with self.entered():
            # A device that comes up with IPv6 speaks by itself (RFC 4861, 3810); each such frame would blur a sum.
            for scope in ("all", "default"):
                sysctl(f"ipv6/conf/{scope}/disable_ipv6", 1)
            # SACK blocks would make the length of a TCP header depend on chance.
            sysctl("ipv4/tcp_sack", 0)
            # Spoofed sources and hairpins are part of what tests send.
            for scope in ("all", "default"):
                sysctl(f"ipv4/conf/{scope}/rp_filter", 0)
        self.ip("link set lo up")

    def remove(self) -> None:
        """End what was started here and remove the namespace with its devices; nothing happens if it is gone."""
        for job in self._jobs:
            job.kill()
        with suppress(CommandFailed):
            command("ip", "netns", "del", self.name)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread, and no other, into this namespace for a while.

        A socket stays in the namespace where it was made, whoever uses it later. /proc/net and /sys/class/net show
        another namespace than the thread's; use /proc/thread-self/net.
        """
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            self._enter()
            try:
                yield
            finally:
                _setns(before)
        finally:
            os.close(before)

    def _enter(self) -> None:
        here = os.open(self.path, os.O_RDONLY)
        try:
            _setns(here)
        finally:
            os.close(here)

    def start(self, function: Callable[..., Any], *args: Any) -> Job:
        """Run `function(*args)` in a process inside this namespace, and go on."""
        job = fork(function, *args, before=self._enter)
        self._jobs.append(job)
        return job

    def run(self, function: Callable[..., Any], *args: Any, timeout: float = 120) -> Any:
        """What `function(*args)` returns in a process inside this namespace."""
        return self.start(function, *args).result(timeout)

    def command(self, *argv: str, stdin: str | None = None) -> str:
        """What a command prints that runs inside this namespace."""
        with self.entered():  # a child starts in the namespace of the thread that makes it
            return command(*argv, stdin=stdin)

    def ip(self, *lines: str) -> None:
        """Run lines of `ip` commands, in order, in one process."""
        command("ip", "-n", self.name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def links(self) -> dict[str, dict[str, Any]]:
        """Each device's `ip -j -s -d link` entry by name."""
        listed = json.loads(command("ip", "-n", self.name, "-j", "-s", "-d", "link") or "[]")
        return {link["ifname"]: link for link in listed}


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        errno = ctypes.get_errno()
        raise OSError(errno, f"setns: {os.strerror(errno)}")


def sysctl(path: str, value: int | str) -> None:
    """Set /proc/sys/net/`path` in the calling thread's namespace."""
    Path("/proc/sys/net", path).write_text(str(value))


@contextmanager
def hosts(*roles: str) -> Iterator[list[Host]]:
    """Namespaces, one a role, removed at the end whatever happens."""
    with ExitStack() as stack:
        made = []
        for role in roles:
            host = Host(role)
            stack.callback(host.remove)
            host.create()
            made.append(host)
        yield made


def existing() -> list[str]:
    """Names of all namespaces with our prefix."""
    return sorted(path.name for path in NETNS_DIR.glob(f"{PREFIX}*"))


def remove_stale() -> list[str]:
    """Remove the namespaces of test runs that no longer live; returns their names."""
    stale = [name for name in existing() if not Path("/proc", name.removeprefix(PREFIX).split("-")[0]).exists()]
    for name in stale:
        command("ip", "netns", "del", name)
    return stale
