"""Scripts that have a shell complete commands, options and values; made from the same parser that reads them."""

from __future__ import annotations

import argparse
from typing import Any

import shtab

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
        values = {}
        for each in settings_of(kind).values():
            if not each.is_switch:
                values[each.name] = each.values
            if each.takes_words:
                values[WORDS] = each.values
        for action in commands[name]._actions:
            if action.dest == "config":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.dest in values and not isinstance(action, argparse._StoreConstAction):
                _offer(action, values[action.dest])
    return shtab.complete(parser, shell)


def _offer(action: argparse.Action, values: Values) -> None:
    if values.choices:
        action.choices = values.choices
    elif values.completes:
        action.complete = _COMPLETERS[values.completes]  # type: ignore[attr-defined]
