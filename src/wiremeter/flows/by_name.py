"""Traffic of an interval by domain and by application: the sum of all rows is that of all flows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch, Tally
from wiremeter.flows.top import is_rx, name_indexes

#: What these totals can be sorted by; numbers begin with the largest, names with the first of the alphabet.
TotalSort = Literal["bytes", "packets", "connections", "name"]
TOTAL_SORTS: tuple[TotalSort, ...] = get_args(TotalSort)


@dataclass(frozen=True, slots=True)
class NameTotal:
    """What the flows of one domain or application carried.

    name: None for the flows without a domain. connections: TCP and QUIC connections that began, None if not known.
    """

    name: str | None
    rx: Tally = field(default_factory=Tally)
    tx: Tally = field(default_factory=Tally)
    flows: int = 0
    connections: int | None = None

    @property
    def tally(self) -> Tally:
        """Both directions."""
        return self.rx.plus(self.tx)

    def plus(self, other: NameTotal) -> NameTotal:
        """The sum, under this one's name; connections are known if both are."""
        known = self.connections is not None and other.connections is not None
        connections = (self.connections or 0) + (other.connections or 0) if known else None
        return NameTotal(
            self.name, self.rx.plus(other.rx), self.tx.plus(other.tx), self.flows + other.flows, connections
        )


def domain_totals(
    batch: FlowBatch,
    by: TotalSort = "bytes",
    *,
    mask: NDArray[np.bool_] | None = None,
    device: str | None = None,
    reverse: bool = False,
) -> list[NameTotal]:
    """All flows by domain, in the order of `by`; those without a domain are one row, whose name is None.

    device: only this one.
    mask: shape (len(batch.flows),); only flows where it is set. Connections are counted apart from flows, so they are
    not known then.
    reverse: begin at the other end of the order.
    """
    return _sorted(_totals(batch, [name.domain for name in batch.names], mask, device), by, reverse)


def application_totals(
    batch: FlowBatch,
    by: TotalSort = "bytes",
    *,
    mask: NDArray[np.bool_] | None = None,
    device: str | None = None,
    reverse: bool = False,
) -> list[NameTotal]:
    """Like domain_totals, by application; of what is not known the name is "unknown"."""
    return _sorted(_totals(batch, [name.application for name in batch.names], mask, device), by, reverse)


def sum_of(totals: Iterable[NameTotal]) -> NameTotal:
    """All of them in one, without a name."""
    total = NameTotal(None, connections=0)
    for one in totals:
        total = total.plus(one)
    return total


def _totals(
    batch: FlowBatch, labels: Sequence[str | None], mask: NDArray[np.bool_] | None, device: str | None
) -> list[NameTotal]:
    """One total a label; labels: one for each of batch.names."""
    places: dict[str | None, int] = {}
    place_of = np.array([places.setdefault(label, len(places)) for label in labels], np.intp)
    wanted = np.array([device in (None, a.device) for a in batch.attachments], np.bool_)
    chosen = wanted[batch.flows["attachment"]]
    if mask is not None:
        chosen &= mask
    place = place_of[name_indexes(batch)[chosen]]
    # rx and tx of a label lie side by side: one index, which np.add.at is fast with.
    half = 2 * place + ~is_rx(batch)[batch.flows["attachment"][chosen]]
    sums = np.zeros((len(Tally._fields), 2 * len(places)), np.uint64)
    for at, amount in enumerate(Tally._fields):
        np.add.at(sums[at], half, batch.flows[amount][chosen])
    flow_counts = np.bincount(place, minlength=len(places))
    begun = np.zeros(len(places), np.uint64)
    rows = batch.connections[wanted[batch.connections["attachment"]]]
    np.add.at(begun, place_of[rows["name"]], rows["count"])
    sides = sums.T.reshape(-1, 2, len(Tally._fields)).tolist()
    return [
        NameTotal(label, Tally(*rx), Tally(*tx), flows, connections if mask is None else None)
        for label, (rx, tx), flows, connections in zip(places, sides, flow_counts.tolist(), begun.tolist(), strict=True)
        if flows or (mask is None and connections)
    ]


def _sorted(totals: list[NameTotal], by: TotalSort, reverse: bool) -> list[NameTotal]:
    totals.sort(key=lambda total: (total.name is None, total.name or ""))
    if by == "name":
        return totals[::-1] if reverse else totals
    if by == "connections":
        # Sorted twice, so that those with equally many stand by bytes.
        totals.sort(key=lambda total: -total.tally.bytes)
        totals.sort(key=lambda total: (total.connections or 0) * (1 if reverse else -1))
    else:
        totals.sort(key=lambda total: int(getattr(total.tally, by)) * (1 if reverse else -1))
    return totals
