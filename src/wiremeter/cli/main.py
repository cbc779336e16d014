"""The `wiremeter` command: runs the subcommand, and says in one message what went wrong."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial

from wiremeter.cli import streams
from wiremeter.cli.errors import EXIT_BROKEN_PIPE, EXIT_ERROR, EXIT_INTERRUPTED, exit_status, message_for
from wiremeter.cli.parser import parse, settings_given
from wiremeter.cli.streams import say
from wiremeter.errors import MORE_FILES, WiremeterError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv`, by default the process's own; returns its exit status.

    0 when all went well, 2 if an argument or file is wrong, 1 for other errors, 130 after Ctrl-C, 141 when the
    reader of our output went away.
    """
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except SystemExit as end:  # argparse's, after help or a mistake
        return _status_after_flush(int(end.code or 0))
    except WiremeterError as error:
        say(message_for(error))
        return _status_after_flush(exit_status(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        return _status_of(error)


def process() -> int:
    """`main` for a process of its own, whose standard streams may be closed, full or of any locale."""
    streams.prepare()
    try:
        return main()
    finally:
        streams.finish()
        # Python's own end is no place for a KeyboardInterrupt, which it would show.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run(argv: Sequence[str]) -> int:
    args = parse(argv)
    if args.command == "help":
        parse([args.about, "--help"] if args.about else ["--help"])
    if args.command == "completion":
        from wiremeter.cli.completion import script

        print(script(args.shell))
        return 0
    settings = settings_given(args)
    if getattr(settings, "format", None) == "json":
        streams.write_utf8()
    try:
        if args.command == "agent":
            return command_named("agent")(settings, partial(settings_given, args))
        return command_named(args.command)(settings)
    except (WiremeterError, OSError):
        if settings.debug:
            say(traceback.format_exc().rstrip())
        raise


def command_named(name: str) -> Callable[..., int]:
    """What runs a command. Loaded when it is needed: help shall not wait for NumPy."""
    run: Callable[..., int] = importlib.import_module(f"wiremeter.cli.{name}").run
    return run


def _status_after_flush(status: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        return _status_of(error)
    return status


def _status_of(error: OSError) -> int:
    """The exit status for an error that nobody below could do anything about, and one message, if it needs one."""
    if error.errno == errno.EPIPE:
        streams.give_up(sys.stdout)
        return EXIT_BROKEN_PIPE
    if isinstance(error, streams.OutputLost):
        streams.give_up(sys.stdout)
        why = "it is closed" if error.errno == errno.EBADF else error.strerror
        say(f"wiremeter: cannot write to standard output: {why}")
    else:
        about = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        more = f"; {MORE_FILES}" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
        say(f"wiremeter: {about}{error.strerror or error}{more}")
    return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(process())
