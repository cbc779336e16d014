"""The `wiremeter` command: picks the subcommand, and says in one message what went wrong."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from wiremeter import __version__
from wiremeter.cli import agent, detach, doctor, live, replay, simulate, verify
from wiremeter.cli.errors import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, exit_status, message_for
from wiremeter.cli.flags import settings_given
from wiremeter.errors import WiremeterError

#: In the order of the help text. None of them imports much before it runs.
COMMANDS = (live, agent, replay, simulate, doctor, verify, detach)

_EPILOG = """\
examples:
  wiremeter doctor                     what this host can do, and what will be attached
  wiremeter live                       a live table of devices, flows and protocols
  wiremeter live --once --format json  one interval, for scripts
  wiremeter agent --interface eth0     meter eth0 and serve /metrics to Prometheus
  wiremeter replay traffic.pcap        meter a capture file
  wiremeter simulate --profile dns     meter synthetic traffic with known totals

`wiremeter COMMAND --help` has the details. Metering devices needs root.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv`, by default the process's own; returns its exit status.

    0 when all went well, 2 if an argument or file is wrong, 1 for other errors, 130 after Ctrl-C, 141 when the
    reader of our output went away.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        status = int(args.run(settings_given(args)))
        sys.stdout.flush()
        return status
    except WiremeterError as error:
        if getattr(args, "debug", False):
            traceback.print_exc()
        print(message_for(error), file=sys.stderr)
        return exit_status(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # What is still in the buffer would fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand."""
    parser = argparse.ArgumentParser(
        prog="wiremeter",
        description="A meter on the wire: all the traffic of this host's devices, counted in the kernel with eBPF.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wiremeter {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
