"""Flags: the catalogue of settings as argparse sees it, and what was given as settings."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from wiremeter.settings import load_settings
from wiremeter.settings.catalogue import COMMANDS, Command
from wiremeter.settings.setting import Setting, settings_of

#: The words after a command, in the namespace.
_WORDS = "_words"


def add_command(
    subparsers: argparse._SubParsersAction[Any], name: str, run: Callable[[Any], int], **about: Any
) -> argparse.ArgumentParser:
    """Adds a subcommand with the flags that the catalogue has for it.

    run: takes the command's settings and returns the exit status. about: its help, description and epilog.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **about
    )
    parser.set_defaults(run=run, parser=parser, kind=COMMANDS[name])
    _add_flags(parser, COMMANDS[name])
    return parser


def _add_flags(parser: argparse.ArgumentParser, kind: type[Command]) -> None:
    """Adds the flags of a command. One that is not given leaves no trace, so that other sources count."""
    settings = settings_of(kind)
    groups: dict[str, Any] = {"": parser}
    parser.usage = f"{parser.prog} [OPTION...]"
    if any(each.is_configurable for each in settings.values()):
        parser.add_argument("--config", metavar="FILE", help="YAML file with settings")
    for each in settings.values():
        if each.group not in groups:
            groups[each.group] = parser.add_argument_group(*each.group.split(": ", 1))
        _add_flag(groups[each.group], each)
        if each.takes_words:
            same = f"the same as {each.flag} {each.placeholder}"
            parser.add_argument(_WORDS, nargs="*", metavar=each.placeholder, help=same, default=[])
            parser.usage += f" [{each.placeholder}...]"


def _add_flag(group: argparse._ArgumentGroup, setting: Setting) -> None:
    add = group.add_argument
    flags = [flag for flag in (setting.short, setting.flag) if flag]
    about: dict[str, Any] = {"dest": setting.name, "default": argparse.SUPPRESS}
    shown = argparse.SUPPRESS if setting.is_hidden else _described(setting)
    if setting.can_be_off:
        add(*flags, action=argparse.BooleanOptionalAction, help=shown, **about)
    elif setting.is_switch:
        add(*flags, action="store_true", help=shown, **about)
    elif setting.takes_words:
        add(*flags, action="append", metavar=setting.placeholder, help=shown, **about)
    else:
        add(*flags, metavar=setting.placeholder, help=shown, **about)
    for flag, stands_for in setting.shorthands.items():
        add(flag, action="store_const", const=stands_for, help=f"the same as {setting.spelled(stands_for)}", **about)
    for flag, stands_for in setting.hidden_shorthands.items():
        add(flag, action="store_const", const=stands_for, help=argparse.SUPPRESS, **about)


def _described(setting: Setting) -> str:
    """Help for argparse, which takes % for its own."""
    default = setting.default_text
    is_told = default and (setting.can_be_off or not setting.is_switch)
    words = "" if setting.is_switch or not setting.values.choices else f": {setting.values.expected}"
    return f"{setting.help}{words}{f' (default: {default})' if is_told else ''}".replace("%", "%%")


def settings_given(args: argparse.Namespace) -> Any:
    """The settings of the command that was given, with its flags. Raises what load_settings raises."""
    flags: dict[str, object] = {}
    for name, each in settings_of(args.kind).items():
        if each.takes_words:
            words = [*getattr(args, name, []), *getattr(args, _WORDS, [])]
            if words:
                flags[name] = ",".join(words) if each.values.is_list else words
        elif hasattr(args, name):
            flags[name] = getattr(args, name)
    return load_settings(flags, args.kind, config=getattr(args, "config", None))
