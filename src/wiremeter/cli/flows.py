"""`wiremeter flows`: flows that a server has stored."""

from __future__ import annotations

from wiremeter.cli.asking import ago, answer
from wiremeter.settings.catalogue import FlowsCommand


def run(settings: FlowsCommand) -> int:
    """Prints them. Raises InputError, PermissionNeeded or WiremeterError."""
    fields = {
        "from": ago(settings.since),
        "to": ago(settings.until),
        "filter": settings.filter,
        "limit": settings.limit,
        "order": settings.order,
    }
    return answer(settings, "flows", fields)
