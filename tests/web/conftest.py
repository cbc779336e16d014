"""A real server with known traffic, and a browser that tells what a page did beside what it showed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from unit.server.running import RunningServer

from .browsing import Watched, launch
from .fleet import Traffic

CHROMIUM = shutil.which("chromium")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM:
        return
    skip = pytest.mark.skip(reason="shows the page in chromium, which is not here")
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def traffic() -> Traffic:
    """A quarter of an hour, and the same of yesterday."""
    return Traffic.until_now(15, earlier_days=[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, traffic: Traffic) -> Iterator[RunningServer]:
    """That has stored it."""
    with RunningServer(tmp_path_factory.mktemp("page") / "data") as running:
        traffic.send(running)
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: RunningServer) -> Iterator[Page]:
    """A page that has done nothing forbidden when its test ends."""
    with browser.new_context(base_url=server.url, locale="en-US", timezone_id="UTC") as context:
        page = context.new_page()
        watched = Watched(page, server.url)
        yield page
        assert watched.faults == []
