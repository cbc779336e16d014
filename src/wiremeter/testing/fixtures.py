"""Fixtures for pytest: `pytest_plugins = ["wiremeter.testing.fixtures"]` in conftest.py makes them known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from wiremeter.settings.words import RequestedMode
from wiremeter.testing.errors import CannotMeter
from wiremeter.testing.namespace import Namespace, meter
from wiremeter.testing.traffic import Traffic


@pytest.fixture
def metered_network() -> Iterator[Namespace]:
    """A network namespace of the test's own, metered; the test is skipped, with the reason, where none can be made."""
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Namespace())
        except CannotMeter as refusal:
            pytest.skip(f"cannot meter here: {refusal}")
        yield network


@pytest.fixture
def traffic_of() -> Iterator[Callable[..., Traffic]]:
    """Begins to meter a network that is there, as wiremeter.testing.meter does, until the test ends.

    It is called with a process's id or a namespace's name. The test is skipped, with the reason, where that cannot be.
    """
    with ExitStack() as stack:

        def begin(target: int | str | None = None, *interfaces: str, attach: RequestedMode = "auto") -> Traffic:
            try:
                return stack.enter_context(meter(target, *interfaces, attach=attach))
            except CannotMeter as refusal:
                pytest.skip(f"cannot meter here: {refusal}")

        yield begin
