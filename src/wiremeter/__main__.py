"""`python -m wiremeter`, and what the command `wiremeter` runs."""

from __future__ import annotations

import sys


def main() -> int:
    """The command; returns its exit status. Ctrl-C is quiet from the first moment, while modules are still read."""
    try:
        from wiremeter.cli.main import process

        return process()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
