"""Writes man pages from the parser and the catalogue of settings: scripts/manual.py DIRECTORY (`make man`).

argparse-manpage would do it, but fills the texts after the options anew, examples included, and cannot say where else a
setting comes from.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from wiremeter import __version__
from wiremeter.cli.about import ABOUT, EXAMPLES
from wiremeter.cli.errors import EXIT_BROKEN_PIPE, EXIT_ERROR, EXIT_INPUT, EXIT_INTERRUPTED
from wiremeter.cli.parser import build_parser, commands_of
from wiremeter.settings.catalogue import COMMANDS
from wiremeter.settings.setting import settings_of
from wiremeter.settings.sources import CONFIG_VARIABLE, ENVIRONMENT_PREFIX

_ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "`": r"\`", "^": r"\(ha", "~": r"\(ti"})
_STATUS = {
    0: "All went well.",
    EXIT_ERROR: "An error; doctor and verify: something will not work.",
    EXIT_INPUT: "An argument, a setting or a file is wrong.",
    EXIT_INTERRUPTED: "Ctrl-C, where that does not end the command the usual way.",
    EXIT_BROKEN_PIPE: "The reader of standard output went away.",
}


def pages() -> dict[str, str]:
    """File name and roff of every page, for man(7)."""
    parser = build_parser()
    made = {"wiremeter.1": "\n".join(_main_page(parser)) + "\n"}
    for name, command in commands_of(parser).items():
        if name in COMMANDS:
            made[f"wiremeter-{name}.1"] = "\n".join(_command_page(name, command)) + "\n"
    return made


def _main_page(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from _head("wiremeter", "a meter on the wire")
    yield from _section("SYNOPSIS", _bold("wiremeter"), r"\fICOMMAND\fR [\fIOPTION\fR...]")
    yield from _section("DESCRIPTION", _text(parser.description or ""))
    yield ".SH COMMANDS"
    for name, command in commands_of(parser).items():
        summary = ABOUT[name].summary if name in ABOUT else command.description or ""
        yield from (".TP", rf"\fBwiremeter {_text(name)}\fR", _text(summary.splitlines()[0]))
    yield from (".SH OPTIONS", *_options(parser._actions))
    yield ".SH EXAMPLES"
    yield from _as_it_stands(EXAMPLES.split("\n\n")[0].split("\n", 1)[1])
    yield from _status()
    yield ".SH SEE ALSO"
    yield ",\n".join(rf".BR wiremeter\-{name} (1)" for name in COMMANDS).replace(",\n", " ,\n")


def _command_page(name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    about = ABOUT[name]
    yield from _head(f"wiremeter-{name}", about.summary)
    usage = (command.usage or "").removeprefix(command.prog)
    yield from _section("SYNOPSIS", _bold(f"wiremeter {name}"), _text(usage.strip()))
    yield from _section("DESCRIPTION", _text(about.description))
    for group in command._action_groups:
        shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if shown and group.title != "positional arguments":
            title = "OPTIONS" if group.title == "options" else f"Options: {group.title}"
            yield f".SH {title.upper()}"
            if group.description:
                yield _text(group.description)
            yield from _options(shown)
    configurable = [each for each in settings_of(COMMANDS[name]).values() if each.is_configurable]
    if configurable:
        yield ".SH ENVIRONMENT"
        yield _text(
            "A flag comes before the environment, the environment before the file that --config names, the file before "
            "the default. In the file the names are those below in small letters, without the prefix."
        )
        yield from (".TP", _bold(CONFIG_VARIABLE), "The file.")
        for each in configurable:
            yield from (".TP", _bold(ENVIRONMENT_PREFIX + each.name.upper()), _text(f"As {each.flag}."))
    if about.more:
        yield ".SH NOTES"
        yield from _as_it_stands(about.more)
    yield from _status()
    yield from (".SH SEE ALSO", r".BR wiremeter (1)")


def _head(name: str, summary: str) -> Iterator[str]:
    yield r".\" Made by scripts/manual.py: change src/wiremeter/cli/about.py or src/wiremeter/settings/catalogue.py"
    made = time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH", time.time())))  # reproducible-builds.org
    yield f'.TH {name.upper()} 1 {time.strftime("%Y-%m-%d", made)} "wiremeter {__version__}"'
    yield from _section("NAME", rf"{_text(name)} \- {_text(summary)}")


def _section(title: str, *lines: str) -> Iterator[str]:
    yield f".SH {title}"
    yield from lines


def _options(actions: list[argparse.Action]) -> Iterator[str]:
    for action in actions:
        if not action.option_strings or action.help == argparse.SUPPRESS:
            continue
        value = rf" \fI{_text(str(action.metavar))}\fR" if action.metavar and action.nargs != 0 else ""
        yield ".TP"
        yield ", ".join(rf"\fB{_text(flag)}\fR{value}" for flag in action.option_strings)
        yield _text((action.help or "").replace("%%", "%"))


def _status() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for number, meaning in _STATUS.items():
        yield from (".TP", _bold(str(number)), _text(meaning))


def _as_it_stands(text: str) -> Iterator[str]:
    yield ".nf"
    for line in text.rstrip("\n").splitlines():
        yield _text(line) if line else ".sp"
    yield ".fi"


def _bold(text: str) -> str:
    return rf"\fB{_text(text)}\fR"


def _text(text: str) -> str:
    """`text` for roff: nothing in it is a command, and a minus is one that can be copied into a shell."""
    escaped = text.translate(_ESCAPES)
    return "\n".join(rf"\&{line}" if line[:1] in (".", "'") else line for line in escaped.splitlines())


def main() -> None:
    """Writes the pages into the directory that is named."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
