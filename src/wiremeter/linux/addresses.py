"""The addresses of this host, in the calling thread's network namespace."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

_NET = Path("/proc/thread-self/net")
_V4_MAPPED = bytes(10) + b"\xff\xff"


def own_addresses(net: Path = _NET) -> frozenset[bytes]:
    """All of them, 16 bytes in network order, IPv4 as v4-mapped. Nothing where the kernel shows nothing.

    net: a directory with fib_trie and if_inet6, as procfs has it.
    """
    found: set[bytes] = set()
    with contextlib.suppress(OSError):
        lines = (net / "fib_trie").read_text().splitlines()
        # A leaf is the address in one line, what it is for in the next ones: "/32 host LOCAL" for one of ours.
        address = ""
        for line in lines:
            words = line.split()
            if words[:1] == ["|--"]:
                address = words[1]
            elif words == ["/32", "host", "LOCAL"]:
                found.add(_V4_MAPPED + socket.inet_aton(address))
    with contextlib.suppress(OSError):
        found.update(bytes.fromhex(line.split()[0]) for line in (net / "if_inet6").read_text().splitlines())
    return frozenset(found)
