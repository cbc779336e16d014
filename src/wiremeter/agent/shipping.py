"""The shipper that settings ask for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wiremeter.agent.identity import agent_id
from wiremeter.settings import Settings

if TYPE_CHECKING:
    from wiremeter.sinks.shipping.shipper import Options, Shipper

log = logging.getLogger(__name__)


@contextlib.contextmanager
def shipped(in_force: Callable[[], Settings]) -> Iterator[Shipper | None]:
    """A shipper for as long as the block runs; None without a server. Before anything is attached: then what is wrong
    with it changes nothing.

    in_force: gives the settings of now.
    Raises InputError for a server, a spool or an expression that cannot be used.
    """
    settings = in_force()
    if settings.server is None:
        yield None
        return
    from wiremeter.agent.heartbeat import Heartbeats
    from wiremeter.sinks.shipping.shipper import Shipper  # 8 MB that an agent without a server saves

    with Shipper(shipping_options(settings, _agent(settings)), Heartbeats(in_force)) as shipper:
        yield shipper


def shipping_options(settings: Settings, agent: str) -> Options:
    """What a shipper is told. Raises InputError for an expression that cannot be read."""
    from wiremeter.flows.filter import compile_filter
    from wiremeter.sinks.shipping.delivery import Server
    from wiremeter.sinks.shipping.shipper import Options

    assert settings.server
    return Options(
        agent=agent,
        server=Server(
            settings.server, settings.token_file, settings.server_ca, settings.client_cert, settings.client_key
        ),
        spool_dir=_spool_dir(settings),
        spool_bytes=settings.spool_size,
        memory_bytes=settings.ship_memory,
        rate=settings.ship_rate,
        heartbeat=settings.heartbeat,
        ignore=[compile_filter(expression) for expression in settings.ignore],
    )


def _spool_dir(settings: Settings) -> Path | None:
    if settings.spool_dir is not None:
        return Path(settings.spool_dir) if settings.spool_dir else None
    return Path(settings.state_dir, "spool") if settings.state_dir else None


def _agent(settings: Settings) -> str:
    found = agent_id(settings.agent_id, Path(settings.state_dir) if settings.state_dir else None)
    log.info("this agent", extra={"id": found.id, "source": found.source})
    return found.id
