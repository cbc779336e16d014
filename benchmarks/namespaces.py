"""Two network namespaces joined by a veth pair, known by file descriptors only: they end with the process, however."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wiremeter.errors import KernelError

CLONE_NEWNET = 0x40000000  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
HERE = Path("/proc/thread-self/ns/net")
SENDER, RECEIVER = "wmsend", "wmrecv"

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace with nothing in it but a loopback device."""

    def __init__(self) -> None:
        """Made anew. Raises KernelError without the permission."""
        with _back_here_after():
            _call("unshare", CLONE_NEWNET)
            self.fd = os.open(HERE, os.O_RDONLY)
            # Whatever speaks by itself would blur the counts.
            for scope in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
            _ip("link", "set", "lo", "up")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread, and the processes it starts, in this namespace for a while."""
        with _back_here_after():
            _call("setns", self.fd, CLONE_NEWNET)
            yield

    def close(self) -> None:
        """Lets go: the kernel removes the namespace when nothing else is in it."""
        os.close(self.fd)


@contextmanager
def veth_pair() -> Iterator[tuple[Namespace, Namespace]]:
    """Namespaces with SENDER in the first and RECEIVER in the second, up, without addresses."""
    with ExitStack() as stack:
        pair = []
        for _ in range(2):
            pair.append(Namespace())
            stack.callback(pair[-1].close)
        sending, receiving = pair
        with sending.entered():
            other = f"/proc/{os.getpid()}/fd/{receiving.fd}"
            _ip("link", "add", SENDER, "type", "veth", "peer", "name", RECEIVER, "netns", other)
            stack.callback(_remove, sending)
            _ip("link", "set", SENDER, "up")
        with receiving.entered():
            _ip("link", "set", RECEIVER, "up")
        yield sending, receiving


@contextmanager
def veth_with_napi() -> Iterator[tuple[Namespace, Namespace]]:
    """The same, and RECEIVER has GRO on: its packets come in through NAPI, as a network card's do."""
    with veth_pair() as (sending, receiving):
        with receiving.entered():
            run("ethtool", "--features", RECEIVER, "gro", "on")
        yield sending, receiving


#: Where in a line of /proc/net/dev a counter stands.
_COUNTERS = {"rx_packets": 1, "rx_dropped": 3, "tx_packets": 9, "tx_dropped": 11}


def device_counter(namespace: Namespace, device: str, counter: str) -> int:
    """One of a device's own counters, by one of the names in _COUNTERS."""
    with namespace.entered():
        for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
            name, _, counters = line.partition(":")
            if name.strip() == device:
                return int(counters.split()[_COUNTERS[counter]])
    raise KernelError(f"no device {device} in its namespace", call="/proc/net/dev")


def end_with_parent() -> None:
    """For a child between fork and exec: SIGTERM when its parent dies, however."""
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGTERM)


def ifindex(namespace: Namespace, device: str) -> int:
    """A device's number in a namespace."""
    with namespace.entered():
        return socket.if_nametoindex(device)


def _remove(sending: Namespace) -> None:
    """Removes the pair at once; the kernel would, but in its own time."""
    with sending.entered():
        _ip("link", "del", SENDER)


@contextmanager
def _back_here_after() -> Iterator[None]:
    before = os.open(HERE, os.O_RDONLY)
    try:
        yield
    finally:
        _call("setns", before, CLONE_NEWNET)
        os.close(before)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments):
        errno = ctypes.get_errno()
        raise KernelError(f"{name}: {os.strerror(errno)}", call=name, errno=errno)


def _ip(*arguments: str) -> None:
    run("ip", *arguments)


def run(*command: str) -> None:
    """Runs a command in the calling thread's namespace. Raises KernelError with its error output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KernelError(f"{' '.join(command)}: {done.stderr.strip()}", call=command[0])
