"""`wiremeter agent`: the daemon."""

from __future__ import annotations

import logging
from collections.abc import Callable

from wiremeter.cli.errors import exit_status
from wiremeter.errors import WiremeterError
from wiremeter.linux.host import read_host
from wiremeter.linux.memory import check_memory
from wiremeter.settings import Settings


def run(settings: Settings, reread: Callable[[], Settings] | None = None) -> int:
    """Runs the agent until a signal ends it. reread: gives the settings once more, on SIGHUP.

    Raises WiremeterError if it cannot start or go on; with JSON logs that is a log line instead, like all the rest.
    """
    import asyncio

    check_memory(read_host().memory_limit_bytes, with_names=settings.reads_payloads)
    from wiremeter.agent import logs, loop
    from wiremeter.agent.dedicated import dedicate_process

    dedicate_process()
    logs.configure("debug" if settings.debug else settings.log_level, settings.log_format)
    try:
        asyncio.run(loop.run(settings, reread=reread))
    except WiremeterError as error:
        if settings.log_format == "text":
            raise
        logging.getLogger(__name__).error(str(error), exc_info=settings.debug)
        return exit_status(error)
    return 0
