"""Texts of labels and annotations, with `{{ $labels.NAME }}` and `{{ $value | FILTER }}` in them, as Prometheus has."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from wiremeter.errors import InputError
from wiremeter.reports.units import scale

_FIELD = re.compile(r"\{\{\s*(?:\$labels\.(\w+)|\$value(?:\s*\|\s*(\w+))?)\s*\}\}", re.ASCII)


def _duration(value: float) -> str:
    """Its two largest units.

    >>> _duration(5400), _duration(42), _duration(0.25)
    ('1h 30m', '42s', '0.25s')
    """
    if abs(value) < 60:
        return f"{value:.3g}s"
    rest, parts = int(abs(value)), []
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if rest >= seconds:
            parts.append(f"{rest // seconds}{unit}")
            rest %= seconds
    return ("-" if value < 0 else "") + " ".join(parts[:2])


def _humanize(value: float) -> str:
    return f"{'-' if value < 0 else ''}{''.join(scale(abs(value)))}"


_FILTERS: dict[str, Callable[[float], str]] = {
    "humanize": _humanize,
    "humanizePercentage": lambda value: f"{100 * value:.4g}%",
    "humanizeDuration": _duration,
}


def check_template(text: str, where: str) -> None:
    """Raises InputError for a field that cannot be filled in."""
    rest = _FIELD.sub("", text)
    if "{{" in rest or "}}" in rest:
        raise InputError(
            f"{where}: a field in {text!r} is none of those there are: {{{{ $labels.NAME }}}}, {{{{ $value }}}}, and "
            f"{{{{ $value | FILTER }}}} with one of {', '.join(_FILTERS)}"
        )
    for matched in _FIELD.finditer(text):
        if matched[2] and matched[2] not in _FILTERS:
            raise InputError(f"{where}: there is no filter {matched[2]}; those are {', '.join(_FILTERS)}")


def filled(text: str, labels: Mapping[str, str], value: float) -> str:
    """The text with its fields filled in; a label that is not there is empty.

    >>> filled("{{ $labels.agent }}: {{ $value | humanizePercentage }}", {"agent": "web-1"}, 0.25)
    'web-1: 25%'
    """

    def fill(matched: re.Match[str]) -> str:
        if matched[1]:
            return labels.get(matched[1], "")
        if not math.isfinite(value):
            return str(value)
        return _FILTERS[matched[2]](value) if matched[2] else f"{value:g}"

    return _FIELD.sub(fill, text)
