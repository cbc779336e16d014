"""The agent: batches from the meter to the sinks, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from prometheus_client import CollectorRegistry, ProcessCollector

from wiremeter import __version__
from wiremeter.agent.basic_auth import guarded
from wiremeter.agent.handed_over import HandedOver
from wiremeter.agent.http import make_app
from wiremeter.agent.meter import open_monitor
from wiremeter.agent.reload import InForce, Reload
from wiremeter.agent.shipping import shipped
from wiremeter.agent.vitals import Vitals
from wiremeter.agent.watch import Notice, Watch, attachment_fields
from wiremeter.agent.web_config import WebConfigFile, lacking
from wiremeter.flows.batch import Attachment, FlowBatch, Mark
from wiremeter.linux.service_manager import ServiceManager
from wiremeter.linux.terminal import Terminal
from wiremeter.settings import Listen, Settings
from wiremeter.sinks.kept_totals import KeptTotals
from wiremeter.sinks.prometheus import PrometheusSink

if TYPE_CHECKING:
    from wiremeter.sinks.shipping.shipper import Shipper

log = logging.getLogger(__name__)

#: Both end the agent the clean way, since clsact filters would outlive a killed process.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Meter(Protocol):
    """What the loop needs of wiremeter.Monitor."""

    @property
    def attachments(self) -> tuple[Attachment, ...]: ...

    def close(self) -> None: ...

    def told(self, mark: Mark) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[FlowBatch]: ...


async def run(
    settings: Settings,
    open_meter: Callable[[Settings], Meter] | None = None,
    reread: Callable[[], Settings] | None = None,
) -> None:
    """Meters until SIGTERM or SIGINT, or until the terminal is closed, then detaches and returns.

    reread: gives the settings once more, on SIGHUP. None: those of the start again.
    Raises InputError, PermissionNeeded or KernelError if it cannot start, with nothing left attached.
    """
    log.info("starting", extra={"version": __version__, "interfaces": ",".join(settings.interfaces)})
    kept = KeptTotals(Path(settings.state_dir, "totals.json")) if settings.state_dir else None
    sink = PrometheusSink(__version__, domains=settings.domains, dns_servers=settings.dns_servers, kept=kept)
    vitals = Vitals(settings.interval)
    manager = ServiceManager()
    stop = _Stop(vitals, manager)
    in_force = InForce(settings)
    with (
        kept.locked() if kept else contextlib.nullcontext(),
        _on_signals(_STOP_SIGNALS, stop),
        shipped(lambda: in_force.settings) as shipper,
        _on_signals([signal.SIGHUP], _Hangup(stop, Reload(in_force, reread or (lambda: settings), shipper))),
        served(settings.listen, sink, vitals, shipper, web_config_file=settings.web_config_file),
        open_meter(settings) if open_meter else open_monitor(settings, kept.mark if kept else None) as meter,
    ):
        stop.meter = meter
        vitals.attached(len(meter.attachments))
        for attachment in meter.attachments:
            log.info("attached", extra=attachment_fields(attachment))
        manager.ready(f"metering: {len(meter.attachments)} programs attached")
        watch = Watch(meter.attachments)
        handed_over = _handed_over(settings, shipper)
        async with manager.watched(lambda: vitals.healthy().good):
            async for batch in meter:
                # Totals are kept last: what they say was told is where it belongs.
                if handed_over:
                    await asyncio.to_thread(handed_over.write, batch)
                elif shipper:
                    shipper.write(batch)
                await asyncio.to_thread(sink.write, batch)
                if kept and kept.mark:
                    meter.told(kept.mark)
                vitals.batch_arrived(len(batch.attachments))
                _log(watch.look(batch))
                del batch  # megabytes, until the next one is here
        await asyncio.to_thread(sink.close)
        if kept and kept.mark:
            meter.told(kept.mark)
        _log(watch.rest())
    log.info("stopped")


def _handed_over(settings: Settings, shipper: Shipper | None) -> HandedOver | None:
    """Only tables that are pinned bring a batch again."""
    if not (shipper and settings.pin and settings.state_dir):
        return None
    return HandedOver(shipper, Path(settings.state_dir, "shipping.json"))


def _log(notices: Iterable[Notice]) -> None:
    for notice in notices:
        log.log(notice.level, notice.message, extra=dict(notice.fields))


class _Stop:
    """Ends the loop, whether the meter is open yet or not."""

    def __init__(self, vitals: Vitals, manager: ServiceManager) -> None:
        self._vitals = vitals
        self._manager = manager
        self.meter: Meter | None = None

    def __call__(self, number: signal.Signals) -> None:
        log.info("stopping", extra={"signal": number.name})
        self._vitals.stopping()
        self._manager.stopping()
        if self.meter:
            self.meter.close()


class _Hangup:
    """On SIGHUP: settings are read again, as operators of daemons expect, unless the terminal was closed."""

    def __init__(self, stop: Callable[[signal.Signals], None], reload: Callable[[], None]) -> None:
        self._stop, self._reload = stop, reload
        self._terminal = Terminal()

    def __call__(self, number: signal.Signals) -> None:
        if self._terminal.is_gone():
            self._stop(number)
        else:
            self._reload()


@contextlib.contextmanager
def _on_signals(numbers: Collection[signal.Signals], handle: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Signals that come while the meter opens wait in the event loop until it has."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def served(
    listen: Listen | None,
    sink: PrometheusSink,
    vitals: Vitals,
    shipper: Shipper | None = None,
    *,
    web_config_file: str | None = None,
) -> Iterator[None]:
    """/metrics for as long as the block runs; before anything is attached, so a port in use changes nothing.

    web_config_file: who may read it (agent.web_config). Raises InputError for one that cannot be used.
    """
    if listen is None:
        yield
        return
    from wiremeter.agent.http_server import serve  # 3 MB that an agent without it saves

    web = WebConfigFile(web_config_file) if web_config_file else None
    registry = CollectorRegistry()
    registry.register(sink)
    if shipper:
        from wiremeter.sinks.shipping.metrics import ShippingMetrics

        registry.register(ShippingMetrics(lambda: shipper.state))
    ProcessCollector(registry=registry)
    app, tls = make_app(registry, vitals, __version__), None
    if web:
        app, tls = guarded(app, web.current), lambda: web.current().tls
    with serve(listen, app, tls or (lambda: None)) as taken:
        is_secure = web is not None and web.current().tls is not None
        log.info("serving", extra={"metrics": f"{'https' if is_secure else 'http'}://{taken}/metrics"})
        if not taken.is_loopback and (missing := lacking(web.current() if web else None)):
            log.warning(
                "whoever reaches the port can read the metrics: use --web-config-file, or listen on 127.0.0.1",
                extra={"without": ",".join(missing)},
            )
        yield
