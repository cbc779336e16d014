"""Ranges compared with earlier ones, and values for completion, against sums of the flows themselves."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest

from wiremeter.flows.columns import address_text
from wiremeter.server.query.conditions import where
from wiremeter.server.query.dimensions import AMOUNTS
from wiremeter.server.query.sums import Question, series, top, values
from wiremeter.server.query.times import Span
from wiremeter.server.store import Store

from ...live_batches import flow, make_batch
from .stored import EPOCH_NS, store_batch
from .test_conditions import make_flows

S_NS = 10**9
HOUR_NS = 3600 * S_NS
SPAN = Span(EPOCH_NS + 10 * S_NS, EPOCH_NS + 610 * S_NS)
NOW, THEN = make_flows(21, 120), make_flows(22, 90)


@pytest.fixture(scope="module")
def store(opened: Store) -> Store:
    """Flows of one agent in SPAN, others an hour before; and of another agent, which nobody asks for."""
    for number in range(4):
        store_batch(opened, NOW, "web-1", number, start_ns=EPOCH_NS + (20 + number * 70) * S_NS)
        store_batch(opened, THEN, "web-1", 10 + number, start_ns=EPOCH_NS - HOUR_NS + (20 + number * 70) * S_NS)
    store_batch(opened, THEN, "db-1", start_ns=EPOCH_NS + 100 * S_NS)
    opened.close_ended()
    return opened


def question(**more: Any) -> Question:
    return Question(**{"span": SPAN, "condition": where("agent web-1"), "before": 3600, **more})


def by_source(batch: Any) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for row in batch.flows:
        found[ip_address(address_text(row["src_addr"]))] += 4 * int(row["bytes"])
    return found


def test_each_row_has_both_numbers_and_both_add_up(store: Store) -> None:
    answer = top(store, question(by=("src_addr",), limit=3))
    rows = answer.table().to_pylist()
    now, then = by_source(NOW), by_source(THEN)
    assert [(ip_address(row["src_addr"]), row["bytes"], row["bytes_before"]) for row in rows[:3]] == [
        (address, size, then[address]) for address, size in now.most_common(3)
    ]
    assert answer.about["total"]["bytes"] == now.total() == sum(row["bytes"] for row in rows)
    assert answer.about["total_before"]["bytes"] == then.total() == sum(row["bytes_before"] for row in rows)
    assert answer.about["total_before"]["flows"] == 4 * len(THEN.flows)


def test_what_changed_most_comes_first_if_it_is_asked_for(store: Store) -> None:
    now, then = by_source(NOW), by_source(THEN)
    changes = sorted(now.keys() | then.keys(), key=lambda address: -abs(now[address] - then[address]))
    rows = top(store, question(by=("src_addr",), limit=2, rank="change")).table().to_pylist()
    assert [ip_address(row["src_addr"]) for row in rows[:2]] == changes[:2]
    found = series(store, question(by=("src_addr",), limit=2, rank="change"), 60).table().to_pylist()
    assert {ip_address(row["src_addr"]) for row in found if not row["other"]} == set(changes[:2])


def test_what_is_gone_is_in_the_remainder(opened: Store) -> None:
    old = make_batch([flow("10.44.0.1", "10.44.0.2", 1, 2, packets=7)])
    store_batch(opened, old, "gone", start_ns=EPOCH_NS - HOUR_NS + 20 * S_NS)
    asked = question(condition=where("agent gone"), by=("src_addr",), limit=1)
    (row,) = top(opened, asked).table().to_pylist()
    assert (row["src_addr"], row["packets"], row["packets_before"], row["other"]) == ("10.44.0.1", 0, 7, False)


@pytest.mark.parametrize(("step", "before"), [(10, 3600), (60, 3600), (60, 3590), (3600, 3600), (7, 3601)])
@pytest.mark.parametrize("by", [(), ("application",)])
def test_series_have_what_was_before_in_the_step_that_it_is_compared_with(
    store: Store, step: int, before: int, by: tuple[str, ...]
) -> None:
    asked = question(before=before, by=by, limit=2)
    answer = series(store, asked, step)
    rows = answer.table().to_pylist()
    assert {name: sum(row[name] for row in rows) for name in AMOUNTS} == answer.about["total"]
    now: Counter[int] = Counter()
    for number in range(4):
        now[(EPOCH_NS // S_NS + 20 + number * 70) // step * step] += int(NOW.flows["bytes"].sum())
    then: Counter[int] = Counter()
    for number in range(4):
        at = EPOCH_NS // S_NS - 3600 + 20 + number * 70 + before
        if SPAN.start_ns <= at * S_NS < SPAN.end_ns:
            then[at // step * step] += int(THEN.flows["bytes"].sum())
    for found, name in ((now, "bytes"), (then, "bytes_before")):
        sums: Counter[int] = Counter()
        for row in rows:
            sums[int(row["time"].timestamp())] += row[name]
        assert +sums == +found


def test_a_rollup_moved_by_no_whole_minutes_is_not_read(store: Store) -> None:
    """Else its sums, which begin with the minute, would lie in the wrong steps."""
    for before, is_read in ((3600, True), (3590, False)):
        now, then = question(by=("application",), before=before).source(store, step=60).split("REPLACE")
        assert ("_minute" in now, "_minute" in then) == (True, is_read)


# --- values


def sizes(batch: Any, of: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for row, index in zip(batch.flows, batch.name_indexes, strict=True):
        name = getattr(batch.names[index], of)
        if name:
            found[name] += int(row["bytes"])
    return found


def asked_values(store: Store, of: str, prefix: str = "", limit: int = 20) -> tuple[list[str], bool]:
    asked = Question(span=SPAN, condition=where("agent db-1"), by=(of,), limit=limit)
    answer = values(store, asked, prefix)
    more = answer.about["more"]
    return [row["value"] for row in answer.table().to_pylist()], more


def test_values_come_by_how_much_there_is_of_them(store: Store) -> None:
    known = [name for name, _ in sizes(THEN, "domain").most_common()]
    assert asked_values(store, "domain") == (known, False)
    assert asked_values(store, "domain", limit=1) == (known[:1], True)
    rows = values(store, Question(span=SPAN, condition=where("agent db-1"), by=("domain",)), "").table().to_pylist()
    assert {row["value"]: row["bytes"] for row in rows} == sizes(THEN, "domain")


def test_values_begin_as_asked_whatever_the_case_and_hold_no_patterns(store: Store) -> None:
    assert asked_values(store, "domain", "WWW.e") == (["www.example.com"], False)
    assert asked_values(store, "domain", "%") == asked_values(store, "domain", "*") == ([], False)
    assert set(asked_values(store, "src_addr", "10.1")[0]) == {"10.1.0.1"}
    assert set(asked_values(store, "dst_port", "44")[0]) == {"443"}
    assert asked_values(store, "domain", "it's-[ODD]") == (["it's-[odd].example"], False)


def test_what_flows_have_not_is_no_value(store: Store) -> None:
    found, _ = asked_values(store, "vlan")
    assert set(found) <= {"0", "5", "77", "4095"}
    assert asked_values(store, "tls_version") == ([], False)
