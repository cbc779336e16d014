"""`python -m release`: the wheel of dist/, installed in bare roots of Debian that hold none of the tools it was built
with, meters exactly what is sent (`make release-test`; root)."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from .root import Root

SUITES = {"bookworm": "3.11", "trixie": "3.13"}
EXACT = Path(__file__).with_name("exact.py")


def main() -> int:
    """0 if it is exact in each of them."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("suites", nargs="*", default=list(SUITES), metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    args = parser.parse_args()
    wheels = list(args.dist.glob("*.whl"))
    if len(wheels) != 1:
        print(f"{args.dist} has {len(wheels)} wheels, and one is needed: make release", file=sys.stderr)
        return 1
    failed = [suite for suite in args.suites if not is_exact(suite, wheels[0])]
    print(f"not right in: {', '.join(failed)}" if failed else "right in all")
    return bool(failed)


def is_exact(suite: str, wheel: Path) -> bool:
    """Installs the wheel in a root of that release, and meters there."""
    print(f"{suite}: making a root", flush=True)
    with tempfile.TemporaryDirectory(prefix="wm-release-") as directory:
        root = Root(Path(directory) / "root", suite)
        fetch(wheel, SUITES[suite], root.path / "wheels")
        (root.path / EXACT.name).write_bytes(EXACT.read_bytes())
        print(f"{suite}: installing, metering", flush=True)
        for command in (
            "python3 -m venv /opt/wiremeter",
            "/opt/wiremeter/bin/pip install -q --no-index --find-links /wheels wiremeter",
            "/opt/wiremeter/bin/wiremeter verify",
            "unshare --net /opt/wiremeter/bin/wiremeter doctor lo",
            f"unshare --net /opt/wiremeter/bin/python /{EXACT.name}",
        ):
            done = root.run(command)
            if done.returncode:
                print(f"{suite}: `{command}` ended with {done.returncode}:\n{done.stdout}{done.stderr}", flush=True)
                return False
        print(f"{suite}: {done.stdout.strip()}", flush=True)
    return True


def fetch(wheel: Path, python: str, to: Path) -> None:
    """The wheel and all that it needs, for that version of Python."""
    command = f"{shlex.quote(sys.executable)} -m pip download -q --only-binary=:all: --python-version {python}"
    subprocess.run([*shlex.split(command), "-d", to, str(wheel)], check=True)


if __name__ == "__main__":
    sys.exit(main())
