"""One interval in the making: what the flips of an interval bring is added up here, within bounds, then closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wiremeter.datapath import records
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.rows import Part, merge_parts, tally_rows
from wiremeter.flows.batch import Tally
from wiremeter.flows.columns import COUNTER, ETHERTYPE_COUNTER, ETHERTYPE_OTHER
from wiremeter.settings.words import FLOWS_MAX

#: A reason of user space's own: more flows in one interval than a batch may hold.
BATCH_FULL = "batch_full"
#: Another: flows in tables of an older wiremeter, whose records this one cannot read.
UNREADABLE = "unreadable"


class Interval:
    """Adds up drains. An attachment has one place in all that comes out, whatever slots of an engine it had."""

    def __init__(self, max_flows: int = FLOWS_MAX) -> None:
        self._max_flows = max_flows
        self._places: dict[int, int] = {}
        self._parts: list[Part] = []
        self._ethertypes: list[tuple[NDArray[np.void], NDArray[np.uint16] | None]] = []
        self._counters: dict[int, NDArray[np.uint64]] = {}
        self._overflow: dict[int, Tally] = {}
        self._unreadable: dict[int, Tally] = {}
        self._dropped: dict[int, int] = {}
        self._payloads, self._lost_payloads = np.zeros((2, len(records.SOURCES)), np.uint64)
        self.peak_lines = 0
        self.grace_seconds = 0.0
        self.drain_seconds = 0.0

    @property
    def attachments(self) -> tuple[int, ...]:
        """Their ids, each at its place: what the `attachment` of rows and the positions of tallies count by."""
        return tuple(self._places)

    def add(self, drain: Drain, owners: Mapping[int, int]) -> None:
        """Takes what one flip brought. owners: the id of the attachment that each slot of the engine counted for.

        An id that was not there before gets the next place.
        """
        places = {slot: self._places.setdefault(id, len(self._places)) for slot, id in owners.items()}
        self.peak_lines = max(self.peak_lines, drain.peak_lines)
        self._payloads += drain.payloads
        self._lost_payloads += drain.lost_payloads
        self.grace_seconds += drain.grace_seconds
        self.drain_seconds += drain.drain_seconds
        for slot, position in places.items():
            self._dropped[position] = self._dropped.get(position, 0) + drain.dropped.get(slot, 0)
            if slot in drain.unreadable:
                before = self._unreadable.get(position, Tally())
                self._unreadable[position] = before.plus(Tally(*drain.unreadable[slot]))
            counts = drain.counters[slot]
            if position in self._counters:
                self._counters[position] += counts
            elif counts.any():
                self._counters[position] = counts.copy()
        lookup = None
        if any(slot != place for slot, place in places.items()):
            lookup = np.zeros(len(drain.counters), np.uint16)
            lookup[list(places)] = list(places.values())
        self._parts.extend(Part(rows, lookup) for rows in drain.flows if len(rows))
        self._ethertypes.append((drain.ethertypes, lookup))
        if sum(len(part.rows) for part in self._parts) > self._max_flows:
            self._compact()

    def _compact(self) -> None:
        """Merges what there is; rows beyond the bound go to BATCH_FULL, so that memory ends but no count is lost."""
        rows = merge_parts(self._parts)
        kept, rest = rows[: self._max_flows], rows[self._max_flows :]
        for position in np.unique(rest["attachment"]):
            mine = rest[rest["attachment"] == position]
            lost = Tally(int(mine["packets"].sum()), int(mine["bytes"].sum()), int(mine["skbs"].sum()))
            self._overflow[int(position)] = self._overflow.get(int(position), Tally()).plus(lost)
        self._parts = [Part(kept.copy() if len(rest) else kept)]

    def flows(self) -> NDArray[np.void]:
        """All flows so far, dtype FLOW, one row a flow."""
        return merge_parts(self._parts)

    def counters(self) -> NDArray[np.void]:
        """Rows of dtype COUNTER for every family and protocol that was seen."""
        rows = []
        for position, counts in sorted(self._counters.items()):
            for first, family in ((records.ROW_IPV4, 4), (records.ROW_IPV6, 6)):
                of_family = counts[first : first + records.PROTOCOLS]
                rows += [
                    (position, family, protocol, *of_family[protocol]) for protocol in np.flatnonzero(of_family[:, 2])
                ]
            if counts[records.ROW_NON_IP, 2]:
                rows.append((position, 0, 0, *counts[records.ROW_NON_IP]))
        return np.array(rows, COUNTER)

    def ethertypes(self) -> NDArray[np.void]:
        """Rows of dtype ETHERTYPE_COUNTER. Together they are the non-IP counters: the rest is ETHERTYPE_OTHER."""
        sums: dict[tuple[int, int], Tally] = {}
        for rows, lookup in self._ethertypes:
            for slot, ethertype, *tally in rows.tolist():
                key = slot if lookup is None else int(lookup[slot]), ethertype
                sums[key] = sums.get(key, Tally()).plus(Tally(*tally))
        for position in self._counters:
            named = [tally for (at, _), tally in sums.items() if at == position]
            rest = [n - sum(tally[i] for tally in named) for i, n in enumerate(self.non_ip(position))]
            if any(rest):
                sums[position, ETHERTYPE_OTHER] = Tally(*rest)
        return np.array([(*key, *tally) for key, tally in sorted(sums.items())], ETHERTYPE_COUNTER)

    def sent_payloads(self) -> dict[str, int]:
        """Payloads that were sent to user space, by source."""
        return dict(zip(records.SOURCES, self._payloads.tolist(), strict=True))

    def lost_payloads(self) -> dict[str, int]:
        """Payloads that were picked and not sent, by source."""
        return dict(zip(records.SOURCES, self._lost_payloads.tolist(), strict=True))

    def seen(self, position: int) -> Tally:
        """All that one attachment counted: by family and protocol, and what had not even a family."""
        counts = self._counters.get(position)
        if counts is None:
            return Tally()
        truncated = records.ROW_UNATTRIBUTED + records.REASONS.index("truncated_l2")
        total = counts[: records.ROW_UNATTRIBUTED].sum(axis=0) + counts[truncated]
        return Tally(*map(int, total))

    def non_ip(self, position: int) -> Tally:
        """Frames that are not IP."""
        counts = self._counters.get(position)
        return Tally() if counts is None else Tally(*map(int, counts[records.ROW_NON_IP]))

    def dropped(self, position: int) -> int:
        """Buffers that came past one attachment and never reached the engine."""
        return self._dropped.get(position, 0)

    def unattributed(self, position: int) -> dict[str, Tally]:
        """By reason, only what was seen."""
        found: dict[str, Tally] = {}
        counts = self._counters.get(position)
        if counts is not None:
            for number, reason in enumerate(records.REASONS):
                tally = Tally(*map(int, counts[records.ROW_UNATTRIBUTED + number]))
                if tally.skbs:
                    found[reason] = tally
        if position in self._overflow:
            found[BATCH_FULL] = self._overflow[position]
        if position in self._unreadable:
            found[UNREADABLE] = self._unreadable[position]
        return found


def tallies_by_attachment(flows: NDArray[np.void], attachments: int) -> Sequence[Tally]:
    """Sums of packets, bytes and skbs of the flows of each attachment; flows of dtype FLOW."""
    return [Tally(*row) for row in tally_rows(flows, attachments).tolist()]
