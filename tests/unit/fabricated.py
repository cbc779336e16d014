"""Batches made by hand, for tests of what comes after the meter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wiremeter.flows.batch import Attachment, Audit, FlowBatch, Tally
from wiremeter.flows.columns import COUNTER, ETHERTYPE_COUNTER, FLOW, Direction, empty_rows
from wiremeter.names.records import DnsTransaction, FlowKey, HttpTransaction, QuicHandshake, TlsHandshake, Transactions

ETH0_RX = Attachment(1, "eth0", 2, "rx", "tcx")
ETH0_TX = Attachment(2, "eth0", 2, "tx", "tcx")


def fabricate_batch(
    counters: Iterable[tuple[int, ...]] = (),
    ethertypes: Iterable[tuple[int, ...]] = (),
    *,
    attachments: Sequence[Attachment] = (ETH0_RX, ETH0_TX),
    second: int = 1_700_000_000,
    **more: Any,
) -> FlowBatch:
    """A batch of one second. Rows are tuples in the order of the dtypes."""
    return FlowBatch(
        start_ns=second * 10**9,
        end_ns=(second + 1) * 10**9,
        attachments=tuple(attachments),
        flows=more.pop("flows", empty_rows(FLOW)),
        counters=np.array(list(counters), COUNTER),
        ethertypes=np.array(list(ethertypes), ETHERTYPE_COUNTER),
        audit=more.pop("audit", ()),
        **more,
    )


def fabricate_transactions() -> Transactions:
    """One of each kind on eth0: a question answered in 2 ms, a request in 30 ms, and two handshakes."""
    flow = FlowKey(bytes(15) + b"\1", 40000, bytes(15) + b"\2", 53, 17, 6)
    return Transactions(
        dns=(DnsTransaction(0, flow, "site.example", "A", rcode=0, latency_ns=2_000_000, device="eth0"),),
        tls=(TlsHandshake(0, flow, "site.example", "1.3", device="eth0"),),
        quic=(QuicHandshake(0, flow, "site.example", "1", device="eth0"),),
        http=(HttpTransaction(0, flow, "1.1", "GET", "site.example", None, 200, 30_000_000, device="eth0"),),
    )


def fabricate_audit(device: str = "eth0", direction: Direction = "rx", **parts: Any) -> Audit:
    """An audit that balances unless `seen` is given."""
    flows, non_ip = parts.pop("flows", Tally()), parts.pop("non_ip", Tally())
    unattributed = parts.pop("unattributed", {})
    seen = flows.plus(non_ip)
    for tally in unattributed.values():
        seen = seen.plus(tally)
    return Audit(device, direction, parts.pop("seen", seen), flows, non_ip, unattributed, **parts)
