"""Nanoseconds per packet on a live device: a veth pair into a namespace, timed by the kernel's BPF statistics.

Cold: between two packets the whole network stack runs, so the program finds little of its data in the nearer caches.
The empty program is measured in the same rounds, at the same hook, and subtracted: what is left of the statistics'
own clock calls goes with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.cpus import measured_cpu
from benchmarks.namespaces import RECEIVER, SENDER, Namespace, ifindex, veth_pair
from benchmarks.programs import entry, fill, loaded_alone, require_object
from benchmarks.report import Figure, Progress, figure_of_difference
from benchmarks.sender import Sender
from benchmarks.testrun import lines_for
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.errors import KernelError
from wiremeter.flows.columns import Direction
from wiremeter.libbpf.attach import BEFORE, TCX_EGRESS, TCX_INGRESS, Link, enable_statistics, program_info

GROUP = "live on veth (cold), ns per packet, empty program subtracted"
LOADS = 3  # a program's speed depends on where in memory its code happens to lie
ROUNDS = 7
PACKETS = 30_000
_HOOKS: dict[Direction, tuple[str, int]] = {
    "rx": (RECEIVER, TCX_INGRESS),
    "tx": (SENDER, TCX_EGRESS),
}
TARGETS = {1: 15, 1_000: 20, 50_000: 70, 1_000_000: 200}


@dataclass(frozen=True, slots=True)
class Place:
    """A program at a hook of a device in a namespace."""

    namespace: Namespace
    ifindex: int
    attach_type: int
    program_fd: int

    def attached(self) -> Link:
        """Attaches; closing the link detaches."""
        with self.namespace.entered():
            return Link(self.program_fd, self.ifindex, self.attach_type, BEFORE, "attaching a bench program")

    def run(self, sender: Sender, flows: int) -> float:
        """Nanoseconds of one run, over PACKETS random packets; attached only meanwhile."""
        with self.attached():
            before = program_info(self.program_fd)
            sender.random(flows, PACKETS)
            after = program_info(self.program_fd)
        runs = after.runs - before.runs
        if runs != PACKETS:
            raise KernelError(f"{PACKETS} packets were sent, and the program ran {runs} times", call="bench")
        return (after.run_ns - before.run_ns) / runs


def measure(say: Progress) -> Iterator[Figure]:
    """A figure for each number of flows, ingress and egress."""
    require_object()
    statistics_fd = enable_statistics()
    try:
        with veth_pair() as (sending, receiving), Sender(sending, measured_cpu()) as sender:
            for flows, target in TARGETS.items():
                for direction in _HOOKS:
                    what = f"IPv4/TCP, {flows:,} flow{'s' * (flows > 1)}, {'in' if direction == 'rx' else 'e'}gress"
                    say(f"live: {what}")
                    namespace = receiving if direction == "rx" else sending
                    yield _measure_case(what, flows, target, namespace, direction, sender)
    finally:
        os.close(statistics_fd)


def _measure_case(
    what: str, flows: int, target: float, namespace: Namespace, direction: Direction, sender: Sender
) -> Figure:
    device, attach_type = _HOOKS[direction]
    index = ifindex(namespace, device)

    def place(program_fd: int) -> Place:
        return Place(namespace, index, attach_type, program_fd)

    empty_samples: list[float] = []
    meter_samples: list[float] = []
    for _ in range(LOADS):
        with (
            KernelEngine(plan_tables(measured_cpu() + 1, lines_for(flows))) as engine,
            loaded_alone("wm_bench_empty") as empty_fd,
            entry(engine, direction) as meter_fd,
        ):
            empty, meter = place(empty_fd), place(meter_fd)
            with meter.attached():
                fill(engine, lambda: sender.sweep(flows))
            for _ in range(ROUNDS):
                empty_samples.append(empty.run(sender, flows))
                meter_samples.append(meter.run(sender, flows))
    return figure_of_difference(GROUP, what, "ns", meter_samples, empty_samples, target)
