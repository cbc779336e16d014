"""README's table of costs, and the table of all figures in docs/design/performance.md: written by the run that measured
them, or not at all."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import agent, drain, live, names, testrun
from benchmarks.report import Figure, as_cells
from wiremeter.errors import InputError

ROOT = Path(__file__).parents[1]
README, DETAILS = ROOT / "README.md", ROOT / "docs" / "design" / "performance.md"
#: The table stands between two of these.
MARK = "<!-- figures: written by `make bench ARGS=--write` -->"


class Cost(NamedTuple):
    """A line of README's table: medians in the order of `of`, each a group and a beginning of what was measured."""

    what: str
    of: Sequence[tuple[str, str]]


COSTS = (
    Cost(
        "a packet of a hot flow, test run: ingress / egress / XDP",
        [(testrun.GROUP, f"IPv4/TCP, 1 flow, {way}") for way in ("ingress", "egress", "XDP")],
    ),
    Cost(
        "a packet live on veth, cold caches, ingress: 1 flow / 1,000 / 50,000 / 1,000,000 random flows",
        [(live.GROUP, f"IPv4/TCP, {flows:,} flow{'s' * (flows > 1)}, ingress") for flows in live.TARGETS],
    ),
    Cost(
        "reading 1,000 / 100,000 / 1,000,000 flows into arrays",
        [(drain.GROUP, f"{flows:,} flows, over") for flows in (1_000, 100_000, 1_000_000)],
    ),
    Cost(
        "the agent with 100,000 live flows every 5 s, names on: CPU of one core / memory without the tables / of the "
        "process that reads payloads",
        [
            (agent.GROUP, "CPU of one core"),
            (agent.GROUP, "resident memory without the tables"),
            (agent.GROUP, "memory of the process that reads payloads"),
        ],
    ),
    Cost(
        "what names add to a packet of no interest: of an opaque flow / an ACK / UDP",
        [
            (names.UNINTERESTING, what)
            for what in ("IPv4/TCP, 64 bytes of data, 1 flow", "IPv4/TCP, no data", "IPv4/UDP, 64 bytes")
        ],
    ),
    Cost(
        "reading payloads: a DNS transaction / a TLS handshake with JA4 / an HTTP exchange / an opaque packet",
        [
            (names.USER, what)
            for what in ("DNS transaction, each of another", "TLS handshake", "HTTP exchange", "opaque TCP packet")
        ],
    ),
    Cost(
        "DNS transactions a second without loss: number / CPU of one core",
        [(names.WITHOUT_LOSS, "transactions/s"), (names.WITHOUT_LOSS, "CPU of the meter's processes")],
    ),
)


def write_tables(machine: Mapping[str, str], figures: Sequence[Figure]) -> list[Path]:
    """Puts the figures of a whole run into the two pages; which were written.

    Raises InputError, and writes nothing, if a figure is missing or a page has no place for them.
    """
    pages = {
        README: _with_table(README, costs_table(machine, figures)),
        DETAILS: _with_table(DETAILS, figures_table(machine, figures)),
    }
    for page, text in pages.items():
        page.write_text(text)
    return list(pages)


def costs_table(machine: Mapping[str, str], figures: Sequence[Figure]) -> str:
    """README's table. Raises InputError if a figure is missing."""
    rows = [f"| {cost.what} | {values([_found(figures, *one) for one in cost.of])} |" for cost in COSTS]
    return "\n".join([_measured_on(machine), "", "| | |", "|---|---|", *rows])


def figures_table(machine: Mapping[str, str], figures: Sequence[Figure]) -> str:
    """Every figure with its least, its target, and whether that is reached."""
    rows = []
    for figure in figures:
        median, best, target, verdict = as_cells(figure)
        if figure.group not in rows:
            rows.append(figure.group)
        rows.append(f"| {figure.what.strip()} | {median} | {best} | {target} | {verdict} |")
    head = ["| | median | least | target | median by target |", "|---|---|---|---|---|"]
    lines = [f"| **{row}** | | | | |" if not row.startswith("|") else row for row in rows]
    return "\n".join([_measured_on(machine), "", *head, *lines])


def _measured_on(machine: Mapping[str, str]) -> str:
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"One run of `make bench` on {day}: {machine['cpu']}, {machine['kernel']}, load {machine['load']}."


def _found(figures: Sequence[Figure], group: str, what: str) -> Figure:
    for figure in figures:
        if figure.group == group and figure.what.startswith(what):
            return figure
    raise InputError(f'"{what}" ({group}) was not measured: --write needs a whole run, without --only')


def values(figures: Sequence[Figure]) -> str:
    """Medians, each unit named once where it stays the same."""
    cells = [f"{_short(figure.median)} {figure.unit}".strip() for figure in figures]
    if len({figure.unit for figure in figures}) == 1:
        *rest, last = figures
        cells = [*(_short(figure.median) for figure in rest), f"{_short(last.median)} {last.unit}".strip()]
    return " / ".join(cells)


def _short(value: float) -> str:
    """Two digits, or all before the point.

    >>> _short(0.3456), _short(3.456), _short(34.56), _short(10000.0)
    ('0.35', '3.5', '35', '10,000')
    """
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}" if abs(value) < 10 else f"{value:,.0f}"


def _with_table(page: Path, table: str) -> str:
    text = page.read_text()
    if text.count(MARK) != 2:
        raise InputError(f'{page}: has no place for figures, between two lines "{MARK}"')
    return re.sub(f"{re.escape(MARK)}.*{re.escape(MARK)}", lambda _: f"{MARK}\n{table}\n\n{MARK}", text, flags=re.S)
