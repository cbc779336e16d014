"""What agents send, from the bytes of a body to an answer: checked, stored once, or refused with its reason."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from wiremeter.errors import InputError
from wiremeter.server import store
from wiremeter.server.access.principal import Principal
from wiremeter.server.fleet.metrics import FleetMetrics
from wiremeter.server.fleet.registry import Registry
from wiremeter.server.ingest.quarantine import Quarantine, Refused
from wiremeter.server.ingest.refusal import Refusal
from wiremeter.server.ingest.tables import read_tables
from wiremeter.server.ingest.times import correction_ns, moved
from wiremeter.server.store import Batch, Conflict, Store, Unavailable
from wiremeter.shipment.heartbeat import from_json

log = logging.getLogger(__name__)

#: Batches that are decoded at a time: each may take a few times its bytes.
_AT_A_TIME = 2


class Intake:
    """Takes batches and heartbeats. For one event loop."""

    def __init__(
        self,
        where: Store,
        quarantine: Quarantine,
        registry: Registry,
        metrics: FleetMetrics,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = where
        self._quarantine = quarantine
        self._registry = registry
        self._metrics = metrics
        self._clock = clock
        self._decoding = asyncio.Semaphore(_AT_A_TIME)

    async def batch(self, principal: Principal, peer: str, content: bytes, sha256: bytes) -> bool:
        """Stores a batch; whether it is new. Raises Refusal."""
        try:
            batch = await self._decoded(principal, content, sha256)
            stored = await self._stored(batch)
        except Refusal as refusal:
            if refusal.is_final:
                await self._set_aside(principal, peer, content, sha256, refusal)
            self._metrics.refused(refusal.reason)
            raise
        self._registry.batch(batch, len(content), is_new=stored)
        self._metrics.stored(batch, len(content), is_new=stored)
        return stored

    def now_ns(self) -> int:
        """The server's clock."""
        return self._clock()

    def refused(self, refusal: Refusal) -> None:
        """Counts one that was refused before it came here."""
        self._metrics.refused(refusal.reason)

    async def heartbeat(self, principal: Principal, body: bytes) -> None:
        """Takes a heartbeat. Raises Refusal."""
        try:
            heartbeat = from_json(body)
        except InputError as error:
            self._metrics.refused("heartbeat")
            raise Refusal(422, "heartbeat", str(error)) from error
        try:
            _check_writer(principal, heartbeat.agent)
        except Refusal as refusal:
            self.refused(refusal)
            raise
        self._registry.heartbeat(heartbeat, self._clock())
        self._metrics.heartbeat()

    async def _decoded(self, principal: Principal, content: bytes, sha256: bytes) -> Batch:
        async with self._decoding:
            try:
                about, tables = await asyncio.to_thread(read_tables, content)
            except InputError as error:
                raise Refusal(422, "schema", str(error)) from error
            _check_writer(principal, about.identity.agent)
            now_ns = self._clock()
            by_ns = correction_ns(about, now_ns)
            skew_ns = -by_ns if by_ns else self._registry.skew_ns(about.identity.agent)
            if by_ns:
                about, tables = await asyncio.to_thread(moved, about, tables, by_ns)
                self._metrics.clock_corrected()
            return Batch(about=about, content=sha256, received_ns=now_ns, tables=tables, skew_ns=skew_ns)

    async def _stored(self, batch: Batch) -> bool:
        try:
            return (await asyncio.wrap_future(self._store.submit(batch))).is_new
        except Conflict as error:
            raise Refusal(409, "conflict", str(error)) from error
        except (store.Refused, InputError) as error:
            raise Refusal(422, "store", str(error)) from error
        except Unavailable as error:
            raise Refusal(503, "unavailable", str(error), is_final=False, retry_after=error.retry_after) from error

    async def _set_aside(
        self, principal: Principal, peer: str, content: bytes, sha256: bytes, refusal: Refusal
    ) -> None:
        log.warning(
            "a batch is refused",
            extra={"peer": peer, "from": principal.name, "reason": str(refusal), "kind": refusal.reason},
        )
        about = Refused(
            time=self._clock() / 1e9,
            content=sha256.hex(),
            size=len(content),
            status=refusal.status,
            reason=refusal.reason,
            text=str(refusal),
            principal=principal.name,
            peer=peer,
        )
        await asyncio.to_thread(self._quarantine.keep, content, about)
        self._store.refuse(
            store.Refusal(
                time_ns=self._clock(),
                content=sha256,
                size=len(content),
                status=refusal.status,
                reason=f"{refusal.reason}: {refusal}",
                peer=peer,
            )
        )


def _check_writer(principal: Principal, agent: str) -> None:
    """Not final: whoever gives the right token to the agent shall not have lost what waited."""
    if not principal.may_write_for(agent):
        text = f"{principal.name} may not write for the agent {agent}"
        raise Refusal(403, "identity", text, is_final=False)
