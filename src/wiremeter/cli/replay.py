"""`wiremeter replay`: capture files through the datapath that meters live traffic."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from wiremeter.cli.streams import say
from wiremeter.errors import InputError

if TYPE_CHECKING:
    from wiremeter.captures.file import CaptureFile
    from wiremeter.captures.replay import CaptureReplay
    from wiremeter.flows.batch import FlowBatch
    from wiremeter.settings.catalogue import Replay

_BAR_AFTER_SECONDS = 0.5


def run(settings: Replay) -> int:
    """Replays the files and prints what they held.

    Raises InputError for a file that is no capture or has a link type that is not read.
    """
    if not settings.files:
        raise InputError("no capture file is given: name one, or - for standard input")
    from wiremeter.agent.meter import name_options
    from wiremeter.captures.replay import CaptureReplay
    from wiremeter.reports.cells import utf8_text

    write = _write_json if settings.format == "json" else _write_text
    with _progress(settings) as on_progress:
        replay = CaptureReplay(
            settings.files,
            interval=settings.interval,
            engine=settings.engine,
            table_lines=settings.flow_table,
            names=name_options(settings),
            assumed_mss=settings.assume_mss,
            on_progress=on_progress,
        )
        batches = iter(replay)
        # Without an interval the only batch comes when all is read: the bar goes before it is printed.
        waiting = None if settings.interval else next(batches)
        for batch in batches:
            write(batch, replay, settings)
    if waiting is not None:
        write(waiting, replay, settings)
    for problem in replay.problems:
        say(f"wiremeter: {utf8_text(problem.file)}: {problem.problem}")
    for why, frames in replay.counted_by_host.items():
        say(f"wiremeter: frames counted by the host engine, {why}: {frames}")
    return 0


def _write_json(batch: FlowBatch, replay: CaptureReplay, settings: Replay) -> None:
    from msgspec import UNSET

    from wiremeter.reports.cells import utf8_text
    from wiremeter.reports.document import document_lines
    from wiremeter.reports.schema import Problem, Source
    from wiremeter.reports.selection import EVERYTHING

    source = Source(
        kind="capture",
        files=tuple(map(utf8_text, replay.files)),
        linktype=",".join(replay.linktypes) or None,
        assumed_mss=UNSET if settings.assume_mss is None else settings.assume_mss,
        start_ns=UNSET if settings.interval is None else batch.start_ns,
        end_ns=UNSET if settings.interval is None else batch.end_ns,
        problems=tuple(Problem(utf8_text(found.file), found.problem) for found in replay.problems) or UNSET,
    )
    sys.stdout.writelines(document_lines(batch, EVERYTHING, source))
    sys.stdout.flush()


def _write_text(batch: FlowBatch, replay: CaptureReplay, settings: Replay) -> None:
    from wiremeter.reports.cells import utf8_text
    from wiremeter.reports.text import summary

    title = ", ".join("standard input" if file == "-" else utf8_text(file) for file in replay.files)
    linktype = ", ".join(replay.linktypes)
    sys.stdout.writelines(f"{line}\n" for line in summary(batch, title, linktype, top=settings.top))
    sys.stdout.flush()


@contextlib.contextmanager
def _progress(settings: Replay) -> Iterator[Callable[[CaptureFile], None] | None]:
    """What draws a progress bar on standard error, if that is a terminal and the files have sizes; else None.

    The bar appears when reading has taken a while. It is gone before results are printed, and there is none where
    results come in between on the same terminal.
    """
    sizes = {file: os.stat(file).st_size for file in settings.files if os.path.isfile(file)}
    mixed = settings.interval is not None and sys.stdout.isatty()
    if settings.no_progress or mixed or not sys.stderr.isatty() or sizes.keys() != set(settings.files):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bars = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    tasks = {file: bars.add_task(os.path.basename(file), total=size) for file, size in sizes.items()}
    appears_at = time.monotonic() + _BAR_AFTER_SECONDS

    def draw(file: CaptureFile) -> None:
        if time.monotonic() >= appears_at:
            bars.start()
            bars.update(tasks[file.path], completed=file.position)

    try:
        yield draw
    finally:
        bars.stop()
