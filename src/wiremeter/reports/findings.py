"""What a view must say aloud: where the numbers are not what a reader would take them for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from wiremeter.flows.batch import FlowBatch, Health
from wiremeter.reports.units import count

Severity = Literal["fault", "warning", "note"]
Kind = Literal[
    "unbalanced",
    "displaced",
    "unattributed",
    "capture_dropped",
    "dropped",
    "bypassed",
    "lost_payloads",
    "skb_counts",
    "simulated",
    "no_device",
    "stacked",
]

_RANK = {"fault": 0, "warning": 1, "note": 2}
_HINTS = {
    "table_full": "raise --flow-table",
    "no_region": "a CPU without a flow table, restart",
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing to know about one interval.

    device, direction: what it is about, "" if about all.  reason: of unattributed packets; what lost payloads were of;
    where packets were dropped.
    packets, bytes: how much it concerns, 0 where that has no number.
    """

    kind: Kind
    severity: Severity
    device: str = ""
    direction: str = ""
    reason: str = ""
    packets: int = 0
    bytes: int = 0

    @property
    def text(self) -> str:
        """One line."""
        about = f"{self.device} {self.direction}: " if self.device else ""
        return about + self._text()

    def _text(self) -> str:
        match self.kind:
            case "unbalanced":
                return (
                    f"audit off by {self.packets:+,} packets, {self.bytes:+,} bytes: "
                    "a fault of the meter, please report it"
                )
            case "displaced":
                return "displaced: another program runs before ours and may hide packets"
            case "unattributed":
                hint = _HINTS.get(self.reason, "in no flow")
                return f"{count(self.packets)} packets unattributed, {self.reason}: {hint}"
            case "capture_dropped":
                return f"{count(self.packets)} buffers lost: packets come faster than --attach capture counts"
            case "dropped":
                return f"{count(self.packets)} packets dropped by {self.reason}"
            case "bypassed":
                return f"{count(self.packets)} packets bypassed the stack and are in none of these numbers"
            case "lost_payloads":
                return f"{count(self.packets)} payloads lost, {self.reason}: names may be missing, all counts hold"
            case "skb_counts":
                return "generic XDP counts skbs (merged buffers), not wire packets"
            case "simulated":
                return "SIMULATED traffic: nothing of this was on a wire"
            case "no_device":
                return "no device is metered: those chosen are gone, down or not there yet"
            case "stacked":
                return "a packet counts on each device it passes: totals over stacked devices exceed the wire"


def alarms(batch: FlowBatch, before: Health | None = None) -> tuple[Alarm, ...]:
    """What must be said about this interval, the worst first.

    before: the meter's state at the end of the interval before; None if this is the first.
    """
    return tuple(sorted(_find(batch, before or Health()), key=lambda alarm: _RANK[alarm.severity]))


def _find(batch: FlowBatch, before: Health) -> Iterator[Alarm]:
    if batch.mode == "simulated":
        yield Alarm("simulated", "warning")
    if not batch.attachments:
        yield Alarm("no_device", "warning")
    for place in batch.health.displaced:
        device, _, direction = place.rpartition(" ")
        yield Alarm("displaced", "fault", device, direction)
    for attachment in batch.attachments:
        if attachment.mode == "xdp-generic":
            yield Alarm("skb_counts", "warning", attachment.device, attachment.direction)
    for audit in batch.audit:
        if not audit.balanced:
            missing = audit.missing
            yield Alarm(
                "unbalanced",
                "fault",
                audit.device,
                audit.direction,
                packets=missing.packets,
                bytes=missing.bytes,
            )
        for reason, tally in audit.unattributed.items():
            if tally.packets:
                yield Alarm(
                    "unattributed", "warning", audit.device, audit.direction, reason, tally.packets, tally.bytes
                )
        if audit.capture_dropped:
            yield Alarm("capture_dropped", "fault", audit.device, audit.direction, packets=audit.capture_dropped)
        for drop in audit.drops:
            if drop.packets:
                where = f"qdisc {drop.cause}" if drop.place == "qdisc" else f"the device ({drop.cause})"
                yield Alarm("dropped", "warning", audit.device, audit.direction, where, drop.packets)
        bypassed = audit.remainders.get("bypassed_stack", 0)
        if bypassed > 0:
            yield Alarm("bypassed", "warning", audit.device, audit.direction, packets=bypassed)
    for source, lost in batch.health.lost_payloads.items():
        gained = lost - before.lost_payloads.get(source, 0)
        if gained > 0:
            yield Alarm("lost_payloads", "warning", reason=source, packets=gained)
    if len({attachment.device for attachment in batch.attachments}) > 1:
        yield Alarm("stacked", "note")


class AlarmLog:
    """Alarms of all intervals so far, those alike added up: what flashed by stays to be read.

    Notes are left out; they concern how to read the view, not what happened.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str, str], tuple[Alarm, int]] = {}
        self._now = 0
        self._before = self._health = Health()

    def add(self, batch: FlowBatch) -> None:
        """Take in one interval."""
        if batch.end_ns != self._now:  # the same interval comes again after `clear`
            self._before, self._health = self._health, batch.health
        self._now = batch.end_ns
        for alarm in alarms(batch, self._before):
            if alarm.severity == "note":
                continue
            key = (alarm.kind, alarm.device, alarm.direction, alarm.reason)
            before, _ = self._entries.get(key, (replace(alarm, packets=0, bytes=0), 0))
            total = replace(alarm, packets=before.packets + alarm.packets, bytes=before.bytes + alarm.bytes)
            self._entries[key] = (total, self._now)

    def clear(self) -> None:
        """Forget what is over; what still goes on comes back with the next interval."""
        self._entries.clear()

    def entries(self) -> list[tuple[Alarm, int | None]]:
        """Each alarm with its sum; beside it None if it is of the last interval, else when it was last seen
        (nanoseconds since the Unix epoch). What goes on comes first, then the worst, then the latest."""
        entries = [(alarm, None if at == self._now else at) for alarm, at in self._entries.values()]
        return sorted(entries, key=lambda e: (e[1] is not None, _RANK[e[0].severity], -(e[1] or 0)))
