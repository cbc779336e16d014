"""The interactive view, driven key by key without a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Input, Static

from wiremeter.errors import KernelError, WiremeterError
from wiremeter.flows.batch import FlowBatch, Health, Tally
from wiremeter.tui.app import LiveApp, save_screenshot
from wiremeter.tui.selection import Selection
from wiremeter.tui.widgets import FlowTable

from .live_batches import SECOND_NS, START_NS, flow, make_batch

FLOWS = (
    flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=1000, size=1250),
    flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", packets=500, size=60),
    flow("198.51.100.7", "10.0.0.5", 53, 40000, protocol=17, packets=5000, size=80),
    flow("2001:db8::1", "2001:db8::2", protocol=58, device="wg0", packets=2),
)
DEVICES = ("eth0", "wg0")


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
        table = self.app.screen_stack[0].query_one(FlowTable)
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


async def test_before_the_first_interval_it_says_that_it_waits() -> None:
    async with running() as view:
        assert "waiting for the first interval" in view.part("#top")


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (132, 43), (160, 45), (250, 70), (40, 12), (12, 5)])
async def test_nothing_is_wider_or_longer_than_the_terminal(size: tuple[int, int]) -> None:
    trouble = {("eth0", "rx"): {"table_full": Tally(12_345, 99, 12), "ipv4_header": Tally(1, 60, 1)}}
    batch = sample(
        unattributed=trouble, health=Health(displaced=("eth0 rx", "wg0 tx"), table_lines=100, table_peak_lines=12)
    )
    async with running(size, batch=batch) as view:
        assert view.screen
        await view.press("c", "down", "b")
        assert view.screen


async def test_devices_protocols_and_flows_are_shown() -> None:
    async with running(batch=sample(health=Health(table_lines=1000, table_peak_lines=30))) as view:
        assert "4 flows in 1.0 s  table 3.0 %" in view.part("#top")
        header, eth0_rx, eth0_tx, wg0_rx, _ = view.part("#devices").split("\n")
        assert header.split() == ["device", "attach", "bit/s", "packet/s", "history", "unattr.", "audit"]
        assert eth0_rx.split()[:7] == ["eth0", "tcx", "rx", "13.2", "M", "6.00", "k"]
        assert eth0_rx.split()[-2:] == ["0", "ok"]
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
        assert {"peak", "skb/s", "unattributed"} <= set(view.part("#devices").split("\n")[0].split())
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
        table = view.app.query_one(FlowTable)
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
        assert view.app.query_one(FlowTable).cursor == len(view.flows) - 1
        await view.press("pageup", "up")
        assert view.app.query_one(FlowTable).cursor == 0


async def test_header_can_be_clicked_to_sort_and_again_to_reverse() -> None:
    async with running(batch=sample()) as view:
        at = view.flows[0].index("source")
        await view.pilot.click(FlowTable, offset=(at, 0))
        await view.pilot.pause()
        assert "source▴" in view.flows[0]
        assert "10.0.0.5:50000" in view.flows[1]
        await view.pilot.click(FlowTable, offset=(at, 0))
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
        assert "audit off by" in sheet
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
