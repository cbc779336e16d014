"""`wiremeter live`: what crosses the wire now, as a table in the terminal, as text or as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from wiremeter.cli.signals import stopping
from wiremeter.linux.host import read_host
from wiremeter.linux.memory import check_memory
from wiremeter.settings.catalogue import INTERACTIVE_TOP, PLAIN_TOP

if TYPE_CHECKING:
    from wiremeter.flows.batch import FlowBatch
    from wiremeter.flows.filter import Filter
    from wiremeter.flows.source import BatchSource
    from wiremeter.reports.selection import Selection
    from wiremeter.settings.catalogue import Live


def run(settings: Live, open_with: Callable[[Live], BatchSource] | None = None) -> int:
    """Runs the command; returns its exit status.

    open_with: makes the source of batches, by default what the settings ask for.
    Raises WiremeterError, InputError for a filter or a flag that is wrong.
    """
    check_memory(read_host().memory_limit_bytes, with_names=settings.reads_payloads)
    from wiremeter.flows.filter import compile_filter

    is_view = _is_interactive(settings)
    filter = compile_filter(settings.filter.strip())
    with (open_with or open_source)(settings) as source:
        # What shows batches is loaded when they are being counted.
        selection = _selection(settings, filter, INTERACTIVE_TOP if is_view or settings.screenshot else PLAIN_TOP)
        if settings.screenshot:
            return _screenshot(source, settings.screenshot, settings, selection)
        if is_view:
            return _view(source, selection)
        return _print(source, settings, selection)


def _is_interactive(settings: Live) -> bool:
    if settings.once or settings.count or settings.format or settings.screenshot:
        return False
    # The view is drawn on standard error, keys come from standard input.
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)) and os.environ.get("TERM") != "dumb"


def _selection(settings: Live, filter: Filter, default_top: int) -> Selection:
    from wiremeter.reports.selection import Selection

    return Selection(
        sort=settings.sort,
        limit=settings.top or default_top,
        filter=filter,
        pairs=settings.conversations,
        in_bytes=settings.bytes,
        services=settings.services,
        view=settings.view,
        total_sort="packets" if settings.sort == "packets" else "bytes",
    )


def open_source(settings: Live) -> BatchSource:
    """The meter that the settings ask for; its batches are at /metrics, too, if they say so."""
    from wiremeter.agent.dedicated import dedicate_process
    from wiremeter.agent.meter import open_monitor

    dedicate_process()
    monitor = open_monitor(settings)
    if settings.listen is None:
        return monitor
    from wiremeter import __version__
    from wiremeter.agent.exposed import Exposed
    from wiremeter.sinks.prometheus import PrometheusSink

    sink = PrometheusSink(__version__, domains=settings.domains, dns_servers=settings.dns_servers)
    return Exposed(monitor, settings.listen, settings.interval, sink, settings.web_config_file)


def _view(source: BatchSource, selection: Selection) -> int:
    from wiremeter.tui.app import LiveApp

    app = LiveApp(source, selection)
    app.run()
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0


def _screenshot(source: BatchSource, path: str, settings: Live, selection: Selection) -> int:
    from wiremeter.tui.app import save_screenshot

    intervals = settings.count or 1
    save_screenshot(source, path, intervals=intervals, size=settings.screenshot_size, selection=selection)
    return 0


def _print(source: BatchSource, settings: Live, selection: Selection) -> int:
    """A block each interval until the source ends, enough were printed, or a signal comes.

    Raises InputError if no device was metered in any of them.
    """
    write = _json_writer(selection, is_single=settings.once) if settings.format == "json" else _text_writer(selection)
    left = 1 if settings.once else settings.count
    has_metered: bool | None = None  # before the first batch
    with stopping(source.close):
        for batch in source:
            sys.stdout.write(write(batch))
            sys.stdout.flush()
            has_metered = bool(has_metered or batch.attachments)
            left = left and left - 1
            if left == 0:
                break
    if has_metered is False:
        from wiremeter.errors import InputError
        from wiremeter.reports.findings import sentence

        raise InputError(f"{sentence('no_device')} (asked for: {', '.join(settings.interfaces)})")
    return 0


def _text_writer(selection: Selection) -> Callable[[FlowBatch], str]:
    from wiremeter.flows.batch import Health
    from wiremeter.reports.text import text_block

    before = Health()

    def write(batch: FlowBatch) -> str:
        nonlocal before
        text = text_block(batch, selection, before)
        before = batch.health
        return text

    return write


def _json_writer(selection: Selection, *, is_single: bool) -> Callable[[FlowBatch], str]:
    import msgspec

    from wiremeter.flows.batch import Health
    from wiremeter.reports.document import document
    from wiremeter.reports.json_rows import to_json

    before = Health()

    def write(batch: FlowBatch) -> str:
        nonlocal before
        text = to_json(document(batch, selection, before=before))
        before = batch.health
        return (msgspec.json.format(text, indent=2) if is_single else text) + "\n"

    return write
