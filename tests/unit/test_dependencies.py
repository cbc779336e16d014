"""docs/design/dependencies.md names every dependency, and own code where it is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/design/dependencies.md").read_text()


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in declared}  # type: ignore[index]
    assert sorted(name for name in names if name.lower() not in PAGE.lower()) == []


def test_own_code_that_it_names_is_there() -> None:
    named = re.findall(r"`([\w/]+\.(?:py|c|h))`", PAGE)
    assert len(named) > 8
    assert [path for path in named if not any((ROOT / top / path).exists() for top in ("", "src/wiremeter"))] == []
