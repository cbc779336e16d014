"""`make accuracy`: every scenario several times; prints expected, measured and error of each."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hosts import netns

from . import report
from .outcome import Outcome
from .situations import ALONE, Run, between_hosts, is_possible

PAGE = Path(__file__).parents[2] / "docs" / "accuracy.md"


def main() -> int:
    """Run what was asked for; returns 0 if no row has an error."""
    parser = argparse.ArgumentParser(prog="python -m accuracy", description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="runs of each scenario, default %(default)s")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.parent.name}/{PAGE.name}")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("this makes network namespaces and loads programs: run it as root", file=sys.stderr)
        return 2
    netns.remove_stale()
    sums: dict[tuple[str, str], Outcome] = {}
    skipped = []

    def repeat(name: str, run: Run) -> None:
        if options.only not in name:
            return
        for _ in range(options.times):
            for outcome in run():
                key = outcome.scenario, outcome.place
                sums[key] = sums[key].plus(outcome) if key in sums else outcome
        wrong = sum(outcome.wrong for outcome in sums.values())
        print(f"{name}: {options.times} runs; {wrong} packets wrong so far", file=sys.stderr, flush=True)

    with between_hosts() as runs:
        for name, run in runs.items():
            repeat(name, run)
    for name, (run, kinds) in ALONE.items():
        if all(map(is_possible, kinds)):
            repeat(name, run)
        else:
            skipped.append(name)
    outcomes = list(sums.values())
    print(report.as_text(outcomes))
    if options.write:
        PAGE.write_text(report.as_markdown(outcomes, skipped))
    return int(any(outcome.wrong or outcome.wrong_bytes for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
