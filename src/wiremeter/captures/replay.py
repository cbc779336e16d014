"""Capture files as a source: their frames through the datapath, one FlowBatch for each interval of capture time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wiremeter.captures.file import LINKTYPES, STANDARD_INPUT, CaptureFile, Frames
from wiremeter.captures.meter import FrameMeter, HostMeter, OnPayloads
from wiremeter.captures.super_packets import SuperPacketFinder
from wiremeter.datapath.interval import Interval, tallies_by_attachment
from wiremeter.datapath.naming import NameOptions, Naming
from wiremeter.errors import InputError
from wiremeter.flows.batch import Attachment, Audit, FlowBatch, Health
from wiremeter.flows.filter import compile_filter
from wiremeter.settings.values import seconds_of
from wiremeter.settings.words import ENGINES, FLOWS_MAX, EngineName


@dataclass(frozen=True, slots=True)
class CaptureProblem:
    """What was wrong with a file that was read in part."""

    file: str
    problem: str


class CaptureReplay:
    """Reads capture files one after another and yields a batch for each interval in which there was a frame.

    >>> for batch in CaptureReplay(["traffic.pcap"], interval=1.0):      # doctest: +SKIP
    ...     print(len(batch.flows), batch.audit)
    """

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]],
        *,
        interval: float | str | None = None,
        filter: str = "",
        engine: EngineName = "host",
        table_lines: int | None = None,
        max_flows: int = FLOWS_MAX,
        names: NameOptions | None = None,
        assumed_mss: int | None = None,
        on_frames: Callable[[Frames], None] | None = None,
        on_progress: Callable[[CaptureFile], None] | None = None,
    ) -> None:
        """Nothing is opened yet.

        files: paths; "-" is standard input. interval: seconds of capture time, from the first frame on; None makes
        one batch of all; text such as "500ms" will do. filter: only flows that match are in the batches, as
        FlowBatch.filter has them. engine: "host", or "kernel" for test runs of the kernel's programs, which needs root.
        table_lines: of the engine's table, a power of two; a small one is flipped more often and changes no count.
        max_flows: most flows of one batch; what goes beyond is unattributed, by reason batch_full.
        names: what to read of payloads; None: NameOptions(). assumed_mss: TCP packets with more payload are counted as
        their segments of so many bytes, options off; None: as they are. on_frames: sees all frames before they are
        counted, some at a time. on_progress: called now and then while a file is read.
        Raises InputError for an interval that is not above 0, an engine that is not known, and an MSS out of range.
        """
        interval = None if interval is None else seconds_of(interval)
        if interval is not None and not interval > 0:
            raise InputError(f"an interval of {interval} s: it must be above 0")
        if engine not in ENGINES:
            raise InputError(f"engine {engine!r}: it must be {' or '.join(ENGINES)}")
        self._stopped = False
        self._file: CaptureFile | None = None
        self.files = tuple(os.fspath(file) for file in files)
        self.problems: list[CaptureProblem] = []
        #: Names of the link types of the frames, as libpcap has them, by number.
        self.linktypes: list[str] = []
        #: Frames counted by the host engine though the kernel's was asked for, by reason.
        self.counted_by_host: dict[str, int] = {}
        self._interval_ns = None if interval is None else max(1, round(interval * 1e9))
        self._filter = compile_filter(filter)
        self._engine: EngineName = engine
        self._table_lines = table_lines
        self._max_flows = max_flows
        self._names = names or NameOptions()
        self._assumed_mss = assumed_mss
        self._super_packets = SuperPacketFinder(assumed_mss)
        self._naming: Naming | None = None
        self._on_frames = on_frames
        self._on_progress = on_progress
        device = os.path.basename(self.files[0]) if len(self.files) == 1 else "capture"
        self._attachments = (
            Attachment(0, "stdin" if device == STANDARD_INPUT else device, 0, direction="rx", mode="none"),
        )

    def __iter__(self) -> Iterator[FlowBatch]:
        """All batches; the files are read as they are asked for.

        Raises InputError for a file that cannot be read at all, PermissionNeeded or KernelError by the kernel engine.
        """
        for batch in self._batches():
            yield batch.filter(self._filter)

    def _batches(self) -> Iterator[FlowBatch]:
        """All batches, whatever the filter."""
        self.problems.clear()
        self.linktypes.clear()
        self._super_packets = SuperPacketFinder(self._assumed_mss)
        self._naming = Naming(self._names) if self._names.limit else None
        on_payloads = self._naming.feed if self._naming else None
        with (
            contextlib.closing(self._naming) if self._naming else contextlib.nullcontext(),
            contextlib.closing(_open_meter(self._engine, self._table_lines, self._names, on_payloads)) as meter,
        ):
            self.counted_by_host = meter.counted_by_host
            self._begin()
            numbers: set[int] = set()
            for path in self.files:
                if self._stopped:
                    break
                with CaptureFile(path) as file, self._reading(file):
                    for frames in file.frames():
                        self._note_linktypes(numbers, file)
                        if self._on_frames:
                            self._on_frames(frames)
                        yield from self._count(meter, frames)
                        if self._on_progress:
                            self._on_progress(file)
                    if self._on_progress:
                        self._on_progress(file)
                    if file.problem and not self._stopped:
                        self.problems.append(CaptureProblem(path, file.problem))
                    self._note_linktypes(numbers, file)
            if self._first_ns is not None or self._interval_ns is None:
                yield self._close_interval(meter, last=True)

    def stop(self) -> None:
        """Ends the replay where it is: what has been read so far comes as the last batch. For signal handlers."""
        self._stopped = True
        if self._file:
            self._file.stop()

    @contextlib.contextmanager
    def _reading(self, file: CaptureFile) -> Iterator[None]:
        """While the block runs, this is the file that `stop` ends."""
        self._file = file
        try:
            yield
        finally:
            self._file = None

    def _note_linktypes(self, numbers: set[int], file: CaptureFile) -> None:
        if not numbers.issuperset(file.linktypes):
            numbers.update(file.linktypes)
            self.linktypes[:] = dict.fromkeys(LINKTYPES[number] for number in sorted(numbers))

    def _begin(self, start_ns: int | None = None) -> None:
        self._parts = Interval(self._max_flows)
        self._start_ns = start_ns
        self._first_ns: int | None = None  # times of frames in this interval
        self._last_ns = 0
        self._flips = 0

    def _count(self, meter: FrameMeter, frames: Frames) -> Iterator[FlowBatch]:
        """Counts all of `frames`; yields the batches of intervals that end among them.

        A frame that is older than its interval counts in it all the same: an interval ends with the first frame
        behind its end.
        """
        while len(frames):
            due = len(frames)
            if self._interval_ns is not None:
                if self._start_ns is None:
                    self._start_ns = int(frames.times_ns[0])
                end_ns = self._start_ns + self._interval_ns
                if end_ns < 1 << 64 and (behind := frames.times_ns >= np.uint64(end_ns)).any():
                    due = int(behind.argmax())
            if due:
                self._count_all(meter, self._super_packets.look(frames.part(0, due)))
                frames = frames.part(due)
            if len(frames):
                assert self._interval_ns is not None
                assert self._start_ns is not None
                if self._first_ns is not None:
                    yield self._close_interval(meter)
                # Intervals without a frame make no batch.
                steps = (int(frames.times_ns[0]) - self._start_ns) // self._interval_ns
                self._begin(self._start_ns + steps * self._interval_ns)

    def _count_all(self, meter: FrameMeter, frames: Frames) -> None:
        earliest, latest = int(frames.times_ns.min()), int(frames.times_ns.max())
        self._first_ns = earliest if self._first_ns is None else min(self._first_ns, earliest)
        self._last_ns = max(self._last_ns, latest)
        while (done := meter.count(frames)) < len(frames):
            self._flip(meter)
            frames = frames.part(done)

    def _flip(self, meter: FrameMeter) -> None:
        self._flips += 1
        for drain, positions in meter.flip():
            self._parts.add(drain, positions)

    def _close_interval(self, meter: FrameMeter, *, last: bool = False) -> FlowBatch:
        self._flip(meter)
        parts, merging = self._parts, time.monotonic()
        flows = parts.flows()
        drain_seconds = parts.drain_seconds + time.monotonic() - merging
        (of_flows,) = tallies_by_attachment(flows, 1)
        start_ns, end_ns = self._first_ns or 0, self._last_ns
        if self._interval_ns is not None and self._start_ns is not None:
            start_ns, end_ns = self._start_ns, self._start_ns + self._interval_ns
        (attachment,) = self._attachments
        batch = FlowBatch(
            start_ns=start_ns,
            end_ns=end_ns,
            attachments=self._attachments,
            flows=flows,
            counters=parts.counters(),
            ethertypes=parts.ethertypes(),
            audit=(
                Audit(
                    device=attachment.device,
                    direction=attachment.direction,
                    seen=parts.seen(0),
                    flows=of_flows,
                    non_ip=parts.non_ip(0),
                    unattributed=parts.unattributed(0),
                ),
            ),
            health=Health(
                flips=self._flips,
                early_flips=self._flips - 1,
                table_lines=meter.table_lines,
                table_peak_lines=parts.peak_lines,
                table_bytes=meter.table_bytes,
                regions=1,
                drain_seconds=drain_seconds,
                grace_seconds=parts.grace_seconds,
            ),
            mode="capture",
            super_packets=self._super_packets.take(),
        )
        if not self._naming:
            return batch
        return self._naming.add(batch, parts.sent_payloads(), parts.lost_payloads(), last=last)


def replay(
    *files: str | os.PathLike[str],
    interval: float | str | None = None,
    filter: str = "",
    engine: EngineName = "host",
    names: NameOptions | None = None,
    assumed_mss: int | None = None,
) -> CaptureReplay:
    """Capture files as batches, of mode "capture": pcap or pcapng, compressed or not. Needs no privilege.

    The arguments are those of CaptureReplay; without an interval there is one batch of all. Files are read as batches
    are asked for; what was wrong with one that could be read in part is in `problems` afterwards.
    Raises InputError for a value out of range, and while it iterates for a file that is no capture.

    >>> for batch in replay("traffic.pcap", interval="1s", filter="tcp port 443"):      # doctest: +SKIP
    ...     print(batch.to_polars())
    """
    return CaptureReplay(files, interval=interval, filter=filter, engine=engine, names=names, assumed_mss=assumed_mss)


def _open_meter(
    engine: EngineName, table_lines: int | None, names: NameOptions, on_payloads: OnPayloads | None
) -> FrameMeter:
    if engine == "host":
        return HostMeter(table_lines=table_lines, names=names, on_payloads=on_payloads)
    try:
        from wiremeter.captures.kernel_meter import KernelMeter
    except ImportError as error:  # pragma: no cover - not on Linux
        raise InputError(f"there is no kernel engine here ({error}): use the host engine") from error
    return KernelMeter(table_lines=table_lines, names=names, on_payloads=on_payloads)
