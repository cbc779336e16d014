"""Small pieces of SQL text."""

from __future__ import annotations

from collections.abc import Mapping

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


def quoted(text: str) -> str:
    r"""A string literal.

    >>> print(quoted("it's"))
    'it\'s'
    """
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def bound(value: object) -> str:
    r"""A value for `{name:Type}`, as the engine reads it: text escaped, lists in brackets.

    >>> print(bound("a\\b"), bound([1, 2]), bound(["it's"]))
    a\\b [1, 2] ['it\'s']
    """
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    if isinstance(value, list | tuple):
        return f"[{', '.join(quoted(each) if isinstance(each, str) else bound(each) for each in value)}]"
    return str(int(value)) if isinstance(value, bool) else str(value)


def assignments(settings: Mapping[str, str | int]) -> str:
    """Settings as SET and SETTINGS have them.

    >>> assignments({"max_threads": 1, "overflow": "throw"})
    "max_threads = 1, overflow = 'throw'"
    """
    return ", ".join(
        f"{name} = {quoted(value) if isinstance(value, str) else value}" for name, value in settings.items()
    )


def settings_clause(settings: Mapping[str, str | int] | None) -> str:
    """The SETTINGS clause, with a space in front; "" without any."""
    return f" SETTINGS {assignments(settings)}" if settings else ""


def shown_url(url: str) -> str:
    """A store's URL without what is secret in it; a directory as it is.

    >>> shown_url("clickhouse://wm:secret@db:8123/")
    'clickhouse://wm@db:8123/'
    """
    credentials, at, rest = url.partition("//")[2].rpartition("@")
    return f"{url.partition('//')[0]}//{credentials.partition(':')[0]}{at}{rest}" if "//" in url else url
