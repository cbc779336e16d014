"""What a command does to its own process, and the library does not."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any, cast

import pytest

from wiremeter.agent.dedicated import dedicate_process
from wiremeter.metering.early_flips import EarlyFlips

from ..metering.test_early_flips import Engine


def test_a_dedicated_process_searches_for_garbage_less_often() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700)  # whatever other tests have left
        dedicate_process()
        assert gc.isenabled()
        assert gc.get_threshold()[0] > 700
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize("urgent", [False, True])
def test_priority_is_raised_only_where_it_was_asked_for(urgent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    raised = threading.Event()
    monkeypatch.setattr(os, "setpriority", lambda *_: raised.set())
    with EarlyFlips(cast(Any, Engine()), urgent=urgent):
        assert raised.wait(5 if urgent else 0.05) == urgent
