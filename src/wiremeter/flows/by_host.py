"""Traffic of an interval by host: the sum of all rows is that of all flows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch, Tally
from wiremeter.flows.by_name import NameTotal, TotalSort, sum_of
from wiremeter.flows.columns import address_text
from wiremeter.flows.top import group_rows, is_rx, tally_of


def host_totals(
    batch: FlowBatch,
    limit: int,
    by: TotalSort = "bytes",
    *,
    mask: NDArray[np.bool_] | None = None,
    device: str | None = None,
    reverse: bool = False,
) -> tuple[list[NameTotal], NameTotal, int]:
    """Flows by their other end: the source of what a device receives, the destination of what it sends; in captures,
    which do not tell, by the source. So each flow counts once.

    limit: hosts at most. by: "name" is by address; connections are not known of hosts, and stand by bytes.
    mask: shape (len(batch.flows),); only flows where it is set. device: only this one.
    Returns the first hosts, the sum of all others, and how many hosts there are.
    """
    wanted = np.array([device in (None, a.device) for a in batch.attachments], np.bool_)
    chosen = wanted[batch.flows["attachment"]] & (True if mask is None else mask)
    flows = batch.flows[chosen]
    if not len(flows):
        return [], NameTotal(None), 0
    received = is_rx(batch)[flows["attachment"]]
    source, destination = (np.ascontiguousarray(flows[name]).view("u8") for name in ("src_addr", "dst_addr"))
    far = np.where(received[:, None], source, destination)
    order, starts = group_rows([far[:, 0], far[:, 1]])
    sums = {
        (side, name): np.add.reduceat(np.where(is_here, flows[name], np.uint64(0))[order], starts)
        for side, is_here in (("rx", received), ("tx", ~received))
        for name in Tally._fields
    }
    counts = np.diff(starts, append=len(order))
    addresses = far[order[starts]]
    places = addresses.view(">u8")
    if by == "name":
        ranks = np.lexsort([places[:, 1], places[:, 0]])
    else:
        amount = "packets" if by == "packets" else "bytes"
        largest = (sums["rx", amount] + sums["tx", amount]).astype(np.int64)
        ranks = np.lexsort([places[:, 1], places[:, 0], -largest])
    ranks = ranks[:: -1 if reverse else 1]

    def tally(side: str, at: int) -> Tally:
        return Tally(*(int(sums[side, name][at]) for name in Tally._fields))

    shown = [
        NameTotal(address_text(addresses[at].tobytes()), tally("rx", at), tally("tx", at), int(counts[at]))
        for at in ranks[:limit]
    ]
    listed = sum_of(shown)
    rest = NameTotal(
        None,
        _less(tally_of(flows, received), listed.rx),
        _less(tally_of(flows, ~received), listed.tx),
        len(flows) - listed.flows,
    )
    return shown, rest, len(starts)


def _less(whole: Tally, part: Tally) -> Tally:
    return Tally(*(a - b for a, b in zip(whole, part, strict=True)))
