"""From the lines of regions to rows of flows: one row a flow, all CPUs and all flips of an interval together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FLOW

#: What makes two rows the same flow, besides the hash that finds candidates.
KEY = ("src_addr", "dst_addr", "src_port", "dst_port", "attachment", "vlan", "protocol", "family")


def merge_flows(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """All rows of `parts` with rows of the same flow added up.

    parts: arrays of dtype FLOW. Returns shape (n,), dtype FLOW: packets, bytes and skbs summed, first_ns the least,
    last_ns the greatest, tcp_flags ORed. The order of rows is not defined. The input is not changed.
    Equal flows must carry equal hashes; different flows may share one.
    """
    rows = np.concatenate(parts) if parts else np.zeros(0, FLOW)
    if sum(1 for part in parts if len(part)) < 2:
        return rows
    order = np.argsort(rows["hash"])
    hashes = rows["hash"][order]
    same_hash = hashes[1:] == hashes[:-1]
    if not same_hash.any():
        return rows
    in_group = np.zeros(len(rows), bool)
    in_group[1:] |= same_hash
    in_group[:-1] |= same_hash
    alone = rows[order[~in_group]]
    return np.concatenate((alone, _add_up(rows[order[in_group]])))


def _add_up(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Rows with equal keys added up."""
    rows = rows[_key_order(rows)]
    keys = _key_words(rows)
    starts = np.flatnonzero(np.concatenate(([True], (keys[1:] != keys[:-1]).any(axis=1))))
    merged = rows[starts].copy()
    for name in ("packets", "bytes", "skbs"):
        merged[name] = np.add.reduceat(rows[name], starts)
    merged["first_ns"] = np.minimum.reduceat(rows["first_ns"], starts)
    merged["last_ns"] = np.maximum.reduceat(rows["last_ns"], starts)
    merged["tcp_flags"] = np.bitwise_or.reduceat(rows["tcp_flags"], starts)
    return merged


def _key_words(rows: NDArray[np.void]) -> NDArray[np.uint64]:
    """The keys as shape (n, 6) words: equal exactly where the flows are."""
    words = np.empty((len(rows), 6), np.uint64)
    words[:, 0:2] = np.ascontiguousarray(rows["src_addr"]).view(np.uint64)
    words[:, 2:4] = np.ascontiguousarray(rows["dst_addr"]).view(np.uint64)
    words[:, 4] = rows["src_port"].astype(np.uint64) << 48 | rows["dst_port"].astype(np.uint64) << 32 | rows["vlan"]
    words[:, 5] = rows["attachment"].astype(np.uint64) << 16 | rows["protocol"].astype(np.uint64) << 8 | rows["family"]
    return words


def _key_order(rows: NDArray[np.void]) -> NDArray[Any]:
    """An order in which equal keys are neighbours."""
    return np.lexsort((*_key_words(rows).T, rows["hash"]))
