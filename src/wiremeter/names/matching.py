"""Which flow of a batch belongs to which conversation of a table: by hash, for all flows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from wiremeter.names.records import TCP, FlowKey

#: For rows with the columns of FLOW, shape (n,): the same number, uint64, for both flows of a conversation.
ConversationHashes = Callable[[NDArray[np.void]], NDArray[np.uint64]]

TCP_SYN, TCP_ACK = 0x02, 0x10


def rows_of_keys(keys: Sequence[FlowKey], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Rows of `dtype`, which has the columns of FLOW, with the keys' addresses, ports, protocol and family; else 0."""
    rows = np.zeros(len(keys), dtype)
    if not keys:
        return rows
    for column, values in zip(FlowKey._fields, zip(*keys, strict=True), strict=True):
        is_address = column.endswith("_addr")
        rows[column] = np.frombuffer(b"".join(values), np.uint8).reshape(-1, 16) if is_address else values
    return rows


class HashIndex:
    """Positions of keys by their hash."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        """hashes: shape (k,)."""
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]
        # Most of what is looked for is not there: a mark for the upper bits of each key tells that of fifteen in
        # sixteen of those, in a fifth of the time that a search takes.
        bits = len(hashes).bit_length() + 4
        self._shift = np.uint64(64 - bits)
        self._marks = np.zeros(1 << bits, np.bool_)
        self._marks[(hashes >> self._shift).astype(np.intp)] = True

    def positions(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Where each of `hashes`, shape (n,), was among the keys' hashes; −1 where it was not."""
        found = np.full(len(hashes), -1, np.int64)
        if not len(self._sorted):
            return found
        rows = np.flatnonzero(self._marks.take((hashes >> self._shift).astype(np.intp)))
        wanted = hashes.take(rows)
        at = np.searchsorted(self._sorted, wanted)
        at[at == len(self._sorted)] = 0
        found[rows] = np.where(self._sorted[at] == wanted, self._order[at], -1)
        return found


def openers(
    flows: NDArray[np.void], hashes: NDArray[np.uint64], opened_before: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """The rows that opened a TCP connection: one for each whose SYN was seen now and not in the interval before.

    flows: columns of FLOW, shape (n,). hashes: shape (n,), equal for both directions on one device.
    opened_before: hashes of those that opened in the interval before. Returns indices into `flows`.

    Flags are ORed over an interval, so a SYN and a SYN-ACK look alike: where both directions show SYN the one that came
    first opened. A row with SYN and ACK whose other direction shows no SYN answers a SYN of the interval before.
    """
    tcp = flows["protocol"] == TCP
    syn = np.flatnonzero(tcp & (flows["tcp_flags"] & TCP_SYN > 0))
    if not len(syn):
        return np.zeros(0, np.int64)
    syn = syn[~np.isin(hashes[syn], opened_before)]
    order = np.lexsort((-flows["src_port"][syn].astype(np.int64), flows["first_ns"][syn], hashes[syn]))
    syn = syn[order]
    groups, first, sizes = np.unique(hashes[syn], return_index=True, return_counts=True)
    first_rows = syn[first]
    lone_answer = (sizes == 1) & (flows["tcp_flags"][first_rows] & TCP_ACK > 0)
    if lone_answer.any():
        tcp_hashes, rows = np.unique(hashes[tcp], return_counts=True)
        lone_answer &= rows[np.searchsorted(tcp_hashes, groups)] > 1
    opening: NDArray[np.int64] = first_rows[~lone_answer].astype(np.int64)
    return opening
