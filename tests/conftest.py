"""What holds for every test: which need root, and that CI skips none but those on a list."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine may stand still for longer than an example usually takes.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")

IN_CI = os.environ.get("CI") == "true"
#: Tests that CI may skip, one a line: its node id, where * stands for anything, and behind two blanks the reason.
ALLOWED_SKIPS = Path(__file__).with_name("allowed-skips.txt")

_skipped: dict[str, str] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="loads programs into the kernel: needs root")
    for item in items:
        if item.get_closest_marker("kernel"):
            item.add_marker(skip)


def allowed_skips() -> list[str]:
    """Patterns of node ids."""
    lines = [line.strip() for line in ALLOWED_SKIPS.read_text().splitlines()]
    return [line.split("  ")[0] for line in lines if line and not line.startswith("#")]


def note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped[report.nodeid] = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)


# Where tests run in several processes, their reports all come to the one that started those.
pytest_runtest_logreport = note_skip
pytest_collectreport = note_skip


def forbidden_skips() -> dict[str, str]:
    """What CI skipped although it must not: reasons by node id."""
    if not IN_CI:
        return {}
    allowed = allowed_skips()
    return {
        name: reason
        for name, reason in _skipped.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)
    }


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == 0 and forbidden_skips():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, reason in forbidden_skips().items():
        terminalreporter.write_line(
            f"FAILED {name}: skipped ({reason}), which CI allows only to tests in {ALLOWED_SKIPS.name}", red=True
        )
