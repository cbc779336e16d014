"""The first view: its numbers are the API's and the senders', and a click narrows them."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from unit.server.running import RunningServer
from wiremeter.server.web.page import read_files

from .browsing import settled
from .fleet import Traffic


def test_its_sums_are_the_senders(page: Page, server: RunningServer, traffic: Traffic) -> None:
    sent = traffic.audit()
    page.goto(f"/?{traffic.question}")
    expect(page.get_by_label("Audit")).to_contain_text(f"Of {sent['seen']:,} packets")
    expect(page.get_by_label("Audit")).to_contain_text(f"{sent['unattributed']:,} (no room in the flow table)")
    total = server.ask(f"/v1/top?{traffic.question}").json["total"]
    assert total["packets"] == sent["flows"]
    settled(page)
    packets = page.locator(".fact", has_text="Packets").locator(".value")
    assert packets.inner_text() == f"{total['packets'] / 1e6:.2f}\u202fM"
    assert page.locator(".fact", has_text="Agents").locator(".value").inner_text() == "3 / 3"
    was = server.ask(f"/v1/top?{earlier(traffic)}").json["total"]["packets"]
    assert (
        f"+{total['packets'] / was - 1:.0%} since yesterday" in page.locator(".fact", has_text="Packets").inner_text()
    )
    assert "nothing stored of then" in page.locator(".fact", has_text="Packets").inner_text()


def earlier(traffic: Traffic) -> str:
    end = traffic.end_ns // 10**9 - 86400
    return f"from={end - 60 * traffic.minutes}&to={end}"


def test_lists_are_the_answers_and_add_up(page: Page, server: RunningServer, traffic: Traffic) -> None:
    page.goto(f"/overview?{traffic.question}&show=packets")
    settled(page)
    for dimension in ("application", "agent", "domain"):
        answer = server.ask(f"/v1/top?{traffic.question}&by={dimension}&sort=packets&limit=6").json
        rows = page.locator(f"section[aria-labelledby=top-{dimension}] tbody tr")
        assert rows.count() == len([row for row in answer["rows"] if row["packets"]])
        if dimension != "domain":
            shown = [row.locator("td").first.inner_text() for row in rows.all()]
            assert shown == [row[dimension] or "All others" for row in answer["rows"] if row["packets"]]


def test_a_click_narrows_everything_and_back_undoes_it(page: Page, server: RunningServer, traffic: Traffic) -> None:
    page.goto(f"/overview?{traffic.question}")
    settled(page)
    page.locator("section[aria-labelledby=top-agent]").get_by_role("link", name="db-1", exact=True).click()
    expect(page).to_have_url(f"{server.url}/overview?{traffic.question}&filter=agent+db-1")
    assert page.get_by_label("Filter", exact=True).input_value() == "agent db-1"
    expect(page.locator("section[aria-labelledby=top-agent] tbody tr")).to_have_count(1)
    page.locator("section[aria-labelledby=top-application]").get_by_role("link", name="ssh").click()
    expect(page.get_by_label("Filter", exact=True)).to_have_value("agent db-1 and app ssh")
    page.go_back()
    page.go_back()
    expect(page.get_by_label("Filter", exact=True)).to_have_value("")
    expect(page.locator("section[aria-labelledby=top-agent] tbody tr")).to_have_count(3)


def test_a_mistake_in_the_filter_is_told_where_it_is(page: Page, traffic: Traffic) -> None:
    page.goto(f"/overview?{traffic.question}")
    page.get_by_label("Filter", exact=True).fill("prot tcp")
    page.get_by_label("Filter", exact=True).press("Enter")
    expect(page.get_by_role("alert").first).to_contain_text("^~~~")


def test_all_that_a_browser_loads_is_less_than_150_kb() -> None:
    files = read_files()
    loaded = {name: len(file.packed) for name, file in files.items() if name.startswith(("assets/", "index"))}
    assert 10_000 < sum(loaded.values()) < 150_000, loaded
