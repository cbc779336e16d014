"""`make fuzz`: all fuzzers at once for as long as asked, with a corpus that is kept from run to run."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import fuzzing


def main() -> int:
    """Run them; returns 0 if neither found anything."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for how long, default %(default)s")
    parser.add_argument(
        "--folder", type=Path, default=fuzzing.ROOT / "build" / "fuzz", help="keeps corpus and findings"
    )
    options = parser.parse_args()

    def fuzz(name: str) -> int:
        folder = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        program = fuzzing.build(name, folder)
        seeds = fuzzing.make_seeds(name, folder / "seeds")
        return fuzzing.run(program, folder / "corpus", seeds, options.seconds, watched=True).returncode

    with ThreadPoolExecutor(len(fuzzing.FUZZERS)) as pool:
        failed = [name for name, code in zip(fuzzing.FUZZERS, pool.map(fuzz, fuzzing.FUZZERS), strict=True) if code]
    for name in failed:
        print(f"fuzz_{name} failed; the input is in {options.folder / name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
