"""The program that sends packets: compiled here, run in a namespace, given orders."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.cpus import pinned
from benchmarks.namespaces import SENDER, Namespace
from wiremeter.errors import InputError, KernelError

FRAME_BYTES = 60


def build_program(name: str) -> Path:
    """Compiles benchmarks/`name`.c if its program is older. Raises InputError if there is no compiler."""
    source = Path(__file__).with_name(f"{name}.c")
    program = Path(__file__).parents[1] / "build" / f"bench-{name}"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        compiler = os.environ.get("CC", "gcc")
        try:
            subprocess.run((compiler, "-O2", "-Wall", "-o", program, source), check=True)
        except FileNotFoundError as error:
            raise InputError(
                f"no {compiler} to compile {source.name} with: install it, or name another in CC"
            ) from error
    return program


class Sender:
    """A process that sends out of SENDER on one CPU; receiving happens on the same CPU, right behind each packet."""

    def __init__(self, namespace: Namespace, cpu: int) -> None:
        program = build_program("sender")
        with namespace.entered(), pinned(cpu):
            self._process = subprocess.Popen(
                (program, SENDER, str(FRAME_BYTES)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def random(self, flows: int, packets: int) -> None:
        """Sends `packets`, each of a flow drawn among `flows`; returns when they are received."""
        self._order(f"random {flows} {packets} 0")

    def sweep(self, flows: int, *, first: int = 0, pause_ns: int = 0) -> None:
        """Sends one packet of each flow from `first` on, pausing after every 64."""
        self._order(f"sweep {first} {flows} {pause_ns}")

    def _order(self, order: str) -> None:
        orders, answers = self._process.stdin, self._process.stdout
        assert orders
        assert answers
        try:
            orders.write(order + "\n")
            orders.flush()
            answered = answers.readline()
        except BrokenPipeError:
            answered = ""
        if not answered:
            raise KernelError(f"the sender ended with {self._process.wait()} at {order!r}", call="sendmmsg")
