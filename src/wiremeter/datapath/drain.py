"""What an engine hands over when its epoch is flipped: the same from the kernel and from the host library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Drain:
    """All counts of one epoch.

    counters: shape (attachments, records.ROWS, 3), uint64: packets, bytes, skbs.
    flows: arrays of dtype FLOW, one for each CPU that had any; a flow may be in several.
    ethertypes: shape (e,), dtype ETHERTYPE_COUNTER; an ethertype may be in several rows.
    peak_lines: most lines in use in one region.
    """

    counters: NDArray[np.uint64]
    flows: list[NDArray[np.void]]
    ethertypes: NDArray[np.void]
    peak_lines: int = 0
    grace_seconds: float = 0.0
    drain_seconds: float = 0.0
