"""Writes what docs/alerts.md says of each shipped rule, from the rules themselves (`make docs`)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from wiremeter.server.alerts.rules import Rule, shipped_rules
from wiremeter.server.alerts.watch import FAILING

PAGE = Path(__file__).parents[1] / "docs" / "alerts.md"

_BEGIN = "<!-- rules: made by `make docs` from src/wiremeter/server/alerts/shipped.yml; change them there -->\n"
_END = "<!-- end of rules -->\n"


def section(rule: Rule) -> Iterator[str]:
    """A rule's section, in paragraphs."""
    hold = f", after {rule.hold_ns // 60_000_000_000} minutes" if rule.hold_ns else ""
    yield f"### {rule.name}"
    yield f"Group `{rule.group}`, {rule.labels['severity']}{hold}. {rule.annotations['description']}"
    yield f"**What to do.** {rule.annotations['action']}"
    if rule.expr:
        yield textwrap.indent(rule.expr, "    ")


def page(text: str) -> str:
    """`text` with the sections between its marks."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    paragraphs = "\n\n".join(part for rule in [*shipped_rules("all"), FAILING] for part in section(rule))
    return f"{before}{_BEGIN}\n{paragraphs}\n\n{_END}{after}"


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
