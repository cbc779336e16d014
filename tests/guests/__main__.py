"""`make kernels`: boots kernels of distributions in software and meters in them. Writes docs/kernels.md with --write.

PYTHONPATH=tests python -m guests [--write] [NAME...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import alone, image
from .check import CHECKS
from .kernels import KERNELS, MACHINES, Kernel

DOCUMENT = image.ROOT / "docs" / "kernels.md"
#: A machine in software takes a minute to boot and some to count; one that hangs is ended after this.
SECONDS = 1500
HERE = "this machine"


@dataclass
class Outcome:
    """What a guest said."""

    name: str
    version: str = ""
    machine: str = ""
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_done: bool = False

    def take(self, line: str) -> None:
        """One line of the guest's console."""
        try:
            said = json.loads(line)
        except ValueError:
            return
        if "kernel" in said:
            self.version, self.machine = said["kernel"], said["machine"]
        elif "check" in said:
            self.results[said["check"]] = said
        self.is_done |= "done" in said


def log_of(kernel: Kernel) -> Path:
    """Where the console of a kernel's last boot is."""
    return image.BUILD / f"console-{kernel.name}.log"


def last(kernel: Kernel) -> Outcome:
    """What a kernel's checks said when it was last booted."""
    outcome = Outcome(kernel.name)
    if log_of(kernel).exists():
        for line in log_of(kernel).read_text(errors="replace").splitlines():
            outcome.take(line)
    return outcome


def boot(wanted: Kernel) -> Outcome:
    """Boots a kernel and returns what its checks said. Raises CalledProcessError if its packages cannot be had."""
    machine = MACHINES[wanted.machine]
    kernel, modules, _ = image.kernel(wanted)
    initramfs = image.BUILD / f"initramfs-{wanted.name}.cpio"
    initramfs.write_bytes(image.system(wanted.machine).read_bytes() + modules.read_bytes())
    command = [
        *machine.emulator, "-accel", "tcg,thread=multi", "-smp", "2", "-m", "2G", "-nographic", "-no-reboot",
        "-nic", "none", "-kernel", str(kernel), "-initrd", str(initramfs),
        "-append", f"console={machine.console} quiet panic=-1 rdinit=/init",
    ]  # fmt: skip
    with (
        log_of(wanted).open("w") as console,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
        ) as guest,
    ):
        ending = threading.Timer(SECONDS, guest.kill)
        ending.start()
        assert guest.stdout
        for line in guest.stdout:
            console.write(line)
            console.flush()
        ending.cancel()
    initramfs.unlink()
    return last(wanted)


def here() -> Outcome:
    """The same checks on the running kernel."""
    outcome = Outcome(HERE)
    done = subprocess.run([sys.executable, "-m", "guests.check"], stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        outcome.take(line)
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """Markdown: a kernel a row."""
    checks = (*CHECKS, *alone.CHECKS)
    rows = [["kernel", "machine", *(check.replace("load", "load: instructions verified") for check in checks)]]
    rows.append(["---"] * len(rows[0]))
    for outcome in outcomes:
        cells = []
        for check in checks:
            result = outcome.results.get(check)
            missing = "not tried" if outcome.name == HERE and check in alone.CHECKS else "not reached"
            cells.append(missing if result is None else result["said"] if result["ok"] else "**fails**")
        version = f" ({outcome.version})" if outcome.version else ""
        rows.append([f"{outcome.name}{version}", outcome.machine or "not booted", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def said_of(text: str) -> str:
    """The line that says why: of a traceback the last."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    line = lines[-1] if "Traceback" in text else lines[0]
    return (
        "the kernel's verifier refused" + line.split("the kernel's verifier refused", 1)[-1]
        if "verifier" in line
        else line
    )


def faults(outcomes: list[Outcome]) -> str:
    """Why something failed, and in which checks: a reason a line."""
    checks: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        for check, result in outcome.results.items():
            if not result["ok"]:
                checks.setdefault((outcome.name, said_of(str(result["said"]))), []).append(check)
    return "\n".join(f"- {name} ({'; '.join(failed)}): {why}" for (name, why), failed in checks.items())


def document(outcomes: list[Outcome]) -> str:
    """docs/kernels.md."""
    failed = faults(outcomes)
    return f"""# Kernels that were tried

Written by `make kernels` on {time.strftime("%Y-%m-%d", time.gmtime())}. Each kernel is a distribution's own, booted by
qemu in software, with two CPUs. In it wiremeter is attached to a veth, gets packets whose number, bytes and flows are
known beforehand, over IPv4 and IPv6, and has to tell exactly those; then it is unloaded and nothing of it may be left
in the kernel. Its memory is limited by a cgroup of version 2, and its clock is set, which is not done to this machine.
There are no real network cards in these machines.

{table(outcomes)}
{
        f'''
What fails:

{failed}
'''
        if failed
        else ""
    }"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m guests", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(k.name for k in KERNELS)}; all of them"
    )
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(image.ROOT)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {kernel.name for kernel in KERNELS}:
        parser.error(f"no kernel {', '.join(sorted(unknown))}")
    if os.geteuid():
        parser.error("the running kernel is tried too, and that needs root")
    image.BUILD.mkdir(parents=True, exist_ok=True)
    outcomes = [here()]
    for wanted in KERNELS:
        if not arguments.names or wanted.name in arguments.names:
            print(f"{wanted.name}: console in {log_of(wanted).relative_to(image.ROOT)}", flush=True)
            try:
                outcomes.append(boot(wanted))
            except subprocess.CalledProcessError as error:
                print(f"{wanted.name} cannot be booted: {error}", file=sys.stderr)
                outcomes.append(Outcome(wanted.name))
    print(table(outcomes), faults(outcomes), sep="\n\n")
    if arguments.write:
        DOCUMENT.write_text(document([outcomes[0], *map(last, KERNELS)]))
    return 0 if all(o.is_done and all(r["ok"] for r in o.results.values()) for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
