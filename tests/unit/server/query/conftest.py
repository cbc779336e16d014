"""An open store for a module's tests: its engine takes a second to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wiremeter.server.store import Limits, Store, open_store


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(str(tmp_path_factory.mktemp("store")), limits=Limits(group_seconds=0.01)) as store:
        yield store
