"""What is made meanwhile: it comes, or what kept it from coming."""

from __future__ import annotations

import threading

import pytest

from wiremeter.metering.meanwhile import Meanwhile


def test_what_was_made_comes_as_soon_as_it_is() -> None:
    may_end = threading.Event()

    def make() -> int:
        may_end.wait(5)
        return 7

    undone: list[int] = []
    with Meanwhile(make, undone.append, "test") as meanwhile:
        may_end.set()
        assert meanwhile.result() == 7
        assert meanwhile.result() == 7
        assert not undone
    assert undone == [7]


def test_what_nobody_asked_for_is_undone_too() -> None:
    undone: list[int] = []
    with pytest.raises(KeyError), Meanwhile(lambda: 7, undone.append, "test"):
        raise KeyError
    assert undone == [7]


def test_what_failed_is_raised_where_the_result_is_wanted() -> None:
    with Meanwhile(lambda: 1 // 0, print, "test") as meanwhile, pytest.raises(ZeroDivisionError):
        meanwhile.result()


def test_the_thread_does_not_outlive_the_block() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), Meanwhile(lambda: threading.Event().wait(0.05), print, "test"):
        raise KeyError
    assert threading.active_count() == before
