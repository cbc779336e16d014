"""Fixtures of the tests between hosts: each test must leave the kernel as it found it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from . import leaks, netns


@pytest.fixture(scope="session", autouse=True)
def stale_namespaces_removed() -> None:
    """Clear away what a killed run left."""
    if os.geteuid() == 0 and shutil.which("ip"):
        netns.remove_stale()


@pytest.fixture(scope="session", autouse=True)
def nothing_left_by_the_session(stale_namespaces_removed: None) -> Iterator[None]:
    """Nor do the hosts that several tests share."""
    if os.geteuid() != 0 or not shutil.which("bpftool"):
        yield
        return
    with leaks.nothing_left():
        yield


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """No program, map, link, filter, pin or namespace of ours outlives a test that uses the kernel."""
    if request.node.get_closest_marker("kernel") is None or os.geteuid() != 0:
        yield
        return
    with leaks.nothing_left():
        yield
