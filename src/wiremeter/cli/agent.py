"""`wiremeter agent`: the daemon."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, Any

from wiremeter.cli.errors import exit_status
from wiremeter.errors import WiremeterError
from wiremeter.settings import CONFIG_VARIABLE, DEFAULT_LISTEN, ENVIRONMENT_PREFIX, NAMES, load_settings

if TYPE_CHECKING:
    from wiremeter.settings import Settings

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
    """Adds the subcommand and its flags. A flag that is not given leaves no trace, so other sources count."""
    parser = subparsers.add_parser(
        "agent",
        help="meter in the background and serve /metrics to Prometheus",
        description="Meter the devices' traffic and serve it to Prometheus: /metrics, /healthz and /readyz.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("--config", metavar="FILE", help="YAML file with settings")

    metering = parser.add_argument_group("what is metered")
    add = metering.add_argument
    add(
        "--interface",
        dest="interfaces",
        action="append",
        metavar="NAME",
        help="device, glob such as 'veth*', or auto: what carries the default routes (default). Repeatable",
    )
    add("--interval", metavar="TIME", help="time between two batches, such as 5, 5s, 500ms (default 1s)")
    add("--attach", metavar="HOW", help="auto (default), xdp, xdp-generic, tcx or capture; `wiremeter doctor` explains")
    add("--program", metavar="FILE", help="another compiled object than the one that came with wiremeter")
    add("--flow-table", metavar="LINES", help="lines in each CPU's flow table, a power of two (default: by memory)")
    add("--max-devices", metavar="N", help="most devices at a time (default 32)")
    add(
        "--bpf-stats",
        action=argparse.BooleanOptionalAction,
        help="have the kernel time the programs; costs some ns a packet (default: off)",
    )

    naming = parser.add_argument_group("names", "what is read of packets' payloads (docs/names.md)")
    add = naming.add_argument
    add("--names", metavar="KINDS", help="some of dns,tls,http,quic (default: all), with ptr reverse DNS too; or none")
    add(
        "--payload-bytes",
        metavar="N",
        help="of one packet's payload that are looked at, at most (default 2048; 0: none)",
    )
    add(
        "--redact-paths",
        action=argparse.BooleanOptionalAction,
        help="leave the paths of HTTP requests out (default: on)",
    )
    add("--state-dir", metavar="DIR", help="where what DNS said outlives a restart (default: as systemd says)")
    add("--domains", metavar="N", help="most domains among the labels of metrics (default 100)")

    serving = parser.add_argument_group("what is told")
    add = serving.add_argument
    add("--listen", metavar="HOST:PORT", help=f"where HTTP is served, or off (default {DEFAULT_LISTEN})")
    add("--log-level", metavar="LEVEL", help="debug, info (default), warning or error")
    add("--log-format", metavar="FORMAT", help="text (default) or json")
    add(
        "--debug",
        action=argparse.BooleanOptionalAction,
        help="log at level debug and show tracebacks (default: off)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the agent until a signal ends it.

    Raises WiremeterError if it cannot start or go on; with JSON logs that is a log line instead, like all the rest.
    """
    settings = settings_from(args)

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


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings, with the flags among `args`."""
    flags = {name: value for name, value in vars(args).items() if name in NAMES}
    if "interfaces" in flags:
        flags["interfaces"] = ",".join(flags["interfaces"])
    return load_settings(flags, config=getattr(args, "config", None))
