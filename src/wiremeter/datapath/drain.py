"""What an engine hands over when its epoch is flipped: the same from the kernel and from the host library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath import records


def _no_payloads() -> NDArray[np.uint64]:
    return np.zeros(len(records.SOURCES), np.uint64)


@dataclass(slots=True)
class Drain:
    """All counts of one epoch.

    counters: shape (attachments, records.ROWS, 3), uint64: packets, bytes, skbs.
    flows: arrays of dtype FLOW, one for each CPU that had any; a flow may be in several.
    ethertypes: shape (e,), dtype ETHERTYPE_COUNTER; an ethertype may be in several rows.
    payloads, lost_payloads: how many payloads were sent to user space, and how many were picked and not sent, by
    records.SOURCES.
    peak_lines: most lines in use in one region.
    dropped: buffers that came past an attachment and found no room on their way to the engine, by slot; only packet
    sockets are such a way.
    unreadable: packets, bytes and skbs that the counters have and no flow, by slot: tables of an older wiremeter.
    flip, ended_ns: of pinned tables, the number of the flip and its time of day.
    owners: the attachment whose counts each slot has here. A slot goes to another attachment when no more counts of its
    last owner can come, so one drain may name another owner than the next.
    """

    counters: NDArray[np.uint64]
    flows: list[NDArray[np.void]]
    ethertypes: NDArray[np.void]
    payloads: NDArray[np.uint64] = field(default_factory=_no_payloads)
    lost_payloads: NDArray[np.uint64] = field(default_factory=_no_payloads)
    peak_lines: int = 0
    grace_seconds: float = 0.0
    drain_seconds: float = 0.0
    dropped: dict[int, int] = field(default_factory=dict)
    owners: Mapping[int, object] = field(default_factory=dict)
    flip: int = 0
    ended_ns: int = 0
    unreadable: dict[int, tuple[int, int, int]] = field(default_factory=dict)
