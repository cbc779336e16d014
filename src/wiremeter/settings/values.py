"""The kinds of value that settings have: how each is read from text or a list, and what is said of a wrong one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from wiremeter.errors import InputError
from wiremeter.settings.words import LONGEST_INTERVAL, SHORTEST_INTERVAL

_Number = TypeVar("_Number", int, float)

#: As a value is given: text, as a flag or a variable has it, a list of texts, or what a caller in Python has already.
Raw = object


class Unfit(ValueError):
    """The value is not of its kind."""


class Listen(NamedTuple):
    """Where /metrics is served. An empty host is every address of this machine; port 0 lets the kernel choose."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it.

        >>> Listen("127.0.0.1", 1).is_loopback, Listen("::1", 1).is_loopback, Listen("", 1).is_loopback
        (True, True, False)
        """
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Values:
    """A kind of value.

    expected: what fits, as a message says it. read: the value, of which more than its text is right; raises Unfit.
    choices: words that can be written, where there are few. is_list: several may be given, with commas between them.
    completes: what a shell may offer: "device", "file" or "directory".
    """

    expected: str
    read: Callable[[Raw], Any]
    choices: tuple[str, ...] = ()
    is_list: bool = False
    completes: str = ""


_UNIT_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds(least: float = SHORTEST_INTERVAL, most: float = LONGEST_INTERVAL) -> Values:
    """A time with a unit, seconds without one.

    >>> seconds().read("500ms"), seconds().read(5)
    (0.5, 5.0)
    """

    def read(raw: Raw) -> float:
        matched = re.fullmatch(r"([0-9]*\.?[0-9]+|[0-9]+\.)\s*([a-z]*)", _text(raw))
        if not matched or matched[2] not in _UNIT_SECONDS:
            raise Unfit
        found = float(matched[1]) * _UNIT_SECONDS[matched[2]]
        return _within(found, least, most)

    return Values(f"seconds from {least:g} to {most:g}, such as 5, 5s or 500ms", read)


def seconds_of(given: float | str) -> float:
    """Seconds, from a number of them or from text with a unit. Raises InputError for other text.

    >>> seconds_of("500ms"), seconds_of(2)
    (0.5, 2)
    """
    if not isinstance(given, str):
        return given
    try:
        return float(duration().read(given))
    except Unfit:
        raise InputError(f"{given!r} is no time: expected {duration().expected}") from None


def duration() -> Values:
    """A time above 0 of a capture or a simulation, where nothing has to keep up with it."""
    read = seconds(1e-9, 1e9).read
    return Values("a time above 0, such as 1s, 500ms or 5m", read)


def whole(least: int, most: int | None = None) -> Values:
    """A whole number from `least` to `most`."""
    if most is None:
        expected = f"a whole number above {least - 1}" if least else "a whole number"
    else:
        expected = f"a whole number from {least} to {most}"
    return Values(expected, lambda raw: _within(_whole(raw), least, most))


def number() -> Values:
    """A number that is not negative."""

    def read(raw: Raw) -> float:
        text = _text(raw)
        if not re.fullmatch(r"([0-9]{1,18}\.?[0-9]*|\.[0-9]+)(e[0-9]{1,2})?", text):
            raise Unfit
        return float(text)

    return Values("a number", read)


def power_of_two(least: int, most: int) -> Values:
    """A power of two; None for `default`."""

    def read(raw: Raw) -> int | None:
        if raw == "default":
            return None
        found = _within(_whole(raw), least, most)
        if found & (found - 1):
            raise Unfit
        return found

    return Values(f"a power of two from {least} to {most}, or default", read)


def choice(*choices: str) -> Values:
    """One of a few words."""

    def read(raw: Raw) -> str:
        if raw not in choices:
            raise Unfit
        return str(raw)

    return Values(f"one of {', '.join(choices)}", read, choices)


def some_of(*choices: str) -> Values:
    """A list of a few words, or none."""

    def read(raw: Raw) -> tuple[str, ...]:
        if raw == "none":
            return ()
        found = _listed(raw)
        if not set(found) <= set(choices):
            raise Unfit
        return found

    return Values(f"none, or some of {', '.join(choices)}", read, (*choices, "none"), is_list=True)


def devices() -> Values:
    """Names and globs of devices."""

    def read(raw: Raw) -> tuple[str, ...]:
        found = _listed(raw)
        if not all(re.fullmatch(r"[^\s/]+", name) for name in found):
            raise Unfit
        return found

    expected = "device names, globs or auto, such as eth0 or eth0,veth*"
    return Values(expected, read, is_list=True, completes="device")


def switch() -> Values:
    """True or false."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

    def read(raw: Raw) -> bool:
        found = raw if isinstance(raw, bool) else words.get(raw.lower()) if isinstance(raw, str) else None
        if found is None:
            raise Unfit
        return found

    return Values("true or false", read, ("true", "false"))


def text(expected: str = "text") -> Values:
    """Any text, the empty one included."""

    def read(raw: Raw) -> str:
        if not isinstance(raw, str):
            raise Unfit
        return raw

    return Values(expected, read)


def path(expected: str, *, default: str = "", completes: str = "file") -> Values:
    """A path; None for the word `default`, if there is one."""

    def read(raw: Raw) -> str | None:
        if default and raw == default:
            return None
        if not isinstance(raw, str) or not raw or "\0" in raw:
            raise Unfit
        return raw

    return Values(expected, read, completes=completes)


def paths() -> Values:
    """Several paths, each a word of its own."""

    def read(raw: Raw) -> tuple[str, ...]:
        if not isinstance(raw, list | tuple) or not all(isinstance(each, str) and each for each in raw):
            raise Unfit
        return tuple(raw)

    return Values("files", read, completes="file")


def spool_directory() -> Values:
    """A directory; None for `default`, and an empty path for `none`."""

    def read(raw: Raw) -> str | None:
        if raw in ("default", "none"):
            return None if raw == "default" else ""
        return path("").read(raw)  # type: ignore[no-any-return]

    return Values("a directory, default or none", read, completes="directory")


def url() -> Values:
    """Where a server is: http or https, a host, and perhaps a port and a path; None for `none`."""

    def read(raw: Raw) -> str | None:
        if raw == "none":
            return None
        host = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)"
        if not isinstance(raw, str) or not re.fullmatch(rf"https?://{host}(?::[0-9]{{1,5}})?(?:/[\w./~-]*)?", raw):
            raise Unfit
        return raw.rstrip("/")

    return Values("a URL such as https://meter.example:8443, without user and password, or none", read)


def urls() -> Values:
    """Several of them, with a query too; who puts a secret into one should do so in a file."""

    def read(raw: Raw) -> tuple[str, ...]:
        if raw in ("none", ()):
            return ()
        found = _listed(raw)
        if not all(re.fullmatch(r"https?://[^/\s?#@]+(?:[/?][^\s#]*)?", each) for each in found):
            raise Unfit
        return tuple(each.rstrip("/") for each in found)

    return Values("URLs, http or https, without user and password, or none", read, is_list=True)


def files() -> Values:
    """A list of files."""

    def read(raw: Raw) -> tuple[str, ...]:
        return () if raw in ("none", ()) else _listed(raw)

    return Values("files, or none", read, is_list=True, completes="file")


def label_names() -> Values:
    """Names of labels."""

    def read(raw: Raw) -> tuple[str, ...]:
        found = _listed(raw)
        if not all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", each, re.ASCII) for each in found):
            raise Unfit
        return found

    return Values("names of labels, such as alertname,agent", read, is_list=True)


_UNIT_BYTES = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def size_in_bytes(least: int, most: int = 1 << 50) -> Values:
    """A number of bytes, with a binary unit or without.

    >>> size_in_bytes(1).read("64MiB"), size_in_bytes(1).read("1g")
    (67108864, 1073741824)
    """

    def read(raw: Raw) -> int:
        matched = re.fullmatch(r"([0-9]{1,15})\s*([kmgt]?)(?:i?b)?", _text(raw).lower())
        if not matched:
            raise Unfit
        return _within(int(matched[1]) << _UNIT_BYTES[matched[2]], least, most)

    return Values("bytes, such as 64MiB or 1GiB", read)


def expressions() -> Values:
    """Filter expressions: a list of them in a file, one in a flag, several in a variable with `;` between them."""

    def read(raw: Raw) -> tuple[str, ...]:
        listed = raw.split(";") if isinstance(raw, str) else raw
        if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
            raise Unfit
        return tuple(each.strip() for each in listed if each.strip())

    return Values("filter expressions such as 'host 192.0.2.7' or 'port 22; domain example.com'", read)


def agent_id() -> Values:
    """What an agent is called; None for `default`."""

    def read(raw: Raw) -> str | None:
        if raw == "default":
            return None
        if not isinstance(raw, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", raw):
            raise Unfit
        return raw

    return Values("letters, digits, dots, dashes and underscores, at most 128, or default", read)


def listen(*, can_be_off: bool = True) -> Values:
    """An address and a port; None for `off`, where that can be."""

    def read(raw: Raw) -> Listen | None:
        if can_be_off and raw == "off":
            return None
        matched = re.fullmatch(r"(?:\[([\w:.%-]+)\]|([\w.-]*)):([0-9]{1,5})", raw) if isinstance(raw, str) else None
        if not matched or int(matched[3]) > 65535:
            raise Unfit
        return Listen(matched[1] or matched[2], int(matched[3]))

    expected = "host:port such as 127.0.0.1:10464 or [::]:10464, :10464 for every address"
    return Values(f"{expected}, or off" if can_be_off else expected, read)


def size() -> Values:
    """Columns and lines of a terminal."""

    def read(raw: Raw) -> tuple[int, int]:
        matched = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", _text(raw))
        if not matched:
            raise Unfit
        return int(matched[1]), int(matched[2])

    return Values("a size such as 120x36", read)


def nearest(word: str, known: Sequence[str]) -> str:
    """The one of `known` that `word` was most likely meant to be; "" if none is near.

    >>> [nearest(word, ["live", "agent", "simulate"]) for word in ("liv", "sim", "xyz")]
    ['live', 'simulate', '']
    """
    import difflib

    near = [each for each in known if word and each.startswith(word)]
    near = near or difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return near[0] if near else ""


def _listed(raw: Raw) -> tuple[str, ...]:
    """The texts of a list, or of a text with commas or blanks between them; each once, at least one."""
    listed = raw.replace(",", " ").split() if isinstance(raw, str) else raw
    if not isinstance(listed, list | tuple) or not listed or not all(isinstance(each, str) for each in listed):
        raise Unfit
    return tuple(dict.fromkeys(listed))


def _whole(raw: Raw) -> int:
    found = _text(raw)
    if not re.fullmatch(r"[0-9]{1,18}", found):
        raise Unfit
    return int(found)


def _text(raw: Raw) -> str:
    """The text of a number or a string; a bool is neither, though Python says it is an int."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise Unfit
    return str(raw).strip()


def _within(found: _Number, least: _Number, most: _Number | None) -> _Number:
    if found < least or (most is not None and found > most):
        raise Unfit
    return found
