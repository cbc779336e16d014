"""The figures of a run, and how they are told: a table for people, JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity.

    group and what: its name in two parts. median and best: over `samples` rounds, in `unit`; the median is what is
    held against the target, best says what is left when the machine is quiet. target: at most this, None for a figure
    that is only told. baseline: what was subtracted, in the same unit.
    """

    group: str
    what: str
    unit: str
    median: float
    best: float
    samples: int
    target: float | None = None
    baseline: float | None = None

    @property
    def ratio(self) -> float | None:
        """Median by target: 1 or less reaches it."""
        return None if not self.target else self.median / self.target


def figure_of(group: str, what: str, unit: str, samples: Sequence[float], target: float | None = None) -> Figure:
    """The figure of plain samples; the best is the least."""
    return Figure(group, what, unit, statistics.median(samples), min(samples), len(samples), target)


def figure_of_difference(
    group: str,
    what: str,
    unit: str,
    samples: Sequence[float],
    baseline: Sequence[float],
    target: float | None = None,
) -> Figure:
    """The figure of samples less a baseline that was measured in the same rounds.

    The median is that of the differences of each round, so what slows a whole round down cancels out; the best is the
    difference of the two best.

    >>> figure_of_difference("g", "w", "ns", [30, 52, 31], [20, 40, 20]).median
    11
    """
    differences = [a - b for a, b in zip(samples, baseline, strict=True)]
    return Figure(
        group,
        what,
        unit,
        statistics.median(differences),
        min(samples) - min(baseline),
        len(differences),
        target,
        statistics.median(baseline),
    )


def as_json(machine: Mapping[str, object], figures: Iterable[Figure]) -> str:
    """One object: `machine`, and `figures` with their ratios."""
    rows = [{**asdict(figure), "ratio": figure.ratio} for figure in figures]
    return json.dumps({"machine": dict(machine), "figures": rows}, indent=2)


def as_table(machine: Mapping[str, object], figures: Sequence[Figure]) -> str:
    """Lines for a terminal: the machine, then each group with its figures, targets and ratios."""
    lines = [f"{name}: {value}" for name, value in machine.items()]
    width = max((len(figure.what) for figure in figures), default=0)
    lines += ["", f"{'':{width}}  {'median':>10} {'best':>10} {'target':>10}  ratio"]
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            lines += ["", group]
        lines.append(f"{figure.what:{width}}  {_cells(figure)}")
    reached = [figure.ratio <= 1 for figure in figures if figure.ratio is not None]
    lines += ["", f"{sum(reached)} of {len(reached)} targets reached"]
    return "\n".join(lines)


def as_cells(figure: Figure) -> tuple[str, str, str, str]:
    """Median, least, target and verdict of a figure, as text; the last two empty without a target."""
    target = "" if figure.target is None else f"{figure.target:g} {figure.unit}"
    verdict = "" if figure.ratio is None else f"{figure.ratio:.2f}" + ("" if figure.ratio <= 1 else "  missed")
    median, best = (f"{_number(value)} {figure.unit}".strip() for value in (figure.median, figure.best))
    return median, best, target, verdict


def _cells(figure: Figure) -> str:
    median, best, target, verdict = as_cells(figure)
    return f"{median:>10} {best:>10} {target:>10}   {verdict}".rstrip()


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
