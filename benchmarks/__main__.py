"""`python -m benchmarks`: measures, and holds the figures against their targets."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, MappingProxyType

from benchmarks import agent, backlog, drain, idle, ingest, live, names, shipping, start, store, testrun
from benchmarks.document import write_tables
from benchmarks.machine import machine_facts
from benchmarks.report import Figure, Progress, as_json, as_table
from wiremeter.errors import WiremeterError

BENCHMARKS: Mapping[str, Callable[[Progress], Iterator[Figure]]] = MappingProxyType(
    {
        "testrun": testrun.measure,
        "live": live.measure,
        "drain": drain.measure,
        "agent": agent.measure,
        "names": names.measure,
        "store": store.measure,
        "idle": idle.measure,
        "ingest": ingest.measure,
        "shipping": shipping.measure,
        "backlog": backlog.measure,
        "start": start.measure,
    }
)


def main() -> int:
    """Runs what was asked for; 0 whether targets are reached or not: a benchmark tells, a test judges."""
    args = _parser().parse_args()
    if os.geteuid():
        print("the benchmarks load programs into the kernel: run them as root (sudo make bench)", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started this with SIGINT ignored
        signal.signal(number, _interrupt)
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {what}", file=sys.stderr, flush=True)

    machine = machine_facts()
    figures: list[Figure] = []
    status = 0
    try:
        for name in args.only or BENCHMARKS:
            figures.extend(BENCHMARKS[name](say))
    except KeyboardInterrupt:
        say("interrupted; what was measured so far:")
        status = 130
    except WiremeterError as error:
        say(f"failed: {error}")
        status = 1
    print(as_json(machine, figures) if args.format == "json" else as_table(machine, figures))
    if args.write and not status:
        try:
            say(f"written: {', '.join(str(page) for page in write_tables(machine, figures))}")
        except WiremeterError as error:
            say(f"nothing is written: {error}")
            return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--format", choices=("text", "json"), default="text", help="a table (default), or JSON")
    parser.add_argument(
        "--write", action="store_true", help="put the figures into README.md and docs/design/performance.md"
    )
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
