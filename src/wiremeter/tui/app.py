"""The interactive view: draws each batch of a source, and lets the user choose what to see of it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from rich.text import Text
from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.pilot import Pilot
from textual.widgets import Footer, Input, Label, Static

from wiremeter.errors import WiremeterError
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.by_name import TOTAL_SORTS, sums_by_name
from wiremeter.flows.dns import DNS_SORTS, RecentDns, dns_totals
from wiremeter.flows.expression import FilterError
from wiremeter.flows.filter import compile_filter
from wiremeter.flows.recent import DeviceSums, FlowSums, NameSums
from wiremeter.flows.top import DeviceRate, History, device_rates
from wiremeter.reports.cells import OTHERS
from wiremeter.reports.findings import FindingLog, findings
from wiremeter.reports.selection import (
    Selected,
    Selection,
    has_names,
    select,
    select_applications,
    select_domains,
    select_hosts,
    select_protocols,
)
from wiremeter.settings.words import SORT_KEYS, VIEWS, View
from wiremeter.tui import palette, panels
from wiremeter.tui.dns_rows import dns_rows
from wiremeter.tui.extras import EXTRAS, Extra
from wiremeter.tui.flow_rows import flow_rows
from wiremeter.tui.screens import ELSEWHERE, AuditSheet, Sheet, help_text
from wiremeter.tui.table import Rows, in_order_of
from wiremeter.tui.terminal import Terminal, TerminalDriver
from wiremeter.tui.total_rows import total_rows
from wiremeter.tui.widgets import Table

_SIDE_WIDTH = 46
_WIDE = 130
#: Where Selection keeps the order of each view, and what that can be.
_ORDERS: dict[View, tuple[str, tuple[str, ...]]] = {
    "flows": ("sort", SORT_KEYS),
    "domains": ("total_sort", TOTAL_SORTS),
    "applications": ("total_sort", TOTAL_SORTS),
    "dns": ("dns_sort", DNS_SORTS),
    "hosts": ("total_sort", tuple(sort for sort in TOTAL_SORTS if sort != "connections")),
}
#: Choices that put rows in another order, which ends an order that is held.
_REORDERING = frozenset(("sort", "total_sort", "dns_sort", "reverse", "pairs", "view"))
#: Views that need no names.
_NAMELESS_VIEWS: tuple[View, ...] = ("flows", "hosts")


class LiveApp(App[None]):
    """`wiremeter live` in a terminal.

    source: gives one batch each interval; reading it is all the app does with it, the caller closes it.
    selection: what to see at first.
    After it has run, `failure` is what the source raised, or None.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: #121212; }
    #top, #title, #protocols { height: 1; }
    #upper, #devices, #alarms, #side { height: auto; }
    #devices { width: 1fr; }
    #side { width: 46; padding-left: 2; }
    #table { height: 1fr; }
    #details { height: auto; background: #1e2429; }
    #ask { height: 2; display: none; background: #1e2429; }
    #ask Horizontal { height: 1; }
    #ask Input { height: 1; border: none; padding: 0; background: #1e2429; width: 1fr; }
    #ask Label { width: 9; color: #ffd75f; }
    #ask-hint { height: 1; color: #ffaf5f; }
    Footer { background: #1c1c1c; }
    Sheet { align: center middle; }
    #sheet { width: 92; max-width: 100%; height: auto; max-height: 100%; border: round #5f87af;
             background: #161a1d; padding: 0 1; scrollbar-size-vertical: 1; }
    #sheet-text { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False, priority=True),
        Binding("v", "view(1)", "View"),
        Binding("V", "view(-1)", show=False),
        *(Binding(str(key), f"show({view!r})", show=False) for key, view in enumerate(VIEWS, 1)),
        Binding("slash", "ask_filter", "Filter", key_display="/"),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", show=False),
        Binding("r", "reverse", "Reverse", show=False),
        Binding("c", "switch('pairs')", "Pairs"),
        Binding("d", "device(1)", "Device"),
        Binding("D", "device(-1)", show=False),
        Binding("b", "switch('in_bytes')", "Bytes"),
        Binding("n", "switch('services')", show=False),
        Binding("space", "pause", "Pause", key_display="␣"),
        Binding("a", "audit", "Audit"),
        Binding("x", "clear_alarms", show=False),
        Binding("T", "extra", show=False),
        Binding("o", "hold_order", show=False),
        Binding("L", "logarithmic", show=False),
        Binding("P", "pause", show=False),
        Binding("h", "help", show=False),
        Binding("f,l", "ask_filter", show=False),
        Binding("N", "switch('services')", show=False),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
        Binding("less_than_sign", "sort_by('source')", show=False),
        Binding("greater_than_sign", "sort_by('destination')", show=False),
        *(Binding(key, f"elsewhere({key!r})", show=False) for key in ELSEWHERE),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("escape", "let_go", show=False),
    ]

    def __init__(self, source: AsyncIterable[FlowBatch], selection: Selection | None = None) -> None:
        super().__init__(driver_class=TerminalDriver)
        self.failure: BaseException | None = None
        self.intervals = 0
        self._source = source
        self._selection = selection or Selection(limit=200)
        self._history = History(60)
        self._device_sums = DeviceSums()
        self._flow_sums = FlowSums()
        self._name_sums = {
            "domains": NameSums(lambda name: name.domain),
            "applications": NameSums(lambda name: name.application),
        }
        self._extra: Extra = "averages"
        self._logarithmic = False
        self._order: list[tuple[object, ...]] | None = None
        self._alarms = FindingLog()
        self._latest: FlowBatch | None = None
        self._shown: FlowBatch | None = None
        self._latest_dns = self._shown_dns = RecentDns()
        self._rates: tuple[DeviceRate, ...] = ()
        self._paused = False
        self._has_vlans = False
        self._has_names = False
        self._host = socket.gethostname()

    # --- what is on screen

    def compose(self) -> ComposeResult:
        yield Static(id="top")
        with Horizontal(id="upper"):
            yield Static(id="devices")
            yield Static(id="side")
        yield Static(id="alarms")
        yield Static(id="protocols")
        yield Static(id="title")
        yield Table(id="table")
        yield Static(id="details")
        with Vertical(id="ask"):
            with Horizontal():
                yield Label(" filter: ")
                yield Input(placeholder="host 10.0.0.1 and tcp port 443")
            yield Static(id="ask-hint")
        footer = Footer(show_command_palette=False)
        footer.compact = True
        yield footer

    def on_mount(self) -> None:
        self.query_one(Table).focus()
        self.query_one("#top", Static).update(Text(" wiremeter  waiting for the first interval", palette.TITLE))
        for number in (signal.SIGTERM, signal.SIGHUP):
            try:
                asyncio.get_running_loop().add_signal_handler(number, self.exit)
            except (RuntimeError, ValueError):  # not in the main thread: who runs us there handles signals
                break
        self._terminal = Terminal()
        self.run_worker(self._watch(), exit_on_error=False)

    async def _watch(self) -> None:
        try:
            async for batch in self._source:
                if self._terminal.is_gone():
                    break
                self._take(batch)
        except Exception as error:
            self.failure = error
        self.exit()

    def _take(self, batch: FlowBatch) -> None:
        """A new interval: remember it, and show it unless paused."""
        self.intervals += 1
        rates = device_rates(batch)
        self._history.add(rates)
        self._device_sums.add(rates, batch.seconds)
        self._flow_sums.add(batch)
        if batch.flow_names is not None:
            amounts = sums_by_name(batch, ("bytes",)).sum(axis=(1, 2), dtype=np.uint64)
            for sums in self._name_sums.values():
                sums.add(batch.names, amounts, batch.seconds)
        self._alarms.add(batch)
        self._latest = batch
        self._latest_dns = self._latest_dns.plus(batch)
        if not self._has_names and has_names(batch):
            self._has_names = True
            self.refresh_bindings()
        if not self._paused:
            self._show_latest()

    def _show_latest(self) -> None:
        self._shown, self._shown_dns = self._latest, self._latest_dns
        self.redraw()

    def redraw(self) -> None:
        """Draw the shown batch; called for each new one, and when the user chooses otherwise."""
        batch = self._shown
        if batch is None:
            return
        width, height = self.size
        selection = self._selection
        wide = width >= _WIDE
        selected = select(batch, selection)
        protocols = select_protocols(batch, selected, selection)
        self._rates = device_rates(batch)
        self._has_vlans |= bool((batch.flows["vlan"] != 0xFFFF).any())
        notes = [a for a in findings(batch) if a.severity == "note"] if selection.device is None else []
        self._put("#top", panels.top_line(batch, width, host=self._host, paused=self._paused))
        upper = width - _SIDE_WIDTH if wide else width
        devices = panels.device_panel(
            self._rates,
            self._history,
            self._device_sums,
            upper,
            max(4, height // 3),
            selection,
            logarithmic=self._logarithmic,
        )
        self._put("#devices", *devices)
        self.query_one("#side").display = wide
        self.query_one("#protocols").display = not wide
        if wide:
            rows = max(len(devices), min(8, height // 4))
            self._put("#side", *panels.protocol_panel(protocols, batch.seconds, _SIDE_WIDTH - 3, rows, selection))
        else:
            self._put("#protocols", panels.protocol_line(protocols, width, selection))
        rows = 3 if height < 32 else 6
        self._put("#alarms", *panels.alarm_lines(self._alarms.entries(), notes, width, rows))
        title, table_rows = self._table(batch, selected, width)
        if self._order is not None:
            table_rows = in_order_of(table_rows, self._order)
            title.append("  order held, o lets it go", palette.WARNING)
            title.truncate(width, overflow="ellipsis")
        self._put("#title", title)
        self.screen_stack[0].query_one(Table).show(table_rows)
        self._draw_details()
        if isinstance(self.screen, AuditSheet):
            self.screen.show(self._audit_text())

    def _table(self, batch: FlowBatch, selected: Selected, width: int) -> tuple[Text, Rows]:
        """The title and the rows of the view that was chosen."""
        selection = self._selection
        match selection.view:
            case "domains" | "applications":
                of_view = select_domains if selection.view == "domains" else select_applications
                totals = of_view(batch, selected, selection)
                title = panels.totals_title(len(totals), selected, batch, width, selection)
                # Averages are of all traffic: beside what a filter leaves of an interval they would mislead.
                sums = self._name_sums[selection.view] if selection.is_whole else None
                averages = sums.averages([total.name for total in totals]) if sums else None
                rows: Rows = total_rows(totals, selected.total, batch.seconds, width, selection, averages, self._extra)
                return title, rows
            case "hosts":
                hosts, others, found = select_hosts(batch, selected, selection)
                rest = [replace(others, name=OTHERS)] if found > len(hosts) else []
                title = panels.totals_title(found, selected, batch, width, selection)
                return title, total_rows([*hosts, *rest], selected.total, batch.seconds, width, selection)
            case "dns":
                questions = dns_totals(self._shown_dns, selection.dns_sort, reverse=selection.reverse)
                return panels.dns_title(self._shown_dns, width, selection), dns_rows(questions, width, selection)
            case _:
                rows = flow_rows(
                    batch,
                    selected,
                    width,
                    selection,
                    self._flow_sums,
                    self._extra,
                    with_vlan=self._has_vlans,
                    with_names=self._has_names,
                )
                return panels.flows_title(selected, batch, width, selection), rows

    def _put(self, selector: str, *lines: Text) -> None:
        widget = self.screen_stack[0].query_one(selector, Static)
        widget.display = bool(lines)
        widget.update(Text("\n", end="").join(lines))

    @on(Table.Moved)
    def _draw_details(self) -> None:
        table = self.screen_stack[0].query_one(Table)
        if table.rows is None or table.cursor is None:
            self._put("#details")
        else:
            self._put("#details", *table.rows.details(table.cursor, self.size.width))

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self.redraw)

    # --- what the user chooses

    def _choose(self, **changes: object) -> None:
        if changes.keys() & _REORDERING:
            self._order = None
        self._selection = replace(self._selection, **changes)  # type: ignore[arg-type]
        self.redraw()

    def action_switch(self, name: str) -> None:
        self._choose(**{name: not getattr(self._selection, name)})

    def action_view(self, step: int) -> None:
        views = VIEWS if self._has_names else _NAMELESS_VIEWS
        at = views.index(self._selection.view) if self._selection.view in views else 0
        self.action_show(views[(at + step) % len(views)])

    def action_show(self, view: View) -> None:
        if not self._has_names and view not in _NAMELESS_VIEWS:
            return
        self.query_one(Table).drop_cursor()
        self._choose(view=view, reverse=False)

    def action_sort(self, step: int) -> None:
        name, orders = _ORDERS[self._selection.view]
        if not self._has_names:
            orders = tuple(order for order in orders if order != "domain")
        now = getattr(self._selection, name)
        at = orders.index(now) if now in orders else 0
        self._choose(**{name: orders[(at + step) % len(orders)], "reverse": False})

    def action_sort_by(self, key: str) -> None:
        if self._selection.view == "flows":
            self._choose(sort=key, reverse=False)

    def action_extra(self) -> None:
        self._extra = EXTRAS[(EXTRAS.index(self._extra) + 1) % len(EXTRAS)]
        self.redraw()

    def action_logarithmic(self) -> None:
        self._logarithmic = not self._logarithmic
        self.redraw()

    def action_hold_order(self) -> None:
        rows = self.query_one(Table).rows
        is_held = self._order is not None or rows is None
        self._order = None if is_held or rows is None else [rows.identity(at) for at in range(len(rows))]
        self.redraw()

    def action_down(self) -> None:
        self.query_one(Table).action_move(1)

    def action_up(self) -> None:
        self.query_one(Table).action_move(-1)

    def action_elsewhere(self, key: str) -> None:
        """A key of iftop's that does something else here, or nothing."""
        self.notify(ELSEWHERE[key], timeout=6)

    def action_reverse(self) -> None:
        self._choose(reverse=not self._selection.reverse)

    @on(Table.SortAsked)
    def _sort_by_header(self, message: Table.SortAsked) -> None:
        name, _ = _ORDERS[self._selection.view]
        if message.key == getattr(self._selection, name):
            self.action_reverse()
        else:
            self._choose(**{name: message.key, "reverse": False})

    def action_device(self, step: int) -> None:
        choices = [None, *dict.fromkeys(rate.device for rate in self._rates)]
        device = self._selection.device
        at = choices.index(device) if device in choices else 0
        self._choose(device=choices[(at + step) % len(choices)])

    def action_pause(self) -> None:
        self._paused = not self._paused
        if self._paused:
            self.redraw()
        else:
            self._show_latest()

    def action_clear_alarms(self) -> None:
        self._alarms.clear()
        self.redraw()

    def action_help(self) -> None:
        self.push_screen(Sheet("wiremeter live", help_text()))

    def action_audit(self) -> None:
        self.push_screen(AuditSheet("alarms, and the audit of the last interval", self._audit_text()))

    def _audit_text(self) -> Text:
        found = panels.alarm_lines(self._alarms.entries(), (), 1000, 1000)
        return Text("\n").join([*found, *([Text()] if found else []), *panels.audit_lines(self._rates)])

    def action_let_go(self) -> None:
        if self.query_one("#ask").display:
            self._close_filter()
        elif not self.query_one(Table).drop_cursor() and self._selection.filter.text:
            self._choose(filter=compile_filter(""))

    # --- the filter line

    def action_ask_filter(self) -> None:
        self.query_one("#ask").display = True
        self.query_one(Footer).display = False
        entry = self.query_one(Input)
        entry.value = self._selection.filter.text
        entry.cursor_position = len(entry.value)
        entry.focus()
        self._hint("Enter applies, Esc leaves it; empty shows all flows")

    def _close_filter(self) -> None:
        self.query_one("#ask").display = False
        self.query_one(Footer).display = True
        self.query_one(Table).focus()

    @on(Input.Submitted)
    def _apply_filter(self, event: Input.Submitted) -> None:
        try:
            chosen = compile_filter(event.value.strip())
        except FilterError as error:
            self.query_one(Input).cursor_position = error.position + error.length
            self._point_at(error)
            return
        self._close_filter()
        self._choose(filter=chosen)

    @on(Input.Changed)
    def _check_filter(self, event: Input.Changed) -> None:
        try:
            compile_filter(event.value)
        except FilterError as error:
            self._point_at(error)
        else:
            self._hint("")

    def _point_at(self, error: FilterError) -> None:
        marker = "^" + "~" * (error.length - 1)
        before = " " * (error.position + 9)
        pointed = f"{before}{marker} {error.reason}"
        self._hint(pointed if len(pointed) < self.size.width else f" {error.reason}")

    def _hint(self, text: str) -> None:
        self.query_one("#ask-hint", Static).update(Text(text, no_wrap=True))


def save_screenshot(
    source: AsyncIterable[FlowBatch],
    path: str | Path,
    *,
    intervals: int = 5,
    size: tuple[int, int] = (120, 36),
    selection: Selection | None = None,
) -> None:
    """Write an SVG picture of the interactive view after so many intervals of `source`; needs no terminal.

    size: columns and lines.
    Raises what the source raises, WiremeterError if it ends before that, OSError if `path` cannot be written.
    """
    app = LiveApp(source, selection)

    async def wait(pilot: Pilot[object]) -> None:
        while app.intervals < intervals and app.is_running:
            await pilot.pause(0.02)
        await pilot.pause(0.1)
        Path(path).write_text(app.export_screenshot(title="wiremeter live"), "utf-8")
        app.exit()

    app.run(headless=True, size=size, auto_pilot=wait)
    if app.failure is not None:
        raise app.failure
    if app.intervals < intervals:
        raise WiremeterError(f"the source ended after {app.intervals} intervals, before the {intervals} asked for")
