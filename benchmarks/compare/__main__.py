"""`python -m benchmarks.compare`: wiremeter beside what it replaces, under the same traffic, in one run."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from benchmarks.compare import cgroups
from benchmarks.compare.document import write_document
from benchmarks.compare.figures import Comparison, as_json, as_table
from benchmarks.compare.meters import NOTHING, all_meters
from benchmarks.compare.names import CONNECTIONS, CONNECTIONS_QUICK, NamesRun, compare_names
from benchmarks.compare.run import FULL, QUICK, Run, compare
from benchmarks.machine import machine_facts
from wiremeter.errors import WiremeterError

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "build" / "compare.json"
DEFAULT_FLOW_TABLE = 1 << 17
#: On a veth `auto` is tcx; and one program's run time tells enough.
LEFT_OUT_WHEN_QUICK = ("auto", "xdp-stats", "names-stats", "scapy", "pmacctd")


def main() -> int:
    """Compares; 0 whatever comes out, 130 when interrupted, with what was measured so far."""
    args = _parser().parse_args()
    if os.geteuid():
        print("the comparison makes namespaces and loads programs: run it as root (sudo make compare)", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {what}", file=sys.stderr, flush=True)

    machine = machine_facts()
    trials = QUICK if args.quick else FULL
    rounds = args.rounds or (1 if args.quick else 2)
    runs: list[Run] = []
    names: list[NamesRun] = []
    status = 0
    with tempfile.TemporaryDirectory(prefix=f"{cgroups.PREFIX}{os.getpid()}-") as folder:
        cgroups.remove_stale()
        meters = all_meters(args.flow_table)
        chosen = [meter for meter in meters if not args.only or meter.name in args.only]
        if args.quick and not args.only:
            chosen = [meter for meter in chosen if meter.name not in LEFT_OUT_WHEN_QUICK]
        present = [meter for meter in chosen if not meter.missing]
        for meter in chosen:
            if meter.missing:
                say(f"left out: {meter.text}: {meter.missing}")
        failures: dict[str, str] = {}
        try:
            for run in compare(present, trials, rounds, Path(folder), failures, say):
                runs.append(run)  # one by one: an interrupt must not take those that are there
            if not args.only:
                connections = CONNECTIONS_QUICK if args.quick else CONNECTIONS
                names.extend(compare_names(connections, Path(folder), failures, say))
        except KeyboardInterrupt:
            say("interrupted; what was measured so far:")
            status = 130
        except WiremeterError as error:
            say(f"failed: {error}")
            status = 1
    command = shlex.join(("python", "-m", "benchmarks.compare", *sys.argv[1:]))
    left_out = {meter.text: meter.missing for meter in chosen if meter.missing} | failures
    comparison = Comparison(
        machine,
        [NOTHING, *present],
        trials,
        rounds,
        command,
        args.flow_table,
        left_out,
        runs,
        time.monotonic() - started,
        names,
    )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(as_json(comparison))
    print(as_table(comparison))
    if args.write and runs:
        write_document(comparison, DOCUMENT)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer loads, one round: some three minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each meter has its turn (2; quick: 1)")
    parser.add_argument("--only", action="append", metavar="METER", help="only this one, by its short name; repeatable")
    parser.add_argument(
        "--flow-table",
        type=int,
        metavar="LINES",
        default=DEFAULT_FLOW_TABLE,
        help=f"of each of wiremeter's, programs and capture alike (default {DEFAULT_FLOW_TABLE})",
    )
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(ROOT)} and its plots")
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
