"""The host engine: what it counts, when it asks for a flip, and what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from captures.build import Record, ethernet, udp, udp6
from wiremeter.datapath.host import LINK_ETHERNET, HostEngine
from wiremeter.datapath.interval import Interval
from wiremeter.datapath.layout import plan_tables
from wiremeter.errors import InputError
from wiremeter.flows.batch import Tally
from wiremeter.flows.columns import ETHERTYPE_LLC, ETHERTYPE_NONE

PLAN = plan_tables(1, 256, attachments=2)
Columns = tuple[bytes, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def columns(records: Sequence[Record]) -> Columns:
    """The arguments of HostEngine.count for frames that lie one behind the other."""
    captured = np.array([len(r.data) for r in records], "u4")
    offsets = (np.cumsum(captured, dtype="u8") - captured).astype("u8")
    wire, times_ns = np.array([r.wire_bytes for r in records], "u4"), np.array([r.time_ns for r in records], "u8")
    return b"".join(r.data for r in records), offsets, captured, wire, times_ns


def count_all(engine: HostEngine, slot: int, records: Sequence[Record], links: Sequence[int] | None = None) -> Interval:
    """All of them, with a flip whenever one is due, and one at the end."""
    interval = Interval()
    data, *rest = columns(records)
    if links is not None:
        rest.append(np.array(links, "u4"))
    at = 0
    while (at := at + engine.count(slot, data, *(column[at:] for column in rest))) < len(records):
        interval.add(engine.flip(), {slot: 0})
    interval.add(engine.flip(), {slot: 0})
    return interval


@pytest.fixture
def engine() -> HostEngine:
    return HostEngine(PLAN)


def test_packets_of_a_flow_add_up(engine: HostEngine) -> None:
    slot = engine.attach("sim0", "tx")
    interval = count_all(engine, slot, [Record(ethernet(udp()), 5), Record(ethernet(udp()), 9, wire=1500)])
    (flow,) = interval.flows()
    assert (flow["packets"], flow["bytes"], flow["skbs"]) == (2, 49 + 1500, 2)
    assert (flow["first_ns"], flow["last_ns"]) == (5, 9)
    assert interval.seen(0) == Tally(2, 49 + 1500, 2)
    assert not interval.unattributed(0)


def test_times_may_go_back(engine: HostEngine) -> None:
    slot = engine.attach("sim0")
    times = [50, 20, 90, 40]
    for packet in (udp(), udp6()):
        (flow,) = count_all(engine, slot, [Record(ethernet(packet), at) for at in times]).flows()
        assert (flow["first_ns"], flow["last_ns"]) == (20, 90)


def test_a_flip_leaves_nothing_behind(engine: HostEngine) -> None:
    slot = engine.attach("sim0")
    records = [Record(ethernet(udp())), Record(ethernet(udp6())), Record(ethernet(b"arp", 0x0806)), Record(b"short")]
    first, second, third = (count_all(engine, slot, part) for part in (records, records, []))
    assert np.array_equal(first.flows(), second.flows())
    assert np.array_equal(first.counters(), second.counters())
    assert (third.seen(0), len(third.flows()), len(third.ethertypes())) == (Tally(), 0, 0)


def test_slots_are_counted_apart(engine: HostEngine) -> None:
    first, second = engine.attach("sim0"), engine.attach("sim0", "tx")
    data, *rest = columns([Record(ethernet(udp()))])
    assert engine.count(first, data, *rest) == engine.count(second, data, *rest) == 1
    drain = engine.flip()
    assert drain.counters[:, :, 0].sum(axis=1).tolist() == [1, 1]
    assert [rows["attachment"].tolist() for rows in drain.flows] == [[0, 1]]


@given(
    frames=st.lists(st.tuples(st.integers(1, 400), st.booleans(), st.integers(49, 1500)), max_size=600),
    seed=st.integers(0, 2**64 - 1),
)
def test_no_frame_is_lost_for_want_of_room(frames: list[tuple[int, bool, int]], seed: int) -> None:
    """256 lines are soon full of flows, of 400 addresses in two families: flips come early, and no count is lost."""
    engine = HostEngine(PLAN, seed=seed)
    slot = engine.attach("sim0")
    records = [Record(ethernet((udp6 if six else udp)(src)), wire=wire) for src, six, wire in frames]
    interval = count_all(engine, slot, records)
    expected: Counter[tuple[int, int]] = Counter()
    for src, six, wire in frames:
        expected[6 if six else 4, src] += wire
    found = {
        (int(flow["family"]), int.from_bytes(flow["src_addr"][-2:].tobytes())): int(flow["bytes"])
        for flow in interval.flows()
    }
    assert found == expected
    assert not interval.unattributed(0)


def test_a_flip_is_asked_for_before_the_frame_that_needs_it(engine: HostEngine) -> None:
    slot = engine.attach("sim0")
    data, *rest = columns([Record(ethernet(udp(src))) for src in range(300)])
    counted = engine.count(slot, data, *rest)
    assert 0 < counted < 300
    assert engine.count(slot, data, *(column[counted:] for column in rest)) == 0
    assert sum(map(len, engine.flip().flows)) == counted
    assert engine.count(slot, data, *(column[counted:] for column in rest)) > 0


def test_frames_that_begin_with_their_network_header(engine: HostEngine) -> None:
    slot = engine.attach("sim0")
    links = [0x0800, 0x86DD, 0x0806, ETHERTYPE_LLC, ETHERTYPE_NONE, 0x8100, LINK_ETHERNET, 0x0800]
    packets = [udp(), udp6(), b"", b"", b"", b"\0\7\x08\0" + udp(), ethernet(udp()), b""]
    interval = count_all(engine, slot, [Record(packet, wire=100) for packet in packets], links)
    rows = [(f["family"], f["vlan"], f["packets"]) for f in interval.flows()]
    assert sorted(rows) == [(4, 7, 1), (4, 0xFFFF, 2), (6, 0xFFFF, 1)]
    assert interval.ethertypes()["ethertype"].tolist() == [0x0806, ETHERTYPE_LLC, ETHERTYPE_NONE]
    assert interval.unattributed(0) == {"truncated_ip": Tally(1, 100, 1)}


def test_a_cut_frame_counts_its_length_on_the_wire(engine: HostEngine) -> None:
    slot = engine.attach("sim0")
    frame = ethernet(udp(payload=bytes(1000)))
    interval = count_all(engine, slot, [Record(frame[:cut], wire=len(frame)) for cut in (13, 20, 37, 42, 100)])
    assert interval.seen(0) == Tally(5, 5 * len(frame), 5)
    assert interval.flows()["packets"].tolist() == [2]
    assert {reason: tally.packets for reason, tally in interval.unattributed(0).items()} == {
        "truncated_l2": 1,
        "truncated_ip": 1,
        "truncated_l4": 1,
    }


def test_frames_may_lie_anywhere_in_any_order(engine: HostEngine) -> None:
    slot = engine.attach("sim0")
    frame = ethernet(udp())
    data = memoryview(bytearray(b"x" + frame + b"yy" + frame))
    offsets = np.array([3 + len(frame), 1, 1], "u8")
    lengths, times = np.full(3, len(frame), "u4"), np.zeros(3, "u8")
    assert engine.count(slot, data, offsets, lengths, lengths, times) == 3
    assert engine.flip().flows[0]["packets"].tolist() == [3]


@pytest.mark.parametrize(
    ("offset", "captured"), [(0, 50), (1, 49), (50, 0), (2**64 - 1, 2), (2**63, 1), (0, 2**32 - 1)]
)
def test_a_frame_outside_the_data_is_refused(engine: HostEngine, offset: int, captured: int) -> None:
    slot = engine.attach("sim0")
    data = ethernet(udp())
    offsets, lengths = np.array([0, offset], "u8"), np.array([49, captured], "u4")
    with pytest.raises(InputError, match=f"frame 1 has {captured} bytes from {offset} on; the data end at 49"):
        engine.count(slot, data, offsets, lengths, lengths, np.zeros(2, "u8"))
    assert engine.flip().flows[0]["packets"].tolist() == [1]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("captured", np.zeros(2, "u4")),
        ("captured", np.zeros(1, "u8")),
        ("offsets", np.zeros((1, 1), "u8")),
        ("offsets", np.zeros(2, "u8")),
        ("times_ns", np.zeros(1, "i8")),
        ("links", np.zeros(1, "u2")),
    ],
)
def test_columns_that_c_would_misread_are_refused(engine: HostEngine, name: str, column: NDArray[Any]) -> None:
    slot = engine.attach("sim0")
    data, offsets, captured, wire, times_ns = columns([Record(ethernet(udp()))])
    given: dict[str, Any] = {"offsets": offsets, "captured": captured, "wire": wire, "times_ns": times_ns}
    with pytest.raises(InputError, match=r"dtype .* and shape"):
        engine.count(slot, data, **(given | {name: column}))


def test_a_column_in_pieces_is_refused(engine: HostEngine) -> None:
    slot = engine.attach("sim0")
    data, offsets, captured, wire, times_ns = columns([Record(ethernet(udp()))] * 4)
    with pytest.raises(InputError, match=r"captured .* in one piece"):
        engine.count(slot, data, offsets[:2], captured[::2], wire[:2], times_ns[:2])


def test_slots_are_those_that_were_attached(engine: HostEngine) -> None:
    none = np.zeros(0, "u4")
    for slot in (-1, 0):
        with pytest.raises(InputError, match=f"slot {slot} is not attached"):
            engine.count(slot, b"", none.astype("u8"), none, none, none.astype("u8"))
    engine.attach("a")
    engine.attach("b")
    with pytest.raises(InputError, match="no room to meter c rx"):
        engine.attach("c")
    assert engine.count(0, b"", none.astype("u8"), none, none, none.astype("u8")) == 0
