"""Numbers for people: SI prefixes, three digits, widths that stay the same while the numbers change."""

from __future__ import annotations

#: Width of every text that `cell` returns.
CELL_WIDTH = 6
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def scale(value: float) -> tuple[str, str]:
    """A number, at least 0, as (text of at most five characters, SI prefix); three digits, whole numbers as they are.

    >>> scale(0), scale(512), scale(3.25), scale(1234), scale(999.7), scale(93_100_000)
    (('0', ''), ('512', ''), ('3.25', ''), ('1.23', 'k'), ('1.00', 'k'), ('93.1', 'M'))
    """
    if value <= 0:
        return "0", ""
    if value < 0.01:
        return "<0.01", ""
    prefixes = iter(_PREFIXES)
    prefix = next(prefixes)
    if value < 1000 and value == int(value):
        return str(int(value)), prefix
    text = _three_digits(value)
    while text is None:
        value /= 1000
        following = next(prefixes, None)
        if following is None:
            return ">999", prefix
        prefix = following
        text = _three_digits(value)
    return text, prefix


def rate_text(value: float, unit: str) -> str:
    """A rate with its unit.

    >>> rate_text(1_240_000_000, "bit/s"), rate_text(3400, "pps"), rate_text(12, "pps")
    ('1.24 Gbit/s', '3.40 kpps', '12 pps')
    """
    number, prefix = scale(value)
    return f"{number} {prefix}{unit}"


def traffic_text(bytes_per_second: float, *, in_bytes: bool = False) -> str:
    """A rate of traffic as people want it: in bits per second, or in bytes.

    >>> traffic_text(155_000_000), traffic_text(155_000_000, in_bytes=True)
    ('1.24 Gbit/s', '155 MB/s')
    """
    return rate_text(bytes_per_second, "B/s") if in_bytes else rate_text(bytes_per_second * 8, "bit/s")


def cell(value: float) -> str:
    """A number for a column whose header names the unit: always CELL_WIDTH characters, prefixes below each other.

    >>> cell(1_240_000_000), cell(93_100), cell(512), cell(0)
    ('1.24 G', '93.1 k', ' 512  ', '   0  ')
    """
    number, prefix = scale(value)
    return f"{number:>4} {prefix:1}"[:CELL_WIDTH] if len(number) < 5 else f"{number} "


def count(value: int) -> str:
    """A whole number in full, by thousands; from ten million with a prefix.

    >>> count(50_123), count(12_345_678)
    ('50,123', '12.3 M')
    """
    return f"{value:,}" if value < 10_000_000 else rate_text(value, "")


def percent(part: float, whole: float) -> str:
    """A share, always seven characters.

    >>> percent(1, 3), percent(0, 0), percent(1, 100_000), percent(5, 5)
    (' 33.3 %', '  0.0 %', ' <0.1 %', '100.0 %')
    """
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.05:
        return " <0.1 %"
    return f"{share:5.1f} %"


def duration_text(time_ns: int) -> str:
    """A length of time, to three digits; time_ns in nanoseconds, at least 0.

    >>> duration_text(850), duration_text(1_240_000), duration_text(61_000_000_000)
    ('850 ns', '1.24 ms', '61 s')
    """
    if time_ns < 1000:
        return f"{time_ns} ns"
    value = float(time_ns)
    for unit in ("µs", "ms"):
        value /= 1000
        text = _three_digits(value)
        if text is not None:
            return f"{text} {unit}"
    return rate_text(value / 1000, "s")


def _three_digits(value: float) -> str | None:
    """`value` to three digits, or None if it takes more before the point."""
    for digits, limit in ((2, 9.995), (1, 99.95), (0, 999.5)):
        if value < limit:
            return f"{value:.{digits}f}"
    return None
