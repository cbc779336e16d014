"""Silences: of which alerts nobody is told for a while. Matchers as Alertmanager writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from wiremeter.errors import InputError

_MATCHER = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.ASCII | re.DOTALL)
MATCHERS_MAX = 50
_CHARACTERS_MAX = 1000


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """One silence, from `starts_ns` until before `ends_ns`. by: who made it."""

    id: str
    matchers: list[str]
    by: str
    comment: str
    starts_ns: int
    ends_ns: int

    def is_active(self, now_ns: int) -> bool:
        """Whether it holds now."""
        return self.starts_ns <= now_ns < self.ends_ns


def check_matchers(matchers: Iterable[str]) -> list[str]:
    """Raises InputError for what is no matcher.

    >>> check_matchers(["alertname=AgentAway", "agent=~web-.*"])
    ['alertname=AgentAway', 'agent=~web-.*']
    """
    given = list(matchers)
    if not given:
        raise InputError("a silence needs a matcher, such as alertname=AgentAway: without one it would silence all")
    if len(given) > MATCHERS_MAX or any(len(each) > _CHARACTERS_MAX for each in given):
        raise InputError(f"a silence has at most {MATCHERS_MAX} matchers of {_CHARACTERS_MAX} characters")
    for text in given:
        _parsed(text)
    return given


def is_silenced(labels: Mapping[str, str], matchers: Iterable[str]) -> bool:
    """Whether all matchers fit; a label that is not there is empty.

    >>> is_silenced({"agent": "web-1"}, ["agent=~web-.*", "device!=eth0"])
    True
    """
    return all(_fits(labels.get(name, ""), operator, value) for name, operator, value in map(_parsed, matchers))


def _fits(text: str, operator: str, value: str) -> bool:
    fits = re.fullmatch(value, text) is not None if "~" in operator else text == value
    return fits != operator.startswith("!")


def _parsed(text: str) -> tuple[str, str, str]:
    matched = _MATCHER.fullmatch(text)
    if not matched:
        raise InputError(
            f"{text!r} is no matcher; expected LABEL=VALUE, LABEL!=VALUE, LABEL=~PATTERN or LABEL!~PATTERN"
        )
    name, operator, value = matched.groups()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if "~" in operator:
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(f"{text!r}: the pattern cannot be read: {error}") from None
    return name, operator, value
