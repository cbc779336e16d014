"""What must hold for any traffic: merging in any order, and cutting a capture anywhere, give the whole."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wiremeter.captures.file import Frames
from wiremeter.datapath.host import HostEngine
from wiremeter.datapath.interval import Interval
from wiremeter.datapath.layout import plan_tables
from wiremeter.flows.batch import Attachment, FlowBatch, Tally
from wiremeter.synthetic.frames import FrameBuilder
from wiremeter.synthetic.profiles import PROFILES
from wiremeter.synthetic.simulation import Simulation

from .flow_rows import Amounts, Key, flow_rows, flows_of, merge_rows, regions
from .live_batches import conversations

#: A busy machine may stand still for longer than an example usually takes.
steady = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

SEED = 11
hash_counts = st.sampled_from([1, 3, 1 << 32])


class Counts(NamedTuple):
    """All that an interval says, in an order of its own."""

    flows: list[tuple[object, ...]]
    counters: list[tuple[int, ...]]
    ethertypes: list[tuple[int, ...]]
    seen: Tally
    unattributed: dict[str, Tally]


def counts_of(interval: Interval) -> Counts:
    """Rows as tuples, sorted."""
    flows = [tuple(tuple(v) if isinstance(v, list) else v for v in row) for row in _listed(interval.flows())]
    return Counts(
        sorted(flows),
        sorted(interval.counters().tolist()),
        sorted(interval.ethertypes().tolist()),
        interval.seen(0),
        interval.unattributed(0),
    )


def _listed(rows: NDArray[np.void]) -> list[list[object]]:
    columns = [rows[name].tolist() for name in rows.dtype.names or ()]
    return [list(row) for row in zip(*columns, strict=True)]


@st.composite
def captures(draw: st.DrawFn) -> Frames:
    """Up to 300 frames of any profile."""
    arguments: dict[str, Any] = {
        "profile": draw(st.sampled_from(sorted(PROFILES))),
        "seed": draw(st.integers(0, 1 << 32)),
        "hosts": draw(st.sampled_from([1, 3, 1000])),
        "ipv6": draw(st.sampled_from([0.0, 0.5, 1.0])),
    }
    vlan = draw(st.sampled_from([-1, 0, 77]))
    count = draw(st.integers(1, 300))
    simulation = Simulation(**arguments, seconds=1, packets_per_second=count, mtu=576)
    ((packets,),) = (simulation.traffic(),)
    (frames,) = FrameBuilder(576, vlan).frames(packets)
    return frames


@st.composite
def captures_and_cuts(draw: st.DrawFn) -> tuple[Frames, list[Frames]]:
    """A capture, and the same in pieces; some of them are empty."""
    frames = draw(captures())
    cuts = sorted(draw(st.lists(st.integers(0, len(frames)), max_size=6)))
    return frames, [frames.part(a, b) for a, b in zip([0, *cuts], [*cuts, len(frames)], strict=True)]


def new_engine(lines: int = 1 << 11) -> HostEngine:
    """With one slot, number 0."""
    engine = HostEngine(plan_tables(1, lines, attachments=2), seed=SEED)
    engine.attach("simulated")
    return engine


def count(engine: HostEngine, frames: Frames, interval: Interval) -> None:
    """Counts all of them, with a flip wherever the engine wants one."""
    while (done := engine.count(0, *frames)) < len(frames):
        interval.add(engine.flip(), {0: 0})
        frames = frames.part(done)


def metered(frames: Frames) -> Counts:
    """In one go."""
    engine, interval = new_engine(), Interval()
    count(engine, frames, interval)
    interval.add(engine.flip(), {0: 0})
    return counts_of(interval)


@steady
@given(captures_and_cuts())
def test_a_flip_after_any_frame_changes_nothing(drawn: tuple[Frames, list[Frames]]) -> None:
    frames, pieces = drawn
    engine, interval = new_engine(), Interval()
    for piece in pieces:
        count(engine, piece, interval)
        interval.add(engine.flip(), {0: 0})
    assert counts_of(interval) == metered(frames)


@steady
@given(captures_and_cuts(), st.randoms())
def test_pieces_metered_apart_and_added_in_any_order_are_the_whole(
    drawn: tuple[Frames, list[Frames]], chance: Random
) -> None:
    """As on several CPUs."""
    frames, pieces = drawn
    drains = []
    for piece in pieces:
        engine = new_engine()
        assert engine.count(0, *piece) == len(piece)
        drains.append(engine.flip())
    chance.shuffle(drains)
    interval = Interval()
    for drain in drains:
        interval.add(drain, {0: 0})
    assert counts_of(interval) == metered(frames)


@steady
@given(captures())
def test_the_size_of_the_table_changes_nothing(frames: Frames) -> None:
    engine, interval = new_engine(256), Interval()
    count(engine, frames, interval)
    interval.add(engine.flip(), {0: 0})
    assert counts_of(interval) == metered(frames)


@steady
@given(captures_and_cuts(), st.integers(1, 40))
def test_a_bound_on_flows_loses_no_count(drawn: tuple[Frames, list[Frames]], bound: int) -> None:
    frames, pieces = drawn
    engine, interval = new_engine(), Interval(max_flows=bound)
    for piece in pieces:
        count(engine, piece, interval)
        interval.add(engine.flip(), {0: 0})
    whole, found = metered(frames), counts_of(interval)
    assert found[1:4] == whole[1:4]
    assert len(found.flows) == min(bound, len(whole.flows))
    flows = interval.flows()
    parts = [Tally(*(int(flows[name].sum()) for name in ("packets", "bytes", "skbs"))), interval.non_ip(0)]
    total = Tally()
    for part in (*parts, *found.unattributed.values()):
        total = total.plus(part)
    assert total == found.seen


@steady
@given(captures_and_cuts())
def test_merging_rows_of_a_capture_commutes_and_associates(drawn: tuple[Frames, list[Frames]]) -> None:
    rows = []
    for piece in drawn[1]:
        engine = new_engine()
        engine.count(0, *piece)
        rows.extend(engine.flip().flows)
    whole = sorted(map(str, _listed(merge_rows(rows))))
    assert sorted(map(str, _listed(merge_rows(rows[::-1])))) == whole
    one_by_one = merge_rows([])
    for part in rows:
        one_by_one = merge_rows([one_by_one, part])
    assert sorted(map(str, _listed(one_by_one))) == whole


@steady
@given(regions, regions, hash_counts)
def test_merging_commutes(one: dict[Key, Amounts], other: dict[Key, Amounts], hashes: int) -> None:
    a, b = flow_rows(one, hashes=hashes), flow_rows(other, hashes=hashes)
    assert flows_of(merge_rows([a, b])) == flows_of(merge_rows([b, a]))


@steady
@given(regions, regions, regions, hash_counts)
def test_merging_associates(
    one: dict[Key, Amounts], other: dict[Key, Amounts], third: dict[Key, Amounts], hashes: int
) -> None:
    a, b, c = (flow_rows(part, hashes=hashes) for part in (one, other, third))
    left, right = merge_rows([merge_rows([a, b]), c]), merge_rows([a, merge_rows([b, c])])
    assert flows_of(left) == flows_of(right)


def reversed_flows(batch: FlowBatch) -> FlowBatch:
    """The same traffic the other way round: ends of every flow and direction of the device swapped."""
    flows = batch.flows.copy()
    for one, other in (("src_addr", "dst_addr"), ("src_port", "dst_port")):
        flows[one], flows[other] = batch.flows[other], batch.flows[one]
    turned = tuple(
        Attachment(a.id, a.device, a.ifindex, "tx" if a.direction == "rx" else "rx", a.mode) for a in batch.attachments
    )
    return FlowBatch(batch.start_ns, batch.end_ns, turned, flows, batch.counters, batch.ethertypes, ())


@steady
@given(captures())
def test_reversing_all_flows_swaps_the_directions_of_conversations_and_twice_changes_nothing(frames: Frames) -> None:
    engine, interval = new_engine(), Interval()
    count(engine, frames, interval)
    interval.add(engine.flip(), {0: 0})
    one = (Attachment(0, "simulated", 0, direction="rx", mode="none"),)
    batch = FlowBatch(0, 1, one, interval.flows(), interval.counters(), interval.ethertypes(), ())
    twice = reversed_flows(reversed_flows(batch))
    assert (twice.flows == batch.flows).all()
    assert twice.attachments == batch.attachments

    joined, turned = conversations(batch), conversations(reversed_flows(batch))
    amounts = sorted(zip(*(joined[f"{side}_bytes"].tolist() for side in ("rx", "tx")), strict=True))
    swapped = sorted(zip(*(turned[f"{side}_bytes"].tolist() for side in ("tx", "rx")), strict=True))
    assert amounts == swapped
