"""Times and lengths of time as questions have them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

from wiremeter.errors import InputError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_RELATIVE = re.compile(r"-(\d{1,9}(?:\.\d{1,9})?)([smhdw])", re.ASCII)
_SECONDS = re.compile(r"\d{1,11}(?:\.\d{1,9})?", re.ASCII)
_LENGTH = re.compile(r"(\d{1,9})([smhdw]?)", re.ASCII)
_S_NS = 10**9
#: The years that the store's types hold, safely.
_FIRST_NS, _LAST_NS = 0, 4_102_444_800 * _S_NS
#: Steps of time series that are chosen by themselves, in seconds.
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 7 * 86400)


class Span(NamedTuple):
    """From `start_ns` until before `end_ns`, nanoseconds since the Unix epoch."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end_ns - self.start_ns) / _S_NS


def read_span(start: str, end: str, now_ns: int) -> Span:
    """Both ends of a range as users give them. Raises InputError for what cannot be read, and where nothing is between.

    >>> read_span("-5m", "now", 600 * 10**9)
    Span(start_ns=300000000000, end_ns=600000000000)
    """
    span = Span(read_time(start, now_ns), read_time(end, now_ns))
    if span.start_ns >= span.end_ns:
        raise InputError(f"from {start} to {end} is no time at all: the end comes before the start")
    return span


def read_time(text: str, now_ns: int) -> int:
    """One time: RFC 3339, Unix seconds, `-5m` before now (s, m, h, d, w), or now. Raises InputError.

    >>> read_time("2026-01-01T00:00:00Z", 0), read_time("1.5", 0)
    (1767225600000000000, 1500000000)
    """
    if text == "now":
        return now_ns
    if relative := _RELATIVE.fullmatch(text):
        found = now_ns - round(float(relative[1]) * _UNITS[relative[2]] * _S_NS)
    elif _SECONDS.fullmatch(text):
        whole, _, fraction = text.partition(".")
        found = int(whole) * _S_NS + int(fraction.ljust(9, "0"))
    else:
        found = _rfc3339(text)
    if not _FIRST_NS <= found < _LAST_NS:
        raise InputError(f"the time {text} is not between 1970 and 2100")
    return found


def _rfc3339(text: str) -> int:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{text!r} is no time; expected one such as 2026-01-31T12:00:00Z, Unix seconds, -5m or now"
        ) from None
    if parsed.tzinfo is None:
        raise InputError(f"the time {text} has no time zone; put a Z behind it for UTC")
    since = parsed - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * _S_NS + since.microseconds * 1000


def time_text(time_ns: int) -> str:
    """A time as answers have it: RFC 3339, UTC, milliseconds.

    >>> time_text(1_767_225_600_250_000_000)
    '2026-01-01T00:00:00.250Z'
    """
    whole = datetime.fromtimestamp(time_ns // _S_NS, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{time_ns % _S_NS // 1_000_000:03d}Z"


def read_step(text: str) -> int:
    """A step in seconds. Raises InputError.

    >>> read_step("5m"), read_step("90")
    (300, 90)
    """
    found = _LENGTH.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2] or "s"] if found else 0
    if not 1 <= seconds <= 366 * 86400:
        raise InputError(f"{text!r} is no step; expected auto, or a time such as 10s, 5m or 1h")
    return seconds


def choose_step(span: Span, points: int, *, least: int = 1) -> int:
    """The shortest usual step that makes at most so many points of a range; at least `least` seconds.

    >>> choose_step(Span(0, 3600 * 10**9), 120)
    30
    """
    for step in STEPS:
        if step >= least and span.seconds / step <= points:
            return step
    return STEPS[-1] * -(-round(span.seconds) // (STEPS[-1] * points))
