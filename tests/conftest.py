"""What holds for every test: which need root, and that CI skips none of those."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A busy machine may stand still for longer than an example usually takes.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")

IN_CI = os.environ.get("CI") == "true"
_skipped_in_ci: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="loads programs into the kernel: needs root")
    for item in items:
        if item.get_closest_marker("kernel"):
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if IN_CI and report.skipped and item.get_closest_marker("kernel"):
        _skipped_in_ci.append(item.nodeid)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped_in_ci and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name in _skipped_in_ci:
        terminalreporter.write_line(f"FAILED {name}: a kernel test must not be skipped in CI", red=True)
