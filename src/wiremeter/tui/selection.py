"""What the user wants to see of a batch, and the rows that answers it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch, Tally
from wiremeter.flows.filter import Filter, compile_filter
from wiremeter.flows.top import (
    Amount,
    ProtocolTotal,
    SortKey,
    protocols_of_flows,
    tally_of,
    top_conversations,
    top_flows,
    top_protocols,
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Choices that hold from one interval to the next.

    device: only this one, or all if None.  pairs: conversations instead of flows.
    in_bytes: byte/s instead of bit/s.  names: services instead of port numbers.
    """

    sort: SortKey = "bytes"
    reverse: bool = False
    limit: int = 10
    filter: Filter = field(default_factory=lambda: compile_filter(""))
    device: str | None = None
    pairs: bool = False
    in_bytes: bool = False
    names: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return not self.filter.text and self.device is None


@dataclass(frozen=True, slots=True)
class Selected:
    """The part of one batch that a selection shows.

    flows: shape (≤ limit,), dtype FLOW, or CONVERSATION if the selection is of pairs.
    matched: how many flows pass filter and device; total: their sum.
    protocols: from exact counters, or from the matched flows where a filter is set.
    """

    flows: NDArray[np.void]
    matched: int
    total: Tally
    protocols: list[ProtocolTotal]


def select(batch: FlowBatch, selection: Selection) -> Selected:
    """Apply a selection to a batch."""
    mask = None if selection.is_whole else _mask(batch, selection)
    top = top_conversations if selection.pairs else top_flows
    flows = top(batch, selection.limit, selection.sort, mask=mask, reverse=selection.reverse)
    by: Amount = "packets" if selection.sort == "packets" else "bytes"
    protocols = (
        protocols_of_flows(batch, mask, by=by)
        if mask is not None and selection.filter.text
        else top_protocols(batch, by=by, device=selection.device)
    )
    matched = len(batch.flows) if mask is None else int(np.count_nonzero(mask))
    return Selected(flows, matched, tally_of(batch.flows, mask), protocols)


def _mask(batch: FlowBatch, selection: Selection) -> NDArray[np.bool_]:
    mask = selection.filter.mask(batch)
    if selection.device is not None and batch.attachments:
        wanted = np.array([a.device == selection.device for a in batch.attachments], np.bool_)
        mask &= wanted[batch.flows["attachment"]]
    return mask
