"""Monitor: the live meter. Devices in, one FlowBatch each interval out."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Self

from wiremeter.datapath.naming import NameOptions
from wiremeter.errors import InputError
from wiremeter.flows.batch import Attachment, FlowBatch, Mark
from wiremeter.flows.filter import compile_filter
from wiremeter.linux.devices import name_as_text
from wiremeter.metering.attach_policy import request_problem
from wiremeter.metering.session import Options, Session, opened
from wiremeter.settings.values import seconds_of
from wiremeter.settings.words import FLOWS_MAX, REQUESTED_MODES, SHORTEST_INTERVAL, RequestedMode

log = logging.getLogger(__name__)


class Monitor:
    """Meters devices of the calling thread's network namespace while the context manager is open.

    >>> with Monitor("eth0", interval=1.0) as monitor:      # doctest: +SKIP
    ...     for batch in monitor:
    ...         print(len(batch.flows), batch.audit)
    """

    def __init__(
        self,
        *interfaces: str,
        interval: float | str = 1.0,
        filter: str = "",
        attach: RequestedMode = "auto",
        flow_table: int | None = None,
        program: str | os.PathLike[str] | None = None,
        bpf_stats: bool = False,
        max_devices: int = 32,
        max_flows: int = FLOWS_MAX,
        names: NameOptions | None = None,
        urgent: bool = False,
        pin: str | os.PathLike[str] | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        told: Mark | None = None,
    ) -> None:
        """Nothing is opened yet.

        interfaces: device names, globs, or "auto" (also without any): those that carry the default routes.
        interval: seconds between batches, at least 0.05, or text such as "500ms". filter: only flows that match are in
        the batches, as FlowBatch.filter has them. attach: "auto", "xdp", "xdp-generic", "tcx" or
        "capture" (packet sockets, without BPF).
        flow_table: lines of each CPU's table, a power of two; None follows the memory there is.
        program: another compiled object. bpf_stats: have the kernel time every program run (costs some 20 ns each).
        max_devices: most devices at a time. max_flows: most flows in a batch, less where memory is short; what finds no
        room is in audit.unattributed, as "batch_full". Memory while a batch is made follows it.
        names: what to read of payloads; None: NameOptions(), which is all but paths.
        urgent: read tables that fill up before anything else that this host does, by raising the priority of the thread
        that does so; for a process whose business is metering.
        pin: a directory in a bpffs where programs and tables outlive this process, and the next one takes them over;
        needs a state_dir, where a journal is kept of what was read and not told. told: the mark of the last batch that
        a process before this one has told, whose tables these are.
        Raises InputError for a value out of range.
        """
        interval = seconds_of(interval)
        if not interval >= SHORTEST_INTERVAL:
            raise InputError(f"an interval of {interval} s: it must be at least {SHORTEST_INTERVAL} s")
        if max_flows < 1 or max_devices < 1:
            raise InputError(f"max_flows={max_flows}, max_devices={max_devices}: each must be above 0")
        if attach not in REQUESTED_MODES:
            raise InputError(f"attach mode {attach!r}: it must be one of {', '.join(REQUESTED_MODES)}")
        if problem := request_problem(attach, program, bpf_stats=bpf_stats):
            raise InputError(problem)
        self._options = Options(
            patterns=tuple(map(name_as_text, interfaces)) or ("auto",),
            interval=interval,
            attach=attach,
            flow_table=flow_table,
            program=Path(program) if program else None,
            bpf_stats=bpf_stats,
            max_devices=max_devices,
            max_flows=max_flows,
            names=names or NameOptions(),
            urgent=urgent,
            pin=Path(pin) if pin else None,
            state_dir=Path(state_dir) if state_dir else None,
            told=told,
        )
        self._filter = compile_filter(filter)
        self._resources = contextlib.ExitStack()
        self._session: Session | None = None
        self._is_closed = False
        self._driven_by = ""
        self._failure: BaseException | None = None  # of the subscribers' thread
        self._subscribers: list[Callable[[FlowBatch], None]] = []

    # -- opening and closing

    def __enter__(self) -> Self:
        """Makes the tables and attaches.

        Raises InputError, PermissionNeeded or KernelError, with nothing left attached.
        """
        if self._session:
            raise InputError("this Monitor is open already: make another one")
        self._session = self._resources.enter_context(opened(self._options))
        if self._is_closed:  # meanwhile, by a signal or another thread
            self._session.stop()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """Raises what ended the thread of the subscribers, if nothing else is being raised."""
        self.close()
        self._resources.close()
        if self._failure and kind is None:
            raise self._failure

    def close(self) -> None:
        """Asks the monitor to end: whoever iterates gets one more batch, up to now, and then no more.

        May be called from any thread, from a signal handler, and twice.
        """
        self._is_closed = True
        if self._session:
            self._session.stop()

    def told(self, mark: Mark) -> None:
        """Says that a batch of that mark, and all before it, arrived: no monitor will bring them again."""
        if self._session:
            self._session.told(mark)

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What is attached now."""
        return self._session.attachments if self._session else ()

    # -- three ways to take batches

    def __iter__(self) -> Iterator[FlowBatch]:
        session = self._drive("an iterator")
        while (batch := session.next_batch()) is not None:
            yield batch.filter(self._filter)
            del batch  # not to be held while the next is made

    async def __aiter__(self) -> AsyncIterator[FlowBatch]:
        import asyncio  # who does not iterate so does without it

        session = self._drive("an async iterator")
        while (batch := await asyncio.to_thread(session.next_batch)) is not None:
            yield batch.filter(self._filter)
            del batch

    def subscribe(self, callback: Callable[[FlowBatch], None]) -> Callable[[], None]:
        """Has `callback` called with each batch, in a thread of the monitor's; returns what ends the subscription.

        An exception in a callback is logged and changes nothing for the others. One that ends metering is logged, and
        raised as the monitor's block is left.
        """
        if self._driven_by != "subscribers":
            session = self._drive("subscribers")
            driver = threading.Thread(target=self._run_subscribers, args=(session,), name="wiremeter", daemon=True)
            self._resources.callback(_join, driver)
            self._subscribers.append(callback)
            driver.start()
        else:
            self._subscribers.append(callback)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.remove(callback)

        return unsubscribe

    def _run_subscribers(self, session: Session) -> None:
        try:
            self._tell_subscribers(session)
        except BaseException as failure:
            log.error("metering has ended, no more batches come", exc_info=failure)
            self._failure = failure

    def _tell_subscribers(self, session: Session) -> None:
        while (batch := session.next_batch()) is not None:
            batch = batch.filter(self._filter)
            for callback in tuple(self._subscribers):
                try:
                    callback(batch)
                except Exception:
                    log.exception("a subscriber failed; it stays subscribed")
            del batch

    def _drive(self, who: str) -> Session:
        if not self._session:
            raise InputError("the Monitor is not open: use it as `with Monitor(...) as monitor:`")
        if self._driven_by:
            raise InputError(f"batches of this Monitor go to {self._driven_by} already: each can go one way only")
        self._driven_by = who
        return self._session


def _join(thread: threading.Thread) -> None:
    """Waits for a thread, unless it is the one that waits: a subscriber may leave the monitor's block, too."""
    if thread is not threading.current_thread():
        thread.join()
