"""`wiremeter query`: SQL over a server's store."""

from __future__ import annotations

from wiremeter.cli.asking import answer
from wiremeter.errors import InputError
from wiremeter.settings.catalogue import QueryCommand


def run(settings: QueryCommand) -> int:
    """Prints the answer. Raises InputError, PermissionNeeded or WiremeterError."""
    if not settings.sql:
        raise InputError("a query is missing, such as: wiremeter query 'SELECT count() FROM flows'")
    return answer(settings, "sql", {"query": " ".join(settings.sql)})
