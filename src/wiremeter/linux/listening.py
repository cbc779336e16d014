"""Listening for connections, and why that could not be."""

from __future__ import annotations

import errno
import socket
from typing import Any

from wiremeter.errors import InputError, PermissionNeeded, WiremeterError
from wiremeter.linux.holders import port_holder
from wiremeter.settings.values import Listen

_BACKLOG = 128


def bind(listen: Listen, setting: str = "listen") -> socket.socket:
    """A TCP socket that listens there. setting: what says where, for messages; its flag is --listen.

    Raises InputError if the address is not ours, cannot be resolved, or is in use, then naming who has it;
    PermissionNeeded for a port below 1024 without the capability.
    """
    try:
        candidates = socket.getaddrinfo(
            listen.host or None, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot listen on {listen}: its host does not resolve ({error}); change --listen") from error
    # Without a host, the IPv6 wildcard takes IPv4 as well; a machine without IPv6 takes the other.
    candidates.sort(key=lambda candidate: candidate[0] != socket.AF_INET6 and not listen.host)
    refusal = OSError(errno.EADDRNOTAVAIL, "no address")
    for family, _, _, _, address in candidates:
        try:
            return socket.create_server(
                address, family=family, backlog=_BACKLOG, dualstack_ipv6=_takes_both(family, address)
            )
        except OSError as error:
            refusal = error
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                break
    raise refusal_of(listen, refusal, setting) from refusal


def refusal_of(listen: Listen, error: OSError, setting: str = "listen") -> WiremeterError:
    """What to tell whoever asked for an address that cannot be had."""
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(listen.port) or "another process"
        return InputError(
            f"cannot listen on {listen}: {holder} has that port already; stop it, "
            f"or choose another address with --listen (or WIREMETER_{setting.upper()}, or {setting} in the file)"
        )
    if error.errno == errno.EACCES:
        return PermissionNeeded(f"cannot listen on {listen}: ports below 1024 need root or CAP_NET_BIND_SERVICE")
    if error.errno == errno.EADDRNOTAVAIL:
        return InputError(f"cannot listen on {listen}: no device of this machine has that address; change --listen")
    return InputError(f"cannot listen on {listen}: {error.strerror}; change --listen")


def _takes_both(family: int, address: Any) -> bool:
    """Whether an address is the IPv6 wildcard, which stands for IPv4 as well."""
    return family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
