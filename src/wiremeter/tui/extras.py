"""Columns beside the usual ones, which the user chooses; and averages as cells and facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.recent import WINDOWS
from wiremeter.reports.selection import Selection
from wiremeter.reports.units import cell, rate_text
from wiremeter.tui import palette
from wiremeter.tui.panels import rate_units

#: Averages, sums since a flow was first seen, flags and sizes.
Extra = Literal["averages", "totals", "flags"]
EXTRAS: tuple[Extra, ...] = get_args(Extra)
#: Names of the columns of averages, one for each of WINDOWS.
AVERAGES = tuple(f"{window:g} s" for window in WINDOWS)


def average_cell(bytes_per_second: float, selection: Selection) -> tuple[str, str]:
    """Text and colour of a rate in a column."""
    number = cell(float(bytes_per_second) * (1 if selection.in_bytes else 8))
    return number, palette.of_number(number)


def average_facts(averages: NDArray[np.float64], selection: Selection) -> Iterator[str]:
    """The averages of one row; averages: bytes per second over each of WINDOWS."""
    unit = 1 if selection.in_bytes else 8
    for name, rate in zip(AVERAGES, averages, strict=True):
        yield f"{name} {rate_text(float(rate) * unit, rate_units(selection))}"
