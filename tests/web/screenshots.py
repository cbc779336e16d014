"""Pictures of each view over traffic that is made up: `make screenshots`. Light, dark and narrow, in a directory."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, expect, sync_playwright

from unit.server.running import RunningServer

from .browsing import launch, settled
from .fleet import AGENTS, S_NS, Traffic, minute, send

VIEWS = {
    "overview": "overview?",
    "explore": "explore?by=application,agent&compare=1d",
    "sankey": "explore?by=agent,application,domain&as=sankey",
    "flows": "flows?",
    "map": "map?",
    "live": "live?",
    "agents": "agents?agent=edge-1",
    "dns": "names?",
    "http": "names?kind=http",
}
FORMS: dict[str, tuple[Literal["light", "dark"], int, str]] = {
    "light": ("light", 1280, "en-US"),
    "dark": ("dark", 1280, "en-US"),
    "narrow": ("light", 390, "en-US"),
    "chinese": ("light", 1280, "zh-CN"),
}


def main(directory: Path) -> None:
    """Of an hour, beside that of yesterday and of last week."""
    directory.mkdir(parents=True, exist_ok=True)
    traffic = Traffic.until_now(60, earlier_days=[1, 7], has_hostile=False)
    with (
        tempfile.TemporaryDirectory(prefix="wiremeter-") as data,
        RunningServer(Path(data) / "data") as server,
        sync_playwright() as playwright,
        launch(playwright) as browser,
    ):
        traffic.send(server)
        for form in FORMS:
            _take(browser, server, traffic, form, directory)


def _take(browser: Browser, server: RunningServer, traffic: Traffic, form: str, directory: Path) -> None:
    scheme, width, locale = FORMS[form]
    with browser.new_context(
        base_url=server.url, color_scheme=scheme, locale=locale, viewport={"width": width, "height": 800}
    ) as context:
        page = context.new_page()
        for name, view in VIEWS.items():
            page.goto(f"/{view}&{traffic.question}")
            settled(page)
            if name == "live":
                for second in range(3):
                    for agent in AGENTS:
                        batch = minute(agent, traffic.end_ns + second * S_NS, part=1 / 60, seconds=1)
                        send(server, agent, 10**6 * (1 + list(FORMS).index(form)) + second, batch)
                expect(page.locator("main tbody tr")).not_to_have_count(0)
            page.screenshot(path=directory / f"{name}-{form}.png")
        print(f"{directory}: {form}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
