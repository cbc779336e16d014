"""Reading one region: its counters and its lines as arrays, and making it empty again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath import records
from wiremeter.datapath.layout import TablePlan
from wiremeter.datapath.rows import clear, take_counters, take_rows


class Region:
    """One CPU's region of one epoch, as views of the engine's memory. Only to be read when no program writes it."""

    def __init__(
        self, plan: TablePlan, memory: Any, offset: int, *, counters_only: bool = False, in_use: bool = False
    ) -> None:
        """in_use: it was there before, and may have something in it."""
        self._header = np.frombuffer(memory, records.REGION_HEADER, 1, offset)
        # `counters_only`: there is no more than the counters, and no entry will ever be taken.
        self._memory = memoryview(memory)[
            offset : offset + (plan.overflow_bytes if counters_only else plan.region_bytes)
        ]
        self._attachments, self._counters_only = plan.attachments, counters_only
        self._shape = np.array([plan.shape(0)], records.TABLE_SHAPE)
        if not counters_only and not in_use:
            self.spread(plan.lines)

    def spread(self, lines: int) -> None:
        """Has flows placed among the first `lines` lines, a power of two, while there is room.

        Only in an empty region: flows are looked for where they would be placed.
        """
        self._header["spread_mask"] = lines - 1

    @property
    def lines_used(self) -> int:
        """Lines in use, of both families."""
        return int(self._header["lines_used"][0])

    def add_counters(
        self, to: NDArray[np.uint64], attachments: NDArray[np.integer[Any]], *, keep: bool = False
    ) -> None:
        """Adds the counters of some attachments to `to`, shape (attachments, ROWS, 3), and sets them to zero.

        keep: leaves them, as in the next two; then `clear` is due.
        """
        take_counters(self._memory, attachments, to, keep=keep)

    def add_payload_counts(self, sent: NDArray[np.uint64], lost: NDArray[np.uint64], *, keep: bool = False) -> None:
        """Adds the counts of payloads to `sent` and `lost`, by records.SOURCES, and sets them to zero."""
        for name, to in (("payloads", sent), ("lost_payloads", lost)):
            to += self._header[name][0]
            if not keep:
                self._header[name] = 0

    def clear(self) -> None:
        """Empties counters and table; may be cut short at any moment and done again."""
        self._header["payloads"] = self._header["lost_payloads"] = 0
        clear(self._memory, self._shape, self._attachments, with_lines=not self._counters_only)

    def take_rows(
        self, tick_ns: int = 1, origin_ns: int = 0, *, keep: bool = False
    ) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Copies out all flows and ethertype counts and empties the table.

        A time of the engine's clock `t` becomes origin_ns + t × tick_ns, modulo 2^64.
        Returns (flows, ethertypes) of dtypes FLOW and ETHERTYPE_COUNTER.
        """
        return take_rows(self._memory, self._shape, int(self._header["entries"][0]), tick_ns, origin_ns, keep=keep)
