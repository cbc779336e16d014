"""Batches as an agent meters them, stored as a server does."""

from __future__ import annotations

import hashlib
import time
import uuid

from wiremeter.flows.batch import FlowBatch
from wiremeter.server.store import Batch, Store, conform
from wiremeter.shipment.identity import About, Identity
from wiremeter.sinks.shipping.encode import encode

from ...shipped import tables_of

#: The beginning of the hour before this one: what is too old is not kept.
EPOCH_NS = (int(time.time()) // 3600 - 1) * 3600 * 10**9
BOOT = str(uuid.UUID(int=3))


def store_batch(
    store: Store, batch: FlowBatch, agent: str = "web-1", sequence: int = 0, *, start_ns: int = EPOCH_NS
) -> None:
    """As five seconds of that agent from `start_ns` on."""
    about = About(
        identity=Identity(agent, BOOT, sequence),
        mode="live",
        start_ns=start_ns,
        end_ns=start_ns + 5 * 10**9,
        version="1.0",
    )
    content = encode(batch, about)
    tables = {name: conform(name, table) for name, table in tables_of(content).items()}  # type: ignore[arg-type]
    stored = store.insert(
        Batch(
            about=about,
            content=hashlib.sha256(content).digest(),
            received_ns=about.end_ns,
            tables=tables,  # type: ignore[arg-type]
        )
    )
    assert stored.is_new
