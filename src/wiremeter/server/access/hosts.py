"""Names and addresses that only this host is reached by."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this host's own loopback.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "", "a.example")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
