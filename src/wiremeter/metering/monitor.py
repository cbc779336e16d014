"""Monitor: the live meter. Devices in, one FlowBatch each interval out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Self

from wiremeter.datapath.capture import CaptureEngine
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import LiveEngine
from wiremeter.datapath.interval import Interval, tallies_by_attachment
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.naming import NameOptions, Naming
from wiremeter.errors import InputError, PermissionNeeded
from wiremeter.flows.batch import Attachment, FlowBatch, Health, ProgramStats
from wiremeter.linux.addresses import own_addresses
from wiremeter.linux.host import read_host
from wiremeter.linux.netlink import LinkWatch
from wiremeter.metering.attach_policy import REQUESTED_MODES, RequestedMode, capture_problems, host_problems
from wiremeter.metering.auditor import Auditor
from wiremeter.metering.early_flips import EarlyFlips
from wiremeter.metering.tracker import Metered, Tracker

log = logging.getLogger(__name__)

#: Devices are looked at again when the kernel says that one changed, and this often besides (default routes move).
REFRESH_SECONDS = 5.0
MIN_INTERVAL = 0.05
#: The most of an interval that goes into reading payloads. What is left in the rings then waits, and may be lost, which
#: is counted: names must not keep the meter from its tables.
NAMES_SHARE = 0.5
#: The most of an interval that its end waits for payloads that are still in the rings.
_LAST_LOOK_SHARE = 0.1
#: The end of the last one waits so long at most: what it leaves in the rings nobody reads.
_CLOSING_SECONDS = 5.0
#: Payloads are taken at least this often; programs wake the reader only when a ring fills.
_LOOK_SECONDS = 0.2


class Monitor:
    """Meters devices of the calling thread's network namespace while the context manager is open.

    >>> with Monitor("eth0", interval=1.0) as monitor:      # doctest: +SKIP
    ...     for batch in monitor:
    ...         print(len(batch.flows), batch.audit)
    """

    def __init__(
        self,
        *interfaces: str,
        interval: float = 1.0,
        attach: RequestedMode = "auto",
        flow_table: int | None = None,
        program: str | os.PathLike[str] | None = None,
        bpf_stats: bool = False,
        max_devices: int = 32,
        names: NameOptions | None = None,
    ) -> None:
        """Nothing is opened yet.

        interfaces: device names, globs, or "auto" (also without any): those that carry the default routes.
        interval: seconds between batches, at least 0.05. attach: "auto", "xdp", "xdp-generic", "tcx" or
        "capture" (packet sockets, without BPF).
        flow_table: lines of each CPU's table, a power of two; None follows the memory there is.
        program: another compiled object. bpf_stats: have the kernel time every program run (costs some 20 ns each).
        names: what to read of payloads; None: NameOptions(), which is all but paths.
        Raises InputError for a value out of range.
        """
        if not interval >= MIN_INTERVAL:
            raise InputError(f"an interval of {interval} s: it must be at least {MIN_INTERVAL} s")
        if attach not in REQUESTED_MODES:
            raise InputError(f"attach mode {attach!r}: it must be one of {', '.join(REQUESTED_MODES)}")
        if attach == "capture" and (program or bpf_stats):
            raise InputError("attach mode 'capture' runs no program: there is none to choose, and none to time")
        self._patterns = interfaces or ("auto",)
        self._interval_seconds = interval
        self._requested = attach
        self._flow_table = flow_table
        self._program = Path(program) if program else None
        self._bpf_stats = bpf_stats
        self._max_devices = max_devices
        self._names = names or NameOptions()
        self._resources = contextlib.ExitStack()
        self._closing = False
        self._driven_by: str = ""
        self._subscribers: list[Callable[[FlowBatch], None]] = []
        self._driver: threading.Thread | None = None
        self._wake_read = self._wake_write = -1
        self._tracker: Tracker | None = None

    # -- opening and closing

    def __enter__(self) -> Self:
        """Makes the tables and attaches.

        Raises InputError, PermissionNeeded or KernelError, with nothing left attached.
        """
        if self._tracker:
            raise InputError("this Monitor is open already: make another one")
        with contextlib.ExitStack() as opening:
            host = read_host()
            capturing = self._requested == "capture"
            problems = capture_problems(host) if capturing else host_problems(host)
            if problems:
                kind = PermissionNeeded if host.missing_capabilities_for(self._requested) else InputError
                raise kind(" ".join(problems))
            cpus = 1 if capturing else host.cpu_numbers
            plan = plan_tables(cpus, self._flow_table, host.memory_limit_bytes, 2 * self._max_devices)
            self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            opening.callback(self._close_wake)
            self._naming = Naming(self._names) if self._names.limit else None
            if self._naming:
                self._naming.know_own(own_addresses())
            self._engine: LiveEngine
            if capturing:
                self._engine = opening.enter_context(
                    CaptureEngine(plan, payload_limit=self._names.limit, payload_sources=self._names.sources)
                )
            else:
                self._engine = opening.enter_context(
                    KernelEngine(
                        plan,
                        self._program,
                        payload_limit=self._names.limit,
                        payload_sources=self._names.sources,
                        statistics=self._bpf_stats,
                    )
                )
            self._watch = opening.enter_context(LinkWatch())
            self._auditor = opening.enter_context(Auditor())
            self._tracker = Tracker(self._engine, host, self._patterns, self._requested)
            self._tracker.start()
            self._early = opening.enter_context(EarlyFlips(self._engine))
            self._resources = opening.pop_all()
        self._let_go: list[Metered] = []
        others = (self._early.fileno(), self._watch.fileno(), self._wake_read)
        rings = (ring.fileno() for ring in self._engine.payload_rings)
        self._waiting = self._epoll(*others, *rings)
        # A ring that nobody reads any more in this interval stays readable: who waits for it does not wait.
        self._waiting_for_others = self._epoll(*others)
        self._begin()
        return self

    def _epoll(self, *fds: int) -> select.epoll:
        made = select.epoll()
        self._resources.callback(made.close)
        for fd in fds:
            made.register(fd, select.EPOLLIN)
        return made

    def __exit__(self, *exception: object) -> None:
        self.close()
        if self._driver and self._driver is not threading.current_thread():
            self._driver.join()
        if self._naming:
            self._naming.close()
        self._resources.close()

    def close(self) -> None:
        """Asks the monitor to end: whoever iterates gets one more batch, up to now, and then no more.

        May be called from any thread, from a signal handler, and twice.
        """
        self._closing = True
        if self._wake_write >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"x")

    def _close_wake(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._wake_read = self._wake_write = -1

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What is attached now."""
        return tuple(m.attachment for m in self._tracker.metered) if self._tracker else ()

    # -- three ways to take batches

    def __iter__(self) -> Iterator[FlowBatch]:
        self._drive("an iterator")
        while (batch := self._next_batch()) is not None:
            yield batch
            del batch  # not to be held while the next is made

    async def __aiter__(self) -> AsyncIterator[FlowBatch]:
        self._drive("an async iterator")
        while (batch := await asyncio.to_thread(self._next_batch)) is not None:
            yield batch
            del batch

    def subscribe(self, callback: Callable[[FlowBatch], None]) -> Callable[[], None]:
        """Has `callback` called with each batch, in a thread of the monitor's; returns what ends the subscription.

        An exception in a callback is logged and changes nothing for the others.
        """
        self._subscribers.append(callback)
        if self._driver is None:
            self._drive("subscribers")
            self._driver = threading.Thread(target=self._run_subscribers, name="wiremeter", daemon=True)
            self._driver.start()

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.remove(callback)

        return unsubscribe

    def _run_subscribers(self) -> None:
        while (batch := self._next_batch()) is not None:
            for callback in tuple(self._subscribers):
                try:
                    callback(batch)
                except Exception:
                    log.exception("a subscriber failed; it stays subscribed")
            del batch

    def _drive(self, who: str) -> None:
        if not self._tracker:
            raise InputError("the Monitor is not open: use it as `with Monitor(...) as monitor:`")
        if self._driven_by:
            raise InputError(f"batches of this Monitor go to {self._driven_by} already: each can go one way only")
        self._driven_by = who

    # -- an interval

    def _begin(self) -> None:
        self._interval = Interval()
        self._positions: dict[int, int] = {}  # attachment id → place in the batch
        self._in_batch: list[Attachment] = []
        self._started_ns = time.time_ns()
        self._deadline = time.monotonic() + self._interval_seconds
        self._refresh_at = time.monotonic() + REFRESH_SECONDS
        self._names_left = NAMES_SHARE * self._interval_seconds  # seconds left for payloads in this interval
        self._payloads_wait = False
        self._ended = False

    def _next_batch(self) -> FlowBatch | None:
        """Waits until the interval ends, taking up what early flips bring; None after the last batch."""
        if self._ended:
            return None
        while not self._closing:
            left = self._deadline - time.monotonic()
            if left <= 0:
                break
            if self._naming:
                left = 0 if self._payloads_wait else min(left, _LOOK_SECONDS)
            waiting = self._waiting if self._names_left > 0 else self._waiting_for_others
            ready = {fd for fd, _ in waiting.poll(left)}
            if self._early.fileno() in ready:
                with self._early.paused():
                    self._add(self._early.take())
            if self._watch.fileno() in ready:
                self._watch.read()
                self._refresh()
            self._payloads_wait = self._names_left > 0 and self._read_payloads()
        if time.monotonic() >= self._refresh_at and not self._closing:
            self._refresh()
        self._ended = self._closing
        return self._close_interval()

    def _read_payloads(self) -> bool:
        """Reads a block of each ring; returns whether there may be more."""
        if not self._naming:
            return False
        assert self._tracker
        began = time.monotonic()
        # Loopback shows each packet as tx and as rx: it said what it says once.
        devices = {
            m.kernel.id: m.attachment.ifindex
            for m in (*self._tracker.metered, *self._let_go)
            if not (m.device.is_loopback and m.attachment.direction == "rx")
        }
        found = 0
        for ring in self._engine.payload_rings:
            with self._early.paused():
                block = self._engine.take_payloads(ring)
            found += len(block)
            self._naming.feed(block, devices)
        self._names_left -= time.monotonic() - began
        return found > 0

    def _refresh(self) -> None:
        assert self._tracker
        with self._early.paused():
            self._add(self._early.take())
            self._let_go += self._tracker.refresh()
        if self._naming:
            self._naming.know_own(own_addresses())
        self._refresh_at = time.monotonic() + REFRESH_SECONDS

    def _flip(self) -> None:
        with self._early.paused():
            self._add([*self._early.take(), self._engine.flip()])

    def _add(self, drains: list[Drain]) -> None:
        """Adds what flips brought. Before attachments change: a slot may have another owner then."""
        assert self._tracker
        for drain in drains:
            slots = {m.kernel.id: m.attachment for m in self._tracker.metered}
            # Counts of those let go come with the next flip, and perhaps, a few, with the one after.
            slots |= {m.kernel.id: m.attachment for m in self._let_go if drain.counters[m.kernel.id].any()}
            self._interval.add(drain, {slot: self._position(a) for slot, a in slots.items()})
        if drains:
            self._let_go = [m for m in self._let_go if self._engine.holds(m.kernel)]

    def _position(self, attachment: Attachment) -> int:
        position = self._positions.setdefault(attachment.id, len(self._in_batch))
        if position == len(self._in_batch):
            self._in_batch.append(attachment)
        self._in_batch[position] = attachment  # its device may have another name by now
        return position

    def _close_interval(self) -> FlowBatch:
        assert self._tracker
        is_last = self._ended  # close() may be called from now on: then one more batch follows
        self._auditor.read()
        ended_ns = time.time_ns()
        self._flip()
        last_look = min(self._names_left, _LAST_LOOK_SHARE * self._interval_seconds)
        self._names_left = _CLOSING_SECONDS if is_last else last_look
        while self._names_left > 0 and self._read_payloads():
            pass
        interval, attachments = self._interval, tuple(self._in_batch)
        merging = time.monotonic()
        flows = interval.flows()
        drain_seconds = interval.drain_seconds + time.monotonic() - merging
        by_position = tallies_by_attachment(flows, len(attachments)) if attachments else []
        metered = {m.attachment.id: m for m in self._tracker.metered}
        batch = FlowBatch(
            start_ns=self._started_ns,
            end_ns=ended_ns,
            attachments=attachments,
            flows=flows,
            counters=interval.counters(),
            ethertypes=interval.ethertypes(),
            audit=tuple(self._auditor.audits(interval, attachments, by_position, metered)),
            health=self._health(interval, drain_seconds),
        )
        if self._naming:
            batch = self._naming.add(batch, interval.sent_payloads(), interval.lost_payloads(), last=is_last)
        deadline = self._deadline
        refresh_at = self._refresh_at
        self._begin()
        self._ended = is_last
        self._refresh_at = refresh_at
        self._started_ns = ended_ns
        # Intervals keep their beat; one that was missed altogether is not made up for.
        now = time.monotonic()
        self._deadline = deadline + self._interval_seconds * max(1, 1 + (now - deadline) // self._interval_seconds)
        return batch

    def _health(self, interval: Interval, drain_seconds: float) -> Health:
        assert self._tracker
        plan = self._engine.plan
        programs = []
        if self._bpf_stats:
            for metered in self._tracker.metered:
                info = metered.kernel.info()
                programs.append(
                    ProgramStats(metered.attachment.device, metered.attachment.direction, info.run_ns, info.runs)
                )
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
            programs=tuple(programs),
        )
