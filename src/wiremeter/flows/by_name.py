"""Traffic of an interval by name, by domain and by application: the sum of all rows is that of all flows."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args, overload

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch, Tally
from wiremeter.flows.columns import Direction

#: What these totals can be sorted by; numbers begin with the largest, names with the first of the alphabet.
TotalSort = Literal["bytes", "packets", "connections", "name"]
TOTAL_SORTS: tuple[TotalSort, ...] = get_args(TotalSort)

#: What can be added up of each name and direction.
Measure = Literal["packets", "bytes", "skbs", "flows", "connections"]
#: In this order, each in its own half.
DIRECTIONS: tuple[Direction, ...] = ("rx", "tx")

#: Flows in a step: so few that they stay in the CPU's cache while their columns are read one after the other.
_ROWS_AT_A_TIME = 8192

Label = TypeVar("Label", bound=str | None)


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


class NameTotals(Sequence[NameTotal]):
    """What the flows of each domain or application carried, in some order. Each is made an object when it is asked for.

    `by_measure` has shape (n, len(measures), 2), directions in the order of DIRECTIONS, of `measures`; connections are
    the last of them, and not known where `has_connections` is False.
    """

    __slots__ = ("by_measure", "has_connections", "labels")

    measures: tuple[Measure, ...] = ("packets", "bytes", "skbs", "flows", "connections")

    def __init__(self, labels: NDArray[np.object_], by_measure: NDArray[np.uint64], *, has_connections: bool) -> None:
        """labels: shape (n,), names or None."""
        self.labels, self.by_measure, self.has_connections = labels, by_measure, has_connections

    def sums(self, measure: Measure) -> NDArray[np.uint64]:
        """Both directions of one measure, shape (n,)."""
        both: NDArray[np.uint64] = self.by_measure[:, self.measures.index(measure)].sum(axis=1)
        return both

    def together(self) -> NameTotal:
        """All of them in one, without a name."""
        return self._total(None, self.by_measure.sum(axis=0, dtype=np.uint64).tolist())

    def sorted_by(self, by: TotalSort, *, reverse: bool) -> NameTotals:
        """Equal ones by name; of those with equally many connections first those with more bytes."""
        alphabet = sorted(range(len(self)), key=lambda at: (self.labels[at] is None, self.labels[at] or ""))
        order = np.array(alphabet, np.intp)
        if by == "name":
            return self._with(order[::-1] if reverse else order)
        for measure in ("bytes", "connections") if by == "connections" else (by,):
            values = self.sums(measure)[order]
            is_rising = reverse and measure == by
            order = order[np.argsort(values if is_rising else ~values, kind="stable")]
        return self._with(order)

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, at: int) -> NameTotal: ...
    @overload
    def __getitem__(self, at: slice) -> NameTotals: ...
    def __getitem__(self, at: int | slice) -> NameTotal | NameTotals:
        if isinstance(at, slice):
            return self._with(at)
        return self._total(self.labels[at], self.by_measure[at].tolist())

    def _with(self, rows: slice | NDArray[np.intp]) -> NameTotals:
        return NameTotals(self.labels[rows], self.by_measure[rows], has_connections=self.has_connections)

    def _total(self, label: str | None, by_measure: list[list[int]]) -> NameTotal:
        *amounts, flows, connections = by_measure
        rx, tx = zip(*amounts, strict=True)
        begun = sum(connections) if self.has_connections else None
        return NameTotal(label, Tally(*rx), Tally(*tx), sum(flows), begun)


def domain_totals(
    batch: FlowBatch,
    by: TotalSort = "bytes",
    *,
    mask: NDArray[np.bool_] | None = None,
    device: str | None = None,
    reverse: bool = False,
) -> NameTotals:
    """All flows by domain, in the order of `by`; those without a domain are one row, whose name is None.

    device: only this one.
    mask: shape (len(batch.flows),); only flows where it is set. Connections are counted apart from flows, so they are
    not known then; nor are they where names are off.
    reverse: begin at the other end of the order.
    """
    domains = [name.domain for name in batch.names]
    return _totals(batch, domains, mask, device).sorted_by(by, reverse=reverse)


def application_totals(
    batch: FlowBatch,
    by: TotalSort = "bytes",
    *,
    mask: NDArray[np.bool_] | None = None,
    device: str | None = None,
    reverse: bool = False,
) -> NameTotals:
    """Like domain_totals, by application; of what is not known the name is "unknown"."""
    applications = [name.application for name in batch.names]
    return _totals(batch, applications, mask, device).sorted_by(by, reverse=reverse)


def sum_of(totals: Iterable[NameTotal]) -> NameTotal:
    """All of them in one, without a name."""
    total = NameTotal(None, connections=0)
    for one in totals:
        total = total.plus(one)
    return total


def sums_by_name(
    batch: FlowBatch,
    measures: Sequence[Measure],
    *,
    mask: NDArray[np.bool_] | None = None,
    device: str | None = None,
) -> NDArray[np.uint64]:
    """What each name has: shape (len(batch.names), len(measures), 2), directions in the order of DIRECTIONS.

    mask: shape (len(batch.flows),); only flows where it is set, which says nothing of connections.
    device: only this one.
    """
    names = batch.name_indexes
    wanted = np.array([device in (None, a.device) for a in batch.attachments], np.bool_)
    halves = np.array([DIRECTIONS.index(a.direction) for a in batch.attachments], np.intp)
    sums = np.zeros((len(measures), len(batch.names) * len(DIRECTIONS)), np.uint64)
    rows: NDArray[np.intp] | None = None
    if mask is not None or not wanted.all():
        rows = np.flatnonzero(wanted[batch.flows["attachment"]] & (True if mask is None else mask))
    for start in range(0, len(names) if rows is None else len(rows), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        at = part if rows is None else rows[part]
        flows = batch.flows[at]
        # Both directions of a name lie side by side: one index. Not bincount, which adds in floating point.
        cells = names[at].astype(np.intp) * len(DIRECTIONS) + halves[flows["attachment"]]
        for measure, total in zip(measures, sums, strict=True):
            if measure != "connections":
                np.add.at(total, cells, np.uint64(1) if measure == "flows" else flows[measure])
    if "connections" in measures:
        began = batch.connections[wanted[batch.connections["attachment"]]]
        cells = began["name"].astype(np.intp) * len(DIRECTIONS) + halves[began["attachment"]]
        np.add.at(sums[measures.index("connections")], cells, began["count"])
    return sums.reshape(len(measures), -1, len(DIRECTIONS)).transpose(1, 0, 2)


def sums_by_attachment(
    batch: FlowBatch, measures: Sequence[Measure]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint64]]:
    """What each name has on each attachment: (attachments, names, sums of shape (k, len(measures))), pairs that occur.

    attachments, names: shape (k,), indexes into batch.attachments and batch.names.
    """
    width = len(batch.names)
    most = len(batch.attachments) * width
    begun = batch.connections["attachment"].astype(np.intp) * width + batch.connections["name"]
    occurs = np.zeros(most, np.bool_)
    sums = np.zeros((len(measures), most), np.uint64)
    for start in range(0, len(batch.flows), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        flows = batch.flows[part]
        pairs = flows["attachment"].astype(np.intp) * width + batch.name_indexes[part]
        occurs[pairs] = True
        for measure, total in zip(measures, sums, strict=True):
            if measure != "connections":
                np.add.at(total, pairs, np.uint64(1) if measure == "flows" else flows[measure])
    if "connections" in measures:
        occurs[begun] = True
        np.add.at(sums[measures.index("connections")], begun, batch.connections["count"])
    found = np.flatnonzero(occurs)
    return found // max(width, 1), found % max(width, 1), sums[:, found].T


def sums_by_label(labels: Iterable[Label], sums: NDArray[np.uint64]) -> tuple[list[Label], NDArray[np.uint64]]:
    """Each label once, in order of first sight, and the sum of its rows: shape (labels, *sums.shape[1:]).

    labels: as many as sums has rows.
    """
    places: defaultdict[Label, int] = defaultdict(itertools.count().__next__)
    index = np.fromiter(map(places.__getitem__, labels), np.intp, len(sums))
    width = sums[0].size
    added = np.zeros(len(places) * width, np.uint64)
    # By single cells: NumPy adds whole rows an order of magnitude slower.
    np.add.at(added, (index[:, None] * width + np.arange(width)).ravel(), sums.ravel())
    return list(places), added.reshape(len(places), *sums.shape[1:])


def _totals(
    batch: FlowBatch, labels: Sequence[str | None], mask: NDArray[np.bool_] | None, device: str | None
) -> NameTotals:
    """One total a label; labels: one for each of batch.names."""
    found, sums = sums_by_label(labels, sums_by_name(batch, NameTotals.measures, mask=mask, device=device))
    of_label = np.empty(len(found), object)
    of_label[:] = found
    totals = NameTotals(of_label, sums, has_connections=mask is None and batch.flow_names is not None)
    occurs = totals.sums("flows") > 0
    if totals.has_connections:
        occurs |= totals.sums("connections") > 0
    return NameTotals(of_label[occurs], sums[occurs], has_connections=totals.has_connections)
