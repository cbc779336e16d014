"""Fixtures of the tests on the running kernel: engines without a device, and the check that nothing is left there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from hosts import leaks
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables

from .bench import CPUS, Bench


@pytest.fixture(scope="module", autouse=True)
def nothing_left_by_the_module() -> Iterator[None]:
    """No program, map, link, filter or namespace of ours outlives the tests of one file."""
    if os.geteuid() != 0 or not shutil.which("bpftool"):
        yield
        return
    with leaks.nothing_left():
        yield


@pytest.fixture(scope="module")
def bench(nothing_left_by_the_module: None) -> Iterator[Bench]:
    """Every program over one table of 4,096 lines. Whoever uses it takes out what it has put in."""
    with KernelEngine(plan_tables(CPUS, 4096)) as engine:
        yield Bench(engine)
