"""The interactive view, driven key by key without a terminal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Input, Static

from wiremeter.errors import KernelError, WiremeterError
from wiremeter.flows.batch import Drop, FlowBatch, Health, Tally
from wiremeter.names.records import FlowName, Transactions
from wiremeter.reports.selection import Selection
from wiremeter.tui import palette
from wiremeter.tui.app import LiveApp, save_screenshot
from wiremeter.tui.panels import audit_lines
from wiremeter.tui.screens import ELSEWHERE, Sheet
from wiremeter.tui.widgets import Table

from ..live_batches import SECOND_NS, START_NS, asked, flow, make_batch

FLOWS = (
    flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=1000, size=1250),
    flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", packets=500, size=60),
    flow("198.51.100.7", "10.0.0.5", 53, 40000, protocol=17, packets=5000, size=80),
    flow("2001:db8::1", "2001:db8::2", protocol=58, device="wg0", packets=2),
)
DEVICES = ("eth0", "wg0")
SITE = FlowName("tls", "www.example.com", "sni", tls_version="1.3", ja4="t13d1516h2_8daaf6152771_b0da82dd1658")
SHOP = FlowName("tls", "shop.example", "dns_answer")
NAMED = (
    *(row | {"name": name} for row, name in zip(FLOWS, (SITE, SITE, FlowName("dns"), None), strict=True)),
    flow("10.0.0.5", "192.0.2.2", 50001, 443, direction="tx", packets=9, name=SHOP),
)
QUESTIONS = Transactions(
    dns=(asked("www.example.com", milliseconds=1.2), asked("www.example.com"), asked("slow.example", rcode=None))
)


class Feed:
    """A source that gives what is put into it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[FlowBatch | Exception | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[FlowBatch]:
        while (given := await self.queue.get()) is not None:
            if isinstance(given, Exception):
                raise given
            yield given


class View:
    """A running app and what it shows."""

    def __init__(self, app: LiveApp, pilot: Pilot[None], feed: Feed) -> None:
        self.app = app
        self.pilot = pilot
        self.feed = feed

    async def give(self, batch: FlowBatch) -> None:
        before = self.app.intervals
        self.feed.queue.put_nowait(batch)
        while self.app.intervals == before:
            assert self.app.is_running
            await self.pilot.pause(0.01)
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    def part(self, selector: str) -> str:
        widget = self.app.screen_stack[0].query_one(selector, Static)
        shown = widget.render()
        return str(shown) if widget.display else ""

    @property
    def flows(self) -> list[str]:
        table = self.app.screen_stack[0].query_one(Table)
        rendered = table.render()
        assert isinstance(rendered, Text)
        return rendered.plain.split("\n")

    @property
    def screen(self) -> list[str]:
        """All lines of the top screen, as drawn."""
        width, height = self.app.size
        strips = self.app.screen._compositor.render_strips()
        shown = ["".join(segment.text for segment in strip) for strip in strips]
        assert len(shown) == height
        assert all(len(line) <= width for line in shown)
        return shown


@asynccontextmanager
async def running(
    size: tuple[int, int] = (80, 24), selection: Selection | None = None, batch: FlowBatch | None = None
) -> AsyncIterator[View]:
    feed = Feed()
    app = LiveApp(feed, selection)
    async with app.run_test(size=size) as pilot:
        view = View(app, pilot, feed)
        if batch is not None:
            await view.give(batch)
        yield view


def sample(second: int = 0, flows: Iterable[dict[str, object]] = FLOWS, **more: object) -> FlowBatch:
    return make_batch(
        list(flows),
        devices=DEVICES,
        start_ns=START_NS + second * SECOND_NS,
        **more,  # type: ignore[arg-type]
    )


def named(second: int = 0, **more: object) -> FlowBatch:
    """A sample with names, connections and DNS."""
    return sample(second, NAMED, connections={SITE: 3}, transactions=QUESTIONS, **more)


async def test_before_the_first_interval_it_says_that_it_waits() -> None:
    async with running() as view:
        assert "waiting for the first interval" in view.part("#top")


SIZES = [(80, 24), (100, 30), (132, 43), (160, 45), (250, 70), (40, 12), (12, 5)]


@pytest.mark.parametrize("size", SIZES)
async def test_nothing_is_wider_or_longer_than_the_terminal(size: tuple[int, int]) -> None:
    trouble = {("eth0", "rx"): {"table_full": Tally(12_345, 99, 12), "ipv4_header": Tally(1, 60, 1)}}
    batch = sample(
        unattributed=trouble, health=Health(displaced=("eth0 rx", "wg0 tx"), table_lines=100, table_peak_lines=12)
    )
    async with running(size, batch=batch) as view:
        assert view.screen
        await view.press("c", "down", "b")
        assert view.screen


@pytest.mark.parametrize("size", SIZES)
async def test_no_view_is_wider_or_longer_than_the_terminal(size: tuple[int, int]) -> None:
    async with running(size, batch=named()) as view:
        for key in "1234":
            await view.press(key, "down")
            assert view.screen
        await view.press("1", "c", "down")
        assert view.screen


async def test_devices_protocols_and_flows_are_shown() -> None:
    async with running(batch=sample(health=Health(table_lines=1000, table_peak_lines=30))) as view:
        assert "4 flows in 1.0 s  table 3.0 %" in view.part("#top")
        header, eth0_rx, eth0_tx, wg0_rx, _ = view.part("#devices").split("\n")
        assert " ".join(header.split()) == "device attach bit/s packet/s peak history unattr. dropped audit"
        assert eth0_rx.split()[:7] == ["eth0", "tcx", "rx", "13.2", "M", "6.00", "k"]
        assert eth0_rx.split()[-3:] == ["0", "0", "ok"]
        assert eth0_tx.split()[:2] == ["tcx", "tx"]
        assert wg0_rx.split()[0] == "wg0"
        assert "tcp 76.2 %" in view.part("#protocols")
        assert view.flows[0].split() == ["device", "proto", "source", "destination", "bit/s▾", "packet/s"]
        assert view.flows[1].split()[:5] == ["eth0", "rx", "tcp", "192.0.2.1:443", "10.0.0.5:50000"]
        assert len(view.flows) == 5


async def test_wide_terminal_has_the_protocols_beside_the_devices() -> None:
    async with running((160, 45), batch=sample()) as view:
        assert view.part("#protocols") == ""
        assert "ipv6 icmpv6" in view.part("#side")
        assert {"peak", "skb/s", "total", "dropped"} <= set(view.part("#devices").split("\n")[0].split())
        assert {"flags", "B/packet", "share"} <= set(view.flows[0].split())


async def test_keys_change_order_units_and_names() -> None:
    async with running(batch=sample()) as view:
        await view.press("s")
        assert "198.51.100.7:53" in view.flows[1]
        assert "packet/s▾" in view.flows[0]
        await view.press("r")
        assert "2001:db8::1" in view.flows[1]
        await view.press("S", "b")
        assert "byte/s▾" in view.flows[0]
        assert "1.25 M" in view.flows[1]
        await view.press("n")
        assert "192.0.2.1:https" in view.flows[1]


async def test_conversations_join_both_directions() -> None:
    async with running(batch=sample()) as view:
        await view.press("c")
        assert view.flows[0].split() == ["device", "proto", "local", "remote", "rx", "bit/s▾", "tx", "bit/s"]
        assert view.flows[1].split() == ["eth0", "tcp", "10.0.0.5:50000", "192.0.2.1:443", "10.0", "M", "240", "k"]
        assert len(view.flows) == 4
        await view.press("s")
        assert "rx packet/s▾" in view.flows[0]


async def test_one_device_after_the_other_can_be_looked_at() -> None:
    async with running(batch=sample()) as view:
        assert "totals over stacked devices" in view.part("#alarms")
        await view.press("d")
        assert "device eth0" in view.part("#title")
        assert "3 of 4 flows" in view.part("#title")
        assert "icmpv6" not in view.part("#protocols")
        assert view.part("#alarms") == ""
        assert len(view.flows) == 4
        await view.press("d")
        assert "ipv6 icmpv6 100.0 %" in view.part("#protocols")
        await view.press("d")
        assert "device" not in view.part("#title")
        await view.press("D")
        assert "device wg0" in view.part("#title")


async def test_filter_is_asked_for_applied_and_dropped() -> None:
    async with running(batch=sample()) as view:
        await view.press("slash", *"udp", "enter")
        assert len(view.flows) == 2
        assert "filter udp" in view.part("#title")
        assert "1 of 4 flows, 3.20 Mbit/s" in view.part("#title")
        assert view.part("#protocols").split() == ["protocols", "udp", "100.0", "%"]
        await view.press("escape")
        assert len(view.flows) == 5


async def test_flows_bear_domain_and_application_beside_their_addresses() -> None:
    async with running((100, 30), batch=named()) as view:
        assert view.flows[0].split()[3:6] == ["destination", "domain", "bit/s▾"]
        assert view.flows[1].split()[:6] == [
            "eth0", "rx", "tls", "192.0.2.1:443", "10.0.0.5:50000", "www.example.com",
        ]  # fmt: skip
        assert view.flows[2].split()[2] == "dns"
        (inferred,) = [line for line in view.flows if "192.0.2.2:443" in line]
        assert "~shop.example" in inferred
        await view.press("c")
        assert view.flows[1].split()[1:5] == ["tls", "10.0.0.5:50000", "192.0.2.1:443", "www.example.com"]


async def test_narrow_terminal_keeps_addresses_and_tells_the_domain_below() -> None:
    async with running((60, 24), batch=named()) as view:
        assert "domain" not in view.flows[0]
        await view.press("down")
        assert "192.0.2.1:443 → 10.0.0.5:50000" in view.part("#details")
        assert "tls  www.example.com by sni  TLS 1.3" in view.part("#details")


async def test_flow_in_full_has_all_that_is_known_of_it() -> None:
    async with running((130, 30), batch=named()) as view:
        await view.press("down")
        assert "ja4 t13d1516h2_8daaf6152771_b0da82dd1658" in view.part("#details")
        await view.press("end")
        assert len(view.part("#details").split("\n")) == 3


async def test_domain_column_stays_when_an_interval_has_no_names() -> None:
    async with running(batch=named()) as view:
        await view.give(sample(1))
        assert "domain" in view.flows[0]


async def test_without_names_there_are_the_views_of_flows_and_hosts() -> None:
    async with running((100, 30), batch=sample()) as view:
        await view.press("2")
        assert view.part("#title").startswith(" flows")
        await view.press("v")
        assert view.part("#title").startswith(" hosts")
        await view.press("v")
        assert view.part("#title").startswith(" flows")
        await view.press(*"sssss")
        assert "bit/s▾" in view.flows[0]
        await view.give(named(1))
        await view.press("2")
        assert view.part("#title").startswith(" domains")


async def test_views_follow_one_another_and_can_be_chosen() -> None:
    async with running(batch=named()) as view:
        titles = []
        for _ in range(5):
            await view.press("v")
            titles.append(view.part("#title").split(" by ")[0].strip())
        assert titles == ["domains", "applications", "DNS questions", "hosts", "flows"]
        await view.press("V", "V")
        assert "DNS questions" in view.part("#title")
        await view.press("2")
        assert "domains by bit/s" in view.part("#title")


async def test_domains_add_up_to_all_traffic() -> None:
    async with running((110, 30), batch=named()) as view:
        await view.press("2", "T")
        header, site, nameless, shop = view.flows
        assert header.split() == [
            "domain", "rx", "bit/s▾", "tx", "bit/s", "packet/s", "bytes", "flows", "connections", "share",
        ]  # fmt: skip
        assert site.split() == [
            "www.example.com", "10.0", "M", "240", "k", "1.50", "k", "1,280,000", "2", "3", "76.1", "%",
        ]  # fmt: skip
        assert nameless.startswith(" (no name) ")
        assert shop.split()[0] == "shop.example"
        assert "3 domains" in view.part("#title")
        await view.press("down")
        assert "rx 1,000 packets, 1,250,000 bytes" in view.part("#details")


async def test_domains_have_averages_of_all_traffic() -> None:
    async with running((120, 30), batch=named()) as view:
        for second in range(1, 4):
            await view.give(sample(second, [NAMED[0] | {"bytes": 250_000}, flow("10.0.0.5", "192.0.2.9", name=SHOP)]))
        await view.press("2")
        assert view.flows[0].split()[6:-2] == ["2", "s", "10", "s", "40", "s"]
        site = next(line for line in view.flows if "www.example.com" in line)
        # 1,280,000 bytes in the first of four seconds, 250,000 in each of the others.
        assert "2.00 M 4.06 M 4.06 M" in " ".join(site.split())
        await view.press("3")
        assert "2.00 M 4.06 M 4.06 M" in " ".join(next(line for line in view.flows if "tls" in line).split())
        await view.press("slash", *"tcp", "enter")
        assert "40" not in view.flows[0].split()


async def test_domains_are_sorted_by_key_and_by_click() -> None:
    async with running((110, 30), batch=named()) as view:
        await view.press("2", "s")
        assert "packet/s▾" in view.flows[0]
        assert view.flows[1].startswith(" (no name)")
        await view.press("s", "s")
        assert "domains by name" in view.part("#title")
        assert view.flows[1].startswith(" shop.example")
        await view.pilot.click(Table, offset=(view.flows[0].index("connections"), 0))
        await view.pilot.pause()
        assert "connections▾" in view.flows[0]
        await view.press("r")
        assert "connections▴" in view.flows[0]
        await view.press("1")
        assert "flows by bit/s" in view.part("#title")
        assert "reversed" not in view.part("#title")


async def test_filter_and_device_hold_for_domains_and_leave_connections_open() -> None:
    async with running((110, 30), batch=named()) as view:
        await view.press("3", "slash", *"domain example.com", "enter")
        assert "1 applications of 2 of 5 flows" in view.part("#title")
        assert view.flows[1].split()[0] == "tls"
        assert view.flows[1].split()[-3:] == ["2", "100.0", "%"]


async def test_dns_questions_are_those_of_the_last_intervals() -> None:
    async with running((120, 30), batch=named()) as view:
        await view.give(named(1))
        await view.press("4")
        assert view.flows[0].split() == [
            "name", "type", "queries▾", "responses", "retries", "unanswered", "median", "max",
        ]  # fmt: skip
        assert view.flows[1].split() == [
            "www.example.com", "A", "4", "NOERROR", "4", "0", "0", "1.10", "ms", "1.20", "ms",
        ]  # fmt: skip
        assert view.flows[2].split() == ["slow.example", "A", "2", "0", "2"]
        assert "6 in the last 2 s" in view.part("#title")
        await view.press("down")
        assert "answered in 1.10 ms (median), at most 1.20 ms" in view.part("#details")
        await view.press("d")
        assert "of all flows, not only those selected" in view.part("#title")


async def test_pause_holds_the_dns_questions_too() -> None:
    async with running(batch=named()) as view:
        await view.press("4", "space")
        await view.give(named(1))
        await view.press("s")
        assert "3 in the last 1 s" in view.part("#title")
        await view.press("space")
        assert "6 in the last 2 s" in view.part("#title")


async def test_name_from_the_wire_cannot_move_the_cursor() -> None:
    hostile = "a\x1b[2J\nb.example"
    rows = [flow("10.0.0.1", "10.0.0.2", name=FlowName("tls", hostile, "sni"))]
    async with running((120, 30), batch=sample(0, rows, transactions=Transactions(dns=(asked(hostile),)))) as view:
        for key in "1234":
            await view.press(key, "down")
            assert "\x1b" not in "".join(view.screen)
            if key != "3":
                assert sum("a�[2J�b.example" in line for line in view.screen) == 2


async def test_lost_payloads_are_said_aloud() -> None:
    async with running(batch=named(health=Health(lost_payloads={"dns": 1200}))) as view:
        assert "! 1,200 payloads lost, dns" in view.part("#alarms")


async def test_wrong_filter_is_pointed_at_and_changes_nothing() -> None:
    async with running(batch=sample()) as view:
        await view.press("slash", *"tcp prt", "enter")
        entry = view.app.query_one(Input)
        label = 9
        assert view.part("#ask-hint").index("^") == label + len("tcp ")
        assert "expected and, or" in view.part("#ask-hint")
        assert entry.has_focus
        await view.press("escape")
        assert not view.app.query_one("#ask").display
        assert len(view.flows) == 5


async def test_keys_that_are_typed_into_the_filter_do_nothing_else() -> None:
    async with running(batch=sample()) as view:
        await view.press("slash", *"q s a", "question_mark")
        assert view.app.query_one(Input).value == "q s a?"
        assert view.app.is_running
        assert len(view.app.screen_stack) == 1


async def test_pause_holds_the_picture_but_not_the_count() -> None:
    async with running(batch=sample()) as view:
        await view.press("space")
        assert "PAUSED" in view.part("#top")
        await view.give(sample(1, FLOWS[:1], unattributed={("eth0", "rx"): {"table_full": Tally(5, 300, 5)}}))
        assert len(view.flows) == 5
        assert "table_full" not in view.part("#alarms")
        await view.press("space")
        assert "PAUSED" not in view.part("#top")
        assert len(view.flows) == 2
        assert "table_full" in view.part("#alarms")


async def test_cursor_stays_on_its_flow_and_shows_it_in_full() -> None:
    async with running(batch=sample()) as view:
        assert view.part("#details") == ""
        await view.press("down", "down")
        assert "198.51.100.7:53 → 10.0.0.5:40000" in view.part("#details")
        assert "5,000 packets, 400,000 bytes" in view.part("#details")
        table = view.app.query_one(Table)
        await view.give(sample(1, reversed(FLOWS)))
        assert table.cursor == 1
        await view.press("s")
        assert table.cursor == 0
        assert "198.51.100.7:53" in view.part("#details")
        await view.give(sample(2, FLOWS[:2]))
        assert view.part("#details") == ""
        await view.give(sample(3))
        assert table.cursor == 0
        await view.press("escape")
        assert view.part("#details") == ""


async def test_long_table_scrolls() -> None:
    many = [flow("10.0.0.1", "10.0.0.2", port, 80, packets=1000 - port) for port in range(1, 300)]
    async with running(batch=sample(0, many)) as view:
        await view.press("end")
        assert "10.0.0.1:200" in view.flows[-1]
        await view.press("home")
        assert "10.0.0.1:1 " in view.flows[1]
        await view.press("pagedown")
        assert view.app.query_one(Table).cursor == len(view.flows) - 1
        await view.press("pageup", "up")
        assert view.app.query_one(Table).cursor == 0


async def test_header_can_be_clicked_to_sort_and_again_to_reverse() -> None:
    async with running(batch=sample()) as view:
        at = view.flows[0].index("source")
        await view.pilot.click(Table, offset=(at, 0))
        await view.pilot.pause()
        assert "source▴" in view.flows[0]
        assert "10.0.0.5:50000" in view.flows[1]
        await view.pilot.click(Table, offset=(at, 0))
        await view.pilot.pause()
        assert "source▾" in view.flows[0]
        assert "2001:db8::1" in view.flows[1]


async def test_alarms_are_loud_while_they_last_then_quiet_then_cleared() -> None:
    async with running() as view:
        await view.give(sample(0, missing=Tally(1, 60, 1), health=Health(displaced=("eth0 rx",))))
        assert " ! eth0 rx: displaced" in view.part("#alarms")
        assert "OFF" in view.part("#devices")
        await view.press("a")
        await view.give(sample(1))
        sheet = "\n".join(view.screen)
        assert "does not balance, +1 packets" in sheet
        assert "= flows" in sheet
        await view.press("escape")
        assert "!" not in view.part("#alarms")
        assert "displaced" in view.part("#alarms")
        await view.press("x")
        assert "displaced" not in view.part("#alarms")


async def test_more_devices_than_fit_show_the_busiest_and_the_selected() -> None:
    names = [f"veth{number}" for number in range(20)]
    busy = [flow("10.0.0.1", "10.0.0.2", device="veth7", packets=9, size=900)]
    async with running(batch=make_batch(busy, devices=names)) as view:
        shown = view.part("#devices")
        assert "veth7" in shown
        assert "and 17 quieter devices" in shown
        await view.press("D")
        assert "▸veth19" in view.part("#devices")


async def test_simulated_traffic_says_so_in_the_title() -> None:
    async with running(batch=sample(mode="simulated")) as view:
        assert "SIMULATED" in view.part("#top")


async def test_help_opens_and_closes() -> None:
    async with running((100, 50), batch=sample()) as view:
        await view.press("question_mark")
        assert any("portrange 8000-8099" in line for line in view.screen)
        await view.press("escape")
        assert len(view.app.screen_stack) == 1
        await view.press("question_mark", "q")
        assert view.app.is_running


async def test_q_quits() -> None:
    async with running(batch=sample()) as view:
        await view.press("q")
        assert not view.app.is_running
        assert view.app.failure is None


@pytest.mark.parametrize("ending", [None, KernelError("the map is gone", call="bpf")])
async def test_end_or_failure_of_the_source_ends_the_app(ending: Exception | None) -> None:
    async with running(batch=sample()) as view:
        view.feed.queue.put_nowait(ending)
        for _ in range(100):
            if not view.app.is_running:
                break
            await asyncio.sleep(0.01)
        assert view.app.failure is ending


async def test_nothing_is_redrawn_without_a_new_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0
    draw: Callable[[LiveApp], None] = LiveApp.redraw

    def counting(app: LiveApp) -> None:
        nonlocal drawn
        drawn += 1
        draw(app)

    monkeypatch.setattr(LiveApp, "redraw", counting)
    async with running(batch=sample()) as view:
        await view.pilot.pause(0.2)
        before = drawn
        await view.pilot.pause(0.5)
        assert drawn == before
        await view.give(sample(1))
        assert drawn == before + 1


async def many_batches() -> AsyncIterator[FlowBatch]:
    for second in range(1000):
        yield sample(second)
        await asyncio.sleep(0.01)


def test_screenshot_is_an_svg_of_the_view(tmp_path: Path) -> None:
    path = tmp_path / "view.svg"
    save_screenshot(many_batches(), path, intervals=3, size=(100, 30))
    picture = path.read_text("utf-8")
    assert picture.startswith("<svg")
    assert "192.0.2.1:443" in picture


def test_screenshot_of_a_source_that_ends_early_is_an_error(tmp_path: Path) -> None:
    async def two() -> AsyncIterator[FlowBatch]:
        for second in range(2):
            yield sample(second)

    with pytest.raises(WiremeterError, match="ended after 2 intervals"):
        save_screenshot(two(), tmp_path / "view.svg", intervals=3)


def one(second: int, packets: int, **more: object) -> FlowBatch:
    """A single flow of 1,000-byte packets."""
    return sample(second, [flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=packets, size=1000)], **more)


async def test_averages_totals_and_peaks_stand_beside_the_rate() -> None:
    async with running((120, 30)) as view:
        for second in range(20):
            await view.give(one(second, 1000 if second < 10 else 100))
        header, eth0_rx, *_ = view.part("#devices").split("\n")
        assert "2 s   10 s   40 s   peak" in header
        rates = " ".join(eth0_rx.split())
        # Over 20 s of the 40: 10 × 8 Mbit/s and 10 × 0.8 Mbit/s.
        assert "rx 800 k 100 100 800 k 800 k 4.40 M 8.00 M 11.0 M" in rates
        assert view.flows[0].split()[-7:] == ["packet/s", "2", "s", "10", "s", "40", "s"]
        assert " ".join(view.flows[1].split()).endswith("800 k 100 800 k 800 k 4.40 M")
        await view.press("T")
        assert " ".join(view.flows[1].split()).endswith("100 11.0 M")
        await view.press("down")
        assert "40 s 4.40 Mbit/s  in all 11.0 MB" in view.part("#details")
        await view.press("T", "c")
        assert "flags" in view.flows[0]


async def test_wide_terminal_shows_what_a_device_carried_in_all() -> None:
    async with running((200, 45)) as view:
        for second in range(3):
            await view.give(one(second, 1000))
        header, eth0_rx, *_ = view.part("#devices").split("\n")
        at = header.index("total B")
        assert eth0_rx[at : at + 7].strip() == "3.00 M"


async def test_drops_have_a_column_and_their_place_in_the_audit() -> None:
    batch = one(0, 10)
    tbf = replace(batch.audit[1], drops=(Drop("qdisc", "tbf", 17_456), Drop("device", "dropped", 0)))
    async with running((100, 30), batch=replace(batch, audit=(batch.audit[0], tbf, *batch.audit[2:]))) as view:
        assert view.part("#devices").split("\n")[2].split()[-2:] == ["17,456", "ok"]
        assert "17,456 packets dropped by qdisc tbf" in view.part("#alarms")
        await view.press("a")
        assert "dropped by qdisc, tbf" in "\n".join(view.screen)


async def test_what_nobody_misses_is_no_warning() -> None:
    batch = sample()
    quiet = replace(batch.audit[0], drops=(Drop("device", "dropped", 12, is_loss=False),))
    async with running((100, 40), batch=replace(batch, audit=(quiet, *batch.audit[1:]))) as view:
        assert view.part("#devices").split("\n")[1].split()[-2:] == ["0", "ok"]
        text = "\n".join(line.plain for line in audit_lines(view.app._rates))
        assert re.search(r"dropped by device, dropped +12  no loss", text)
        assert not [line for line in audit_lines(view.app._rates) if line.style == palette.WARNING]


async def test_hosts_are_the_other_ends_and_add_up_to_all_traffic() -> None:
    async with running((110, 30), Selection(limit=2), batch=sample()) as view:
        await view.press("5")
        assert "3 hosts" in view.part("#title")
        header, first, second, others = view.flows
        assert header.split()[:3] == ["host", "rx", "bit/s▾"]
        assert [line.split()[0] for line in (first, second, others)] == ["192.0.2.1", "198.51.100.7", "(others)"]
        assert [line.split()[-2] for line in (first, second, others)] == ["76.2", "23.8", "<0.1"]
        await view.press("s", "s")
        assert view.flows[1].split()[0] == "192.0.2.1"
        assert "by name" in view.part("#title")


async def test_order_is_held_until_let_go() -> None:
    def two(second: int, first: int) -> FlowBatch:
        return sample(second, [flow("192.0.2.1", "10.0.0.5", packets=first), flow("192.0.2.2", "10.0.0.5", packets=5)])

    async with running((100, 30), batch=two(0, 9)) as view:
        await view.press("o")
        await view.give(two(1, 1))
        assert "order held" in view.part("#title")
        assert ["192.0.2.1" in view.flows[1], "192.0.2.2" in view.flows[2]] == [True, True]
        await view.press("o")
        assert "192.0.2.2" in view.flows[1]


@pytest.mark.parametrize("key", ["s", "S", "r", "c"])
async def test_another_order_ends_one_that_is_held(key: str) -> None:
    async with running((100, 30), batch=sample()) as view:
        await view.press("o")
        held = view.flows
        await view.press(key)
        assert "order held" not in view.part("#title")
        assert view.flows != held


async def test_a_click_on_a_header_ends_an_order_that_is_held() -> None:
    async with running((100, 30), batch=sample()) as view:
        await view.press("o")
        await view.pilot.click(Table, offset=(view.flows[0].index("source"), 0))
        await view.pilot.pause()
        assert "order held" not in view.part("#title")
        assert "by source" in view.part("#title")


async def test_keys_of_iftop_do_the_same_or_say_what_does() -> None:
    async with running((120, 40), batch=named()) as view:
        await view.press("P")
        assert "PAUSED" in view.part("#top")
        await view.press("P", "h")
        assert isinstance(view.app.screen, Sheet)
        await view.press("escape", "less_than_sign")
        assert "by source" in view.part("#title")
        await view.press("greater_than_sign")
        assert "by destination" in view.part("#title")
        await view.give(sample(1, [flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=20, size=1250)]))
        before = view.part("#devices")
        await view.press("L")
        assert [pair for pair in zip(view.part("#devices"), before, strict=True) if pair[0] != pair[1]] == [("▆", "▂")]
        await view.press("j", "j", "k")
        assert view.app.query_one(Table).cursor == 0
        assert ":443" in view.flows[1]
        await view.press("N")
        assert ":https" in view.flows[1]
        for key, said in ELSEWHERE.items():
            await view.press(key)
            assert any(notice.message == said for notice in view.app._notifications)
        await view.press("f")
        assert view.app.query_one("#ask").display
