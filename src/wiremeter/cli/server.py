"""`wiremeter server`: collects what agents send, stores it, and answers questions."""

from __future__ import annotations

from wiremeter.cli.streams import say
from wiremeter.errors import InputError
from wiremeter.settings.catalogue import Server


def run(settings: Server) -> int:
    """Serves until a signal ends it."""
    import asyncio
    import logging

    try:
        from wiremeter.server.run import run as serve
    except ImportError as error:
        raise InputError(
            f"the server needs {error.name}, which is not installed: pip install 'wiremeter[server]'"
        ) from error
    from wiremeter.agent import logs

    logs.configure("debug" if settings.debug else settings.log_level, settings.log_format)
    logging.getLogger("httptools").setLevel(logging.WARNING)
    asyncio.run(serve(settings, lambda url: say(f"wiremeter: the server is at {url}")))
    return 0
