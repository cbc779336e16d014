"""An open meter: an engine with what is attached to it, and the interval that is being counted."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import select
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import LiveAttachment, LiveEngine
from wiremeter.datapath.interval import Interval, tallies_by_attachment
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.naming import NameOptions, Names, open_names
from wiremeter.datapath.restarts import Restarts
from wiremeter.errors import InputError, KernelError, PermissionNeeded
from wiremeter.flows.batch import Attachment, FlowBatch, Health, Mark, ProgramStats
from wiremeter.linux.addresses import own_addresses
from wiremeter.linux.clock import WallClock
from wiremeter.linux.grace_periods import GracePeriods
from wiremeter.linux.host import HostFacts, read_host
from wiremeter.linux.memory import check_memory, flows_that_fit
from wiremeter.linux.netlink import LinkWatch, RouteSocket
from wiremeter.metering.attach_policy import capture_problems, host_problems
from wiremeter.metering.auditor import Auditor
from wiremeter.metering.beat import LOOK_SECONDS, Beat
from wiremeter.metering.early_flips import EarlyFlips
from wiremeter.metering.meanwhile import Meanwhile
from wiremeter.metering.tracker import Metered, Tracker
from wiremeter.settings.words import FLOWS_MAX, RequestedMode

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What a meter is told, as wiremeter.Monitor describes it."""

    patterns: tuple[str, ...]
    interval: float
    attach: RequestedMode
    flow_table: int | None
    program: Path | None
    bpf_stats: bool
    max_devices: int
    max_flows: int
    names: NameOptions
    urgent: bool
    pin: Path | None = None
    state_dir: Path | None = None
    told: Mark | None = None


class Wake:
    """What `stop` of a session writes to. From any thread and from signal handlers."""

    def __init__(self) -> None:
        self.is_asked = False
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Readable once it was asked for, and from then on."""
        return self._event

    def ask(self) -> None:
        """Asks to end. A second call does nothing, nor one after `close`."""
        if not self.is_asked:
            self.is_asked = True
            os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Frees the descriptor."""
        self.is_asked = True
        os.close(self._event)


class Session:
    """Makes batches until it is asked to stop. `next_batch` is for one thread at a time, `stop` for any."""

    def __init__(
        self,
        engine: LiveEngine,
        tracker: Tracker,
        auditor: Auditor,
        early: EarlyFlips,
        watch: LinkWatch,
        names: Names,
        wake: Wake,
        clock: WallClock,
        options: Options,
        max_flows: int = FLOWS_MAX,
    ) -> None:
        """max_flows: most rows of one batch."""
        self._engine = engine
        self._tracker = tracker
        self._auditor = auditor
        self._early = early
        self._watch = watch
        self._names = names
        self._wake = wake
        self._clock = clock
        self._max_flows = max_flows
        self._with_programs = options.bpf_stats
        others = (early, watch, wake)
        self._waiting = _waiting_for(*others, *engine.payload_rings)
        # A ring that nobody reads now, as names have no time or no room, stays readable and would end each wait.
        self._waiting_without_rings = _waiting_for(*others, *names.channels)
        self._let_go: list[Metered] = []
        self._ended = False
        self._payloads_wait = False
        self._end_ns = 0
        self._mark: Mark | None = None
        self._recovered: deque[Drain] = deque()
        self._start()
        self._beat = Beat(options.interval)

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What is attached now."""
        return tuple(metered.attachment for metered in self._tracker.metered)

    def stop(self) -> None:
        """Asks to end: one more batch comes, up to now, and then no more. From any thread, a signal handler, twice."""
        self._wake.ask()

    def close(self) -> None:
        """Ends waiting; who opened the rest closes it."""
        self._waiting.close()
        self._waiting_without_rings.close()

    def next_batch(self) -> FlowBatch | None:
        """Waits until the interval ends, taking up what early flips bring; None after the last batch.

        First comes what was counted before this session began, and not told: without waiting, one batch for each flip.
        """
        if self._recovered:
            return self._recovered_batch(self._recovered.popleft())
        if self._ended:
            return None
        while self._beat.left and not self._wake.is_asked:
            self._wait()
            self._payloads_wait = self._beat.names_have_time() and self._read_payloads()
        self._ended = self._wake.is_asked
        return self._close_interval()

    def _wait(self) -> None:
        """Until something is to be done, and does that. While devices wait to be attached it is some of them."""
        seconds = min(self._beat.left, self._beat.left_to_refresh)
        if self._engine.payload_rings:
            seconds = min(seconds, LOOK_SECONDS)
        if self._payloads_wait or self._tracker.waiting:
            seconds = 0
        may_read = self._beat.names_have_time() and self._names.has_room()
        waiting = self._waiting if may_read else self._waiting_without_rings
        ready = {fd for fd, _ in waiting.poll(seconds)}
        self._names.look()
        if self._early.fileno() in ready:
            self._take_drains()
        if self._watch.fileno() in ready:
            self._watch.read()
            self._beat.devices_changed()
        if not self._beat.left_to_refresh:
            self._refresh()
        elif self._tracker.waiting:
            self._tracker.attach_some()

    def _read_payloads(self, *, waits: bool = False, until_ns: int | None = None) -> bool:
        """Reads a block of each ring; returns whether there may be more, and names have room.

        waits: until they do. until_ns: more of packets that came before that.
        """
        with self._beat.reading_names():
            owners = {m.kernel.slot: m for m in (*self._let_go, *self._tracker.metered)}  # a slot may have a new one
            # Loopback shows each packet as tx and as rx: it said what it says once.
            devices = {
                slot: m.attachment.ifindex
                for slot, m in owners.items()
                if not (m.device.is_loopback and m.attachment.direction == "rx")
            }
            may_be_more = False
            for ring in self._engine.payload_rings:
                if not waits and not self._names.has_room():
                    return False
                with self._early.paused():
                    block = self._engine.take_payloads(ring)
                if len(block):
                    self._names.feed(block, devices)
                    may_be_more |= until_ns is None or block.last_ns < until_ns
        return may_be_more

    def _refresh(self) -> None:
        began = time.monotonic()
        is_read = True
        try:
            self._tracker.refresh()
            self._names.know_own(own_addresses())
        except KernelError as error:
            if error.errno != errno.EINTR:
                raise
            is_read = False  # devices come and go faster than they can be read
        self._beat.refreshed(time.monotonic() - began)
        if not is_read:
            self._beat.devices_changed()

    # -- an interval

    def _start(self) -> None:
        """The first interval begins with a flip, as all do: so the device counters compare from the first batch on."""
        with self._early.paused():
            early = self._early.take()
            self._auditor.read()
            drain = self._engine.flip(self._turned)
        if lasts := self._engine.lasts:
            recovered = (*self._engine.take_recovered(), *early, drain)
            self._recovered.extend(each for each in recovered if each.owners)
            self._recovered_until_ns = lasts.told_until_ns
        self._begin()

    def _recovered_batch(self, drain: Drain) -> FlowBatch:
        """What one flip brought, before this session's first interval. No device counter is compared with it."""
        interval = Interval(self._max_flows)
        owners = {slot: self._tracker.attachment_of(owner) for slot, owner in drain.owners.items()}  # type: ignore[arg-type]
        interval.add(drain, {slot: attachment.id for slot, attachment in owners.items()})
        known = {attachment.id: attachment for attachment in owners.values()}
        attachments = tuple(known[id] for id in interval.attachments)
        flows = interval.flows()
        by_position = tallies_by_attachment(flows, len(attachments)) if attachments else []
        lasts = self._engine.lasts
        start_ns, self._recovered_until_ns = self._recovered_until_ns or drain.ended_ns, drain.ended_ns
        batch = FlowBatch(
            start_ns=min(start_ns, drain.ended_ns),
            end_ns=drain.ended_ns,
            attachments=attachments,
            flows=flows,
            counters=interval.counters(),
            ethertypes=interval.ethertypes(),
            audit=tuple(self._auditor.audits(interval, attachments, by_position, {})),
            health=self._health(interval, interval.drain_seconds, 0),
            mark=Mark(lasts.tables, drain.flip, drain.ended_ns) if lasts else None,
        )
        return self._names.add(batch, interval.sent_payloads(), interval.lost_payloads(), last=False)

    def told(self, mark: Mark) -> None:
        """All up to there was told: no session after this one will bring it again. From any thread."""
        self._engine.told(mark)

    def _turned(self) -> None:
        """The interval ends, and the next begins: right now, in the middle of a flip."""
        self._end_ns = self._clock.now_ns()
        self._auditor.read(self.attachments)

    def _begin(self) -> None:
        self._start_ns = self._end_ns
        self._interval = Interval(self._max_flows)
        self._known: dict[int, Attachment] = {}  # by id

    def _take_drains(self, *, flip: bool = False) -> None:
        """Adds what early flips brought, oldest first, and what a flip now brings."""
        self._let_go += self._tracker.take_let_go()
        with self._early.paused():
            # What the engine holds no more has its last counts in drains that are there already.
            ended = {m.kernel for m in self._let_go if not self._engine.holds(m.kernel)}
            drains = self._early.take()
            if flip:
                drains.append(self._engine.flip(self._turned))
        for drain in drains:
            self._add(drain)
        self._let_go = [m for m in self._let_go if m.kernel not in ended]

    def _add(self, drain: Drain) -> None:
        attachments: dict[object, Attachment] = {m.kernel: m.attachment for m in self._tracker.metered}
        # Counts of those let go come with the next flip, and perhaps, a few, with the one after.
        attachments |= {m.kernel: m.attachment for m in self._let_go if drain.counters[m.kernel.slot].any()}
        attachments |= {k: a for k, a in self._tracker.adopted.items() if k not in attachments and _has(drain, k)}
        slots = {slot: attachments[owner] for slot, owner in drain.owners.items() if owner in attachments}
        self._known |= {attachment.id: attachment for attachment in slots.values()}  # a device may have a new name
        self._interval.add(drain, {slot: attachment.id for slot, attachment in slots.items()})
        if lasts := self._engine.lasts:
            self._mark = Mark(lasts.tables, drain.flip, drain.ended_ns)

    def _close_interval(self) -> FlowBatch:
        is_last = self._ended  # stop() may be called from now on: then one more batch follows
        self._take_drains(flip=True)
        self._beat.last_look(is_last=is_last)
        # While traffic goes on more comes: that is of the next interval, or of none.
        while self._beat.names_have_time() and self._read_payloads(waits=True, until_ns=self._end_ns):
            pass
        interval = self._interval
        attachments = tuple(self._known[id] for id in interval.attachments)
        merging = time.monotonic()
        flows = interval.flows()
        drain_seconds = interval.drain_seconds + time.monotonic() - merging
        by_position = tallies_by_attachment(flows, len(attachments)) if attachments else []
        metered = {m.attachment.id: m for m in self._tracker.metered}
        step_ns = self._clock.step_ns()
        batch = FlowBatch(
            start_ns=self._start_ns,
            end_ns=self._end_ns,
            attachments=attachments,
            flows=flows,
            counters=interval.counters(),
            ethertypes=interval.ethertypes(),
            audit=tuple(self._auditor.audits(interval, attachments, by_position, metered)),
            health=self._health(interval, drain_seconds, step_ns),
            mark=self._mark,
        )
        batch = self._names.add(batch, interval.sent_payloads(), interval.lost_payloads(), last=is_last)
        self._clock.follow(step_ns)
        self._end_ns += step_ns
        self._begin()
        self._beat.next()
        return batch

    def _health(self, interval: Interval, drain_seconds: float, step_ns: int) -> Health:
        plan = self._engine.plan
        return Health(
            flips=self._engine.flips,
            early_flips=self._early.count,
            table_lines=plan.lines,
            table_peak_lines=interval.peak_lines,
            table_bytes=self._engine.table_bytes,
            regions=plan.regions,
            drain_seconds=drain_seconds,
            grace_seconds=interval.grace_seconds,
            displaced=self._tracker.displaced(),
            attaching=self._tracker.waiting,
            clock_step_seconds=step_ns / 1e9,
            programs=tuple(self._program_stats()) if self._with_programs else (),
        )

    def _program_stats(self) -> Iterator[ProgramStats]:
        for metered in self._tracker.metered:
            info = metered.kernel.info()
            yield ProgramStats(metered.attachment.device, metered.attachment.direction, info.run_ns, info.runs)


@contextlib.contextmanager
def opened(options: Options) -> Iterator[Session]:
    """A session for as long as the block runs: makes the tables and attaches, before the block; undoes all after it.

    Raises InputError, PermissionNeeded or KernelError, with nothing left attached.
    """
    with contextlib.ExitStack() as resources:
        enter = resources.enter_context
        host = read_host()
        _check(host, options.attach)
        check_memory(host.memory_limit_bytes, with_names=bool(options.names.limit))
        wake = enter(contextlib.closing(Wake()))
        most_flows = _most_flows(options, host)
        # Where memory allows few flows, it allows few transactions: a flood of look-ups is one of both.
        naming = dataclasses.replace(options.names, most=min(options.names.most, most_flows))
        meanwhile = enter(Meanwhile(lambda: open_names(naming), lambda names: names.close(), "wiremeter-names"))
        clock = WallClock()
        engine: LiveEngine = enter(_engine_for(options, host, clock, enter(_restarts(options))))
        watch = enter(LinkWatch())
        auditor = Auditor(enter(RouteSocket()))
        grace = enter(GracePeriods())
        tracker = enter(contextlib.closing(Tracker(engine, grace, host, options.patterns, options.attach)))
        tracker.start()
        names = meanwhile.result()
        names.know_own(own_addresses())
        early = enter(EarlyFlips(engine, urgent=options.urgent))
        session = Session(engine, tracker, auditor, early, watch, names, wake, clock, options, most_flows)
        yield enter(contextlib.closing(session))


def _most_flows(options: Options, host: HostFacts) -> int:
    """Rows of a batch: as many as asked for, where memory allows."""
    fitting = flows_that_fit(host.memory_limit_bytes, with_names=bool(options.names.limit))
    if fitting < options.max_flows:
        log.info("memory bounds the flows of a batch", extra={"flows": fitting, "memory": host.memory_limit_bytes})
    return min(options.max_flows, fitting)


def _check(host: HostFacts, attach: RequestedMode) -> None:
    problems = capture_problems(host) if attach == "capture" else host_problems(host)
    if problems:
        kind = PermissionNeeded if host.missing_capabilities_for(attach) else InputError
        raise kind(" ".join(problems))


@contextlib.contextmanager
def _restarts(options: Options) -> Iterator[Restarts | None]:
    """What outlives this process, if anything is to."""
    if options.pin is None or options.attach == "capture":
        if options.pin:
            log.warning("packet sockets cannot be pinned: what passes while no agent runs is not counted")
        yield None
        return
    if options.state_dir is None:
        raise InputError(
            "--pin needs a --state-dir: it keeps how far the tables were told, so that the next agent tells the rest"
        )
    with Restarts(options.pin, options.state_dir, options.told) as restarts:
        yield restarts


def _engine_for(
    options: Options, host: HostFacts, clock: WallClock, restarts: Restarts | None = None
) -> contextlib.AbstractContextManager[LiveEngine]:
    is_capture = options.attach == "capture"
    cpus = 1 if is_capture else host.cpu_numbers
    plan = plan_tables(cpus, options.flow_table, host.memory_limit_bytes, 2 * options.max_devices)
    limit, sources = options.names.limit, options.names.sources
    if is_capture:
        from wiremeter.datapath.capture import CaptureEngine  # the others do without what it needs

        return CaptureEngine(plan, payload_limit=limit, payload_sources=sources)
    return KernelEngine(
        plan,
        options.program,
        payload_limit=limit,
        payload_sources=sources,
        statistics=options.bpf_stats,
        clock=clock,
        restarts=restarts,
    )


def _has(drain: Drain, kernel: LiveAttachment) -> bool:
    """Whether a drain has counts of an attachment."""
    return drain.owners.get(kernel.slot) is kernel and bool(drain.counters[kernel.slot].any())


def _waiting_for(*files: object) -> select.epoll:
    waiting = select.epoll()
    for file in files:
        waiting.register(file, select.EPOLLIN)  # type: ignore[arg-type]
    return waiting
