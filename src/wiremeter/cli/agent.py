"""`wiremeter agent`: the daemon."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from wiremeter.cli.errors import exit_status
from wiremeter.cli.flags import add_command
from wiremeter.errors import WiremeterError
from wiremeter.settings import CONFIG_VARIABLE, DEFAULT_LISTEN, ENVIRONMENT_PREFIX, Settings

_EPILOG = f"""\
Each setting also comes from the environment, such as {ENVIRONMENT_PREFIX}INTERVAL=5s or
{ENVIRONMENT_PREFIX}INTERFACES=eth0,veth*, and from a YAML file (--config, or {CONFIG_VARIABLE}):

    interfaces: [eth0, "veth*"]
    interval: 5s
    listen: "[::]:{DEFAULT_LISTEN.port}"

A flag comes before the environment, the environment before the file. Totals over
stacked devices (a bridge and its ports, VXLAN over eth0) add up to more than the wire.

It ends cleanly, with nothing left attached, on SIGTERM, SIGINT and SIGHUP.
"""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the subcommand and its flags."""
    add_command(
        subparsers,
        "agent",
        run,
        help="meter in the background and serve /metrics to Prometheus",
        description="Meter the devices' traffic and serve it to Prometheus: /metrics, /healthz and /readyz.",
        epilog=_EPILOG,
    )


def run(settings: Settings) -> int:
    """Runs the agent until a signal ends it.

    Raises WiremeterError if it cannot start or go on; with JSON logs that is a log line instead, like all the rest.
    """
    import asyncio

    from wiremeter.agent import logs, loop
    from wiremeter.agent.dedicated import dedicate_process

    dedicate_process()
    logs.configure("debug" if settings.debug else settings.log_level, settings.log_format)
    try:
        asyncio.run(loop.run(settings))
    except WiremeterError as error:
        if settings.log_format == "text":
            raise
        logging.getLogger(__name__).error(str(error), exc_info=settings.debug)
        return exit_status(error)
    return 0
