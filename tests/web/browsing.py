"""Chromium as the tests and the pictures use it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, expect

#: How long anything is waited for: a busy machine may stand still for a while.
PATIENCE_MS = 60_000
AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"


def launch(playwright: Playwright) -> Browser:
    """The system's own; it sends nothing of itself. Root may not have its sandbox."""
    expect.set_options(timeout=PATIENCE_MS)
    return playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
    )


class Watched:
    """Notes what a page must not do: fail, break its policy, or ask another host."""

    def __init__(self, page: Page, url: str, *, ignored: str = "a status of 400") -> None:
        """ignored: of what the browser logs; what is wrong with a question is the page's to tell."""
        self.faults: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        self._url, self._ignored = url, ignored
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and self._ignored not in message.text:
            self.faults.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self._url, "data:", "blob:")):
            self.faults.append(f"asked {request.url}")


def settled(page: Page) -> None:
    """Waits until everything on the page has its answer."""
    page.wait_for_selector("main h1", state="attached")
    expect(page.locator("main [role=status]")).to_have_count(0)


def violations(page: Page) -> list[str]:
    """What axe finds wrong with a page for people who cannot see or point, by rule and place."""
    page.evaluate(AXE.read_text())
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{rule['id']}: {' '.join(node['target'])}" for rule in found["violations"] for node in rule["nodes"]]


def overflowing(page: Page) -> list[str]:
    """What makes a page wider than its window."""
    found: list[str] = page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
            [...document.querySelectorAll('main *')].filter(each => each.getBoundingClientRect().right > innerWidth)
            .map(each => each.tagName + '.' + each.className)"""
    )
    return found
