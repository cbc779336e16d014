"""What the user wants to see of a batch, and the rows that answers it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch, Tally
from wiremeter.flows.by_host import host_totals
from wiremeter.flows.by_name import NameTotal, NameTotals, TotalSort, application_totals, domain_totals
from wiremeter.flows.dns import DnsSort
from wiremeter.flows.filter import Filter, compile_filter
from wiremeter.flows.top import (
    Amount,
    ProtocolTotal,
    flow_order,
    protocols_of_flows,
    tally_of,
    top_conversations,
    top_flow_indexes,
    top_protocols,
)
from wiremeter.settings.words import SortKey, View


@dataclass(frozen=True, slots=True)
class Selection:
    """Choices that hold from one interval to the next.

    sort: "key" is the order of the flows' own keys: family, source, destination, protocol, ports, VLAN.
    limit: most rows of each list, or all if None.
    device: only this one, or all if None.  pairs: conversations instead of flows.
    in_bytes: byte/s instead of bit/s.  services: names of services instead of port numbers.
    view: what the table is of.  sort, total_sort, dns_sort: the order of flows, of domains and applications, of DNS
    questions; reverse: of all of them.
    """

    sort: SortKey | Literal["key"] = "bytes"
    reverse: bool = False
    limit: int | None = 10
    filter: Filter = field(default_factory=lambda: compile_filter(""))
    device: str | None = None
    pairs: bool = False
    in_bytes: bool = False
    services: bool = False
    view: View = "flows"
    total_sort: TotalSort = "bytes"
    dns_sort: DnsSort = "queries"

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return not self.filter.text and self.device is None

    @property
    def shown(self) -> slice:
        """The part of a list that is shown."""
        return slice(self.limit)

    @property
    def rest(self) -> slice:
        """The part that is not."""
        return slice(0) if self.limit is None else slice(self.limit, None)


#: All there is, in an order that depends on nothing else.
EVERYTHING = Selection(sort="key", limit=None)


@dataclass(frozen=True, slots=True)
class Selected:
    """The part of one batch that a selection shows.

    flows: shape (at most limit,), dtype FLOW, or CONVERSATION if the selection is of pairs.
    names: shape (at most limit,), the index of each into FlowBatch.names.
    matched: how many flows pass filter and device; total: their sum.
    mask: shape (len(batch.flows),), which flows those are; None if all.
    """

    flows: NDArray[np.void]
    names: NDArray[np.uint32]
    matched: int
    total: Tally
    mask: NDArray[np.bool_] | None


def select(batch: FlowBatch, selection: Selection) -> Selected:
    """Apply a selection to a batch."""
    mask = chosen_flows(batch, selection)
    if selection.pairs:
        limit = len(batch.flows) if selection.limit is None else selection.limit
        by = "source" if selection.sort == "key" else selection.sort
        flows = top_conversations(batch, limit, by, mask=mask, reverse=selection.reverse)
        names = flows["name"]
    else:
        indexes = flow_indexes(batch, selection, mask)
        flows, names = batch.flows[indexes], batch.name_indexes[indexes]
    matched = len(batch.flows) if mask is None else int(np.count_nonzero(mask))
    return Selected(flows, names, matched, tally_of(batch.flows, mask), mask)


def flow_indexes(batch: FlowBatch, selection: Selection, mask: NDArray[np.bool_] | None) -> NDArray[np.intp]:
    """Where the flows that a selection shows stand in batch.flows, in its order: shape (at most limit,).

    mask: shape (len(batch.flows),), which flows pass its filter and device; None if all.
    """
    limit = len(batch.flows) if selection.limit is None else selection.limit
    if selection.sort == "key":
        return flow_order(batch.flows, mask)[:: -1 if selection.reverse else 1][:limit]
    return top_flow_indexes(batch, limit, selection.sort, mask=mask, reverse=selection.reverse)


def select_protocols(batch: FlowBatch, selected: Selected, selection: Selection) -> list[ProtocolTotal]:
    """What was selected, by protocol: from exact counters, or from the matched flows where a filter is set."""
    amount: Amount = "packets" if selection.sort == "packets" else "bytes"
    if selected.mask is not None and selection.filter.text:
        return protocols_of_flows(batch, selected.mask, amount)
    return top_protocols(batch, amount, device=selection.device)


def select_domains(batch: FlowBatch, selected: Selected, selection: Selection) -> NameTotals:
    """What was selected, by domain; connections are known where no filter is set, since it is one of flows."""
    mask = selected.mask if selection.filter.text else None
    return domain_totals(batch, selection.total_sort, mask=mask, device=selection.device, reverse=selection.reverse)


def select_applications(batch: FlowBatch, selected: Selected, selection: Selection) -> NameTotals:
    """What was selected, by application."""
    mask = selected.mask if selection.filter.text else None
    return application_totals(
        batch, selection.total_sort, mask=mask, device=selection.device, reverse=selection.reverse
    )


def rest_of(totals: NameTotals, selection: Selection) -> NameTotal:
    """The sum of the domains or applications that are not shown; nothing, where all are."""
    return totals[selection.rest].together()


def select_hosts(batch: FlowBatch, selected: Selected, selection: Selection) -> tuple[list[NameTotal], NameTotal, int]:
    """What was selected, by host: the first, the sum of all others, and how many there are."""
    limit = len(batch.flows) if selection.limit is None else selection.limit
    return host_totals(
        batch,
        limit,
        selection.total_sort,
        mask=selected.mask,
        device=selection.device,
        reverse=selection.reverse,
    )


def has_names(batch: FlowBatch) -> bool:
    """Whether anything is known of any flow, or was said in any transaction."""
    said = batch.transactions
    return bool(batch.name_indexes.any() or said.dns or said.tls or said.quic or said.http)


def chosen_flows(batch: FlowBatch, selection: Selection) -> NDArray[np.bool_] | None:
    """Which flows pass filter and device: shape (len(batch.flows),); None if all."""
    if selection.is_whole:
        return None
    mask = selection.filter.mask(batch)
    if selection.device is not None and batch.attachments:
        wanted = np.array([a.device == selection.device for a in batch.attachments], np.bool_)
        mask &= wanted[batch.flows["attachment"]]
    return mask
