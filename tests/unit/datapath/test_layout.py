"""Sizes of the tables, and where the parts of a region lie."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wiremeter.datapath import records
from wiremeter.datapath.layout import (
    DEFAULT_ATTACHMENTS,
    DEFAULT_LINES,
    MEMORY_SHARE,
    TablePlan,
    plan_tables,
)
from wiremeter.errors import InputError
from wiremeter.settings.words import FLOW_TABLE_LINES_MIN

#: A busy machine may stand still for longer than an example usually takes.
steady = settings(deadline=None)

sizes = st.integers(8, 22).map(lambda power: 1 << power)
plans = st.builds(TablePlan, sizes, st.integers(1, 512), st.integers(2, records.ATTACHMENTS_MAX))


@steady
@given(plans)
def test_the_parts_of_a_region_follow_each_other_without_overlap(plan: TablePlan) -> None:
    counters_end = records.REGION_HEADER.itemsize + plan.attachments * records.COUNTERS.itemsize
    touched_end = plan.touched_offset + 4 * plan.lines
    lines_end = plan.lines_offset + records.LINE_BYTES * plan.lines
    assert counters_end <= plan.touched_offset
    assert touched_end <= plan.lines_offset
    assert lines_end <= plan.region_bytes
    assert plan.region_bytes - lines_end < 4096


@steady
@given(plans)
def test_parts_are_aligned_to_what_touches_them(plan: TablePlan) -> None:
    assert plan.touched_offset % 64 == 0
    assert plan.lines_offset % (2 * records.LINE_BYTES) == 0
    assert plan.region_bytes % 4096 == 0
    assert plan.overflow_bytes % 8 == 0


@steady
@given(plans)
def test_all_bytes_are_both_epochs_of_all_regions(plan: TablePlan) -> None:
    assert plan.bytes == 2 * plan.regions * plan.region_bytes + 2 * plan.overflow_bytes


@steady
@given(plans, st.integers(0, (1 << 64) - 1))
def test_the_shape_says_the_same_to_the_programs(plan: TablePlan, seed: int) -> None:
    shape = plan.shape(seed)
    assert shape.dtype == records.TABLE_SHAPE
    assert (shape["touched_offset"], shape["lines_offset"]) == (plan.touched_offset, plan.lines_offset)
    assert shape["lines_mask"] + 1 == plan.lines
    assert len(set(shape["hash_keys"].tolist())) == records.HASH_KEYS
    assert shape == plan.shape(seed)
    assert shape != plan.shape(seed ^ 1)


def test_the_default_is_the_largest_where_memory_is_plenty() -> None:
    assert plan_tables(2) == TablePlan(DEFAULT_LINES, 2, DEFAULT_ATTACHMENTS)
    assert plan_tables(2, memory_limit_bytes=1 << 40) == plan_tables(2)


@steady
@given(st.integers(1, 512), st.integers(1 << 20, 1 << 44))
def test_the_default_is_the_largest_that_fits_its_share_of_memory(cpus: int, memory: int) -> None:
    plan = plan_tables(cpus, memory_limit_bytes=memory)
    assert plan.bytes <= memory * MEMORY_SHARE or plan.lines == FLOW_TABLE_LINES_MIN
    larger = TablePlan(plan.lines * 2, cpus, plan.attachments)
    assert larger.bytes > memory * MEMORY_SHARE or plan.lines == DEFAULT_LINES


@steady
@given(sizes, st.integers(1, 64))
def test_a_size_that_is_asked_for_is_taken(lines: int, cpus: int) -> None:
    assert plan_tables(cpus, lines).lines == lines


@steady
@given(st.integers(-10, 1 << 30).filter(lambda lines: lines & (lines - 1) or not 256 <= lines <= 1 << 22))
def test_any_other_size_is_refused_with_a_possible_one_named(lines: int) -> None:
    with pytest.raises(InputError, match=f"flow table of {lines} lines") as refusal:
        plan_tables(1, lines)
    nearest = int(str(refusal.value).rpartition(" ")[2])
    assert plan_tables(1, nearest).lines == nearest


@pytest.mark.parametrize(("lines", "nearest"), [(0, 256), (255, 256), (1000, 1024), (65537, 65536), (1 << 23, 1 << 22)])
def test_the_size_that_is_named_is_near(lines: int, nearest: int) -> None:
    with pytest.raises(InputError, match=f"nearest: {nearest}$"):
        plan_tables(1, lines)


def test_a_size_that_takes_more_than_half_of_the_memory_is_refused_with_both_numbers() -> None:
    plan = plan_tables(8, 1 << 20)
    assert plan_tables(8, 1 << 20, 2 * plan.bytes) == plan
    with pytest.raises(InputError, match=rf"1048576 lines on 8 CPUs take {plan.bytes >> 20} MiB.*--flow-table"):
        plan_tables(8, 1 << 20, 2 * plan.bytes - 2)


@pytest.mark.parametrize("attachments", [2, 64, records.ATTACHMENTS_MAX])
def test_as_many_attachments_as_their_number_has_bits_for(attachments: int) -> None:
    assert plan_tables(1, attachments=attachments).attachments == attachments


@pytest.mark.parametrize("attachments", [-2, 0, 1, records.ATTACHMENTS_MAX + 1])
def test_no_attachments_or_too_many_are_refused(attachments: int) -> None:
    with pytest.raises(InputError, match="from 1 to 511 can be metered"):
        plan_tables(1, attachments=attachments)
