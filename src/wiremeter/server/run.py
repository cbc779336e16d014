"""The server: its parts opened in order, and its life until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from wiremeter import __version__
from wiremeter.errors import InputError
from wiremeter.linux.listening import bind
from wiremeter.linux.service_manager import ServiceManager
from wiremeter.server.access.gate import Gate
from wiremeter.server.access.hosts import is_loopback
from wiremeter.server.access.rates import Rates
from wiremeter.server.access.tokens import TokenFile
from wiremeter.server.alerts.metrics import AlertMetrics
from wiremeter.server.alerts.opening import open_watch, read_again
from wiremeter.server.alerts.routes import routes as alert_routes
from wiremeter.server.alerts.watch import Watch
from wiremeter.server.directory import TOKENS_FILE, data_directory
from wiremeter.server.fleet.metrics import FleetMetrics
from wiremeter.server.fleet.registry import Registry
from wiremeter.server.http.app import Parts, build_app
from wiremeter.server.http.readiness import Readiness
from wiremeter.server.http.serving import Serving
from wiremeter.server.http.tls import TlsFiles
from wiremeter.server.http.whoami import whoami_routes
from wiremeter.server.ingest.body import Room
from wiremeter.server.ingest.intake import Intake
from wiremeter.server.ingest.quarantine import Quarantine
from wiremeter.server.live.hub import Live
from wiremeter.server.live.routes import live_routes
from wiremeter.server.query.routes import routes
from wiremeter.server.store import Keep, Store, open_store
from wiremeter.server.store.sql import shown_url
from wiremeter.server.web import page
from wiremeter.settings.catalogue import Server
from wiremeter.settings.values import Listen

log = logging.getLogger(__name__)

#: Seconds' worth of `--agent-rate` that may come at once: a backlog's batches, and the largest one.
_BURST_SECONDS = 4


def check_exposure(settings: Server, *, has_tokens: bool) -> bool:
    """Whether who shows nothing may do everything.

    Raises InputError where other hosts could connect and nobody said in words that they may do so unprotected.
    """
    listen = settings.server_listen
    has_proofs = has_tokens or bool(settings.tls_client_ca)
    if not is_loopback(listen.host):
        if not (settings.tls_cert or settings.plaintext):
            raise InputError(
                f"{listen} can be reached by other hosts, and without TLS they could read tokens and flows: give "
                "--tls-cert and --tls-key, or say --plaintext"
            )
        if settings.authentication != "off" and not has_proofs:
            raise InputError(
                f"{listen} can be reached by other hosts, and there is no token yet: make one with "
                "`wiremeter token create NAME`, or give --tls-client-ca, or say --authentication off"
            )
    if settings.tls_client_ca and not settings.tls_cert:
        raise InputError("--tls-client-ca needs --tls-cert and --tls-key: certificates come with TLS")
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise InputError("--tls-cert and --tls-key go together")
    if settings.authentication == "auto":
        return is_loopback(listen.host) and not has_proofs
    return settings.authentication == "off"


def _open_store(where: str, directory: Path, keep: Keep) -> Store:
    """A store elsewhere keeps here what is on its way to it."""
    return open_store(where, directory=str(directory / "store") if "://" in where else None, keep=keep)


async def run(settings: Server, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Serves until SIGINT or SIGTERM. on_ready: called with the server's URL once it can be asked.

    Raises InputError, PermissionNeeded or StoreError if it cannot start.
    """
    directory = data_directory(settings.data_dir)
    tokens = TokenFile(directory / TOKENS_FILE)
    is_open = check_exposure(settings, has_tokens=any(token.revoked is None for token in tokens.all()))
    tls = None
    if settings.tls_cert and settings.tls_key:
        client_ca = Path(settings.tls_client_ca) if settings.tls_client_ca else None
        tls = TlsFiles(Path(settings.tls_cert), Path(settings.tls_key), client_ca)
    _make(directory)
    where = settings.store or str(directory / "store")
    keep = Keep(days=settings.keep_days, size_bytes=settings.store_size)
    with contextlib.ExitStack() as resources:
        listening = resources.enter_context(bind(settings.server_listen, "server_listen"))
        store = resources.enter_context(await asyncio.to_thread(_open_store, where, directory, keep))
        registry = await asyncio.to_thread(Registry, store)
        fleet = FleetMetrics(__version__, registry, lambda: store.state)
        quarantine = Quarantine(directory / "quarantine", settings.quarantine_size)
        metrics = CollectorRegistry(auto_describe=False)
        metrics.register(fleet)
        live = Live()
        metrics.register(live)
        store.on_stored(live.take)
        parts = Parts(
            store=store,
            gate=Gate(tokens, is_open=is_open),
            registry=registry,
            intake=Intake(store, quarantine, registry, fleet),
            quarantine=quarantine,
            metrics=metrics,
            rates=Rates(settings.agent_rate, _BURST_SECONDS * settings.agent_rate),
            room=Room(),
            readiness=Readiness(lambda: store.query("SELECT 1").table()),
            is_local=is_loopback(settings.server_listen.host),
        )
        url = f"{'https' if tls else 'http'}://{Listen(*listening.getsockname()[:2])}"
        watch = resources.enter_context(open_watch(settings, directory, store, url))
        metrics.register(AlertMetrics(watch))
        handlers = [*routes(), *live_routes(live), *whoami_routes(), *alert_routes(watch), *page.routes()]
        serving = Serving(build_app(parts, handlers), tls)
        manager = ServiceManager()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _stop, serving, manager, live)
        loop.add_signal_handler(signal.SIGHUP, _look_again, tls, watch, settings)
        log.info("the server is ready", extra={"url": url, "store": shown_url(where)})
        if is_open:
            log.warning("whoever can connect may read and write: there is no authentication", extra={"url": url})
        manager.ready(f"serving at {url}")
        on_ready(url)
        async with live, manager.watched(lambda: True):  # the loop turns, or it is not told
            await serving.serve_on(listening)


def _stop(serving: Serving, manager: ServiceManager, live: Live) -> None:
    manager.stopping()
    live.close()
    serving.stop()


def _look_again(tls: TlsFiles | None, watch: Watch, settings: Server) -> None:
    if tls:
        tls.look()
    # A round may be under way, which a change of rules waits for.
    threading.Thread(target=read_again, args=(watch, settings), name="alert-rules", daemon=True).start()


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(f"{directory}: the server's directory cannot be made: {error.strerror}; --data-dir") from error
