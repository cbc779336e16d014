"""Numbers and short texts of the live view keep their width and their meaning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.reports.cells import bar, elide, endpoint, flags_text, sparkline, utc_time
from wiremeter.reports.units import CELL_WIDTH, cell, count, percent, rate_text, scale

from ..live_batches import packed

AMOUNTS = st.floats(0, 9e20, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 bit/s"),
        (0.004, "<0.01 bit/s"),
        (0.2, "0.20 bit/s"),
        (7, "7 bit/s"),
        (9.996, "10.0 bit/s"),
        (999, "999 bit/s"),
        (999.4, "999 bit/s"),
        (999.6, "1.00 kbit/s"),
        (1000, "1.00 kbit/s"),
        (3400, "3.40 kbit/s"),
        (99_960, "100 kbit/s"),
        (999_499, "999 kbit/s"),
        (999_500, "1.00 Mbit/s"),
        (1_240_000_000, "1.24 Gbit/s"),
        (400e12, "400 Tbit/s"),
        (5e21, ">999 Ebit/s"),
    ],
)
def test_rate_has_three_digits_and_the_right_prefix(value: float, expected: str) -> None:
    assert rate_text(value, "bit/s") == expected


@given(AMOUNTS)
def test_cell_never_changes_its_width(value: float) -> None:
    assert len(cell(value)) == CELL_WIDTH


@given(st.floats(0.01, 9e20, allow_nan=False))
def test_scaled_number_is_within_half_a_digit_of_the_value(value: float) -> None:
    number, prefix = scale(value)
    shown = float(number) * 1000 ** ["", "k", "M", "G", "T", "P", "E"].index(prefix)
    assert shown == pytest.approx(value, rel=0.006, abs=0.005)


@given(AMOUNTS, AMOUNTS)
def test_larger_value_is_never_shown_as_smaller(one: float, other: float) -> None:
    def shown(value: float) -> tuple[int, float]:
        number, prefix = scale(value)
        return ["", "k", "M", "G", "T", "P", "E"].index(prefix), float(number.strip("<>"))

    low, high = sorted((one, other))
    if low >= 0.01:
        assert shown(low) <= shown(high)


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_percent_keeps_its_width_and_never_hides_a_part(part: int, whole: int) -> None:
    text = percent(min(part, whole), whole)
    assert len(text) == 7
    assert (text == "  0.0 %") == (part == 0)


def test_counts_are_in_full_until_they_are_too_long() -> None:
    assert (count(0), count(9_999_999), count(10_000_000)) == ("0", "9,999,999", "10.0 M")


def test_endpoints_are_written_as_in_urls() -> None:
    def end(text: str, port: int = 0, **services: bool) -> str:
        return endpoint(np.frombuffer(packed(text), "u1"), port, 6, **services)

    assert end("192.0.2.1", 443) == "192.0.2.1:443"
    assert end("2001:db8::1", 443) == "[2001:db8::1]:443"
    assert end("2001:db8::1") == "2001:db8::1"
    assert end("192.0.2.1", 443, services=True) == "192.0.2.1:https"
    assert end("192.0.2.1", 47_123, services=True) == "192.0.2.1:47123"


def test_flags_are_letters_from_fin_to_ns() -> None:
    assert [flags_text(1 << bit) for bit in range(9)] == list("FSRPAUECN")


@given(st.text(min_size=1, max_size=60), st.integers(1, 60))
def test_elided_text_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = elide(text, width)
    assert len(short) <= width
    if len(text) > width > 4:
        assert short[0] == text[0]
        assert short[-1] == text[-1]


def test_sparkline_shows_the_newest_and_nothing_is_lower_than_zero() -> None:
    assert sparkline([], 3) == "   "
    assert sparkline([0, 0], 3) == " ▁▁"
    assert sparkline([9, 9, 1, 1000], 2) == "▂▇"
    assert sparkline([5], 0) == ""


def test_bar_is_as_long_as_its_share() -> None:
    assert [bar(share, 4) for share in (0, 0.25, 0.5625, 1, 7)] == ["    ", "█   ", "██▎ ", "████", "████"]


def test_time_is_exact_to_the_nanosecond() -> None:
    assert utc_time(1_763_821_860_000_000_001) == "2025-11-22T14:31:00.000000001Z"
