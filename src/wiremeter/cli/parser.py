"""The command line as argparse sees it, made from the catalogue, and what was given as settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from wiremeter import __version__
from wiremeter.cli.about import ABOUT, ABOUT_COMPLETION, EXAMPLES
from wiremeter.settings import load_settings
from wiremeter.settings.catalogue import COMMANDS, Command
from wiremeter.settings.setting import Setting, settings_of
from wiremeter.settings.values import nearest

#: The words after a command, in the namespace.
WORDS = "words"
#: Beside those with settings.
_ALL = [*COMMANDS, "help", "completion"]
SHELLS = ("bash", "zsh", "fish")
_VERSION = f"wiremeter {__version__}"


class Parser(argparse.ArgumentParser):
    """An argparse parser with our own defaults."""

    def __init__(self, **about: Any) -> None:
        about = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **about}
        super().__init__(**about)

    def error(self, message: str) -> NoReturn:
        """Ends with status 2 and a message that says where the help is."""
        self.exit(2, f"wiremeter: {message}\n{self.format_usage()}`{self.prog} --help` says more.\n")


def build_parser() -> Parser:
    """The parser with every command."""
    parser = Parser(
        prog="wiremeter",
        description="A meter on the wire: all the traffic of this host's devices, counted in the kernel with eBPF.",
        epilog=EXAMPLES,
        usage="wiremeter COMMAND [OPTION...]",
    )
    parser.add_argument("-V", "--version", action="version", version=_VERSION)
    parser.add_argument("-v", action="version", version=_VERSION, help=argparse.SUPPRESS)
    subparsers = parser.add_subparsers(
        title="commands", prog="wiremeter", metavar="COMMAND", dest="command", required=True
    )
    for name, kind in COMMANDS.items():
        about = ABOUT[name]
        command = subparsers.add_parser(name, help=about.summary, description=about.description, epilog=about.more)
        command.set_defaults(parser=command)
        _add_flags(command, kind)
        command.add_argument("-V", "--version", action="version", version=_VERSION, help=argparse.SUPPRESS)
    help_ = subparsers.add_parser("help", help="what a command does", description="The same as COMMAND --help.")
    help_.add_argument("about", nargs="?", metavar="COMMAND", choices=list(COMMANDS))
    completion = subparsers.add_parser(
        "completion", help="print what has a shell complete commands and options", description=ABOUT_COMPLETION
    )
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    return parser


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of its commands by name."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """What a command line says.

    Raises SystemExit for help, the version, and what cannot be understood; then with what was probably meant.
    """
    parser = build_parser()
    if not argv:
        parser.error("a command is missing: " + ", ".join(COMMANDS))
    if not argv[0].startswith("-") and argv[0] not in _ALL:
        parser.error(f"there is no command {argv[0]}{_meant(argv[0])}")
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        command: Parser = args.parser
        command.error(f"{command.prog} has no option {unknown[0]}{_meant_option(args.command, unknown[0])}")
    return args


def _meant(word: str) -> str:
    """What a word may have been, that is no command."""
    if os.path.isfile(word):
        return f"; to meter a capture file: wiremeter replay {word}"
    if os.path.isdir(f"/sys/class/net/{word}"):
        return f"; to meter a device: wiremeter live {word}"
    if near := nearest(word, _ALL):
        return f"; did you mean {near}?"
    return f"; those are {', '.join(COMMANDS)}"


def _meant_option(command: str, given: str) -> str:
    flag = given.split("=")[0]
    others = [name for name, kind in COMMANDS.items() if name != command and flag in _spellings(kind)]
    if others:
        return f": it is one of wiremeter {others[0]}"
    near = nearest(flag, list(_spellings(COMMANDS[command])))
    return f"; did you mean {near}?" if near else ""


def _spellings(kind: type[Command]) -> Iterator[str]:
    for each in settings_of(kind).values():
        yield from filter(None, (each.flag, each.short, *each.shorthands))


def settings_given(args: argparse.Namespace) -> Any:
    """The settings of the command that was given, with its flags. Raises what load_settings raises."""
    kind = COMMANDS[args.command]
    flags: dict[str, object] = {}
    for name, each in settings_of(kind).items():
        if each.takes_words:
            words = [*getattr(args, name, []), *getattr(args, WORDS, [])]
            if words:
                flags[name] = ",".join(words) if each.values.is_list else words
        elif hasattr(args, name):
            flags[name] = getattr(args, name)
    return load_settings(flags, kind, config=getattr(args, "config", None))


def _add_flags(parser: argparse.ArgumentParser, kind: type[Command]) -> None:
    """Adds the flags of a command. One that is not given leaves no trace, so that other sources count."""
    settings = settings_of(kind)
    groups: dict[str, Any] = {"": parser}
    parser.usage = f"{parser.prog} [OPTION...]"
    if any(each.is_configurable for each in settings.values()):
        parser.add_argument("--config", metavar="FILE", help="YAML file with settings (docs/configuration.md)")
    for each in settings.values():
        if each.group not in groups:
            groups[each.group] = parser.add_argument_group(*each.group.split(": ", 1))
        _add_flag(groups[each.group], each)
        if each.takes_words:
            same = f"the same as {each.flag} {each.placeholder}"
            parser.add_argument(WORDS, nargs="*", metavar=each.placeholder, help=same, default=[])
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
