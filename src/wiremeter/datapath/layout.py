"""How large the tables are, and where the parts of a region lie. Pure arithmetic, so `doctor` can predict it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from wiremeter.datapath import records
from wiremeter.errors import InputError
from wiremeter.settings.words import FLOW_TABLE_LINES_MAX, FLOW_TABLE_LINES_MIN

#: Lines of one CPU's region unless memory is short. An early flip is asked for when 3 in 8 are in use; some 5 in 8 can
#: be used before flows find no room, and must hold the new flows of the time that a flip takes: wake-up, grace period,
#: drain. docs/configuration.md says what was measured.
DEFAULT_LINES = 1 << 17
#: Places are spread over no fewer lines than this: 256 KiB, 64 pages.
MIN_SPREAD = 1 << 12
#: The tables take at most this part of the memory that the process may use, unless a size is asked for.
MEMORY_SHARE = 1 / 32
DEFAULT_ATTACHMENTS = 64
#: Each of the two rings that payloads come through, if names are read.
RING_BYTES = 4 << 20
#: Memory of a packet socket's ring, for each direction of a device: some 95,000 packets, 0.1 to 0.3 s of what one CPU
#: can count.
CAPTURE_RING_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class TablePlan:
    """Sizes of the flow tables. Two epochs of `regions` regions of `lines` lines; sizes in bytes."""

    lines: int
    regions: int
    attachments: int

    @property
    def touched_offset(self) -> int:
        """Where the list of entries begins in a region."""
        return records.REGION_HEADER.itemsize + self.attachments * records.COUNTERS.itemsize

    @property
    def lines_offset(self) -> int:
        """Where the lines begin in a region; a multiple of 128, so that no IPv6 flow straddles a third cache line."""
        return -(-(self.touched_offset + self.lines * 4) // 128) * 128

    @property
    def region_bytes(self) -> int:
        """One region, in whole pages."""
        return -(-(self.lines_offset + self.lines * records.LINE_BYTES) // 4096) * 4096

    @property
    def overflow_bytes(self) -> int:
        """The counters of CPUs without a region, one epoch."""
        return self.touched_offset

    @property
    def bytes(self) -> int:
        """All tables together. The kernel takes this at once when they are made."""
        return 2 * (self.regions * self.region_bytes + self.overflow_bytes)

    def shape(self, seed: int) -> np.void:
        """The constants that programs need, as scalar of records.TABLE_SHAPE. seed: of the hash's keys, 64 bits."""
        shape: np.void = np.zeros(1, records.TABLE_SHAPE)[0]
        shape["touched_offset"] = self.touched_offset
        shape["lines_offset"] = self.lines_offset
        shape["lines_mask"] = self.lines - 1
        keys = hashlib.shake_256(seed.to_bytes(8, "little")).digest(8 * records.HASH_KEYS)
        shape["hash_keys"] = np.frombuffer(keys, "<u8")
        return shape


def names_bytes(regions: int) -> int:
    """What reading names takes in the kernel: two rings, what is remembered of flows, and scratch for each CPU."""
    return 2 * RING_BYTES + records.RECENT.itemsize + regions * records.PAYLOAD_BYTES_MAX


def spread_for(recent_lines: int, lines: int) -> int:
    """Over how many of a table's lines to spread places, where of late so many were in use: a power of two.

    Four times as many, so that a flip is not due before half as many again are in use; at least MIN_SPREAD.

    >>> spread_for(1000, 131072), spread_for(40000, 131072), spread_for(3, 256)
    (4096, 131072, 256)
    """
    return min(lines, max(MIN_SPREAD, 1 << (4 * recent_lines - 1).bit_length()))


def plan_tables(
    cpus: int, lines: int | None = None, memory_limit_bytes: int | None = None, attachments: int = DEFAULT_ATTACHMENTS
) -> TablePlan:
    """Sizes for `cpus` CPUs.

    lines: lines of one region, a power of two from 256 to 2^22; None takes DEFAULT_LINES or as many as fit
    MEMORY_SHARE of memory_limit_bytes. attachments: devices × directions that can be metered at once.
    Raises InputError for a size that is no power of two, out of range, or more than the memory there is.
    """
    if not 2 <= attachments <= records.ATTACHMENTS_MAX:
        most = records.ATTACHMENTS_MAX // 2
        raise InputError(f"{attachments // 2} devices asked for; from 1 to {most} can be metered")
    if lines is None:
        plan = TablePlan(DEFAULT_LINES, cpus, attachments)
        most_bytes = (memory_limit_bytes or float("inf")) * MEMORY_SHARE
        while plan.bytes > most_bytes and plan.lines > FLOW_TABLE_LINES_MIN:
            plan = TablePlan(plan.lines // 2, cpus, attachments)
        return plan
    if lines & (lines - 1) or not FLOW_TABLE_LINES_MIN <= lines <= FLOW_TABLE_LINES_MAX:
        near = 1 << max(8, min(22, round(np.log2(max(lines, 1)))))
        raise InputError(f"flow table of {lines} lines: it must be a power of two from 256 to 4194304; nearest: {near}")
    plan = TablePlan(lines, cpus, attachments)
    if memory_limit_bytes and plan.bytes > memory_limit_bytes // 2:
        raise InputError(
            f"flow tables of {lines} lines on {cpus} CPUs take {plan.bytes >> 20} MiB, more than half of the "
            f"{memory_limit_bytes >> 20} MiB that this process may use: choose a smaller --flow-table"
        )
    return plan
