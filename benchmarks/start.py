"""Seconds until packets are counted: from the command for one device, and from their appearance for many.

One device: from the command line to the beginning of the first interval of `wiremeter live --once`, as its document
tells it. Many: devices appear in a meter's namespace while another device of it takes 20,000 new flows a second.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.cpus import measured_cpu
from benchmarks.namespaces import RECEIVER, Namespace, veth_pair
from benchmarks.report import Figure, Progress, figure_of
from benchmarks.sender import Sender
from wiremeter import FlowBatch, Monitor
from wiremeter.errors import KernelError

ONE, MANY = "start: from the command to the first packet counted", "devices that appear under 20,000 new flows/s"
ROUNDS = 9
TARGET = 0.5
#: (devices, seconds until all are metered at most)
BURSTS = ((60, 3.0), (490, 20.0))
#: After 64 packets, for 20,000 a second.
PAUSE_NS = 3_200_000
PATIENCE_SECONDS = 60.0
_WIREMETER = Path(__file__).parents[1] / ".venv" / "bin" / "wiremeter"


def measure(say: Progress) -> Iterator[Figure]:
    """Of one device, with names and without, in turn; of each burst until all are metered, and until all are let go."""
    with veth_pair() as (sending, receiving):
        seconds: dict[str, list[float]] = {"with names": [], "--names none": []}
        for number in range(ROUNDS):
            say(f"start: round {number + 1} of {ROUNDS}")
            seconds["with names"].append(_first_interval(receiving))
            seconds["--names none"].append(_first_interval(receiving, "--names", "none"))
        for what, samples in seconds.items():
            yield figure_of(ONE, what, "s", samples, TARGET)
        for count, target in BURSTS:
            say(f"start: {count} devices at once")
            with Sender(sending, measured_cpu()) as sender:
                found = _burst(receiving, sender, count)
            yield figure_of(MANY, f"{count}, until all are metered", "s", [found[0]], target)
            yield figure_of(MANY, "  longest interval of 0.5 s meanwhile", "s", [found[1]], 1.0)
            yield figure_of(MANY, "  packets without room meanwhile", "", [found[2]])
            yield figure_of(MANY, "  until all are let go", "s", [found[3]])


def _first_interval(namespace: Namespace, *words: str) -> float:
    """Seconds from the command to the beginning of the first interval."""
    command = (
        str(_WIREMETER),
        "live",
        "--interface",
        RECEIVER,
        "--once",
        "--interval",
        "50ms",
        "--format",
        "json",
        *words,
    )
    with namespace.entered():
        began = time.time_ns()
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise KernelError(f"wiremeter live: {done.stderr.decode()}", call="wiremeter live")
    counted = np.datetime64(msgspec.json.decode(done.stdout)["start_time"].rstrip("Z"), "ns")
    return (int(counted.astype(np.int64)) - began) / 1e9


def _send_until_killed(sender: Sender) -> None:
    with contextlib.suppress(KernelError):
        sender.sweep(1 << 30, pause_ns=PAUSE_NS)


def _burst(namespace: Namespace, sender: Sender, count: int) -> tuple[float, float, int, float]:
    """Seconds until `count` new devices are metered, and of the longest interval; packets without room; seconds until
    all are let go."""
    batches: list[FlowBatch] = []
    flood = threading.Thread(target=_send_until_killed, args=(sender,), daemon=True)
    with namespace.entered():
        with Monitor(RECEIVER, "port*", interval=0.5, max_devices=count + 1, urgent=True) as monitor:
            monitor.subscribe(batches.append)
            flood.start()
            time.sleep(2)
            commands = "".join(f"link add port{n} type veth peer name far{n}\n" for n in range(count))
            subprocess.run(("ip", "-batch", "-"), input=commands, text=True, check=True)
            began = time.monotonic()
            while len(monitor.attachments) < 2 * count + 2:
                if time.monotonic() - began > PATIENCE_SECONDS:
                    raise KernelError(f"{count} devices were not metered within {PATIENCE_SECONDS} s", call="attach")
                time.sleep(0.005)
            metered = time.monotonic() - began
            time.sleep(1)
            ending = time.monotonic()
        let_go = time.monotonic() - ending
        commands = "".join(f"link del port{n}\n" for n in range(count))
        subprocess.run(("ip", "-batch", "-"), input=commands, text=True, check=True)
    without_room = sum(
        tally.packets
        for batch in batches
        for audit in batch.audit
        for reason, tally in audit.unattributed.items()
        if reason == "table_full"
    )
    return metered, max(batch.seconds for batch in batches), without_room, let_go
