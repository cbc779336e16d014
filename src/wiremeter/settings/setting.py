"""What is declared of a setting: once, beside the field that holds its value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wiremeter.settings.values import Values

#: Where dataclasses keep what is not theirs.
_KEY = "wiremeter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """All that is known of one setting but its value.

    help: what it means, without its default and without a full stop. placeholder: what stands for the value in help.
    shown_default: the default in words, where its text says too little. flag: `--name`; short: a letter, such as `-i`.
    shorthands: further flags, and the value that each stands for. hidden_shorthands: such that help leaves out, since
    they are what the flag was called before.
    is_configurable: the environment and the file can set it, too. reloads: a running agent takes it anew on SIGHUP.
    takes_words: the words after the command, if any, are its values, too. is_hidden: help does not tell of it.
    """

    name: str
    values: Values
    help: str
    default: Any
    placeholder: str = ""
    shown_default: str | None = None
    flag: str
    short: str = ""
    shorthands: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hidden_shorthands: Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_configurable: bool = False
    reloads: bool = False
    takes_words: bool = False
    is_hidden: bool = False
    group: str = ""

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return isinstance(self.default, bool)

    @property
    def can_be_off(self) -> bool:
        """Whether it is a switch with a flag that turns it off: another source may have turned it on."""
        return self.is_switch and (self.is_configurable or bool(self.shorthands))

    def spelled(self, value: str) -> str:
        """The flag that gives `value`, as text."""
        if self.is_switch:
            return self.flag if value == "true" else f"--no-{self.flag.removeprefix('--')}"
        return f"{self.flag} {value}"

    @property
    def default_text(self) -> str:
        """The default as help shows it; "" where there is none to tell."""
        if self.shown_default is not None:
            return self.shown_default
        if self.is_switch:
            return "on" if self.default else "off"
        if self.values.is_list:
            return ",".join(self.default)
        if isinstance(self.default, float):
            return f"{self.default:g}"
        return "" if self.default in (None, "") else str(self.default)


def option(values: Values, default: Any, help: str, **more: Any) -> Any:
    """A field of a class of settings, which only a flag sets; `more` are fields of Setting."""
    return dataclasses.field(default=default, metadata={_KEY: {"values": values, "help": help, **more}})


def setting(values: Values, default: Any, help: str, **more: Any) -> Any:
    """The same, which the environment and the file can set, too."""
    return option(values, default, help, is_configurable=True, **more)


def settings_of(kind: type[Any]) -> dict[str, Setting]:
    """The settings of a class of settings by name, each with the group of the class that first has it.

    The order is that of the bases, and within them that of their fields.
    """
    groups: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        for name in vars(base).get("__annotations__", ()):
            groups.setdefault(name, vars(base).get("GROUP", ""))
    found = {}
    for field in dataclasses.fields(kind):
        if _KEY in field.metadata:
            about = dict(field.metadata[_KEY])
            about.setdefault("flag", "--" + field.name.replace("_", "-"))
            found[field.name] = Setting(name=field.name, default=field.default, group=groups[field.name], **about)
    return found
