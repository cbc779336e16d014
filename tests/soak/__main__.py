"""`python -m soak`: agents and a server under faults for as long as you like (`make soak`)."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .soak import Soak


def main() -> int:
    """0 if all that was generated is in the store, once, and what is not is counted."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="wm-soak-", ignore_cleanup_errors=True) as directory:
        outcome = Soak(Path(directory), args.seed, lambda text: print(text, flush=True)).run(args.seconds)
    print(outcome.text())
    return bool(outcome.wrong)


if __name__ == "__main__":
    sys.exit(main())
