"""README's figures are those of a run of `make bench`, all of them, or they stay as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import document
from benchmarks.report import Figure

from wiremeter.errors import InputError

MACHINE = {"cpu": "2 × X", "kernel": "Linux 6.18", "load": "0.1"}
FIGURES = [
    Figure(group, f"{what}, and more", "ns", 12.34 * (1 + number), 9.0, 5, target=20.0)
    for cost in document.COSTS
    for number, (group, what) in enumerate(cost.of)
]


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of the two pages."""
    made = []
    for name in ("README", "DETAILS"):
        page = tmp_path / name
        page.write_text(getattr(document, name).read_text())
        monkeypatch.setattr(document, name, page)
        made.append(page)
    return made


def test_both_pages_get_the_figures_and_keep_the_rest(pages: list[Path]) -> None:
    before = pages[0].read_text()
    document.write_tables(MACHINE, FIGURES)
    document.write_tables(MACHINE, FIGURES)
    readme, details = (page.read_text() for page in pages)
    assert "| a packet of a hot flow, test run: ingress / egress / XDP | 12 / 25 / 37 ns |" in readme
    assert "| IPv4/TCP, 1 flow, egress, and more | 24.7 ns | 9.00 ns | 20 ns | 1.23  missed |" in details
    first, last = before.split(document.MARK)[0], before.split(document.MARK)[2]
    assert (readme.split(document.MARK)[0], readme.split(document.MARK)[2]) == (first, last)


def test_a_run_that_measured_only_a_part_changes_nothing(pages: list[Path]) -> None:
    before = [page.read_text() for page in pages]
    with pytest.raises(InputError, match="whole run"):
        document.write_tables(MACHINE, FIGURES[:-1])
    pages[1].write_text("no place")
    with pytest.raises(InputError, match="no place for figures"):
        document.write_tables(MACHINE, FIGURES)
    assert pages[0].read_text() == before[0]


def test_units_that_differ_are_all_named() -> None:
    assert document.values([Figure("", "", "%", 3.21, 0, 1), Figure("", "", "MB", 61.4, 0, 1)]) == "3.2 % / 61 MB"
