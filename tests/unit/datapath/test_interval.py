"""What several flips bring is added up, within bounds, and nothing of it is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.interval import BATCH_FULL, Interval, tallies_by_attachment
from wiremeter.flows.batch import Audit, Tally
from wiremeter.flows.columns import ETHERTYPE_COUNTER, ETHERTYPE_OTHER, FLOW, PROTOCOL_UNKNOWN

from ..flow_rows import Amounts, Key, add_up, flow_rows, flows_of, regions

#: A busy machine may stand still for longer than an example usually takes.
steady = settings(deadline=None)

ATTACHMENTS = 4
IDENTITY = {slot: slot for slot in range(ATTACHMENTS)}


def drain(
    *flows: NDArray[np.void],
    counters: dict[tuple[int, int], Tally] | None = None,
    ethertypes: list[tuple[int, int, int, int, int]] | None = None,
    **more: float,
) -> Drain:
    """counters: by slot and row."""
    counts = np.zeros((ATTACHMENTS, records.ROWS, 3), np.uint64)
    for (slot, row), tally in (counters or {}).items():
        counts[slot, row] = tally
    return Drain(counts, list(flows), np.array(ethertypes or [], ETHERTYPE_COUNTER), **more)  # type: ignore[arg-type]


def reason(name: str) -> int:
    """The row of a reason."""
    return records.ROW_UNATTRIBUTED + records.REASONS.index(name)


def drain_of(parts: list[dict[Key, Amounts]]) -> Drain:
    """A flip in which all was attributed: flows, and the counters that belong to them."""
    counters: dict[tuple[int, int], Tally] = {}
    for key, amounts in add_up(parts).items():
        row = key.attachment, (records.ROW_IPV4 if key.family == 4 else records.ROW_IPV6) + key.protocol
        counters[row] = counters.get(row, Tally()).plus(Tally(*amounts[:3]))
    return drain(*(flow_rows(part, hashes=5) for part in parts), counters=counters)


def audit(interval: Interval, position: int) -> Audit:
    """Of one attachment."""
    mine = tallies_by_attachment(interval.flows(), ATTACHMENTS)[position]
    return Audit(
        "eth0", "rx", interval.seen(position), mine, interval.non_ip(position), interval.unattributed(position)
    )


def test_an_interval_without_flips_is_empty() -> None:
    interval = Interval()
    assert (len(interval.flows()), len(interval.counters()), len(interval.ethertypes())) == (0, 0, 0)
    assert (interval.seen(0), interval.non_ip(0), interval.unattributed(0)) == (Tally(), Tally(), {})


flips = st.lists(st.lists(regions, max_size=3), max_size=4)


@steady
@given(flips)
def test_flows_of_all_flips_and_cpus_add_up(drawn: list[list[dict[Key, Amounts]]]) -> None:
    interval = Interval()
    for parts in drawn:
        interval.add(drain_of(parts), IDENTITY)
    assert flows_of(interval.flows()) == add_up([part for parts in drawn for part in parts])
    assert all(audit(interval, position).balanced for position in range(2))


@steady
@given(flips, st.integers(1, 6))
def test_flows_beyond_the_bound_are_counted_as_batch_full(drawn: list[list[dict[Key, Amounts]]], bound: int) -> None:
    interval = Interval(max_flows=bound)
    for parts in drawn:
        interval.add(drain_of(parts), IDENTITY)
        assert len(interval.flows()) <= bound
    whole = add_up([part for parts in drawn for part in parts])
    for position in range(2):
        found = audit(interval, position)
        assert found.balanced
        assert set(found.unattributed) <= {BATCH_FULL}
        assert found.seen == Tally(*(sum(a[i] for k, a in whole.items() if k.attachment == position) for i in range(3)))
    if len(whole) > bound:
        assert len(interval.flows()) == bound


@steady
@given(flips)
def test_attachments_have_places_in_the_order_in_which_they_came(drawn: list[list[dict[Key, Amounts]]]) -> None:
    """The attachment in slot 1 came first."""
    interval = Interval()
    interval.add(drain(), {1: 77})
    for parts in drawn:
        interval.add(drain_of(parts), {0: 99, 1: 77})
    assert interval.attachments == ((77, 99) if drawn else (77,))
    turned = [
        {key._replace(attachment=1 - key.attachment): amounts for key, amounts in part.items()}
        for parts in drawn
        for part in parts
    ]
    assert flows_of(interval.flows()) == add_up(turned)
    assert all(audit(interval, position).balanced for position in range(2))


def test_a_slot_may_belong_to_another_place_in_the_next_flip() -> None:
    """Its attachment is gone, and another has taken the slot; a third has two slots."""
    interval = Interval()
    one = {Key(attachment=0): Amounts(packets=1, bytes=60, skbs=1)}
    both = {Key(attachment=slot, sport=slot): Amounts(packets=1, bytes=60, skbs=1) for slot in (0, 1)}
    interval.add(drain_of([one]), {0: 5})
    interval.add(drain_of([one]), {0: 6})
    interval.add(drain_of([{key: amounts} for key, amounts in both.items()]), {0: 7, 1: 7})
    assert interval.attachments == (5, 6, 7)
    assert sorted(key.attachment for key in flows_of(interval.flows())) == [0, 1, 2, 2]
    assert interval.seen(0) == interval.seen(1) == Tally(1, 60, 1)
    assert interval.seen(2) == Tally(2, 120, 2)


def test_a_flow_of_a_slot_above_all_that_are_owned_has_a_place_nevertheless() -> None:
    """It cannot be, and must not be looked up beyond the table of places if it is."""
    interval = Interval()
    interval.add(drain(), {0: 70})
    interval.add(drain_of([{Key(attachment=ATTACHMENTS - 1): Amounts()}]), {0: 71, 1: 70})
    assert set(interval.flows()["attachment"]) <= {0, 1}


def test_counters_have_a_row_for_each_family_and_protocol_that_was_seen() -> None:
    interval = Interval()
    for _ in range(2):
        interval.add(
            drain(
                counters={
                    (0, records.ROW_IPV4 + 6): Tally(5, 500, 2),
                    (0, records.ROW_IPV4 + PROTOCOL_UNKNOWN): Tally(1, 14, 1),
                    (0, records.ROW_IPV6): Tally(3, 300, 3),
                    (0, records.ROW_IPV6 + 255): Tally(1, 60, 1),
                    (0, records.ROW_NON_IP): Tally(2, 120, 2),
                    (2, records.ROW_IPV4 + 17): Tally(9, 900, 9),
                }
            ),
            {0: 0, 2: 1},
        )
    assert sorted(interval.counters().tolist()) == [
        (0, 0, 0, 4, 240, 4),
        (0, 4, 6, 10, 1000, 4),
        (0, 4, 256, 2, 28, 2),
        (0, 6, 0, 6, 600, 6),
        (0, 6, 255, 2, 120, 2),
        (1, 4, 17, 18, 1800, 18),
    ]


def test_what_was_seen_counts_every_packet_once() -> None:
    """Each reason adds to a family's row besides its own, but what was cut in L2 has no family."""
    interval = Interval()
    interval.add(
        drain(
            counters={
                (0, records.ROW_IPV4 + 6): Tally(7, 700, 7),
                (0, records.ROW_IPV6 + 17): Tally(2, 200, 2),
                (0, records.ROW_NON_IP): Tally(1, 60, 1),
                (0, reason("truncated_l2")): Tally(3, 45, 3),
                (0, reason("table_full")): Tally(4, 400, 4),
                (0, reason("truncated_l4")): Tally(2, 200, 2),
            }
        ),
        {0: 0},
    )
    assert interval.seen(0) == Tally(13, 1005, 13)
    assert interval.non_ip(0) == Tally(1, 60, 1)
    assert interval.unattributed(0) == {
        "truncated_l2": Tally(3, 45, 3),
        "truncated_l4": Tally(2, 200, 2),
        "table_full": Tally(4, 400, 4),
    }


@pytest.mark.parametrize("name", records.REASONS)
def test_every_reason_is_named(name: str) -> None:
    interval = Interval()
    interval.add(drain(counters={(0, reason(name)): Tally(1, 60, 1)}), {0: 0})
    assert interval.unattributed(0) == {name: Tally(1, 60, 1)}


def test_ethertypes_add_up_and_the_rest_of_non_ip_is_other() -> None:
    interval = Interval()
    first = drain(
        counters={(0, records.ROW_NON_IP): Tally(5, 300, 5), (1, records.ROW_NON_IP): Tally(1, 60, 1)},
        ethertypes=[(0, 0x0806, 2, 120, 2), (0, 0x88CC, 1, 60, 1), (0, 0x0806, 1, 60, 1), (1, 0x0806, 1, 60, 1)],
    )
    interval.add(first, {0: 0, 1: 1})
    interval.add(
        drain(counters={(0, records.ROW_NON_IP): Tally(1, 60, 1)}, ethertypes=[(0, 0x0806, 1, 60, 1)]), {0: 0, 1: 1}
    )
    assert interval.ethertypes().tolist() == [
        (0, 0x0806, 4, 240, 4),
        (0, 0x88CC, 1, 60, 1),
        (0, ETHERTYPE_OTHER, 1, 60, 1),
        (1, 0x0806, 1, 60, 1),
    ]


def test_frames_of_which_no_ethertype_found_room_are_all_other() -> None:
    interval = Interval()
    interval.add(drain(counters={(0, records.ROW_NON_IP): Tally(5, 300, 5)}), {0: 0})
    assert interval.ethertypes().tolist() == [(0, ETHERTYPE_OTHER, 5, 300, 5)]


@pytest.mark.parametrize("others", [0, 3])
def test_the_drain_is_left_as_it_is(others: int) -> None:
    drained = drain_of([{Key(attachment=0, sport=port): Amounts(1, 60, 1) for port in (1, 2)}])
    drained.ethertypes = np.array([(0, 0x0806, 1, 60, 1)], ETHERTYPE_COUNTER)
    before = [rows.copy() for rows in (*drained.flows, drained.ethertypes, drained.counters)]
    interval = Interval()
    for other in range(others):
        interval.add(drain(), {0: 100 + other})
    for _ in range(2):
        interval.add(drained, {0: 7})
        assert set(interval.flows()["attachment"]) == {others}
    assert interval.flows()["packets"].tolist() == [2, 2]
    for rows, then in zip((*drained.flows, drained.ethertypes, drained.counters), before, strict=True):
        assert (rows == then).all()


def test_the_drain_may_be_used_again_where_slots_and_places_agree() -> None:
    interval = Interval()
    one = drain(counters={(0, records.ROW_IPV4 + 6): Tally(1, 60, 1)})
    interval.add(one, {0: 0})
    interval.add(one, {0: 0})
    assert interval.seen(0) == Tally(2, 120, 2)
    assert one.counters[0, records.ROW_IPV4 + 6].tolist() == [1, 60, 1]


def test_times_add_up_and_the_peak_is_the_highest() -> None:
    interval = Interval()
    interval.add(drain(peak_lines=5, grace_seconds=0.25, drain_seconds=0.5), {})
    interval.add(drain(peak_lines=3, grace_seconds=0.25, drain_seconds=0.25), {})
    assert (interval.peak_lines, interval.grace_seconds, interval.drain_seconds) == (5, 0.5, 0.75)


@steady
@given(regions)
def test_tallies_by_attachment_are_the_sums_of_their_flows(flows: dict[Key, Amounts]) -> None:
    found = tallies_by_attachment(flow_rows(flows), 2)
    for position in range(2):
        mine = [amounts for key, amounts in flows.items() if key.attachment == position]
        assert found[position] == Tally(*(sum(column) for column in zip(*(a[:3] for a in mine), strict=True)))


def test_tallies_of_the_only_attachment_and_of_no_flows() -> None:
    rows = flow_rows({Key(sport=1): Amounts(1, 60, 1), Key(sport=2): Amounts(2, 120, 1)})
    assert tallies_by_attachment(rows, 1) == [Tally(3, 180, 2)]
    assert list(tallies_by_attachment(np.zeros(0, FLOW), 1)) == [Tally()]
    assert list(tallies_by_attachment(np.zeros(0, FLOW), 3)) == [Tally()] * 3
