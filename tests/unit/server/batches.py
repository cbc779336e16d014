"""Batches as agents send them: simulated traffic, encoded by the agent's own code."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

from wiremeter import simulate
from wiremeter.flows.batch import FlowBatch
from wiremeter.shipment.identity import About, Identity
from wiremeter.sinks.shipping.encode import encode

from ..fabricated import fabricate_transactions

BOOT = str(uuid.UUID(int=7))


def simulated(profile: str = "dns", *, packets: int = 2000, seed: int = 1) -> FlowBatch:
    """One second of traffic, and a transaction of each kind."""
    (batch,) = simulate(profile, seconds=1, packets_per_second=packets, seed=seed)
    return replace(batch, transactions=fabricate_transactions())


def about(
    agent: str = "web-1", sequence: int = 0, *, boot: str = BOOT, end_ns: int | None = None, mode: str = "simulated"
) -> About:
    """Of five seconds that end now, or then."""
    end_ns = time.time_ns() if end_ns is None else end_ns
    return About(
        identity=Identity(agent, boot, sequence), mode=mode, start_ns=end_ns - 5 * 10**9, end_ns=end_ns, version="1.0"
    )


def encoded(batch: FlowBatch, agent: str = "web-1", sequence: int = 0, *, end_ns: int | None = None) -> bytes:
    """A body."""
    return encode(batch, about(agent, sequence, end_ns=end_ns))
