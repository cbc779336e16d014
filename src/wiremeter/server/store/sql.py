"""Small pieces of SQL text."""

from __future__ import annotations

from collections.abc import Mapping


def quoted(text: str) -> str:
    r"""A string literal.

    >>> print(quoted("it's"))
    'it\'s'
    """
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def settings_clause(settings: Mapping[str, str | int] | None) -> str:
    """The SETTINGS clause, with a space in front; "" without any.

    >>> settings_clause({"max_threads": 1})
    ' SETTINGS max_threads = 1'
    """
    if not settings:
        return ""
    return " SETTINGS " + ", ".join(
        f"{name} = {quoted(value) if isinstance(value, str) else value}" for name, value in settings.items()
    )
