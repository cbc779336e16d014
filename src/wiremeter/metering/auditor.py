"""The audit of an interval: our own sums against each other, and beside them the kernel's device counters."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple, Self

from wiremeter.datapath.interval import Interval
from wiremeter.flows.batch import Attachment, Audit, Drop, KernelCounters, Tally
from wiremeter.linux.netlink import RouteSocket
from wiremeter.linux.netlink_messages import LinkCounters, Qdisc
from wiremeter.metering.conventions import NO_GAIN, QdiscGain, convention_of, drops_of, explain_difference
from wiremeter.metering.tracker import Metered

#: From a reading to the flip that follows it; what crosses a device meanwhile is counted on one side only.
FLIP_SECONDS = 0.0005


class Reading(NamedTuple):
    """Device counters and qdiscs by ifindex, and when they were read."""

    monotonic: float
    counters: Mapping[int, LinkCounters]
    qdiscs: Mapping[int, Qdisc]


class Auditor:
    """Reads device counters and qdiscs once an interval and compares their gains with what the programs counted."""

    def __init__(self) -> None:
        self._resources = ExitStack()
        self._route = self._resources.enter_context(RouteSocket())
        self._before = self._now = Reading(time.monotonic(), {}, {})
        self._skew_seconds = 0.0
        self._known_since: dict[int, bool] = {}
        self._unexplained: defaultdict[int, int] = defaultdict(int)

    def __enter__(self) -> Self:
        self.read()
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def audits(
        self,
        interval: Interval,
        attachments: Sequence[Attachment],
        flows: Sequence[Tally],
        metered: Mapping[int, Metered],
    ) -> Iterator[Audit]:
        """One audit for each attachment of the batch, in its order, over the time between the last two readings.

        flows: sums of the batch's flows by position.
        """
        for position, attachment in enumerate(attachments):
            seen, dropped = interval.seen(position), interval.dropped(position)
            kernel, remainders, drops = self._compare(attachment, seen, metered.get(attachment.id), dropped)
            yield Audit(
                device=attachment.device,
                direction=attachment.direction,
                seen=seen,
                flows=flows[position],
                non_ip=interval.non_ip(position),
                unattributed=interval.unattributed(position),
                kernel=kernel,
                remainders=remainders,
                drops=drops,
                capture_dropped=dropped,
            )

    def read(self) -> None:
        """Reads the device counters. Best right before the flip that ends the interval: they move on meanwhile."""
        started = time.monotonic()
        self._before = self._now
        self._now = Reading(started, self._route.counters(), self._route.qdiscs())
        self._skew_seconds = time.monotonic() - started + FLIP_SECONDS

    def _compare(
        self,
        attachment: Attachment,
        seen: Tally,
        metered: Metered | None,
        capture_dropped: int,
    ) -> tuple[KernelCounters | None, Mapping[str, int], tuple[Drop, ...]]:
        """None for a device that came or went in this interval: its counters do not span it."""
        before, after = self._before.counters.get(attachment.ifindex), self._now.counters.get(attachment.ifindex)
        was_here = self._known_since.get(attachment.id, False)
        self._known_since[attachment.id] = True
        if before is None or after is None or metered is None or not was_here:
            return None, {}, ()
        qdisc = QdiscGain.between(self._before.qdiscs.get(attachment.ifindex), self._now.qdiscs.get(attachment.ifindex))
        gained = after.since(before)
        drops = drops_of(attachment.direction, gained, qdisc)
        if attachment.mode == "capture":
            qdisc = NO_GAIN  # packet sockets see packets behind it
        kernel, remainders = explain_difference(
            attachment.direction,
            seen,
            gained,
            convention_of(metered.device, attachment.direction, attachment.mode),
            qdisc=qdisc,
            capture_dropped=capture_dropped,
            uncertain=min(1.0, self._skew_seconds / (self._now.monotonic - self._before.monotonic)),
            unexplained_before=self._unexplained[attachment.id],
        )
        self._unexplained[attachment.id] += remainders.get("unexplained", 0)
        return kernel, remainders, drops
