"""Rows of dtype FLOW out of small numbers, so that many of them are equal, or differ in one thing only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from wiremeter.datapath.rows import Part, merge_parts
from wiremeter.flows.columns import FLOW, VLAN_NONE


class Key(NamedTuple):
    """What tells flows apart; `source` and `target` are the last bytes of addresses."""

    source: int = 1
    target: int = 2
    sport: int = 0
    dport: int = 0
    attachment: int = 0
    vlan: int = VLAN_NONE
    protocol: int = 17
    family: int = 4


class Amounts(NamedTuple):
    """What is summed, and what is not."""

    packets: int = 1
    bytes: int = 60
    skbs: int = 1
    first_ns: int = 100
    last_ns: int = 200
    tcp_flags: int = 0


def merge_rows(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """merge_parts, of rows that name the same attachments."""
    return merge_parts([Part(rows) for rows in parts])


def flow_rows(flows: dict[Key, Amounts], *, hashes: int = 1 << 32) -> NDArray[np.void]:
    """One row for each flow, shape (n,). Hashes come from the keys; few possible ones make many flows share one."""
    rows = np.zeros(len(flows), FLOW)
    for row, (key, amounts) in zip(rows, flows.items(), strict=True):
        row["src_addr"][-1], row["dst_addr"][-1] = key.source, key.target
        row["src_port"], row["dst_port"], row["attachment"], row["vlan"], row["protocol"], row["family"] = key[2:]
        for name, value in amounts._asdict().items():
            row[name] = value
        row["hash"] = hash(key) % hashes
    return rows


def flows_of(rows: NDArray[np.void]) -> dict[Key, Amounts]:
    """The reverse. Raises AssertionError if a flow is there twice."""
    found: dict[Key, Amounts] = {}
    for row in rows:
        numbers = [int(row[name]) for name in ("src_port", "dst_port", "attachment", "vlan", "protocol", "family")]
        key = Key(int(row["src_addr"][-1]), int(row["dst_addr"][-1]), *numbers)
        assert key not in found, f"{key} is there twice"
        found[key] = Amounts(*(int(row[name]) for name in Amounts._fields))
    return found


few = st.integers(0, 1)
tags = st.sampled_from([0, 1, VLAN_NONE])
keys = st.builds(Key, few, few, few, few, few, tags, st.sampled_from([6, 17]), st.sampled_from([4, 6]))
amounts = st.builds(
    Amounts,
    packets=st.integers(1, 1 << 40),
    bytes=st.integers(1, 1 << 50),
    skbs=st.integers(1, 1 << 40),
    first_ns=st.integers(0, 1 << 62),
    last_ns=st.integers(0, 1 << 62),
    tcp_flags=st.integers(0, 0xFFF),
)
#: What one region can hold: each flow once.
regions = st.dictionaries(keys, amounts, max_size=12)


def add_up(parts: list[dict[Key, Amounts]]) -> dict[Key, Amounts]:
    """The model: all parts together, one row a flow."""
    total: dict[Key, Amounts] = {}
    for part in parts:
        for key, more in part.items():
            have = total.get(key)
            total[key] = more if have is None else Amounts(
                have.packets + more.packets,
                have.bytes + more.bytes,
                have.skbs + more.skbs,
                min(have.first_ns, more.first_ns),
                max(have.last_ns, more.last_ns),
                have.tcp_flags | more.tcp_flags,
            )  # fmt: skip
    return total
