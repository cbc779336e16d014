"""Milliseconds from a flip to the flows as one array, and the memory that takes.

The tables are filled by test runs, on two CPUs where there are two. The grace period is left out: it is the kernel's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.cpus import pinned
from benchmarks.memory import resident_mb
from benchmarks.packets import TCP, ipv4
from benchmarks.programs import OBJECT, loaded, require_object
from benchmarks.report import Figure, Progress, figure_of
from benchmarks.testrun import lines_for
from wiremeter.datapath.interval import Interval
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.errors import KernelError
from wiremeter.libbpf.testrun import run_program

GROUP = "drain, grace period excluded: flip to merged flows"
ROUNDS = 9
#: Share of the flows that may find no room in regions of twice their number; two of a million did.
LEFT_OUT_MOST = 1e-5
#: The number of the second CPU's first flow, where it has flows of its own.
APART = 1 << 23

#: (flows, lines of a region or None for what they need, on both CPUs the same flows, target in ms)
CASES = (
    (1_000, 1 << 12, False, 1.0),
    (1_000, None, False, 1.0),
    (1_000, 1 << 21, False, 1.0),
    (100_000, None, False, None),
    (1_000_000, None, False, 150.0),
    (1_000_000, None, True, None),
)


def measure(say: Progress) -> Iterator[Figure]:
    """A figure for each case, and the memory of the largest."""
    require_object()
    cpus = sorted(os.sched_getaffinity(0))[:2]
    for flows, lines, same, target in CASES:
        region_lines = lines or lines_for(flows if same else -(-flows // len(cpus)))
        what = f"{flows:,} flows, {'each on' if same else 'over'} {len(cpus)} CPUs, regions of {region_lines:,} lines"
        say(f"drain: {what}")
        samples, grown = _measure_case(flows, region_lines, same, cpus)
        yield figure_of(GROUP, what, "ms", samples, target)
        if flows == max(flows for flows, *_ in CASES):
            yield figure_of(GROUP, "  memory that these rows take, in the tables' process", "MB", grown)


def _measure_case(flows: int, lines: int, same: bool, cpus: list[int]) -> tuple[list[float], list[float]]:
    """Milliseconds of each drain, and MB of resident memory that its rows add."""
    of_cpu = flows if same else flows // len(cpus)
    samples: list[float] = []
    grown: list[float] = []
    with ExitStack() as stack:
        engine = stack.enter_context(KernelEngine(plan_tables(max(cpus) + 1, lines), OBJECT))
        constants = {"bench_flows": 2, "bench_in_order": 1}
        fill = [
            stack.enter_context(
                loaded(engine, "wm_bench_ingress", **constants, bench_first_flow=0 if same else at * APART)
            )
            for at in range(len(cpus))
        ]
        for _ in range(ROUNDS):
            for cpu, program in zip(cpus, fill, strict=True):
                with pinned(cpu):
                    run_program(program, ipv4(TCP), repeat=of_cpu)
            milliseconds, mb = _drain(engine, of_cpu if same else of_cpu * len(cpus))
            samples.append(milliseconds)
            grown.append(mb)
    return samples, grown


def _drain(engine: KernelEngine, expected: int) -> tuple[float, float]:
    """Milliseconds, and MB of memory more than before.

    Raises KernelError if not the expected flows come out, but for a few that found no room: hashes are chance.
    """
    before = resident_mb(os.getpid())[0]
    interval = Interval()
    drain = engine.flip()
    started = time.perf_counter()
    interval.add(drain, {0: 0})
    rows = interval.flows()
    seconds = drain.drain_seconds + time.perf_counter() - started
    if not expected * (1 - LEFT_OUT_MOST) <= len(rows) <= expected:
        raise KernelError(f"{expected} flows were sent through the program, {len(rows)} came out", call="bench")
    return seconds * 1e3, resident_mb(os.getpid())[0] - before
