"""Every view over a real server: numbers are the API's, names are only text, and nobody is kept out."""

from __future__ import annotations

import json
import re
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from unit.live_batches import flow, make_batch
from unit.server.running import RunningServer
from unit.server.store.waiting import until
from wiremeter.server.access.tokens import TokenFile
from wiremeter.server.directory import TOKENS_FILE

from .browsing import Watched, overflowing, settled, violations
from .fleet import HOSTILE, S_NS, Traffic, minute, send

VIEWS = (
    *("overview?", "explore?by=application,agent&compare=1d", "explore?by=agent,domain&as=sankey", "explore?as=table"),
    *("flows?fields=all", "map?", "map?group=domain&as=sankey", "map?as=table", "agents?agent=edge-1", "live?"),
    *("names?", "names?kind=http", "names?kind=tls", "names?kind=quic"),
)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def opened(page: Page, traffic: Traffic, view: str) -> None:
    page.goto(f"/{view}&{traffic.question}")
    settled(page)


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(page: Page, traffic: Traffic, view: str) -> None:
    """At both widths, one light and one dark; names of attackers are among what is shown."""
    for scheme, width in zip(SCHEMES, (1280, 390), strict=True):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        opened(page, traffic, view)
        expect(page.get_by_role("alert").filter(has_text=re.compile(r"\w"))).to_have_count(0)
        assert violations(page) == []
        assert overflowing(page) == []


def test_explore_shows_what_the_api_answers(page: Page, server: RunningServer, traffic: Traffic) -> None:
    opened(page, traffic, "explore?by=application,agent&show=packets&limit=5")
    answer = server.ask(f"/v1/top?by=application,agent&sort=packets&limit=5&{traffic.question}").json
    rows = page.get_by_role("region").locator("tbody tr")
    named = [row for row in answer["rows"] if not row["other"]]
    assert rows.count() == len(answer["rows"])
    for shown, row in zip(rows.all(), named, strict=False):
        cells = shown.locator("td").all_inner_texts()
        assert cells[:2] == [row["application"], row["agent"]]
    assert rows.last.locator("td").first.inner_text() == "All others"
    shares = [float(row.locator("td").all_inner_texts()[6].rstrip("%")) for row in rows.all()]
    assert sum(shares) == pytest.approx(100, abs=0.5)


def test_a_brush_over_the_chart_zooms_in(page: Page, traffic: Traffic) -> None:
    opened(page, traffic, "explore?by=agent")
    plot = page.locator(".u-over").bounding_box()
    assert plot
    page.mouse.move(plot["x"] + plot["width"] * 0.25, plot["y"] + 50)
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] * 0.75, plot["y"] + 60, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile("from=20"))
    asked = parse_qs(urlsplit(page.url).query)
    assert asked["by"] == ["agent"]
    settled(page)
    page.go_back()
    expect(page.get_by_role("button", name="Time range")).to_be_visible()
    assert f"from={traffic.end_ns // 10**9 - 60 * traffic.minutes}" in page.url


def test_what_is_copied_asks_the_same(page: Page, server: RunningServer, traffic: Traffic) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(page, traffic, "explore?by=application&filter=agent+web-1")
    copied = {}
    for name in ("SQL", "API", "CLI"):
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.get_by_role("alert").filter(has_text="Copied")).to_be_visible()
        copied[name] = page.evaluate("navigator.clipboard.readText()")
    answer = server.ask(f"/v1/top?by=application&filter=agent+web-1&{traffic.question}").json["rows"]
    url = re.fullmatch(r"curl '(.*)'", copied["API"])
    assert url
    assert server.ask(url[1].removeprefix(server.url)).json["rows"] == answer
    body = json.dumps({"query": copied["SQL"]}).encode()
    found = server.ask("/v1/sql", body, headers={"Content-Type": "application/json"}).json["rows"]
    assert [row["bytes"] for row in found] == [row["bytes"] for row in answer if not row["other"]]
    assert copied["CLI"].startswith(f"wiremeter top --server {server.url} --by application --since ")
    assert copied["CLI"].endswith("--filter 'agent web-1' --amount bytes --limit 10")


def test_an_export_is_the_answer(page: Page, server: RunningServer, traffic: Traffic) -> None:
    opened(page, traffic, "explore?by=agent")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    answer = server.ask(f"/v1/top?by=agent&format=csv&{traffic.question}").body
    assert download.value.path().read_bytes() == answer
    assert download.value.suggested_filename == "wiremeter-top.csv"


def test_flows_come_page_by_page_and_lead_to_their_story(page: Page, server: RunningServer, traffic: Traffic) -> None:
    opened(page, traffic, "flows?filter=agent+web-1+and+app+tls+and+domain+cdn.example.net")
    rows = page.get_by_role("region", name="Flows").locator("tbody tr")
    whole = server.ask(f"/v1/flows?limit=0&filter=agent+web-1+and+domain+cdn.example.net&{traffic.question}").json[
        "rows"
    ]
    assert rows.count() == len(whole) == 4 * traffic.minutes
    rows.first.locator("td a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("203.0.113.20")
    settled(page)
    expect(page.get_by_text("the client named it in its TLS hello").first).to_be_visible()
    seen = page.get_by_role("region", name="Who saw it").locator("tbody tr")
    flow = whole[0]
    expect(seen.filter(has_text="Forward")).to_contain_text(f"{flow['packets']:,}")


def test_names_are_only_text(page: Page, traffic: Traffic) -> None:
    """Of 253 characters, of HTML, of a script, and such as turn the text around."""
    opened(page, traffic, "explore?by=domain&limit=50")
    shown = page.get_by_role("region").locator("tbody td:first-child").all_inner_texts()
    for name in HOSTILE:
        assert name.replace("\u202e", "\\u202e") in shown
    assert page.locator("main img, main script").count() == 0
    expect(page).to_have_title("Explore · wiremeter")
    for name in HOSTILE:  # each can be filtered by a click
        text = name.replace("\u202e", "\\u202e")
        opened(page, traffic, "explore?by=domain&limit=50")
        page.get_by_role("region").get_by_role("link", name=text, exact=True).click()
        settled(page)
        expect(page.get_by_role("region").locator("tbody tr")).to_have_count(1)
        assert page.get_by_role("region").locator("tbody td").all_inner_texts()[2] == "10"


def test_the_filter_completes_words_and_values(page: Page, traffic: Traffic) -> None:
    opened(page, traffic, "explore?by=agent")
    field = page.get_by_role("combobox", name="Filter")
    field.press_sequentially("ag")
    expect(page.locator("#filter-values li")).to_have_text(["agent"])
    field.press("ArrowDown")
    field.press("Enter")
    expect(page.locator("#filter-values li")).to_have_count(3)
    assert set(page.locator("#filter-values li").all_inner_texts()) == {"web-1", "edge-1", "db-1"}  # by their traffic
    field.press_sequentially("ed")
    expect(page.locator("#filter-values li")).to_have_text(["edge-1"])
    field.press("ArrowDown")
    field.press("Tab")
    expect(field).to_have_value("agent edge-1 ")
    expect(page.locator("#filter-values li")).to_have_text(["and", "or"])
    field.press("Enter")
    expect(page).to_have_url(re.compile("filter=agent\\+edge-1$"))
    settled(page)
    expect(page.get_by_role("region").locator("tbody tr")).to_have_count(1)


def test_servers_answers_are_the_apis(page: Page, server: RunningServer, traffic: Traffic) -> None:
    opened(page, traffic, "names?kind=dns")
    total = server.ask(f"/v1/dns/top?{traffic.question}").json["rows"][0]
    facts = page.locator(".facts").inner_text()
    assert f"{total['error_ratio']:.0%}" in facts
    assert f"{total['latency_p95_ns'] / 1e6:.1f}\u202fms" in facts
    rows = page.get_by_role("region", name="Slowest by server").locator("tbody tr")
    slow = server.ask(f"/v1/dns/top?by=server_addr&sort=latency&limit=8&{traffic.question}").json["rows"]
    assert rows.locator("td:first-child").all_inner_texts() == [row["server_addr"] for row in slow]
    assert rows.locator("td:nth-child(2)").all_inner_texts() == [str(row["transactions"]) for row in slow]


def test_an_agents_findings_come_with_their_advice(page: Page, traffic: Traffic) -> None:
    opened(page, traffic, "agents?")
    page.get_by_role("link", name="edge-1").click()
    expect(page.get_by_text("raise --max-flows to 262144")).to_be_visible()
    settled(page)
    lost = page.get_by_role("region", name="Audit").locator("tr", has_text="no room in the flow table")
    expect(lost).to_contain_text(str(3 * traffic.minutes))


def test_what_an_agent_sends_is_seen_as_it_comes(page: Page, server: RunningServer, traffic: Traffic) -> None:
    page.goto("/live?filter=app+ssh")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    batch = minute("db-1", traffic.end_ns)
    send(server, "db-1", 1_000_000, batch)
    rows = page.get_by_role("region", name="Largest conversations").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("10.1.0.5:22")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("paused", exact=True)).to_be_visible()


def test_it_speaks_chinese(browser: Browser, server: RunningServer, traffic: Traffic) -> None:
    with browser.new_context(base_url=server.url, locale="zh-CN") as context:
        page = context.new_page()
        opened(page, traffic, "overview?")
        assert page.locator("html").get_attribute("lang") == "zh-Hans"
        expect(page.get_by_role("link", name="概览")).to_have_attribute("aria-current", "page")
        page.get_by_role("button", name="English").click()
        expect(page.get_by_role("link", name="Overview")).to_be_visible()


def test_all_of_it_can_be_reached_by_keyboard(page: Page, traffic: Traffic) -> None:
    opened(page, traffic, "overview?")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Flows", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_title("Flows · wiremeter")


def test_where_a_token_is_needed_it_is_asked_for(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("guarded") / "data"
    directory.mkdir()
    _, token = TokenFile(directory / TOKENS_FILE).create("reader", ["read"])
    with RunningServer(directory) as server, browser.new_context(base_url=server.url) as context:
        page = context.new_page()
        watched = Watched(page, server.url, ignored="a status of 401")
        page.goto("/overview")
        field = page.get_by_label("Token")
        field.fill("wrong")
        field.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("does not know this token")
        assert violations(page) == []
        field.fill(token)
        field.press("Enter")
        expect(page.get_by_text("Nothing was metered in this range.")).to_be_visible()
        page.reload()  # the tab remembers it
        expect(page.get_by_text("Nothing was metered in this range.")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        assert watched.faults == []


def test_thousands_of_hosts_are_put_together_by_network(page: Page, server: RunningServer, traffic: Traffic) -> None:
    start_ns = traffic.end_ns - 7200 * S_NS
    flows = [
        flow(f"10.{host // 2500}.{host // 20 % 125}.{host % 20}", "10.9.9.9", 40000, 443, packets=1 + host % 7)
        for host in range(5000)
    ]
    send(server, "db-1", 2_000_000, make_batch(flows, start_ns=start_ns, seconds=60))
    asked = f"from={start_ns // S_NS}&to={start_ns // S_NS + 60}"
    page.goto(f"/map?{asked}&as=table&show=packets")
    settled(page)
    expect(page.get_by_role("heading", level=2)).to_have_text("41 nodes, 40 connections")
    cells = page.get_by_role("region").locator("tbody td:nth-child(3)").all_inner_texts()
    total = server.ask(f"/v1/top?{asked}").json["total"]["packets"]
    assert sum(parse_amount(cell) for cell in cells) == pytest.approx(total, rel=0.01)
    page.get_by_role("button", name="Graph").click()
    settled(page)
    expect(page.locator("main svg circle")).to_have_count(41)
    page.locator("main svg a", has_text="/24").nth(1).click()
    expect(page).to_have_url(re.compile("filter=net"))


def parse_amount(text: str) -> float:
    number, _, prefix = text.partition("\u202f")
    return float(number) * {"": 1, "k": 1e3, "M": 1e6}[prefix]


def test_an_open_alert_is_on_the_first_view(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("alarmed")
    (directory / "rules.yml").write_text(
        "groups: [{name: own, rules: [{alert: Always, expr: SELECT 1 AS value, labels: {severity: warning},"
        " annotations: {summary: '<b>it is</b> {{ $value }}'}}]}]"
    )
    words = ("--alert-rules", str(directory / "rules.yml"), "--alert-interval", "1s")
    with RunningServer(directory / "data", *words) as server, browser.new_context(base_url=server.url) as context:
        until(lambda: server.ask("/v1/alerts").json != [])
        page = context.new_page()
        page.goto("/overview")
        expect(page.get_by_label("Alerts")).to_contain_text("Always <b>it is</b> 1")
