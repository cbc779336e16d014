"""What the agent costs a host: CPU time and memory while it meters 100,000 live flows.

Each interval every flow gets one packet. CPU time is the process's own, user and kernel; that of the programs in the
kernel belongs to whoever sends and receives, and is what `live` measures. Memory is looked at all the time: between
two drains, which is nearly always, and at its most.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cpus import measured_cpu
from benchmarks.memory import cpu_seconds, family, resident_mb, share_mb
from benchmarks.namespaces import RECEIVER, Namespace, end_with_parent, veth_pair
from benchmarks.report import Figure, Progress, figure_of
from benchmarks.sender import Sender
from wiremeter.errors import KernelError

GROUP = "agent, 100,000 live flows, interval 5 s"
FLOWS = 100_000
INTERVAL = 5.0
INTERVALS = 5
MEMORY_SAMPLE_SECONDS = 0.25
CPU_TARGET, MEMORY_TARGET = 2.0, 60.0
_AGENT = Path(__file__).parents[1] / ".venv" / "bin" / "wiremeter"


def measure(say: Progress) -> Iterator[Figure]:
    """CPU of one core over INTERVALS intervals, and resident memory without and with the tables."""
    cpu: list[float] = []
    own: list[float] = []
    readers: list[float] = []
    with veth_pair() as (sending, receiving), _agent(receiving) as process, Sender(sending, measured_cpu()) as sender:
        say("agent: starting")
        _wait_until_attached(process)
        sender.sweep(FLOWS)
        time.sleep(INTERVAL)
        for number in range(INTERVALS):
            say(f"agent: interval {number + 1} of {INTERVALS}")
            started, before = time.monotonic(), sum(map(cpu_seconds, family(process.pid)))
            sender.sweep(FLOWS, pause_ns=100_000)
            while (left := started + INTERVAL - time.monotonic()) > 0:
                time.sleep(min(left, MEMORY_SAMPLE_SECONDS))
                own.append(resident_mb(process.pid)[0])
                readers.append(sum(map(share_mb, family(process.pid)[1:])))
            cpu.append((sum(map(cpu_seconds, family(process.pid))) - before) / (time.monotonic() - started) * 100)
        tables = resident_mb(process.pid)[1]
    yield figure_of(GROUP, "CPU of one core", "%", cpu, CPU_TARGET)
    yield figure_of(GROUP, "resident memory without the tables", "MB", own, MEMORY_TARGET)
    yield figure_of(GROUP, "the same at its most", "MB", [max(own)])
    yield figure_of(GROUP, "memory of the process that reads payloads (PSS)", "MB", readers)
    yield figure_of(GROUP, "resident memory of the tables, as far as touched", "MB", [tables])


@contextmanager
def _agent(namespace: Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """The agent on RECEIVER, until the block ends."""
    command = (_AGENT, "agent", "--interface", RECEIVER, "--interval", f"{INTERVAL}s", "--listen", "127.0.0.1:0")
    with namespace.entered():
        process = subprocess.Popen((*command, "--log-level", "warning"), preexec_fn=end_with_parent)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_attached(process: subprocess.Popen[bytes]) -> None:
    """Returns when a program is on the device. Raises KernelError if the agent ends, or takes longer than 20 s."""
    deadline = time.monotonic() + 20
    while not _is_attached(process.pid):
        if process.poll() is not None:
            raise KernelError(f"the agent ended with {process.returncode}", call="wiremeter agent")
        if time.monotonic() > deadline:
            raise KernelError("the agent attached nothing within 20 s", call="wiremeter agent")
        time.sleep(0.05)


def _is_attached(pid: int) -> bool:
    """Whether the process holds a BPF link."""
    descriptors = Path(f"/proc/{pid}/fd")
    try:
        return any(
            "bpf_link" in os.readlink(entry) or "bpf-link" in os.readlink(entry) for entry in descriptors.iterdir()
        )
    except OSError:
        return False
