"""The flip of the epoch: under load, when a table fills, when it overflows, and where a CPU has none."""

from __future__ import annotations

import random
import select
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest

from wiremeter.datapath.interval import Interval
from wiremeter.datapath.kernel import KernelAttachment, KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.errors import InputError
from wiremeter.flows.batch import Tally
from wiremeter.flows.columns import ETHERTYPE_OTHER
from wiremeter.libbpf.objects import BpfObject

from . import packets as p
from .bench import CPUS, ENTRIES, audits, load_only
from .cpus import USABLE, on_every_cpu, pinned
from .packets import UDP, ethernet, over4, over6
from .reference import Counts, count_drain, count_readings, read_frame

pytestmark = pytest.mark.kernel

LINES = 256  # the smallest table: sixteen blocks of 16 lines, a flip is asked for at 96 lines
FULL = 3000  # so many flows leave no line of it free


def v4(number: int) -> bytes:
    """A frame of the number-th IPv4 flow."""
    return over4(UDP, p.udp(), src=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")


def v6(number: int) -> bytes:
    """A frame of the number-th IPv6 flow."""
    return over6(UDP, p.udp(), src=f"2001:db8::{number >> 16:x}:{number & 0xFFFF:x}")


def expected_of(frames: Sequence[bytes]) -> Counts:
    """What frames that each find room count as."""
    return count_readings((read_frame(frame), Tally(1, len(frame), 1)) for frame in frames)


def run(program: KernelAttachment, frames: Sequence[bytes]) -> None:
    """Each frame once."""
    for frame in frames:
        program.run(frame)


@pytest.fixture
def same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows have the same places in every run of a test, so that how full a chain is does not depend on chance."""
    monkeypatch.setattr("secrets.randbits", lambda bits: 0x1234_5678_9ABC_DEF0)


@pytest.fixture
def small(same_places: None) -> Iterator[KernelEngine]:
    """An engine with the smallest tables; the test stays on one CPU and so in one region."""
    with pinned(USABLE[0]), KernelEngine(plan_tables(CPUS, LINES)) as engine:
        yield engine


# Under load ----------------------------------------------------------------------------------------------------------


def gather(engine: KernelEngine, program: KernelAttachment, until: Callable[[], bool]) -> tuple[Counts, int]:
    """Flip without a pause until `until()` holds, and twice more; returns the sum of all counts, and how many flips."""
    total, flips, left = Counts(), 0, 2
    while left:
        left -= until()
        total.add(count_drain(engine.flip(), program.slot))
        flips += 1
    return total, flips


@pytest.mark.parametrize("entry", ENTRIES)
def test_flipping_while_every_cpu_counts_loses_nothing_and_counts_nothing_twice(entry: str) -> None:
    """Millions of packets, some flows from one CPU only, some from all."""
    repeat = 100_000 if entry == "XDP" else 5_000  # XDP pays a grace period for each call that repeats
    with KernelEngine(plan_tables(CPUS, 1024)) as engine:
        program = load_only(engine, ENTRIES[entry].direction, ENTRIES[entry].mode)
        frames = {cpu: [v4(77), v6(77), v4(1000 + cpu), v6(1000 + cpu), ethernet(p.ARP, bytes(46))] for cpu in USABLE}

        def send(cpu: int, stop: threading.Event) -> int:
            rounds = 0
            while not stop.is_set():
                for frame in frames[cpu]:
                    program.run(frame, repeat=repeat)
                rounds += 1
            return rounds

        deadline = time.monotonic() + 1.2
        with on_every_cpu(send) as running:
            counted, flips = gather(engine, program, lambda: time.monotonic() >= deadline)
        counted.add(gather(engine, program, lambda: True)[0])
        times = {cpu: future.result() * repeat for cpu, future in zip(USABLE, running, strict=True)}
        sent = count_readings(
            (read_frame(frame), Tally(times[cpu], times[cpu] * len(frame), times[cpu]))
            for cpu in USABLE
            for frame in frames[cpu]
        )
    assert counted.rows == sent.rows
    assert counted.flows == sent.flows
    assert counted.ethertypes == sent.ethertypes
    assert counted.reasons == {}
    assert sum(times.values()) * 5 > 1_000_000
    assert flips > 10


# When a table fills --------------------------------------------------------------------------------------------------


def requests(engine: KernelEngine) -> list[tuple[int, int]]:
    """(CPU, epoch) of the early flips asked for since the last call."""
    return [struct.unpack("=II", note) for note in engine.flip_requests.take()]


@pytest.mark.parametrize(("frame", "flows"), [(v4, 96), (v6, 48)], ids=["IPv4", "IPv6"])
def test_an_early_flip_is_asked_for_once_when_three_lines_in_eight_are_in_use(
    frame: Callable[[int], bytes], flows: int, small: KernelEngine
) -> None:
    program = load_only(small, "rx", "tcx")
    seen_epochs = []
    for _ in range(3):
        run(program, [frame(number) for number in range(flows - 1)] * 2)
        assert not select.select([small.flip_requests], [], [], 0)[0]
        assert requests(small) == []
        run(program, [frame(flows)])
        assert select.select([small.flip_requests], [], [], 0)[0]
        ((cpu, epoch),) = requests(small)
        assert cpu == USABLE[0]
        seen_epochs.append(epoch)
        run(program, [frame(number) for number in range(flows, flows + 10)])
        assert requests(small) == []
        small.flip()
    assert seen_epochs in ([0, 1, 0], [1, 0, 1])


def test_packets_that_find_no_line_count_as_table_full_and_those_of_known_flows_go_on(small: KernelEngine) -> None:
    program = load_only(small, "rx", "tcx")
    frames = [v4(n) for n in range(FULL)]
    run(program, frames)
    run(program, frames)
    drain = small.flip()
    counted = count_drain(drain, program.slot)
    (rows,) = drain.flows
    kept = {row["src_addr"].tobytes()[12:] for row in rows}
    assert len(kept) == LINES == drain.peak_lines
    assert counted.flows == expected_of([frame for frame in frames if frame[26:30] in kept] * 2).flows
    refused = 2 * (FULL - LINES)
    assert counted.reasons == {"table_full": Tally(refused, refused * len(frames[0]), refused)}
    assert counted.rows == expected_of(frames * 2).rows
    assert all(audit.balanced for audit in audits(drain, {"tc": program}))


def test_both_families_share_the_lines_to_the_last_one(small: KernelEngine) -> None:
    program = load_only(small, "rx", "tcx")
    for first, kept, other in ((v4, LINES, v6), (v6, LINES // 2, v4)):
        run(program, [first(n) for n in range(FULL)])
        run(program, [other(n) for n in range(100)])
        drain = small.flip()
        assert drain.peak_lines == LINES
        assert sum(map(len, drain.flows)) == kept
        counted = count_drain(drain, program.slot)
        assert counted.reasons["table_full"].packets == FULL - kept + 100
        assert all(audit.balanced for audit in audits(drain, {"tc": program}))


def test_frames_that_are_not_ip_lose_only_their_ethertype_to_a_full_table(small: KernelEngine) -> None:
    program = load_only(small, "rx", "tcx")
    known, unknown = ethernet(p.ARP, bytes(46)), ethernet(p.LLDP, bytes(46))
    run(program, [known, *(v4(n) for n in range(FULL)), known, unknown])
    drain = small.flip()
    interval = Interval()
    interval.add(drain, {program.slot: 0})
    assert [tuple(row) for row in interval.ethertypes().tolist()] == [
        (0, p.ARP, 2, 120, 2),
        (0, ETHERTYPE_OTHER, 1, 60, 1),
    ]
    refused = FULL - LINES + 1
    assert interval.unattributed(0) == {"table_full": Tally(refused, refused * len(v4(0)), refused)}
    assert all(audit.balanced for audit in audits(drain, {"tc": program}))


def flows_of_block(block: int, count: int, frame_of: Callable[[int], bytes] = v4) -> list[bytes]:
    """Frames of flows with both places in one block of the small table, found in a larger one of the same seed."""
    with KernelEngine(plan_tables(CPUS, 1 << 15)) as engine:
        program = load_only(engine, "rx", "tcx")
        frames = {}
        for frame in map(frame_of, range(count * 256 * 3 // 2 + 2000)):
            program.run(frame)
            (flow,) = expected_of([frame]).flows
            frames[flow.src] = frame
        rows = np.concatenate(engine.flip().flows)
    second = rows["hash"] >> 16
    mine = rows[(rows["hash"] % LINES // 16 == block) & (second % LINES // 16 == block)]
    assert len(mine) >= count
    return [frames[row["src_addr"].tobytes()] for row in mine[:count]]


@pytest.mark.parametrize("block", [0, 7, 15])
def test_a_flow_has_no_room_when_both_its_blocks_are_full(block: int, small: KernelEngine) -> None:
    frames = flows_of_block(block, 20)
    program = load_only(small, "rx", "tcx")
    for _ in range(3):
        run(program, frames)
        run(program, frames)
        counted = count_drain(small.flip(), program.slot)
        assert counted.flows == expected_of(frames[:16] * 2).flows
        assert counted.reasons == {"table_full": Tally(8, 8 * len(frames[0]), 8)}


def test_an_ipv6_flow_needs_two_neighbouring_lines(small: KernelEngine) -> None:
    many, (long, other) = flows_of_block(3, 16), flows_of_block(3, 2, v6)
    program = load_only(small, "rx", "tcx")
    run(program, many[:15])
    run(program, [long, many[15], many[0], long])
    counted = count_drain(small.flip(), program.slot)
    assert counted.flows == expected_of([*many, many[0]]).flows
    assert counted.reasons == {"table_full": Tally(2, 2 * len(long), 2)}
    run(program, [long, other, *many])
    counted = count_drain(small.flip(), program.slot)
    assert sum(tally.packets for tally, _ in counted.flows.values()) == 2 + 12
    assert {key for key in counted.flows if key.family == 6} == expected_of([long, other]).flows.keys()


def test_a_burst_after_a_quiet_time_finds_room_in_all_of_the_table(same_places: None) -> None:
    """Few flows stay on few pages, which must not leave many without a line while others are free."""
    frames = [v4(n) for n in range(6000)]  # of 16,384 lines: no more than a flip in time would find
    with pinned(USABLE[0]), KernelEngine(plan_tables(CPUS, 1 << 14)) as engine:
        program = load_only(engine, "rx", "tcx")
        for _ in range(12):
            engine.flip()
        run(program, frames)
        assert requests(engine) != []
        counted = count_drain(engine.flip(), program.slot)
    assert counted.reasons == {}
    assert len(counted.flows) == 6000


# Emptied -------------------------------------------------------------------------------------------------------------


def test_a_flip_leaves_nothing_behind_however_full_the_table_was(small: KernelEngine) -> None:
    """Any line left would soon leave blocks without room."""
    program = load_only(small, "rx", "tcx")
    chance = random.Random(1)
    for round_ in range(60):
        size = chance.choice([0, 1, 5, 20, 31, 40])
        some = [chance.choice([v4, v6])(chance.randrange(1 << 20)) for _ in range(size)] + [ethernet(p.ARP, bytes(46))]
        run(program, some)
        assert count_drain(small.flip(), program.slot) == expected_of(some), f"in round {round_} of {size} flows"
    for _ in range(2):
        drain = small.flip()
        assert not drain.counters.any()
        assert (drain.flows, len(drain.ethertypes), drain.peak_lines) == ([], 0, 0)


def test_both_epochs_begin_empty_again_after_a_table_was_overfull(small: KernelEngine) -> None:
    program = load_only(small, "rx", "tcx")
    frames = [v4(n) for n in range(80)]
    for _ in range(4):
        run(program, [v6(n) for n in range(4 * LINES)])
        small.flip()
        small.flip()
        run(program, frames)
        assert count_drain(small.flip(), program.slot) == expected_of(frames)


# Attachments come and go ---------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(same_places: None) -> Iterator[KernelEngine]:
    """An engine with room for one device."""
    with KernelEngine(plan_tables(CPUS, LINES, attachments=2)) as engine:
        yield engine


def test_a_place_for_an_attachment_is_free_again_after_its_last_counts_are_taken(narrow: KernelEngine) -> None:
    first, second = load_only(narrow, "rx", "tcx"), load_only(narrow, "tx", "tcx")
    with pytest.raises(InputError, match="--max-devices"):
        load_only(narrow, "rx", "xdp")
    run(first, [v4(1), v6(1)])
    run(second, [v4(2)])
    narrow.release(first)
    assert narrow.attachments == [second]
    with pytest.raises(InputError, match="nowhere rx"):
        load_only(narrow, "rx", "xdp")
    drain = narrow.flip()
    assert count_drain(drain, first.slot) == expected_of([v4(1), v6(1)])
    assert count_drain(drain, second.slot) == expected_of([v4(2)])
    narrow.flip()
    third = load_only(narrow, "rx", "xdp")
    assert third.slot == first.slot
    run(third, [v4(3)])
    run(second, [v4(4)])
    drain = narrow.flip()
    assert count_drain(drain, third.slot) == expected_of([v4(3)])
    assert count_drain(drain, second.slot) == expected_of([v4(4)])


def test_what_a_released_program_still_counts_while_a_flip_waits_is_never_counted_for_its_successor(
    narrow: KernelEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that began before the program was detached, and reads the epoch after it was turned."""
    first = load_only(narrow, "rx", "tcx")
    run(first, [v4(1)])
    narrow.release(first)
    wait = narrow._grace.wait

    def straggle() -> None:
        monkeypatch.undo()
        run(first, [v4(2)])
        wait()

    monkeypatch.setattr(narrow._grace, "wait", straggle)
    drain = narrow.flip()
    assert count_drain(drain, first.slot) == expected_of([v4(1)])
    drain = narrow.flip()
    assert count_drain(drain, first.slot) == expected_of([v4(2)])
    second = load_only(narrow, "rx", "tcx")
    assert second.slot == first.slot
    run(second, [v4(3)])
    assert count_drain(narrow.flip(), second.slot) == expected_of([v4(3)])


# CPUs without a region -----------------------------------------------------------------------------------------------


@pytest.fixture
def all_cpus_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """None has a region of its own."""
    as_asked = BpfObject.set_constants

    def set_constants(self: BpfObject, values: Mapping[str, int | np.void]) -> None:
        as_asked(self, {**values, "wm_regions": 0})

    monkeypatch.setattr(BpfObject, "set_constants", set_constants)


def test_packets_on_a_cpu_that_came_after_the_tables_were_made_count_as_no_region(all_cpus_come_later: None) -> None:
    cpu = USABLE[-1]
    frames = [v4(1), v6(2), ethernet(p.ARP, bytes(46)), over4(UDP, b"abc")]
    with pinned(cpu), KernelEngine(plan_tables(1, LINES)) as engine:
        programs = {name: load_only(engine, entry.direction, entry.mode) for name, entry in ENTRIES.items()}
        for program in programs.values():
            run(program, frames)
        drain = engine.flip()
        again = engine.flip()
    expected = expected_of(frames)
    expected.reasons["no_region"] = Tally(2, len(v4(1)) + len(v6(2)), 2)
    expected.flows, expected.ethertypes = {}, {}
    assert {name: count_drain(drain, program.slot) for name, program in programs.items()} == dict.fromkeys(
        ENTRIES, expected
    )
    assert all(audit.balanced for audit in audits(drain, programs))
    assert not again.counters.any()


def test_cpus_without_a_region_share_one_and_lose_nothing(all_cpus_come_later: None) -> None:
    with KernelEngine(plan_tables(1, LINES)) as engine:
        program = load_only(engine, "rx", "tcx")
        frame = v4(1)

        def send(cpu: int, stop: threading.Event) -> int:
            rounds = 0
            while not stop.is_set():
                program.run(frame, repeat=5_000)
                rounds += 1
            return rounds

        deadline = time.monotonic() + 0.5
        with on_every_cpu(send) as running:
            counted, _ = gather(engine, program, lambda: time.monotonic() >= deadline)
        counted.add(gather(engine, program, lambda: True)[0])
        times = 5_000 * sum(future.result() for future in running)
    everything = Tally(times, times * len(frame), times)
    assert counted == Counts(rows={(4, UDP): everything}, reasons={"no_region": everything})
