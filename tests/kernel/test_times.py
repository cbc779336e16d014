"""When a flow was first and last seen, by the kernel's tick; and what captures say of packets: time and length."""

from __future__ import annotations

import time

import numpy as np
import pytest

from wiremeter.datapath.kernel import CLOCK_MONOTONIC_COARSE, KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.flows.batch import Tally

from . import packets as p
from .bench import CPUS, ENTRIES, is_accepted, load_only
from .packets import TCP, UDP, over4, over6
from .reference import count_drain, count_readings, read_frame

pytestmark = pytest.mark.kernel

FRAMES = {"IPv4": over4(UDP, p.udp()), "IPv6": over6(UDP, p.udp())}
#: The tick is counted by an interrupt, which a busy machine may be late with.
LENIENCE_NS = round(3e9 * time.clock_getres(CLOCK_MONOTONIC_COARSE)) + 40_000_000


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_first_and_last_are_when_packets_came(entry: str, frame: bytes) -> None:
    with KernelEngine(plan_tables(CPUS, 256)) as engine:
        program = load_only(engine, ENTRIES[entry].direction, ENTRIES[entry].mode)
        spans = []
        for _ in range(3):
            before = time.time_ns()
            program.run(frame)
            spans.append((before, time.time_ns()))
            time.sleep(0.1)
        rows = np.concatenate(engine.flip().flows)
    seen = int(rows["first_ns"].min()), int(rows["last_ns"].max())
    for at, (before, after) in zip(seen, (spans[0], spans[2]), strict=True):
        assert before - LENIENCE_NS < at < after + LENIENCE_NS


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_captures_own_times_are_kept_to_the_nanosecond(entry: str, frame: bytes) -> None:
    at = 1_600_000_000_123_456_789
    with KernelEngine(plan_tables(CPUS, 256), test_runs=True) as engine:
        program = load_only(engine, ENTRIES[entry].direction, ENTRIES[entry].mode)
        for after in (0, 1, 999):
            program.run(frame, time_ns=at + after)
        rows = np.concatenate(engine.flip().flows)
    assert (int(rows["first_ns"].min()), int(rows["last_ns"].max())) == (at, at + 999)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_packet_that_the_capture_cut_counts_with_its_length_on_the_wire(entry: str) -> None:
    whole = over6(TCP, p.tcp(bytes(1000)))
    cut = [frame for frame in (whole[:length] for length in (14, 20, 54, 57, 60, 200)) if is_accepted(entry, frame)]
    with KernelEngine(plan_tables(CPUS, 256), test_runs=True) as engine:
        program = load_only(engine, ENTRIES[entry].direction, ENTRIES[entry].mode)
        for frame in cut:
            program.run(frame, wire_bytes=len(whole))
            program.run(frame)
        counted = count_drain(engine.flip(), program.slot)
    both = [Tally(1, len(whole), 1).plus(Tally(1, len(frame), 1)) for frame in cut]
    assert counted == count_readings((read_frame(frame), tally) for frame, tally in zip(cut, both, strict=True))
