"""Flows that are not to be shipped: what is left without them, and how much they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import Attachment, FlowBatch, Tally
from wiremeter.flows.columns import FLOW, VLAN_NONE, TransactionKind
from wiremeter.flows.filter import Filter
from wiremeter.names.records import FlowName, Transactions, column

#: Of each kind of transaction, what says the domain.
_DOMAINS: dict[TransactionKind, str] = {"dns": "query", "tls": "sni", "quic": "sni", "http": "host"}


class LeftOut(NamedTuple):
    """Flows of one device and direction, or transactions of one device, that an expression matches.

    transactions: how many; of flows None. tally: of transactions nothing.
    """

    device: str
    direction: str
    expression: str
    tally: Tally
    transactions: int | None = None


def leave_out(batch: FlowBatch, filters: Sequence[Filter]) -> tuple[FlowBatch, list[LeftOut]]:
    """The batch without flows and transactions that any of `filters` matches; each counts for the first that does.

    Counters and audit are of all traffic as before. Of a transaction it is not known which way its flow crossed the
    device: it is left out if it would be either way.
    """
    if not filters:
        return batch, []
    left = np.ones(len(batch.flows), np.bool_)
    counts: list[LeftOut] = []
    for chosen in filters:
        mask = chosen.mask(batch) & left
        left &= ~mask
        counts += _by_attachment(batch, mask, chosen.text)
    transactions: dict[str, Any] = {}
    for kind, domain in _DOMAINS.items():
        seen = getattr(batch.transactions, kind)
        if len(seen):
            stays = np.ones(len(seen), np.bool_)
            flows = _flows_of(seen, kind, domain)
            devices = column(seen, "device")
            for chosen in filters:
                mask = chosen.mask(flows).reshape(4, -1).any(axis=0) & stays
                stays &= ~mask
                counts += _by_device(devices, mask, chosen.text)
            transactions[kind] = seen if stays.all() else _chosen(seen, stays)
    names = None if batch.flow_names is None else batch.flow_names[left]
    told = replace(batch.transactions, **transactions) if transactions else batch.transactions
    return replace(batch, flows=batch.flows[left], flow_names=names, transactions=told), counts


def _by_attachment(batch: FlowBatch, mask: NDArray[np.bool_], expression: str) -> Iterator[LeftOut]:
    rows = batch.flows[mask]
    for number in np.unique(rows["attachment"]).tolist():
        mine = rows[rows["attachment"] == number]
        attachment = batch.attachments[number]
        tally = Tally(*(int(mine[name].sum()) for name in Tally._fields))
        yield LeftOut(attachment.device, attachment.direction, expression, tally)


def _by_device(devices: Sequence[str], mask: NDArray[np.bool_], expression: str) -> Iterator[LeftOut]:
    chosen = [devices[at] for at in np.flatnonzero(mask).tolist()]
    for device in sorted(set(chosen)):
        yield LeftOut(device, "", expression, Tally(), chosen.count(device))


def _chosen(seen: Any, stays: NDArray[np.bool_]) -> Any:
    if isinstance(seen, tuple):
        return tuple(one for one, is_left in zip(seen, stays.tolist(), strict=True) if is_left)
    return seen.chosen(stays)


def _flows_of(seen: Sequence[Any], kind: TransactionKind, domain: str) -> FlowBatch:
    """Transactions as flows of a batch, each four times: as it went and its reverse, received and sent."""
    devices = column(seen, "device")
    places = {device: number for number, device in enumerate(dict.fromkeys(devices))}
    attachments = [
        Attachment(number, device, 0, direction, "none")
        for direction in ("rx", "tx")
        for number, device in enumerate(places)
    ]
    forward = np.zeros(len(seen), FLOW)
    for name in ("src_addr", "dst_addr"):
        forward[name] = np.frombuffer(b"".join(column(seen, name)), np.uint8).reshape(-1, 16)
    for name in ("src_port", "dst_port", "protocol", "family"):
        forward[name] = column(seen, name)
    forward["vlan"] = VLAN_NONE
    forward["attachment"] = [places[device] for device in devices]
    backward = forward.copy()
    for name in ("addr", "port"):
        backward[f"src_{name}"], backward[f"dst_{name}"] = forward[f"dst_{name}"], forward[f"src_{name}"]
    one_way = np.concatenate([forward, backward])
    other_way = one_way.copy()
    other_way["attachment"] += len(places)
    domains = [(said or "").lower() or None for said in column(seen, domain)]
    names = {said: number for number, said in enumerate(dict.fromkeys(domains))}
    empty = np.zeros(0, FLOW)
    return FlowBatch(
        0,
        0,
        tuple(attachments),
        np.concatenate([one_way, other_way]),
        empty,
        empty,
        (),
        names=tuple(FlowName(kind, said) for said in names),
        flow_names=np.tile(np.array([names[said] for said in domains], np.uint32), 4),
        transactions=Transactions(),
    )
