"""docs/configuration.md says what the catalogue says."""

from __future__ import annotations

from pathlib import Path

from scripts import configuration

from wiremeter.settings.catalogue import COMMANDS
from wiremeter.settings.setting import settings_of
from wiremeter.settings.sources import configurable


def test_the_page_is_fresh() -> None:
    text = configuration.PAGE.read_text("utf-8")
    assert configuration.page(text) == text, "run `make docs`"


def test_the_page_names_every_setting_with_flag_and_variable() -> None:
    text = configuration.PAGE.read_text("utf-8")
    rows = {line.split("`")[1]: line.split(" | ") for line in text.splitlines() if line.startswith("| `")}
    for name in configurable():
        _, flags, variable, *_ = rows[name]
        assert variable == f"`WIREMETER_{name.upper()}`"
        for kind in COMMANDS.values():  # not all call it the same
            each = settings_of(kind).get(name)
            assert each is None or not each.is_configurable or f"`{each.flag}`" in flags


def test_a_setting_means_the_same_in_every_command_that_configures_it() -> None:
    for name, first in configurable().items():
        for kind in COMMANDS.values():
            other = settings_of(kind).get(name)
            if other is not None and other.is_configurable:
                assert (other.values, other.default) == (first.values, first.default), (name, kind)


def test_no_two_flags_of_a_command_are_the_same() -> None:
    for command, kind in COMMANDS.items():
        flags = [
            flag
            for each in settings_of(kind).values()
            for flag in (each.flag, each.short, *each.shorthands, *each.hidden_shorthands)
            if flag
        ]
        assert len(flags) == len(set(flags)), command


def test_nothing_of_the_settings_needs_numpy() -> None:
    room = Path(configuration.__file__).parents[1] / "src" / "wiremeter" / "settings"
    assert not [path for path in room.glob("*.py") if "numpy" in path.read_text("utf-8")]
