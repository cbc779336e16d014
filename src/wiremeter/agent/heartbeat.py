"""What an agent says of itself to its server, every half minute."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator

from wiremeter import __version__
from wiremeter.errors import KernelError
from wiremeter.flows.batch import Attachment
from wiremeter.linux.inventory import read_inventory
from wiremeter.linux.surroundings import read_surroundings
from wiremeter.reports.findings import Finding
from wiremeter.settings import Settings
from wiremeter.shipment.heartbeat import Device, Heartbeat, Host, Spool, Told, to_json
from wiremeter.sinks.shipping.shipper import State

log = logging.getLogger(__name__)


class Heartbeats:
    """Makes the bodies of heartbeats from a shipper's state."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        """settings: gives those in force."""
        self._settings = settings
        self._started_ns, self._began = time.time_ns(), time.monotonic()
        # What else may change while a process lives: the name of a host, not what it runs in.
        self._surroundings = read_surroundings()

    def __call__(self, state: State) -> bytes:
        """One of now."""
        settings, waiting = self._settings(), state.waiting.values()
        oldest = [found.oldest_ns for found in waiting if found.oldest_ns is not None]
        return to_json(
            Heartbeat(
                agent=state.identity.agent,
                boot=state.identity.boot,
                version=__version__,
                started_ns=self._started_ns,
                uptime_seconds=time.monotonic() - self._began,
                interval_seconds=settings.interval,
                settings_hash=settings_hash(settings),
                clock_ns=time.time_ns(),
                spool=Spool(
                    batches=sum(found.batches for found in waiting),
                    bytes=sum(found.bytes for found in waiting),
                    oldest_ns=min(oldest, default=None),
                    dropped=state.dropped,
                ),
                host=Host(**self._surroundings._asdict()),
                devices=list(_devices(state.attachments)),
                findings=[_told(finding) for finding in (*state.findings, *state.found)],
            )
        )


def settings_hash(settings: Settings) -> str:
    """16 characters that change when a setting does; of files only the paths count."""
    text = repr(sorted(dataclasses.asdict(settings).items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _devices(attachments: Iterable[Attachment]) -> Iterator[Device]:
    attach: dict[tuple[int, str], dict[str, str]] = {}
    for each in attachments:
        attach.setdefault((each.ifindex, each.device), {})[each.direction] = each.mode
    try:
        facts = {found.ifindex: found for found in read_inventory({ifindex for ifindex, _ in attach})}
    except KernelError as error:
        log.warning("cannot tell the server about devices", extra={"why": str(error)})
        facts = {}
    for (ifindex, name), modes in attach.items():
        found = facts.get(ifindex)
        if found is None:
            yield Device(name=name, ifindex=ifindex, attach=modes)
        else:
            yield Device(**found._asdict() | {"addresses": list(found.addresses), "attach": modes})


def _told(finding: Finding) -> Told:
    return Told(
        severity=finding.severity,
        kind=finding.kind,
        text=finding.text,
        advice=finding.advice,
        device=finding.device,
        direction=finding.direction,
    )
