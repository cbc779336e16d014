"""wiremeter verify: check the compiled objects."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

_MARKS = {True: "ok", False: "FAILED", None: "skipped"}


def add_parser(subparsers: Any) -> None:
    """Adds `wiremeter verify` to the command line."""
    parser = subparsers.add_parser(
        "verify",
        help="check compiled objects: ELF, programs, maps, BTF, and a trial load",
        description="Checks compiled BPF objects: ELF type and machine, programs and their sections, maps, the shared "
        "records by BTF, and as root a trial load of every program by the running kernel's verifier. "
        "Exit status 1 if any check fails.",
    )
    parser.add_argument(
        "program", nargs="*", metavar="FILE", help="objects to check (the one that came with wiremeter)"
    )
    parser.add_argument("--no-load", action="store_true", help="look at the file only")
    parser.add_argument("--log", action="store_true", help="print the verifier's whole log where it refuses a program")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks each object and reports."""
    from wiremeter.datapath.kernel import default_program
    from wiremeter.datapath.verification import verify_object

    load = os.geteuid() == 0 and not args.no_load
    reports = {path: verify_object(path, load=load) for path in map(Path, args.program or [default_program()])}
    if args.format == "json":
        print(json.dumps([{"file": str(f), "checks": [dataclasses.asdict(c) for c in r]} for f, r in reports.items()]))
    else:
        for path, checks in reports.items():
            print(path)
            for check in checks:
                print(f"  {_MARKS[check.passed]:<8}{check.name:<20}{check.detail}")
                if args.log and check.log:
                    print(check.log)
    return 0 if all(check.passed is not False for checks in reports.values() for check in checks) else 1
