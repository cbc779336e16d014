"""In CI a test may be skipped only if it is on the list, whatever the reason and whoever runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
SKIPPING = """
import pytest

def test_runs(): ...

def test_needs_something():
    pytest.skip("no promtool")

@pytest.mark.parametrize("name", [])
def test_of_nothing(name): ...
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder of tests under our rules, with one file that skips two tests and one that is skipped as a whole."""
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_some.py").write_text(SKIPPING)
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('no_such_library')\n")
    (tmp_path / "allowed-skips.txt").write_text("")
    return tmp_path


def run(suite: Path, *options: str, ci: str = "true") -> tuple[int, list[str]]:
    """Status, and the names of what must not have been skipped."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", *options, "."],
        cwd=suite,
        # Without plugins that have no part in it, which take longer to load than all tests here.
        env=os.environ | {"CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, sorted(
        line.split(": skipped")[0].removeprefix("FAILED ") for line in done.stdout.splitlines() if ": skipped" in line
    )


@pytest.mark.parametrize("options", [(), ("-p", "xdist", "-n", "2")], ids=["one process", "several"])
def test_what_is_skipped_and_not_on_the_list_fails_in_ci(suite: Path, options: tuple[str, ...]) -> None:
    status, names = run(suite, *options)
    assert status == 1
    assert names == ["test_some.py::test_needs_something", "test_some.py::test_of_nothing[NOTSET]", "test_whole.py"]


def test_what_is_on_the_list_may_be_skipped(suite: Path) -> None:
    (suite / "allowed-skips.txt").write_text(
        "# why\ntest_some.py::*  needs what only some have\ntest_whole.py  the library is for others\n"
    )
    assert run(suite) == (0, [])


def test_elsewhere_anything_may_be_skipped(suite: Path) -> None:
    assert run(suite, ci="") == (0, [])
