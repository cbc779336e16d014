"""Answers equal what is computed from the stored flows themselves, and their parts add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch, Tally
from wiremeter.flows.columns import address_text
from wiremeter.names.records import DnsTransaction, FlowKey, Transactions
from wiremeter.server.query import sums
from wiremeter.server.query.accounts import TOTAL_WORDS, audit, totals
from wiremeter.server.query.conditions import Where, where
from wiremeter.server.query.dimensions import AMOUNTS, DIMENSIONS, read_dimensions
from wiremeter.server.query.search import WORDS, Search, search
from wiremeter.server.query.sums import CONVERSATION, TO_SERVER_AMOUNTS, Once, Question, series, top
from wiremeter.server.query.times import Span, choose_step, read_span, read_step
from wiremeter.server.store import Store, TooMuch

from ...live_batches import flow, make_batch, packed
from .stored import EPOCH_NS, store_batch
from .test_conditions import make_flows

SPAN = Span(EPOCH_NS, EPOCH_NS + 3600 * 10**9)
S_NS = 10**9


@pytest.fixture(scope="module")
def batch() -> FlowBatch:
    return make_flows(5)


@pytest.fixture(scope="module")
def store(opened: Store, batch: FlowBatch) -> Store:
    for number in range(3):
        store_batch(opened, batch, "web-1", number, start_ns=EPOCH_NS + number * 40 * S_NS)
    store_batch(opened, make_flows(6, 50), "db-1", start_ns=EPOCH_NS + 100 * S_NS)
    return opened


def rows_of(store: Store, question: Question) -> list[dict[str, Any]]:
    return list(top(store, question).table().to_pylist())


def summed(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(row[name] for row in rows) for name in AMOUNTS}


# --- the largest


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    by=st.lists(st.sampled_from(sorted(DIMENSIONS)), unique=True, max_size=4).map(tuple),
    sort=st.sampled_from(AMOUNTS),
    limit=st.integers(1, 20),
    once=st.sampled_from(("none", "observer")),
    filter=st.sampled_from(("", "tcp", "agent web-1 and not port 53", "domain com")),
)
def test_parts_add_up_to_the_total_by_any_dimensions(
    store: Store, by: tuple[str, ...], sort: Any, limit: int, once: Once, filter: str
) -> None:
    question = Question(span=SPAN, condition=where(filter), by=by, sort=sort, limit=limit, once=once)
    answer = top(store, question)
    rows = answer.table().to_pylist()
    assert summed(rows) == answer.about["total"]
    named = [row for row in rows if not row["other"]]
    assert len(named) <= limit
    assert [row[sort] for row in named] == sorted((row[sort] for row in named), reverse=True)
    assert len({tuple(row[name] for name in by) for row in named}) == len(named)
    everything = rows_of(store, Question(span=SPAN, condition=where(filter), once=once))
    assert summed(everything) == answer.about["total"]


def test_the_largest_are_those_of_the_flows_themselves(store: Store, batch: FlowBatch) -> None:
    counted: Counter[IPv4Address | IPv6Address] = Counter()
    for row in batch.flows:
        counted[ip_address(address_text(row["src_addr"]))] += int(row["bytes"]) * 3
    question = Question(span=SPAN, condition=where("agent web-1"), by=("src_addr",), limit=3)
    *found, other = [(row["src_addr"], row["bytes"]) for row in rows_of(store, question)]
    assert [(ip_address(address), size) for address, size in found] == counted.most_common(3)
    assert other == (None, sum(counted.values()) - sum(size for _, size in counted.most_common(3)))


def test_null_is_a_value_of_its_own_and_not_the_remainder(store: Store, batch: FlowBatch) -> None:
    rows = rows_of(store, Question(span=SPAN, condition=where("agent web-1"), by=("vlan",), limit=100))
    untagged = batch.flows["bytes"][batch.flows["vlan"] == 0xFFFF].sum()
    assert [(row["bytes"], row["other"]) for row in rows if row["vlan"] is None] == [(int(untagged) * 3, False)]


def test_conversations_have_both_directions_and_the_part_that_went_to_the_server(opened: Store) -> None:
    there = flow("10.9.0.1", "192.0.2.9", 50000, 443, size=100)
    back = flow("192.0.2.9", "10.9.0.1", 443, 50000, direction="tx", size=1000)
    store_batch(opened, make_batch([there, back]), "talk", start_ns=EPOCH_NS + 10 * S_NS)
    question = Question(span=SPAN, condition=where("agent talk"), by=CONVERSATION, more=TO_SERVER_AMOUNTS)
    (row,) = rows_of(opened, question)
    assert (row["client_addr"], row["client_port"]) == ("10.9.0.1", 50000)
    assert (row["server_addr"], row["server_port"]) == ("192.0.2.9", 443)
    assert (row["bytes"], row["bytes_to_server"], row["packets"], row["packets_to_server"]) == (1100, 100, 2, 1)


def test_no_flows_are_a_total_of_zero(store: Store) -> None:
    answer = top(store, Question(span=SPAN, condition=where("agent nobody"), by=("agent",)))
    assert (answer.table().num_rows, answer.about["total"]) == (0, dict.fromkeys(AMOUNTS, 0))


# --- time series


@pytest.mark.parametrize("step", [1, 7, 60, 3600])
@pytest.mark.parametrize("by", [(), ("src_addr", "vlan"), ("application",)])
def test_series_add_up_for_each_step_whatever_the_step(store: Store, step: int, by: tuple[str, ...]) -> None:
    question = Question(span=SPAN, by=by, limit=2, condition=where("agent web-1 or agent db-1"))
    answer = series(store, question, step)
    rows = answer.table().to_pylist()
    assert summed(rows) == top(store, question).about["total"] == answer.about["total"]
    times = {row["time"] for row in rows}
    assert all(time.timestamp() % step == 0 for time in times)
    for time in times:
        named = [row for row in rows if row["time"] == time and not row["other"]]
        assert len(named) <= max(1, len(by) and 2)


def test_the_largest_series_are_those_of_the_whole_range(store: Store) -> None:
    question = Question(span=SPAN, by=("src_addr",), limit=2)
    largest = [row["src_addr"] for row in rows_of(store, question) if not row["other"]]
    found = {row["src_addr"] for row in series(store, question, 10).table().to_pylist() if not row["other"]}
    assert found == set(largest)


# --- once each


def test_a_flow_seen_at_both_ends_and_on_a_bridge_counts_once_as_its_best_observer_saw_it(opened: Store) -> None:
    def seen(packets: int, device: str, direction: str) -> dict[str, Any]:
        return flow("10.8.0.1", "10.8.0.2", 40000, 80, packets=packets, device=device, direction=direction)

    start = EPOCH_NS + 300 * S_NS
    store_batch(opened, make_batch([seen(10, "eth0", "tx")]), "one", 0, start_ns=start)
    store_batch(opened, make_batch([seen(10, "eth0", "tx")]), "one", 1, start_ns=start + 5 * S_NS)
    bridged = [seen(9, "br0", "rx"), seen(9, "port1", "rx"), seen(9, "port2", "tx")]
    far = make_batch(bridged, devices=("br0", "port1", "port2"))
    store_batch(opened, far, "two", 0, start_ns=start + 2 * S_NS)
    alone = make_batch([flow("10.8.0.3", "10.8.0.2", 1, 80, packets=5)])
    store_batch(opened, alone, "two", 1, start_ns=start + 9 * S_NS)
    span = Span(start, start + 60 * S_NS)
    question = Question(span=span, by=("agent", "device", "direction"), once="observer")
    found = {(row["agent"], row["device"], row["direction"]): row["packets"] for row in rows_of(opened, question)}
    assert found == {("one", "eth0", "tx"): 20, ("two", "eth0", "rx"): 5}
    assert top(opened, Question(span=span)).about["total"]["packets"] == 20 + 27 + 5
    only_two = Question(span=span, condition=where("agent two"), once="observer")
    assert top(opened, only_two).about["total"]["packets"] == 14  # of what that agent saw


def test_where_a_path_changes_another_observer_takes_over(opened: Store) -> None:
    row = flow("10.7.0.1", "10.7.0.2", 40000, 80, packets=10)
    less = {**row, "packets": 4, "bytes": 400}
    start = EPOCH_NS + 900 * S_NS
    store_batch(opened, make_batch([row]), "path-a", 0, start_ns=start)
    store_batch(opened, make_batch([less]), "path-b", 0, start_ns=start + S_NS)
    store_batch(opened, make_batch([less]), "path-b", 1, start_ns=start + 400 * S_NS)
    question = Question(
        span=Span(start, start + 1000 * S_NS), condition=where("agent 'path-*'"), by=("agent",), once="observer"
    )
    assert {row["agent"]: row["packets"] for row in rows_of(opened, question)} == {"path-a": 10, "path-b": 4}


def test_what_takes_too_much_is_refused_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wiremeter.server.query.sums.LIMITS", f"{sums.LIMITS}, max_memory_usage = 100000")
    for ask in (top, lambda store, question: series(store, question, 60)):
        with pytest.raises(TooMuch):
            ask(store, Question(span=SPAN, by=("src_addr",), once="observer"))
    monkeypatch.undo()
    assert top(store, Question(span=SPAN, by=("src_addr",), once="observer")).table().num_rows


# --- search


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
def test_pages_are_the_whole_without_gaps_or_repetitions(store: Store, order: Any, limit: int) -> None:
    def page(after: str, limit: int | None) -> tuple[list[dict[str, Any]], str | None]:
        condition = where("agent web-1 and port 443")
        answer = search(
            store, Search(table="flows", span=SPAN, condition=condition, order=order, limit=limit, after=after)
        )
        rows = answer.table().to_pylist()
        assert answer.next_page is not None
        return rows, answer.next_page()

    whole, rest = page("", None)
    assert rest is None
    assert len(whole) > 100
    found: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        rows, after = page(after, limit)
        assert len(rows) <= limit
        found += rows
        if limit == 1 and len(found) > 30:
            assert found == whole[: len(found)]
            return
    assert found == whole
    times = [row["time"].replace(second=0, microsecond=0) for row in whole]
    assert times == sorted(times, reverse=order == "newest")


def test_rows_that_are_alike_are_counted_through_pages(opened: Store) -> None:
    same = [flow("10.6.0.1", "10.6.0.2", 1, 2)] * 7
    store_batch(opened, make_batch(same), "alike")
    after: str | None = ""
    sizes = []
    while after is not None:
        answer = search(opened, Search(table="flows", span=SPAN, condition=where("agent alike"), limit=2, after=after))
        sizes.append(answer.table().num_rows)
        assert answer.next_page is not None
        after = answer.next_page()
    assert sizes == [2, 2, 2, 1]


def test_a_flow_is_found_as_it_was_metered(store: Store, batch: FlowBatch) -> None:
    found = search(store, Search(table="flows", span=SPAN, condition=where("agent web-1"), limit=None)).table()
    expected = Counter(
        (ip_address(address_text(row["src_addr"])), int(row["dst_port"]), int(row["bytes"])) for row in batch.flows
    )
    shown = Counter((ip_address(row["src_addr"]), row["dst_port"], row["bytes"]) for row in found.to_pylist())
    assert shown == Counter({key: count * 3 for key, count in expected.items()})


def test_transactions_are_found_by_the_filters_words(opened: Store) -> None:
    key = FlowKey(packed("10.0.0.5"), 40000, packed("198.51.100.7"), 53, 17, 4)
    times = [(EPOCH_NS + number * S_NS, name) for number, name in enumerate(("www.example.org", "other.example.net"))]
    asked_for = Transactions(dns=tuple(DnsTransaction(at, key, name, "A", 0, 10**6) for at, name in times))
    store_batch(opened, make_batch([], transactions=asked_for), "asks")
    condition = where("agent asks and domain example.org and app dns", WORDS["dns"])
    (row,) = search(opened, Search(table="dns", span=SPAN, condition=condition)).table().to_pylist()
    assert (row["query"], row["qtype"], row["dst_addr"]) == ("www.example.org", "A", "198.51.100.7")


@pytest.mark.parametrize("after", ["x", "bm9uc2Vuc2U=", "W1sxXSwwXQ==", "é", "W1tdLC0xXQ=="])
def test_a_word_that_no_answer_gave_is_refused(opened: Store, after: str) -> None:
    with pytest.raises(InputError, match="after"):
        search(opened, Search(table="flows", span=SPAN, after=after))


# --- accounts


def test_totals_and_audit_hold_all_that_was_counted(opened: Store) -> None:
    lost = {("eth0", "rx"): {"table_full": Tally(3, 300, 3)}}
    batch = make_batch(
        [flow("10.5.0.1", "10.5.0.2", packets=10)], non_ip={("eth0", "rx"): [(0x0806, 2)]}, unattributed=lost
    )
    for number in range(2):
        store_batch(opened, batch, "books", number, start_ns=EPOCH_NS + number * 5 * S_NS)
    condition = where("agent books", TOTAL_WORDS)
    (row,) = totals(opened, SPAN, condition, ("agent", "device", "direction")).table().to_pylist()
    assert (row["packets"], row["bytes"]) == (24, 2 * (1000 + 120))
    parts = {
        (row["kind"], row["reason"]): row["packets"]
        for row in audit(opened, SPAN, condition).table().to_pylist()
        if row["direction"] == "rx"
    }
    assert parts["seen", ""] == 30
    assert (parts["flows", ""], parts["non_ip", ""], parts["unattributed", "table_full"]) == (20, 4, 6)
    assert parts["missing", ""] == 0


def test_totals_refuse_a_filter_that_asks_of_flows(opened: Store) -> None:
    with pytest.raises(InputError, match="dst_port"):
        totals(opened, SPAN, where("port 80", TOTAL_WORDS), ())
    assert totals(opened, SPAN, Where(), ()).table().num_rows == 1


# --- words


@pytest.mark.parametrize(
    "text", ["", "5m", "-5y", "yesterday", "2026-01-01T00:00:00", "-99999999w", "99999999999", "１"]
)
def test_times_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_span(text, "now", EPOCH_NS)


def test_times_are_read() -> None:
    now = 1_700_000_000 * S_NS
    assert read_span("-1.5h", "now", now) == (now - 5400 * S_NS, now)
    assert read_span("1699999999", "2023-11-14T23:13:20.5+01:00", now) == (now - S_NS, now + S_NS // 2)
    with pytest.raises(InputError, match="no time at all"):
        read_span("now", "-1s", now)


def test_steps_make_no_more_points_than_asked_for() -> None:
    for seconds in (1, 59, 3600, 86400, 10 * 365 * 86400):
        for points in (1, 7, 120):
            assert seconds / choose_step(Span(0, seconds * S_NS), points) <= points
    with pytest.raises(InputError):
        read_step("0")


def test_dimensions_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="those are agent"):
        read_dimensions(["agent,nothing"])
