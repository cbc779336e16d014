"""Rows of several regions become one row a flow."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wiremeter.flows.columns import FLOW

from ..flow_rows import Amounts, Key, add_up, flow_rows, flows_of, merge_rows, regions

#: A busy machine may stand still for longer than an example usually takes.
steady = settings(deadline=None)

several = st.lists(regions, max_size=5)
#: One hash for all flows, a few, or about one each.
hash_counts = st.sampled_from([1, 3, 1 << 32])


@steady
@given(several, hash_counts)
def test_every_flow_has_one_row_with_the_sum_of_its_parts(parts: list[dict[Key, Amounts]], hashes: int) -> None:
    merged = merge_rows([flow_rows(part, hashes=hashes) for part in parts])
    assert merged.dtype == FLOW
    assert flows_of(merged) == add_up(parts)


@steady
@given(several, hash_counts, st.randoms())
def test_the_order_of_parts_changes_nothing(parts: list[dict[Key, Amounts]], hashes: int, chance: Random) -> None:
    rows = [flow_rows(part, hashes=hashes) for part in parts]
    merged = merge_rows(rows)
    chance.shuffle(rows)
    assert flows_of(merge_rows(rows)) == flows_of(merged)


@steady
@given(several, regions, hash_counts)
def test_merging_in_steps_changes_nothing(
    parts: list[dict[Key, Amounts]], last: dict[Key, Amounts], hashes: int
) -> None:
    rows, more = [flow_rows(part, hashes=hashes) for part in parts], flow_rows(last, hashes=hashes)
    assert flows_of(merge_rows([merge_rows(rows), more])) == flows_of(merge_rows([*rows, more]))


@steady
@given(several)
def test_the_input_is_not_changed(parts: list[dict[Key, Amounts]]) -> None:
    rows = [flow_rows(part, hashes=3) for part in parts]
    before = [part.copy() for part in rows]
    merge_rows(rows)
    assert all((old == new).all() for old, new in zip(before, rows, strict=True))


@steady
@given(several, hash_counts)
def test_the_hash_stays_so_that_rows_can_be_merged_again(parts: list[dict[Key, Amounts]], hashes: int) -> None:
    for row in merge_rows([flow_rows(part, hashes=hashes) for part in parts]):
        (key,) = flows_of(np.array([row], FLOW))
        assert row["hash"] == hash(key) % hashes


def test_nothing_merges_to_nothing() -> None:
    assert merge_rows([]).dtype == FLOW
    assert len(merge_rows([])) == 0
    assert len(merge_rows([np.zeros(0, FLOW), np.zeros(0, FLOW)])) == 0


@pytest.mark.parametrize("name", Key._fields)
def test_flows_that_differ_in_one_thing_stay_apart_though_they_share_a_hash(name: str) -> None:
    one, other = Key(), Key()._replace(**{name: 9})
    parts = [{one: Amounts(packets=1)}, {other: Amounts(packets=2)}]
    assert flows_of(merge_rows([flow_rows(part, hashes=1) for part in parts])) == {
        one: Amounts(packets=1),
        other: Amounts(packets=2),
    }


@steady
@given(several, hash_counts)
def test_flows_stay_in_the_order_in_which_they_first_appear(parts: list[dict[Key, Amounts]], hashes: int) -> None:
    assert list(flows_of(merge_rows([flow_rows(part, hashes=hashes) for part in parts]))) == list(add_up(parts))


@pytest.mark.parametrize("byte", range(16))
@pytest.mark.parametrize("name", ["src_addr", "dst_addr"])
def test_every_byte_of_an_address_counts(name: str, byte: int) -> None:
    parts = [flow_rows({Key(): Amounts()}, hashes=1) for _ in range(2)]
    parts[1][name][0, byte] ^= 1
    assert len(merge_rows(parts)) == 2


def test_sums_are_of_64_bits() -> None:
    parts = [{Key(): Amounts(packets=1 << 62, bytes=(1 << 63) - 1, skbs=1 << 40)}] * 2
    ((_, total),) = flows_of(merge_rows([flow_rows(part) for part in parts])).items()
    assert total[:3] == (1 << 63, (1 << 64) - 2, 1 << 41)


def test_a_hundred_thousand_flows_on_four_cpus() -> None:
    chance = np.random.default_rng(1)
    parts = []
    for _ in range(4):
        rows = np.zeros(100_000, FLOW)
        rows["src_addr"][:, 12:] = np.arange(100_000, dtype=">u4").view("u1").reshape(-1, 4)
        rows["hash"] = np.arange(100_000) // 3 * 0x9E3779B1 & 0xFFFFFFFF  # three flows for each hash
        rows["packets"] = chance.integers(1, 1000, 100_000)
        parts.append(rows)
    merged = merge_rows(parts)
    assert len(merged) == 100_000
    merged = merged[np.lexsort(merged["src_addr"].T[::-1])]
    assert (merged["packets"] == sum(part["packets"] for part in parts)).all()
