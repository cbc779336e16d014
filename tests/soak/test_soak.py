"""A minute of the soak, with faults that are the same each time; `make soak` runs it for half an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from .soak import Soak


@pytest.mark.slow
def test_whatever_is_killed_or_cut_all_of_it_is_stored_once_or_counted(tmp_path: Path) -> None:
    outcome = Soak(tmp_path, seed=1).run(45)
    assert not outcome.wrong, outcome.text()
    assert outcome.stored > 100
    assert outcome.packets > 10_000
