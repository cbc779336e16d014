"""A million damaged frames through the kernel's programs and the host engine: both say the same of all of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from fuzz.fuzzing import captures, first_frames
from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.host import LINK_ETHERNET, HostEngine
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.records import SOURCES
from wiremeter.datapath.rows import Part, merge_parts
from wiremeter.names.payloads import PayloadBlock

from .bench import CPUS, ENTRIES, IP_HEADER_BYTES, TC, Bench
from .cases import CASES
from .cpus import USABLE, pinned
from .mutants import ETHERNET_BYTES, Frames, mutants
from .payload_cases import CASES as PAYLOAD_CASES
from .payload_cases import Packet

pytestmark = pytest.mark.kernel

#: Test runs in all; one takes 5 to 10 µs.
RUNS = 1_000_000
BATCH = 20_000
#: Room for a batch of nothing but new IPv6 flows through every program, so that no flow finds a table full.
LINES = 1 << 19
SEED = 20
# Where in a payload's record these lie.
CAPTURED_AT, SOURCE_AT = (records.PAYLOAD.fields[name][1] for name in ("captured", "source"))  # type: ignore[index]


@dataclass
class Both:
    """The kernel's programs and as many slots of the host engine, under the same numbers."""

    bench: Bench
    host: HostEngine
    flipped: list[Drain] = field(default_factory=list)  # of the host engine, since the last comparison

    def run(self, frames: Frames) -> int:
        """Every frame through every program that takes it; returns how many runs that were."""
        runs = 0
        for name, program in self.bench.programs.items():
            accepted = frames[accepts(name, frames)]
            verdict = ENTRIES[name].verdict
            columns = (accepted.wire.tolist(), accepted.times_ns.tolist())
            for i, (wire, time_ns) in enumerate(zip(*columns, strict=True)):
                run = program.run(accepted.bytes_of(i), wire_bytes=wire, time_ns=time_ns)
                assert run.verdict == verdict, f"{name} gave verdict {run.verdict:#x} to {accepted.bytes_of(i).hex()}"
            self.count_on_host(program.slot, accepted)
            runs += len(accepted)
        return runs

    def count_on_host(self, slot: int, frames: Frames) -> None:
        """Through the host engine, which is flipped whenever it asks for that."""
        while len(frames):
            done = self.host.count(slot, frames.data, frames.offsets, frames.captured, frames.wire, frames.times_ns)
            frames = frames[done:]
            if len(frames):
                self.flipped.append(self.host.flip())

    def difference(self) -> str:
        """Flips both; says in what they differ, or nothing."""
        kernel, host = [self.bench.engine.flip()], [*self.flipped, self.host.flip()]
        self.flipped.clear()
        for what, rows in (("counters", counter_rows), ("flows", flow_rows), ("ethertypes", ethertype_rows)):
            if not np.array_equal(rows(kernel), rows(host)):
                return what
        return ""

    def narrow(self, frames: Frames) -> tuple[str, Frames]:
        """The fewest frames, by halving, of which both do not say the same."""
        self.run(frames)
        difference = self.difference()
        half = len(frames) // 2
        for part in (frames[:half], frames[half:]) if difference and half else ():
            found, fewer = self.narrow(part)
            if found:
                return found, fewer
        return difference, frames


def accepts(name: str, frames: Frames) -> NDArray[np.bool_]:
    """Which frames a test run takes: tc's wants a whole IP header where the Ethernet header promises one."""
    if name not in TC:
        return np.ones(len(frames), bool)
    at = frames.offsets.astype(np.intp)
    ethertypes = frames.data[at + 12].astype(np.uint16) << 8 | frames.data[at + 13]
    promised = np.zeros(len(frames), np.uint32)
    for ethertype, header_bytes in IP_HEADER_BYTES.items():
        promised[ethertypes == ethertype] = header_bytes
    return frames.captured >= ETHERNET_BYTES + promised


def counter_rows(drains: Sequence[Drain]) -> NDArray[np.uint64]:
    """All counters."""
    total: NDArray[np.uint64] = np.sum([drain.counters for drain in drains], axis=0)
    return total


def flow_rows(drains: Sequence[Drain]) -> NDArray[np.void]:
    """All flows in an order of their own, without their hash: each engine has its seed."""
    rows = merge_parts([Part(rows) for drain in drains for rows in drain.flows]).copy()
    rows["hash"] = 0
    return in_order(rows)


def ethertype_rows(drains: Sequence[Drain]) -> NDArray[np.void]:
    """All ethertypes, likewise, one row each."""
    rows = np.concatenate([drain.ethertypes for drain in drains])
    keys, place = np.unique(rows[["attachment", "ethertype"]], return_inverse=True)
    sums = np.zeros(len(keys), rows.dtype)
    for name in keys.dtype.names or ():
        sums[name] = keys[name]
    for name in ("packets", "bytes", "skbs"):
        np.add.at(sums[name], place, rows[name])
    return in_order(sums)


def in_order(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Rows as bytes, sorted."""
    ordered: NDArray[np.void] = np.sort(np.ascontiguousarray(rows).view(f"S{rows.dtype.itemsize}"))
    return ordered


@pytest.fixture(scope="module")
def both(nothing_left_by_the_module: None) -> Iterator[Both]:
    with KernelEngine(plan_tables(CPUS, LINES, attachments=len(ENTRIES)), test_runs=True) as engine:
        host = HostEngine(plan_tables(1, LINES, attachments=len(ENTRIES)))
        bench = Bench(engine)
        assert [host.attach(name) for name in bench.programs] == [p.slot for p in bench.programs.values()]
        yield Both(bench, host)


def origins() -> Sequence[bytes]:
    """Frames to damage: the table's, and where there are captures of others the first ones of each."""
    captured = [f for path in captures() for link, f in first_frames(path, 40) if link == LINK_ETHERNET]
    return [*(case.frame for case in CASES), *(frame for frame in captured if len(frame) >= ETHERNET_BYTES)]


def test_a_million_damaged_frames_count_the_same_in_the_kernel_and_on_the_host(both: Both) -> None:
    random = np.random.default_rng(SEED)
    known, runs = origins(), 0
    with pinned(USABLE[0]):
        while runs < RUNS:
            frames = mutants(random, known, BATCH)
            runs += both.run(frames)
            if difference := both.difference():
                found, few = both.narrow(frames)
                shown = [(few.bytes_of(i).hex(), int(few.wire[i]), int(few.times_ns[i])) for i in range(len(few))][:4]
                pytest.fail(f"{found or difference} differ; (frame, bytes on the wire, time) of {len(few)}: {shown}")


def test_damaged_frames_come_to_every_reason_that_a_parser_has(both: Both) -> None:
    frames = mutants(np.random.default_rng(SEED), origins(), BATCH)
    both.count_on_host(0, frames)
    drains = [*both.flipped, both.host.flip()]
    both.flipped.clear()
    counters = counter_rows(drains)
    of_reason = dict(zip(records.REASONS, counters[0, records.ROW_UNATTRIBUTED :, 2].tolist(), strict=True))
    for not_of_parsers in ("table_full", "no_region"):
        of_reason.pop(not_of_parsers)
    assert all(of_reason.values()), of_reason
    assert 2 * sum(of_reason.values()) < BATCH, "most frames must be good enough for a flow"
    assert len(flow_rows(drains)) > BATCH / 10


# Payloads ------------------------------------------------------------------------------------------------------------

PAYLOAD_RUNS = 300_000
PAYLOAD_LIMIT = 300  # below some frames' and above others'


@dataclass
class BothPayloads:
    """The same of payloads: both engines place flows alike, and turn the epoch together."""

    bench: Bench
    host: HostEngine
    kept: list[bytes]  # by the host engine, since the last comparison

    def send(self, name: str, frames: Frames) -> None:
        """Every frame through one program and the host engine, each as far as the host engine's table goes."""
        program = self.bench.programs[name]
        while len(frames):
            columns = (frames.data, frames.offsets, frames.captured, frames.wire, frames.times_ns)
            done = self.host.count(program.slot, *columns)
            for i in range(done):
                program.run(frames.bytes_of(i), wire_bytes=int(frames.wire[i]), time_ns=int(frames.times_ns[i]))
            frames = frames[done:]
            self.compare()

    def compare(self) -> None:
        """Flips both: they have sent the same records, byte for byte, in the same order on each way."""
        kept, self.kept[:] = list(self.kept), []
        sent: list[list[bytes]] = [[] for _ in self.bench.engine.payload_rings]
        for records_of_ring, ring in zip(sent, self.bench.engine.payload_rings, strict=True):
            while len(block := self.bench.engine.take_payloads(ring)):
                records_of_ring += raw_records(block)
        assert sent == [[r for r in kept if source_of(r) == 0], [r for r in kept if source_of(r) != 0]]
        of_kernel, of_host = self.bench.engine.flip(), self.host.flip()
        for drain in (of_kernel, of_host):
            assert drain.payloads.tolist() == [sum(source_of(r) == at for r in kept) for at in range(len(SOURCES))]
            assert not drain.lost_payloads.any()


def raw_records(block: PayloadBlock) -> list[bytes]:
    """Heads and payloads as they lie in a block."""
    data, head = memoryview(block.data), records.PAYLOAD.itemsize
    ends = [
        at + head + int.from_bytes(data[at + CAPTURED_AT : at + CAPTURED_AT + 2], sys.byteorder)
        for at in offsets_of(block)
    ]
    return [bytes(data[at:end]) for at, end in zip(offsets_of(block), ends, strict=True)]


def offsets_of(block: PayloadBlock) -> list[int]:
    """Where records begin."""
    offsets: list[int] = block.offsets.tolist()
    return offsets


def source_of(record: bytes) -> int:
    """What a raw record was sent as."""
    return record[SOURCE_AT]


@pytest.fixture
def both_payloads(nothing_left_by_the_module: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[BothPayloads]:
    monkeypatch.setattr("secrets.randbits", lambda bits: SEED)
    plan = plan_tables(CPUS, LINES, attachments=len(ENTRIES))
    kept: list[bytes] = []
    host = HostEngine(
        plan_tables(1, LINES, attachments=len(ENTRIES)),
        payload_limit=PAYLOAD_LIMIT,
        on_payloads=lambda block: kept.extend(raw_records(block)),
    )
    with KernelEngine(plan, test_runs=True, payload_limit=PAYLOAD_LIMIT) as engine:
        bench = Bench(engine)
        assert [host.attach(name) for name in bench.programs] == [p.slot for p in bench.programs.values()]
        yield BothPayloads(bench, host, kept)


def test_damaged_frames_send_the_same_payloads_from_the_kernel_and_from_the_host(both_payloads: BothPayloads) -> None:
    random = np.random.default_rng(SEED)
    frames_of = [packet.frame for case in PAYLOAD_CASES for packet in case.packets if isinstance(packet, Packet)]
    known, runs = [*frames_of, *origins()], 0
    with pinned(USABLE[0]):
        while runs < PAYLOAD_RUNS:
            frames = mutants(random, known, BATCH)
            # In order and within 73 minutes, so that some flows are remembered beyond a flip and some are not.
            frames.times_ns.sort()
            frames.times_ns[:] >>= np.uint64(20)
            for name in both_payloads.bench.programs:
                accepted = frames[accepts(name, frames)]
                both_payloads.send(name, accepted)
                runs += len(accepted)


def test_a_difference_would_be_found(both: Both) -> None:
    """The comparison sees one frame among thousands that only one engine counted."""
    frames = mutants(np.random.default_rng(SEED), origins(), 1000)
    with pinned(USABLE[0]):
        both.run(frames)
        both.count_on_host(2, frames[:1])
        assert both.difference()
        both.run(frames)
        assert both.difference() == ""
