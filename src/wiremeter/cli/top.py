"""`wiremeter top`: what was largest, of a server's flows."""

from __future__ import annotations

from wiremeter.cli.asking import ago, answer
from wiremeter.settings.catalogue import TopCommand


def run(settings: TopCommand) -> int:
    """Prints it. Raises InputError, PermissionNeeded or WiremeterError."""
    fields = {
        "from": ago(settings.since),
        "to": ago(settings.until),
        "filter": settings.filter,
        "by": ",".join(settings.by),
        "sort": settings.amount,
        "limit": settings.limit,
        "once": settings.count_once,
    }
    return answer(settings, "top", fields)
