"""Scripts that have a shell complete commands, options and values; made from the same parser that reads them."""

from __future__ import annotations

import argparse
from typing import Any

import shtab

from wiremeter.cli.about import ABOUT
from wiremeter.cli.parser import WORDS, build_parser, commands_of
from wiremeter.settings.catalogue import COMMANDS
from wiremeter.settings.setting import settings_of
from wiremeter.settings.values import Values

_COMPLETERS: dict[str, Any] = {
    "device": shtab.cmd("ls /sys/class/net; echo auto"),
    "file": shtab.FILE,
    "directory": shtab.DIRECTORY,
}


def script(shell: str) -> str:
    """The script for bash, zsh or fish."""
    parser = build_parser()
    commands = commands_of(parser)
    for name, kind in COMMANDS.items():
        commands[name].description = ABOUT[name].summary
        settings = settings_of(kind)
        words = next((each for each in settings.values() if each.takes_words), None)
        for action in commands[name]._actions:
            setting = words if action.dest == WORDS else settings.get(action.dest)
            if action.dest == "config":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif setting and action.help != argparse.SUPPRESS:
                action.help = setting.help.replace("%", "%%")
                if not setting.is_switch and not isinstance(action, argparse._StoreConstAction):
                    _offer(action, setting.values)
    return shtab.complete(parser, shell)


def _offer(action: argparse.Action, values: Values) -> None:
    if values.choices:
        action.choices = values.choices
    elif values.completes:
        action.complete = _COMPLETERS[values.completes]  # type: ignore[attr-defined]
