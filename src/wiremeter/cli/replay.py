"""`wiremeter replay`: capture files through the datapath that meters live traffic."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TextIO

from wiremeter.cli.signals import stopping
from wiremeter.cli.streams import say
from wiremeter.errors import InputError

if TYPE_CHECKING:
    from wiremeter.captures.file import CaptureFile, Frames
    from wiremeter.captures.replay import CaptureReplay
    from wiremeter.flows.batch import FlowBatch, Health
    from wiremeter.reports.selection import Selection
    from wiremeter.reports.summary import Point
    from wiremeter.settings.catalogue import Replay

_BAR_AFTER_SECONDS = 0.5
#: Intervals of the table at the end, the last ones: a pipe may go on for weeks.
_POINTS_MAX = 10_000


def run(settings: Replay) -> int:
    """Replays the files and prints what they held.

    Raises InputError for a file that is no capture or has a link type that is not read, a filter that is wrong, and a
    file to write that cannot be.
    """
    if not settings.files:
        raise InputError("no capture file is given: name one, or - for standard input")
    from wiremeter.agent.meter import name_options
    from wiremeter.captures.replay import CaptureReplay
    from wiremeter.reports.cells import utf8_text

    selection = _selection(settings)
    output: _Output = _Json(settings, selection) if settings.format == "json" else _Text(settings, selection)
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(_flow_file(settings, selection))
        with _progress(settings) as on_progress:
            replay = CaptureReplay(
                settings.files,
                interval=settings.interval,
                engine=settings.engine,
                table_lines=settings.flow_table,
                names=name_options(settings),
                assumed_mss=settings.assume_mss,
                on_frames=output.on_frames,
                on_progress=on_progress,
            )
            came = opened.enter_context(stopping(replay.stop))
            batches = iter(replay)
            # Without an interval the only batch comes when all is read: the bar goes before it is printed.
            waiting = () if settings.interval else (next(batches),)
            for batch in batches:
                output.write(batch, replay)
                file(batch)
        for batch in waiting:
            output.write(batch, replay)
            file(batch)
    output.end()
    for problem in replay.problems:
        say(f"wiremeter: {utf8_text(problem.file)}: {problem.problem}")
    for why, frames in replay.counted_by_host.items():
        say(f"wiremeter: frames counted by the host engine, {why}: {frames}")
    if came:
        say(f"wiremeter: stopped by {came[0].name}; what was read before is counted")
    return 128 + came[0] if came else 0


def _selection(settings: Replay) -> Selection:
    """What is shown: in the text the first rows of each list, in the document all."""
    from wiremeter.flows.filter import compile_filter
    from wiremeter.reports.selection import Selection

    is_text = settings.format == "text"
    return Selection(
        sort=settings.sort or ("bytes" if is_text else "key"),
        limit=settings.top if is_text else None,
        filter=compile_filter(settings.filter.strip()),
        pairs=settings.conversations,
        in_bytes=settings.bytes,
        services=settings.services,
        view=settings.view or "flows",
        total_sort="packets" if settings.sort == "packets" else "bytes",
    )


@contextlib.contextmanager
def _flow_file(settings: Replay, selection: Selection) -> Iterator[Callable[[FlowBatch], None]]:
    """What writes the flows of a batch to --write; nothing without that."""
    if settings.write is None:
        yield lambda _: None
        return
    from wiremeter.sinks.flow_files import FlowFile

    every = dataclasses.replace(selection, limit=None, pairs=False, sort=settings.sort or "key")
    with FlowFile(settings.write, every) as file:
        yield file.write


class _Output(Protocol):
    """How batches are printed."""

    @property
    def on_frames(self) -> Callable[[Frames], None] | None: ...
    def write(self, batch: FlowBatch, replay: CaptureReplay) -> None: ...
    def end(self) -> None: ...


class _Json:
    """A document for each batch."""

    on_frames = None

    def __init__(self, settings: Replay, selection: Selection) -> None:
        self._settings, self._selection = settings, selection
        self._before: Health | None = None

    def write(self, batch: FlowBatch, replay: CaptureReplay) -> None:
        from msgspec import UNSET

        from wiremeter.reports.cells import utf8_text
        from wiremeter.reports.document import document_lines
        from wiremeter.reports.schema import Problem, Source

        has_interval = self._settings.interval is not None
        source = Source(
            kind="capture",
            files=tuple(map(utf8_text, replay.files)),
            linktype=",".join(replay.linktypes) or None,
            assumed_mss=UNSET if self._settings.assume_mss is None else self._settings.assume_mss,
            start_ns=batch.start_ns if has_interval else UNSET,
            end_ns=batch.end_ns if has_interval else UNSET,
            problems=tuple(Problem(utf8_text(found.file), found.problem) for found in replay.problems) or UNSET,
        )
        sys.stdout.writelines(document_lines(batch, self._selection, source, self._before))
        self._before = batch.health
        sys.stdout.flush()

    def end(self) -> None: ...


class _Text:
    """Tables for each batch, and one of all intervals at the end; on a terminal with pictures of the rate."""

    def __init__(self, settings: Replay, selection: Selection) -> None:
        from wiremeter.captures.rate import RateHistory

        self._settings, self._selection = settings, selection
        self._before: Health | None = None
        self._points: deque[Point] = deque(maxlen=_POINTS_MAX)
        self._is_pictured = _draws_on(sys.stdout)
        self._rate = RateHistory() if self._is_pictured and settings.interval is None else None
        self.on_frames = self._rate.add if self._rate else None

    def write(self, batch: FlowBatch, replay: CaptureReplay) -> None:
        from wiremeter.reports.cells import utf8_text
        from wiremeter.reports.selection import select
        from wiremeter.reports.summary import point_of, rate_line, summary

        title = ", ".join("standard input" if file == "-" else utf8_text(file) for file in replay.files)
        rate = rate_line(self._rate.bytes_per_second, self._rate.bin_ns, self._selection) if self._rate else ""
        linktypes, view = ", ".join(replay.linktypes), self._settings.view
        selected = select(batch, self._selection)
        lines = summary(batch, selected, self._selection, title, linktypes, view, rate, self._before)
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()
        self._points.append(point_of(batch, selected, self._selection))
        self._before = batch.health

    def end(self) -> None:
        from wiremeter.reports.summary import series

        if self._settings.interval is not None and len(self._points) > 1:
            lines = series(self._points, self._selection, pictured=self._is_pictured)
            sys.stdout.writelines(f"{line}\n" for line in lines)
            sys.stdout.flush()


def _draws_on(stream: TextIO) -> bool:
    """Whether block elements can be read there."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    try:
        "▁█".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


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
