"""The kernel's switch for grace periods: when it is set, and that it is found as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from wiremeter.linux.grace_periods import MANY, GracePeriods


@pytest.fixture
def switch(tmp_path: Path) -> Path:
    path = tmp_path / "rcu_expedited"
    path.write_text("0\n")
    return path


def test_it_is_set_while_many_are_waited_for(switch: Path) -> None:
    with GracePeriods(switch) as grace, grace.expedited(MANY):
        assert switch.read_text() == "1\n"
    assert switch.read_text() == "0\n"


def test_few_are_waited_for_as_they_are(switch: Path) -> None:
    with GracePeriods(switch) as grace, grace.expedited(MANY - 1):
        assert switch.read_text() == "0\n"


def test_what_somebody_has_set_stays(switch: Path) -> None:
    switch.write_text("1\n")
    with GracePeriods(switch) as grace, grace.expedited(MANY):
        pass
    assert switch.read_text() == "1\n"


def test_it_is_given_back_when_something_fails(switch: Path) -> None:
    with GracePeriods(switch) as grace, pytest.raises(KeyError), grace.expedited(MANY):
        raise KeyError
    assert switch.read_text() == "0\n"


def test_without_the_right_to_it_all_goes_on(tmp_path: Path) -> None:
    with GracePeriods(tmp_path / "none") as grace, grace.expedited(MANY):
        pass
