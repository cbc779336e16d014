"""The audit of an interval: our own sums against each other, and beside them the kernel's device counters."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from wiremeter.datapath.interval import Interval
from wiremeter.errors import KernelError
from wiremeter.flows.batch import Attachment, Audit, Drop, KernelCounters, Tally
from wiremeter.linux.netlink_messages import LinkCounters, Qdisc
from wiremeter.metering.conventions import (
    NO_GAIN,
    Balance,
    QdiscGain,
    convention_of,
    drops_of,
    explain_difference,
)
from wiremeter.metering.tracker import Metered


class Counters(Protocol):
    """What RouteSocket is to an auditor."""

    def counters(self) -> Mapping[int, LinkCounters]: ...

    def qdiscs(self) -> Mapping[int, Qdisc]: ...


#: What crosses a device between our turn and the reading of its counters comes in bursts: so many times the mean.
BURST = 2


class Reading(NamedTuple):
    """Device counters, read between two times, and qdiscs, by ifindex, while these attachments (by id) counted."""

    began: float
    ended: float
    counters: Mapping[int, LinkCounters]
    qdiscs: Mapping[int, Qdisc]
    attached: frozenset[int]


class Auditor:
    """Reads device counters and qdiscs once an interval and compares their gains with what the programs counted."""

    def __init__(self, source: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._before = self._now = Reading(0.0, 0.0, {}, {}, frozenset())
        self._balances: dict[int, Balance] = {}  # by attachment id

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

    def read(self, attached: Iterable[Attachment] = ()) -> None:
        """Reads the device counters. attached: what counts now.

        To be called as the flip turns the tables, not before: what a device counts between that and the reading, our
        next interval counts. The other way round the first reading lacks packets that we have counted before it, and
        the devices' counters are ahead by so many ever after, as if these had bypassed the stack. What the device has
        counted too early for us at an attachment's first reading is in the gain since the reading before, if there is
        one: nothing of that is missing later on. So read once before the first attachment's turn, too.
        """
        began = ended = self._clock()
        counters: Mapping[int, LinkCounters] = {}
        qdiscs: Mapping[int, Qdisc] = {}
        try:
            counters = self._source.counters()
            ended = self._clock()
            qdiscs = self._source.qdiscs()
        except KernelError as error:
            if error.errno != errno.EINTR:  # devices come and go faster than they can be read: nothing to compare with
                raise
        attached = tuple(attached)
        ids = frozenset(attachment.id for attachment in attached)
        self._before, self._now = self._now, Reading(began, ended, counters, qdiscs, ids)
        self._balances = {a.id: self._balances.get(a.id) or Balance(0, self._gain(a)) for a in attached}

    def _gain(self, attachment: Attachment) -> int:
        """Packets that the device has counted since the reading before; 0 without one."""
        before, now = self._before.counters.get(attachment.ifindex), self._now.counters.get(attachment.ifindex)
        if before is None or now is None:
            return 0
        gained = now.since(before)
        return max(0, gained.rx_packets if attachment.direction == "rx" else gained.tx_packets)

    def _compare(
        self,
        attachment: Attachment,
        seen: Tally,
        metered: Metered | None,
        capture_dropped: int,
    ) -> tuple[KernelCounters | None, Mapping[str, int], tuple[Drop, ...]]:
        """None for a device that came or went in this interval: its counters do not span it."""
        before, after = self._before.counters.get(attachment.ifindex), self._now.counters.get(attachment.ifindex)
        was_here = attachment.id in self._before.attached and attachment.id in self._now.attached
        if before is None or after is None or metered is None or not was_here:
            return None, {}, ()
        qdisc = QdiscGain.between(self._before.qdiscs.get(attachment.ifindex), self._now.qdiscs.get(attachment.ifindex))
        gained = after.since(before)
        drops = drops_of(attachment.direction, gained, qdisc)
        if attachment.mode == "capture":
            qdisc = NO_GAIN  # packet sockets see packets behind it
        explained = explain_difference(
            attachment.direction,
            seen,
            gained,
            convention_of(metered.device, attachment.direction, attachment.mode),
            qdisc=qdisc,
            other_xdp=attachment.mode in ("tcx", "clsact", "capture") and not metered.device.xdp.is_free,
            capture_dropped=capture_dropped,
            uncertain=self._uncertain(),
            before=self._balances[attachment.id],
        )
        self._balances[attachment.id] = explained.balance
        return explained.kernel, explained.remainders, drops

    def _uncertain(self) -> float:
        """The share of the interval whose packets may be on the wrong side of one of its two ends."""
        gap = max(reading.ended - reading.began for reading in (self._before, self._now))
        return min(1.0, BURST * gap / (self._now.began - self._before.began))
