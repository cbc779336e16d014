"""The journal of pinned tables: what was read and not told is found again, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.journal import Journal
from wiremeter.flows.batch import Mark
from wiremeter.flows.columns import ETHERTYPE_COUNTER, FLOW

HOOKS = {1: Hook("eth0", 3, "tx", "tcx")}


def drain(flip: int) -> Drain:
    """One with something in each of its parts."""
    counters = np.zeros((4, records.ROWS, 3), np.uint64)
    counters[1, 17] = (flip, 100, flip)
    flows = np.zeros(2, FLOW)
    flows["packets"] = flip
    ethertypes = np.ones(1, ETHERTYPE_COUNTER)
    return Drain(counters, [flows, flows[:1]], ethertypes, flip=flip, ended_ns=flip * 10, unreadable={1: (1, 2, 3)})


def opened(folder: Path, told: Mark | None = None, tables: str = "abc") -> Journal:
    journal = Journal(folder, told)
    journal.open(tables)
    return journal


def flips(journal: Journal) -> list[int]:
    return [found.flip for found, _ in journal.waiting()]


def test_what_was_not_told_is_found_by_the_next_as_it_was(tmp_path: Path) -> None:
    opened(tmp_path).put(drain(7), HOOKS)
    ((found, hooks),) = opened(tmp_path).waiting()
    assert hooks == HOOKS
    expected = drain(7)
    for name in ("counters", "ethertypes", "payloads", "lost_payloads"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert [rows.tobytes() for rows in found.flows] == [rows.tobytes() for rows in expected.flows]
    assert (found.flip, found.ended_ns, found.unreadable) == (7, 70, {1: (1, 2, 3)})


def test_what_was_told_is_not_found_again(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for flip in (5, 6, 7):
        journal.put(drain(flip), HOOKS)
    journal.forget(Mark("abc", 5, 0))
    assert flips(journal) == [6, 7]
    later = opened(tmp_path, Mark("abc", 6, 60))
    assert flips(later) == [7]
    assert [flip for flip in range(10) if later.has(flip)] == [0, 1, 2, 3, 4, 5, 6, 7]


def test_what_is_of_other_tables_counts_for_nothing_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(tmp_path).put(drain(7), HOOKS)
    other = opened(tmp_path, Mark("abc", 9, 0), tables="def")
    assert not flips(other)
    assert not other.has(7)
    assert "tables that are gone" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_set_aside_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = opened(tmp_path)
    journal.put(drain(7), HOOKS)
    journal.put(drain(8), HOOKS)
    first = min(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:-60])
    assert flips(opened(tmp_path)) == [8]
    assert "damaged" in caplog.text
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".damaged", ".drain"]


def test_a_disk_that_takes_nothing_does_not_end_metering(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = opened(tmp_path / "here")
    (tmp_path / "here").rmdir()
    journal.put(drain(7), HOOKS)
    journal.put(drain(8), HOOKS)
    assert caplog.text.count("is lost if the agent is killed") == 1


def test_a_half_written_file_is_none(tmp_path: Path) -> None:
    opened(tmp_path).put(drain(7), HOOKS)
    (tmp_path / "part").write_bytes(b"half")
    assert flips(opened(tmp_path)) == [7]
    assert replace(drain(1)).flip == 1
