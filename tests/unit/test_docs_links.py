"""What documents refer to exists: files, headings, and the names that the tour says are defined in a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOUR = ROOT / "docs/design/tour.md"

_LINK = re.compile(r"!?\[([^\]\n]*)\]\(([^)\s]+)\)")


def links(page: Path) -> list[tuple[str, str]]:
    """(text, target) of each link that stays in the repository; blocks of code have none."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [(text, target) for text, target in _LINK.findall(text) if "://" not in target]


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def defines(file: Path, name: str) -> bool:
    """Whether a file of C or Python defines a function, type or value of this name."""
    word = re.escape(name)
    if file.suffix == ".py":
        pattern = rf"^(?:async )?def {word}\(|^class {word}\b|^{word}(?::[^=\n]+)? = "
    else:  # a function that is not merely declared, or a struct or enum
        pattern = rf"^[\w ].*\b{word}\([^;]*\)\s*\n\{{|^(?:struct|enum) {word} \{{"
    return re.search(pattern, file.read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for _, target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: there is no such file"
        if anchor:
            assert anchor in slugs(file), f"{target}: {file.name} has no such heading"


def test_the_tour_names_what_is_defined_where_it_says() -> None:
    named = [(text.strip("`"), TOUR.parent / target) for text, target in links(TOUR) if text.startswith("`")]
    assert len(named) > 30
    for name, file in named:
        if name != file.name:
            assert defines(file, name), f"{file.relative_to(TOUR.parent)} does not define {name}"


def test_a_name_that_is_only_used_or_declared_is_not_taken_for_defined(tmp_path: Path) -> None:
    python, c = tmp_path / "a.py", tmp_path / "a.c"
    python.write_text("def here(x):\n    there(x)\n\nHERE: int = 1\n")
    c.write_text("static int here(int x,\n\t\tint y)\n{\n\treturn there(x);\n}\nint there(int x);\nstruct s {\n};\n")
    assert [defines(python, name) for name in ("here", "there", "HERE", "x")] == [True, False, True, False]
    assert [defines(c, name) for name in ("here", "there", "s", "x")] == [True, False, True, False]
