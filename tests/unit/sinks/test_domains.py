"""Counters by domain: their sum is all traffic, none goes back, and there are never too many."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.errors import InputError
from wiremeter.sinks import listed as listing
from wiremeter.sinks.domains import TopDomains
from wiremeter.sinks.heavy_hitters import HeavyHitters
from wiremeter.sinks.listed import FORMER, HALF_LIFE_SECONDS, OTHER


def count(top: TopDomains, traffic: Mapping[str | None, int], seconds: float = 1.0, device: str = "eth0") -> None:
    """Counts an interval in which each domain had the given bytes; packets are a tenth of them."""
    weights = np.array(list(traffic.values()), np.uint64)
    pairs = np.stack([np.zeros(len(weights), np.intp), np.arange(len(weights))], axis=1)
    top.add([device], list(traffic), pairs, np.stack([weights // 10, weights], axis=-1), weights, seconds)


def seen(top: TopDomains, device: str = "eth0") -> dict[str, tuple[int, ...]]:
    """Packets and bytes by label."""
    series = [(label, tuple(values.tolist())) for (where, label), values in top.series() if where == device]
    assert len({label for label, _ in series}) == len(series), "two series of one label make a scrape fail"
    return dict(series)


def listed(top: TopDomains) -> set[str]:
    return seen(top).keys() - {OTHER, FORMER}


#: Of each interval: bytes by domain, and how long it took.
Intervals = list[tuple[dict[str | None, int], float]]
NAMES = st.none() | st.sampled_from(
    [*(f"{n}.example" for n in range(20)), OTHER, FORMER, "", "a\nb", "\ud800", "x" * 254]
)
INTERVALS = st.lists(
    st.tuples(st.dictionaries(NAMES, st.integers(0, 2**40), max_size=12), st.floats(0, 2 * HALF_LIFE_SECONDS)),
    max_size=30,
)


@given(st.integers(0, 8), INTERVALS)
def test_whatever_comes_sums_are_exact_and_series_grow_and_are_few(places: int, intervals: Intervals) -> None:
    top = TopDomains(places, (2,))
    top.know("eth0")
    total = np.zeros(2, np.uint64)
    before = seen(top)
    for traffic, seconds in intervals:
        count(top, traffic, seconds)
        for amount in traffic.values():
            total += np.array([amount // 10, amount], np.uint64)
        now = seen(top)
        assert np.array_equal(np.sum(list(now.values()), axis=0, dtype=np.uint64), total)
        assert len(now.keys() - {OTHER, FORMER}) <= places
        assert {OTHER} <= now.keys() <= {OTHER, FORMER, *(f"{n}.example" for n in range(20))}
        assert (FORMER in before) <= (FORMER in now)
        for label in before.keys() & now.keys():
            assert all(a <= b for a, b in zip(before[label], now[label], strict=True)), label
        before = now


@given(st.integers(2, 8), INTERVALS)
def test_other_grows_by_no_more_than_there_was(places: int, intervals: Intervals) -> None:
    top = TopDomains(places, (2,))
    top.know("eth0")
    other = 0
    for traffic, seconds in intervals:
        count(top, traffic, seconds)
        now = seen(top)[OTHER][1]
        assert now - other <= sum(traffic.values())
        other = now


@given(st.integers(2, 6), st.randoms(use_true_random=False))
def test_the_heaviest_of_a_steady_mix_end_up_listed(places: int, random: Random) -> None:
    """Each of 60 domains has twice the traffic of the next and they come in any order, the lightest first at times."""
    mix: dict[str | None, int] = {f"{n}.example": 2 ** (60 - n) for n in range(60)}
    names = list(mix)
    random.shuffle(names)
    top = TopDomains(places, (2,))
    for start in range(0, 60, 7):
        count(top, {name: mix[name] for name in names[start : start + 7]})
    for _ in range(2 * places):
        count(top, mix, HALF_LIFE_SECONDS / places)
    assert {f"{n}.example" for n in range(places)} == listed(top)


def test_until_the_places_are_taken_each_domain_has_all_its_traffic() -> None:
    top = TopDomains(3, (2,))
    count(top, {"a.example": 100, None: 50})
    count(top, {"b.example": 10, "a.example": 100})
    count(top, {"c.example": 1000})
    assert seen(top) == {"a.example": (20, 200), "b.example": (1, 10), "c.example": (100, 1000), OTHER: (5, 50)}


def test_all_that_is_not_listed_is_other() -> None:
    top = TopDomains(2, (2,))
    count(top, {"a.example": 100, "b.example": 90, "c.example": 80, None: 70})
    assert seen(top) == {"a.example": (10, 100), "b.example": (9, 90), OTHER: (15, 150)}


def test_without_places_there_is_only_other() -> None:
    top = TopDomains(0, (2,))
    count(top, {"a.example": 100})
    assert seen(top) == {OTHER: (10, 100)}


def test_one_place_is_the_heaviests() -> None:
    top = TopDomains(1, (2,))
    count(top, {"a.example": 100})
    count(top, {"b.example": 140})
    assert seen(top) == {"a.example": (10, 100), OTHER: (14, 140)}
    count(top, {"b.example": 10**9})
    assert seen(top) == {"b.example": (10**8, 10**9), FORMER: (10, 100), OTHER: (14, 140)}


def test_less_than_no_places_is_an_error() -> None:
    with pytest.raises(InputError, match="-1 names"):
        TopDomains(-1, (2,))


def test_a_stronger_newcomer_begins_at_what_it_gains_and_the_weakest_becomes_former() -> None:
    top = TopDomains(3, (2,))
    count(top, {"a.example": 1000, "b.example": 200, "c.example": 100})
    count(top, {"new.example": 140})
    assert seen(top)[OTHER] == (14, 140), "not by half more than the weakest, whose place it would take"
    count(top, {"new.example": 50, "b.example": 7})
    assert seen(top) == {
        "a.example": (100, 1000),
        "b.example": (20, 207),
        "new.example": (5, 50),
        FORMER: (10, 100),
        OTHER: (14, 140),
    }


def test_a_domain_that_returns_begins_at_nothing() -> None:
    top = TopDomains(3, (2,))
    count(top, {"a.example": 1000, "b.example": 200, "c.example": 100})
    count(top, {"d.example": 500})
    assert listed(top) == {"a.example", "b.example", "d.example"}
    count(top, {"c.example": 5000}, HALF_LIFE_SECONDS)
    assert seen(top)["c.example"] == (500, 5000)
    assert sum(bytes for _, bytes in seen(top).values()) == 6800


def test_places_are_of_all_devices_and_what_is_other_or_former_is_each_ones_own() -> None:
    top = TopDomains(2, (2,))
    count(top, {"a.example": 1000, None: 10}, device="eth0")
    count(top, {"a.example": 100, "b.example": 90}, device="eth1")
    assert seen(top, "eth0") == {"a.example": (100, 1000), OTHER: (1, 10)}
    assert seen(top, "eth1") == {"a.example": (10, 100), OTHER: (9, 90)}
    count(top, {"b.example": 5000}, device="eth0")
    assert seen(top, "eth0") == {"a.example": (100, 1000), "b.example": (500, 5000), OTHER: (1, 10)}
    assert seen(top, "eth1") == {OTHER: (9, 90), FORMER: (10, 100)}


def test_of_a_device_that_is_forgotten_nothing_is_left_and_its_places_are_free() -> None:
    top = TopDomains(1, (2,))
    count(top, {"a.example": 1000, None: 10}, device="veth7")
    top.forget({"veth7"})
    assert list(top.series()) == []
    count(top, {"b.example": 1})
    assert seen(top) == {"b.example": (0, 1), OTHER: (0, 0)}


def test_changes_are_rationed() -> None:
    top = TopDomains(100, (2,))
    count(top, {f"{n}.example": 10 for n in range(100)})
    count(top, {f"new{n}.example": 1000 for n in range(100)})
    assert sum(name.startswith("new") for name in listed(top)) == 5
    count(top, {f"new{n}.example": 1000 for n in range(100)}, HALF_LIFE_SECONDS / 100)
    assert sum(name.startswith("new") for name in listed(top)) == 6


def test_a_listed_domain_that_falls_silent_makes_place() -> None:
    top = TopDomains(3, (2,))
    count(top, {"a.example": 10**9, "b.example": 10**9, "c.example": 10**9})
    for _ in range(20):
        count(top, {"a.example": 1000, "now.example": 1000}, HALF_LIFE_SECONDS)
    assert {"a.example", "now.example"} < listed(top)


def test_two_of_like_size_do_not_take_turns() -> None:
    top = TopDomains(2, (2,))
    count(top, {"a.example": 1000, "b.example": 100})
    for n in range(50):
        count(top, {"a.example": 1000, "b.example": 100 + n % 3, "c.example": 101 - n % 3}, HALF_LIFE_SECONDS)
    assert listed(top) == {"a.example", "b.example"}


@pytest.mark.parametrize("name", [OTHER, FORMER, "", "a\nb.example", "\ud800.example", "x" * 254])
def test_what_would_spoil_a_label_is_other(name: str) -> None:
    top = TopDomains(10, (2,))
    count(top, {name: 1000, "a.example": 10})
    assert seen(top) == {"a.example": (1, 10), OTHER: (100, 1000)}


def test_a_name_without_traffic_takes_no_place() -> None:
    top = TopDomains(2, (2,))
    count(top, {"silent.example": 0, "a.example": 10})
    assert listed(top) == {"a.example"}


def test_domains_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LEAST_ROOM", 100)
    top = TopDomains(10, (2,))
    for n in range(100):
        count(top, {**{f"{n}-{m}.example": 1 + m for m in range(50)}, "steady.example": 2000})
        assert len(top._listed._recent) <= 100
    assert "steady.example" in listed(top)


WEIGHTS = st.dictionaries(st.integers(0, 30), st.integers(1, 2**30), max_size=20)


@given(st.integers(2, 12), st.lists(WEIGHTS, max_size=20))
def test_a_summary_is_never_above_the_truth_nor_far_below(room: int, steps: list[dict[int, int]]) -> None:
    summary = HeavyHitters[int](room, half_life=1.0)
    truth = dict.fromkeys(range(31), 0)
    for gains in steps:
        summary.add(gains.items())
        for key, gain in gains.items():
            truth[key] += gain
        assert len(summary) <= room
        allowed = sum(truth.values()) / (room // 2 + 1)
        for key, weight in truth.items():
            assert weight - allowed * (1 + 1e-9) - 1e-3 <= summary.weight(key) <= weight * (1 + 1e-9)


def test_weights_halve_in_a_half_life_however_long_it_goes_on() -> None:
    summary = HeavyHitters[str](10, half_life=60.0)
    for _ in range(1000):
        summary.age(60.0)
        summary.add([("a", 1.0)])
    assert summary.weight("a") == pytest.approx(2.0)
    summary.age(120.0)
    assert summary.weight("a") == pytest.approx(0.5)
    summary.age(1e12)
    assert summary.weight("a") < 1e-20
