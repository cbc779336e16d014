"""The watch of a server: made from its settings, and its rules read again when it is told to."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from wiremeter.errors import InputError
from wiremeter.server.alerts.book import Book
from wiremeter.server.alerts.outputs import Alertmanager, Apprise, Output, Webhook
from wiremeter.server.alerts.rules import Rule, read_rules
from wiremeter.server.alerts.watch import Watch
from wiremeter.server.store import QueryLimits, State, Store
from wiremeter.settings.catalogue import Alerting

log = logging.getLogger(__name__)

#: What one rule may take.
LIMITS = QueryLimits(seconds=20.0, memory_bytes=100 << 20, rows=10_000, result_bytes=16 << 20)
#: The page of the shipped rules, as the server has it.
PAGE = "/docs/alerts"


@contextlib.contextmanager
def open_watch(settings: Alerting, directory: Path, store: Store, url: str) -> Iterator[Watch]:
    """The watch, begun, until the block ends. url: where the server listens.

    Raises InputError for rules and outputs that are wrong: a server that does not watch shall not look as if it did.
    """
    public_url = settings.public_url or url
    book = Book(directory / "alerts.sqlite")
    try:
        watch = Watch(
            book,
            rules_in(settings),
            list(_outputs(settings, public_url)),
            query=lambda sql: query(store, sql),
            server=lambda: server_numbers(store.state),
            group_by=settings.alert_group_by,
            step_seconds=settings.alert_interval,
            repeat_seconds=settings.alert_repeat,
            links=public_url + PAGE,
        )
        watch.start()
        try:
            yield watch
        finally:
            watch.stop()
    finally:
        book.close()


def rules_in(settings: Alerting) -> list[Rule]:
    """The rules that settings name. Raises InputError."""
    return read_rules(map(Path, settings.alert_rules), settings.alert_shipped)


def read_again(watch: Watch, settings: Alerting) -> None:
    """Takes the rules as their files are now; if those are wrong, the rules of before stay. Raises nothing."""
    try:
        rules = rules_in(settings)
    except InputError as error:
        log.error("the alert rules cannot be read again: those of before stay", extra={"reason": str(error)})
        return
    watch.change(rules)
    log.info("the alert rules were read again", extra={"rules": len(rules)})


def query(store: Store, sql: str) -> pa.Table:
    """Runs a rule's statement."""
    return store.query_untrusted(sql, limits=LIMITS, asker="rules").table()


def server_numbers(state: State) -> Mapping[str, float]:
    """What the helper `server` has."""
    return {
        "full": float(state.full is not None),
        "disk_free_bytes": float(state.disk_free_bytes),
        "disk_reserve_bytes": float(state.disk_reserve_bytes),
        "batches_waiting": float(state.batches_waiting),
        "bytes_waiting": float(state.bytes_waiting),
        "dropped_rows": float(state.dropped_rows),
        "engine_restarts": float(state.engine_restarts),
    }


def _outputs(settings: Alerting, public_url: str) -> Iterator[Output]:
    for url in settings.alertmanagers:
        yield Alertmanager(url, public_url)
    for url in settings.alert_webhooks:
        yield Webhook(url, public_url)
    if settings.alert_apprise:
        yield Apprise(settings.alert_apprise)
