"""Writes the table of settings in docs/configuration.md from the catalogue (`make docs`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wiremeter.settings.catalogue import COMMANDS
from wiremeter.settings.setting import Setting, settings_of
from wiremeter.settings.sources import ENVIRONMENT_PREFIX, configurable

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

_BEGIN = "<!-- settings: made by `make docs` from src/wiremeter/settings/catalogue.py; change them there -->\n"
_END = "<!-- end of settings -->\n"


def table() -> str:
    """The table, in Markdown."""
    head = "| YAML | flag | environment | default | takes | meaning | commands |\n|---|---|---|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(_cells(each))} |\n" for each in configurable().values())


def page(text: str) -> str:
    """`text` with the table between its marks."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


def _cells(setting: Setting) -> Iterator[str]:
    yield f"`{setting.name}`"
    yield ", ".join(_flags(setting))
    yield f"`{ENVIRONMENT_PREFIX}{setting.name.upper()}`"
    yield setting.shown_default or f"`{setting.default_text}`"
    yield setting.values.expected
    yield f"{setting.help} ↻" if setting.reloads else setting.help
    yield ", ".join(name for name, kind in COMMANDS.items() if _is_configurable(settings_of(kind).get(setting.name)))


def _flags(setting: Setting) -> Iterator[str]:
    """Its flags, with the commands where not all call it the same."""
    flags: dict[str, list[str]] = {}
    for name, kind in COMMANDS.items():
        if _is_configurable(each := settings_of(kind).get(setting.name)):
            assert each
            flags.setdefault(each.flag, []).append(name)
    for flag, commands in flags.items():
        yield f"`{flag}`" + (f" ({', '.join(commands)})" if len(flags) > 1 else "")
    if setting.can_be_off:
        yield f"`--no-{setting.flag[2:]}`"
    if setting.short:
        yield f"`{setting.short}`"


def _is_configurable(setting: Setting | None) -> bool:
    return setting is not None and setting.is_configurable


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
