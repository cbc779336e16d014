"""Nanoseconds per packet in test runs: BPF_PROG_TEST_RUN calls a program again and again on one packet, in the kernel.

Warm: nothing but the program runs, so its code, and what part of the table fits, stay in the caches. That makes it
the figure for instructions, and for regressions; `live` is the truth. Time is the thread's own CPU time over the whole
call, which leaves out other processes and is finer than the whole nanoseconds that the kernel returns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import packets
from benchmarks.cpus import measured_cpu, pinned
from benchmarks.programs import OBJECT, fill, loaded, require_object
from benchmarks.report import Figure, Progress, figure_of_difference
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import DEFAULT_LINES, plan_tables
from wiremeter.libbpf.testrun import run_program

GROUP = "test run (warm), ns per packet, empty program subtracted"
#: A program's speed depends on where in memory its code happens to lie, so each is loaded several times.
LOADS = 5
ROUNDS = 9
REPEAT = 100_000


@dataclass(frozen=True, slots=True)
class Case:
    """What is run: the bench program `meter` less `base`, on `packet` with `flows` drawn at random."""

    what: str
    packet: bytes
    flows: int = 1
    target: float | None = None
    meter: str = "wm_bench_ingress"
    base: str = "wm_bench_rewrite"
    address_at: int = packets.SOURCE_IPV4
    vlan: int = 0
    gso_size: int = 0

    @property
    def is_skb(self) -> bool:
        """Whether the program is a tc program."""
        return self.base == "wm_bench_rewrite"


_TCP4, _TCP6 = packets.ipv4(packets.TCP), packets.ipv6(packets.TCP)

CASES = (
    Case("IPv4/TCP, 1 flow, ingress", _TCP4, 1, 15),
    Case("IPv4/TCP, 1 flow, egress", _TCP4, 1, 15, meter="wm_bench_egress"),
    Case("IPv4/TCP, 1,000 flows, ingress", _TCP4, 1_000),
    Case("IPv4/TCP, 50,000 flows, ingress", _TCP4, 50_000, 30),
    Case("IPv4/TCP, 50,000 flows, egress", _TCP4, 50_000, 30, meter="wm_bench_egress"),
    Case("IPv4/TCP, 1,000,000 flows, ingress", _TCP4, 1_000_000),
    Case("IPv4/UDP, 1 flow, ingress", packets.ipv4(packets.UDP)),
    Case("IPv4/TCP, VLAN tag in metadata, 1 flow, ingress", _TCP4, vlan=77),
    Case("IPv4/TCP, super-packet, 1 flow, ingress", packets.ipv4(packets.TCP, 3000), gso_size=1448),
    Case("IPv6/TCP, 1 flow, ingress", _TCP6, address_at=packets.SOURCE_IPV6),
    Case("IPv6/TCP, 50,000 flows, ingress", _TCP6, 50_000, address_at=packets.SOURCE_IPV6),
    Case("IPv4/TCP, 1 flow, XDP", _TCP4, meter="wm_bench_xdp", base="wm_bench_empty_xdp"),
)


def measure(say: Progress) -> Iterator[Figure]:
    """A figure for each case."""
    require_object()
    with pinned(measured_cpu()):
        for case in CASES:
            say(f"test run: {case.what}")
            yield _measure_case(case)


def lines_for(flows: int) -> int:
    """Lines of a region that keeps so many flows without asking for a flip; at least the default.

    >>> lines_for(1_000_000)
    2097152
    """
    return max(DEFAULT_LINES, 1 << (2 * flows - 1).bit_length())


def _measure_case(case: Case) -> Figure:
    constants = {
        "bench_flows": case.flows,
        "bench_address_at": case.address_at,
        "bench_vlan": case.vlan,
    }
    base_samples: list[float] = []
    meter_samples: list[float] = []
    for _ in range(LOADS):
        with KernelEngine(plan_tables(measured_cpu() + 1, lines_for(case.flows)), OBJECT) as engine:
            if case.is_skb:
                _fill(engine, case, constants)
            else:
                engine.prepare(Hook("bench", 0, "rx", "xdp", load_only=True))
            with loaded(engine, case.base, **constants) as base, loaded(engine, case.meter, **constants) as meter:
                for _ in range(ROUNDS):
                    base_samples.append(_run(case, base, REPEAT))
                    meter_samples.append(_run(case, meter, REPEAT))
    return figure_of_difference(GROUP, case.what, "ns", meter_samples, base_samples, case.target)


def _fill(engine: KernelEngine, case: Case, constants: dict[str, int]) -> None:
    def sweep() -> None:
        with loaded(engine, case.meter, **constants, bench_in_order=1) as in_order:
            _run(case, in_order, case.flows)

    fill(engine, sweep)


def _run(case: Case, program: int, repeat: int) -> float:
    """Nanoseconds of one run."""
    started = time.thread_time_ns()
    run_program(program, case.packet, repeat=max(repeat, 2), gso_size=case.gso_size, skb=case.is_skb)
    return (time.thread_time_ns() - started) / max(repeat, 2)
