"""A batch's exact totals over all devices: by family, protocol, ethertype, and reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch, Tally
from wiremeter.flows.columns import (
    ETHERTYPE_LLC,
    ETHERTYPE_NONE,
    ETHERTYPE_OTHER,
    PROTOCOL_UNKNOWN,
)
from wiremeter.flows.top import tally_of

_ETHERTYPE_KEYS = {ETHERTYPE_LLC: "llc", ETHERTYPE_NONE: "none", ETHERTYPE_OTHER: "other"}


def seen(batch: FlowBatch) -> Tally:
    """All traffic."""
    return _sum(audit.seen for audit in batch.audit)


def families(batch: FlowBatch) -> dict[Literal["ipv4", "ipv6", "non_ip"], Tally]:
    """By family; all three are there."""
    of_family = batch.counters["family"]
    return {
        "ipv4": tally_of(batch.counters, of_family == 4),
        "ipv6": tally_of(batch.counters, of_family == 6),
        "non_ip": tally_of(batch.counters, of_family == 0),
    }


def protocols(rows: NDArray[np.void]) -> dict[Literal["ipv4", "ipv6"], dict[str, Tally]]:
    """By family and IP protocol number; "unknown" where the header was too damaged to name one.

    rows: a batch's counters, or flows of it.
    """
    found: dict[Literal["ipv4", "ipv6"], dict[str, Tally]] = {"ipv4": {}, "ipv6": {}}
    for name, by_number in found.items():
        of_family = rows[rows["family"] == int(name[-1])]
        for number in np.unique(of_family["protocol"]):
            key = "unknown" if number == PROTOCOL_UNKNOWN else str(number)
            by_number[key] = tally_of(of_family, of_family["protocol"] == number)
    return found


def ethertypes(batch: FlowBatch) -> dict[str, Tally]:
    """Frames that are not IP by ethertype; llc, none and other for those without a usable one."""
    rows = batch.ethertypes
    return {
        _ETHERTYPE_KEYS.get(int(number), f"0x{number:04x}"): tally_of(rows, rows["ethertype"] == number)
        for number in np.unique(rows["ethertype"])
    }


def unattributed(batch: FlowBatch) -> dict[str, Tally]:
    """In no flow, by reason."""
    reasons = dict.fromkeys(reason for audit in batch.audit for reason in audit.unattributed)
    return {reason: _sum(audit.unattributed.get(reason, Tally()) for audit in batch.audit) for reason in reasons}


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total = total.plus(tally)
    return total
