"""Addresses as flows have them."""

from __future__ import annotations

import ipaddress


def address(text: str) -> bytes:
    """16 bytes, IPv4 as v4-mapped."""
    packed = ipaddress.ip_address(text).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed
