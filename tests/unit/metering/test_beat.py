"""When intervals end and what their time is spent on, by a clock that stands still unless it is moved."""

from __future__ import annotations

import pytest

from wiremeter.metering.beat import CLOSING_SECONDS, LAST_LOOK_SHARE, NAMES_SHARE, REFRESH_SECONDS, REFRESH_SHARE, Beat

from ..clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_interval_is_as_long_as_was_asked_for(clock: Clock) -> None:
    beat = Beat(2.0, clock)
    assert beat.left == 2.0
    clock.now += 1.5
    assert beat.left == 0.5
    clock.now += 1.0
    assert beat.left == 0.0


def test_intervals_that_end_late_keep_the_beat(clock: Clock) -> None:
    beat = Beat(1.0, clock)
    clock.now += 1.3
    beat.next()
    assert beat.left == pytest.approx(0.7)


@pytest.mark.parametrize(("late", "left"), [(0.0, 1.0), (0.9, 0.1), (1.0, 1.0), (2.4, 0.6), (117.25, 0.75)])
def test_ends_that_were_missed_are_not_made_up_for(clock: Clock, late: float, left: float) -> None:
    beat = Beat(1.0, clock)
    clock.now += 1.0 + late
    beat.next()
    assert beat.left == pytest.approx(left)


def test_an_interval_that_ended_early_is_followed_by_a_whole_one_behind_its_own_end(clock: Clock) -> None:
    beat = Beat(1.0, clock)
    clock.now += 0.4
    beat.next()
    assert beat.left == pytest.approx(1.6)


def test_devices_are_looked_at_again_after_a_while(clock: Clock) -> None:
    beat = Beat(0.1, clock)
    clock.now += REFRESH_SECONDS - 0.01
    beat.next()
    assert beat.left_to_refresh == pytest.approx(0.01)
    clock.now += 0.02
    assert not beat.left_to_refresh
    beat.refreshed(0.1)
    assert beat.left_to_refresh == REFRESH_SECONDS


def test_devices_that_changed_are_looked_at_at_once_but_looking_has_a_share_of_the_time(clock: Clock) -> None:
    beat = Beat(1.0, clock)
    beat.devices_changed()
    assert not beat.left_to_refresh
    clock.now += 0.3
    beat.refreshed(0.3)
    beat.devices_changed()
    assert beat.left_to_refresh == pytest.approx(0.3 / REFRESH_SHARE - 0.3)
    clock.now += 1.0
    beat.devices_changed()
    assert beat.left_to_refresh == pytest.approx(0.3 / REFRESH_SHARE - 1.3)
    beat.refreshed(10.0)
    beat.devices_changed()
    assert beat.left_to_refresh == REFRESH_SECONDS


def test_names_have_a_share_of_each_interval_and_no_more(clock: Clock) -> None:
    beat = Beat(1.0, clock)
    with beat.reading_names():
        clock.now += NAMES_SHARE / 2
    clock.now += 0.2  # what is spent otherwise is not theirs
    assert beat.names_have_time()
    with beat.reading_names():
        clock.now += NAMES_SHARE
    assert not beat.names_have_time()
    beat.next()
    assert beat.names_have_time()


def test_the_last_look_is_short_and_never_longer_than_what_is_left(clock: Clock) -> None:
    beat = Beat(1.0, clock)
    beat.last_look(is_last=False)
    with beat.reading_names():
        clock.now += LAST_LOOK_SHARE
    assert not beat.names_have_time()
    beat.next()
    with beat.reading_names():
        clock.now += NAMES_SHARE + 0.01
    beat.last_look(is_last=False)
    assert not beat.names_have_time()


def test_behind_the_last_interval_names_have_more_time(clock: Clock) -> None:
    beat = Beat(0.1, clock)
    beat.last_look(is_last=True)
    with beat.reading_names():
        clock.now += CLOSING_SECONDS - 0.01
    assert beat.names_have_time()
    with beat.reading_names():
        clock.now += 0.02
    assert not beat.names_have_time()
