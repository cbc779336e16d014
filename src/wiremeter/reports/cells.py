"""How single facts are written: addresses, flags, sparklines, times."""

from __future__ import annotations

import functools
import socket
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.columns import address_text
from wiremeter.flows.protocols import protocol_name

#: What stands for the traffic without a domain, and for all that is not shown.
NO_NAME = "(no name)"
OTHERS = "(others)"

_BARS = "▁▂▃▄▅▆▇"  # not the full block, so that lines stay apart
_FLAGS = "FSRPAUECN"  # from bit 0 on (RFC 9293, section 3.1; RFC 3540 for the last)


def endpoint(address: NDArray[np.uint8], port: int, protocol: int, *, services: bool = False) -> str:
    """An address with its port, IPv6 in brackets (RFC 3986, section 3.2.2); the address alone if the port is 0.

    services: ports by name, where /etc/services has one.

    >>> endpoint(np.array([0] * 10 + [255, 255, 192, 0, 2, 1], "u1"), 443, 6)
    '192.0.2.1:443'
    """
    text = address_text(address)
    if not port:
        return text
    shown = service_name(port, protocol) if services else str(port)
    return f"[{text}]:{shown}" if ":" in text else f"{text}:{shown}"


@functools.lru_cache(maxsize=4096)
def service_name(port: int, protocol: int) -> str:
    """The name of a port's service, or its number where it has none."""
    try:
        return socket.getservbyport(port, protocol_name(protocol))
    except OSError:
        return str(port)


def flags_text(tcp_flags: int) -> str:
    """TCP flags by their first letters, E for ECE and C for CWR.

    >>> flags_text(0x12), flags_text(0)
    ('SA', '')
    """
    return "".join(letter for bit, letter in enumerate(_FLAGS) if tcp_flags >> bit & 1)


def printable(text: str) -> str:
    """`text` as a terminal may have it: names come from the wire, and may hold what moves a cursor or ends a line.

    >>> printable("www.example.com"), printable("evil\\n\\x1b[2J.example")
    ('www.example.com', 'evil��[2J.example')
    """
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "�" for letter in text)


def utf8_text(name: str) -> str:
    r"""A name that the kernel has in bytes, of a device or a file, as text: bytes that are no UTF-8 as \xff.

    >>> print(utf8_text("eth\udcff"))
    eth\xff
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def elide(text: str, width: int) -> str:
    """`text` in at most `width` characters; what is left out is in the middle, so an address keeps prefix and port.

    >>> elide("[2001:db8:aaaa:bbbb::1]:443", 20)
    '[2001:db8…bb::1]:443'
    """
    if len(text) <= width:
        return text
    tail = width // 2
    return f"{text[: width - tail - 1]}…{text[len(text) - tail :]}" if width > 1 else "…"[:width]


def sparkline(values: Sequence[float] | NDArray[np.float64], width: int, *, logarithmic: bool = False) -> str:
    """The last `width` values as bars, scaled to the largest of them; the newest at the right end. The lowest bar is
    0 and nothing else.

    logarithmic: each bar is ten times the one below, down from the largest.

    >>> sparkline([0, 1, 4, 8], 6)
    '  ▁▂▄▇'
    >>> sparkline([0, 1, 100, 10_000], 4), sparkline([0, 1, 100, 10_000], 4, logarithmic=True)
    ('▁▂▂▇', '▁▃▅▇')
    """
    shown = np.asarray(values, np.float64)[-width:] if width > 0 else np.zeros(0)
    peak = shown.max(initial=0.0)
    if not peak:
        return (_BARS[0] * len(shown)).rjust(width)
    parts = shown / peak
    if logarithmic:
        parts = np.clip(1 + np.log10(np.maximum(parts, 1e-300)) / (len(_BARS) - 1), 1e-3, 1) * (shown > 0)
    levels = np.ceil(parts * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[level] for level in levels).rjust(width)


def bar(share: float, width: int) -> str:
    """A share, 0 to 1, as a bar of `width` characters, to an eighth of a character.

    >>> bar(0.5, 3), bar(1, 3)
    ('█▌ ', '███')
    """
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")).ljust(width)


def clock_time(time_ns: int) -> str:
    """Time of day where this runs, to the second; time_ns since the Unix epoch."""
    return datetime.fromtimestamp(time_ns // 10**9).strftime("%H:%M:%S")


def utc_time(time_ns: int) -> str:
    """RFC 3339, UTC, to the nanosecond; time_ns since the Unix epoch.

    >>> utc_time(1_700_000_000_000_000_001)
    '2023-11-14T22:13:20.000000001Z'
    """
    seconds, fraction = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
