"""What is wrong, or otherwise than a reader would take it for, and what to do: for views, documents, log and doctor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from wiremeter.flows.batch import FlowBatch, Health
from wiremeter.reports.units import count

Severity = Literal["fault", "warning", "note"]
Kind = Literal[
    "unbalanced",
    "displaced",
    "attaching",
    "unattributed",
    "capture_dropped",
    "dropped",
    "bypassed",
    "lost_payloads",
    "reader_ended",
    "skb_counts",
    "simulated",
    "no_device",
    "clock_set",
    "stacked",
    "super_packets",
    "computed",
    "not_shipping",
    "from_memory",
]

_RANK = {"fault": 0, "warning": 1, "note": 2}


class _Words(NamedTuple):
    """what: with {reason}, behind a number where there is one. advice: whose move it is; "" where there is none."""

    what: str
    advice: str = ""


_WORDS: dict[Kind, _Words] = {
    "unbalanced": _Words("the audit does not balance", "a fault of the meter, please report it"),
    "attaching": _Words("{reason} devices have appeared and will be metered in a moment"),
    "displaced": _Words(
        "displaced: another program runs before ours and may hide packets", "`wiremeter doctor` names it"
    ),
    "unattributed": _Words("packets unattributed, {reason}"),
    "capture_dropped": _Words(
        "buffers lost: packets come faster than --attach capture counts", "attach in another way, `wiremeter doctor`"
    ),
    "dropped": _Words("packets dropped by {reason}"),
    "bypassed": _Words("packets bypassed the stack and are in none of these numbers"),
    "lost_payloads": _Words("payloads lost, {reason}: names may be missing, all counts hold"),
    "reader_ended": _Words(
        "the process that reads payloads ended ({reason}) and another begins: names may be missing, all counts hold"
    ),
    "skb_counts": _Words("generic XDP counts buffers (skbs), not packets on the wire", "--attach tcx counts packets"),
    "simulated": _Words("SIMULATED traffic: nothing of this was on a wire"),
    "no_device": _Words("no device is metered", "those chosen are gone, down or not there yet"),
    "clock_set": _Words(
        "the system's clock was set by {reason}", "times of day jump from here on, durations and rates hold"
    ),
    "super_packets": _Words(
        "packets longer than the link's MTU of {reason} bytes: each was several on the wire and counts as one",
        "--assume-mss computes TCP's",
    ),
    "computed": _Words(
        "packets of TCP cut into segments of an assumed MSS of {reason}: packets and bytes are computed, not captured"
    ),
    "not_shipping": _Words("batches do not arrive at the server: {reason}", "they wait, up to --spool-size"),
    "from_memory": _Words("batches wait in memory and are lost with the process: {reason}", "set --spool-dir"),
    "stacked": _Words("a packet counts on each device it passes: totals over stacked devices are more than the wire"),
}
#: For packets that are unattributed for a reason that a setting can change.
_ADVICE = {
    "table_full": "raise --flow-table, or shorten --interval",
    "no_region": "a CPU came online that has no flow table: restart",
    "batch_full": "more flows than a batch may hold: shorten --interval, or raise --max-flows and the memory it takes",
}
#: Kinds that go on until something changes, and have no number.
_STATES: frozenset[Kind] = frozenset(
    ("displaced", "attaching", "skb_counts", "simulated", "no_device", "stacked", "not_shipping", "from_memory")
)


def sentence(kind: Kind) -> str:
    """What is so, and what to do, where it is not about one interval."""
    what, advice = _WORDS[kind]
    return f"{what}: {advice}" if advice else what


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about one interval; views call a fault or a warning an alarm.

    device, direction: what it is about, "" if about all.  reason: of unattributed packets; what lost payloads were of;
    where packets were dropped; why a reader ended; how many devices wait; by how much the clock was set; the MTU that
    super-packets exceed; the MSS that was assumed.
    packets, bytes: how much it concerns, 0 where that has no number; of capture_dropped packets are buffers.
    """

    kind: Kind
    severity: Severity
    device: str = ""
    direction: str = ""
    reason: str = ""
    packets: int = 0
    bytes: int = 0

    @property
    def what(self) -> str:
        """What is so, without numbers."""
        return _WORDS[self.kind].what.format(reason=self.reason)

    @property
    def advice(self) -> str:
        """What to do; "" where nothing can be done, or nothing need be."""
        return _ADVICE.get(self.reason, "") if self.kind == "unattributed" else _WORDS[self.kind].advice

    @property
    def is_state(self) -> bool:
        """Whether it goes on until something changes, rather than having happened some times."""
        return self.kind in _STATES

    @property
    def about(self) -> tuple[str, str, str, str]:
        """What findings of several intervals have in common."""
        return self.kind, self.device, self.direction, self.reason

    @property
    def text(self) -> str:
        """One line with everything."""
        where = f"{self.device} {self.direction}: " if self.device else ""
        advice = f": {self.advice}" if self.advice else ""
        if self.kind == "unbalanced":
            return f"{where}{self.what}, {self.packets:+,} packets, {self.bytes:+,} bytes{advice}"
        amount = f"{count(self.packets)} " if self.packets and not self.is_state else ""
        return f"{where}{amount}{self.what}{advice}"


def findings(batch: FlowBatch, before: Health | None = None) -> tuple[Finding, ...]:
    """What must be said about this interval, the worst first.

    before: the meter's state at the end of the interval before; None if this is the first.
    """
    return tuple(sorted(_find(batch, before or Health()), key=lambda finding: _RANK[finding.severity]))


def _find(batch: FlowBatch, before: Health) -> Iterator[Finding]:
    if batch.mode == "simulated":
        yield Finding("simulated", "warning")
    if not batch.attachments:
        yield Finding("no_device", "warning")
    if batch.health.clock_step_seconds:
        yield Finding("clock_set", "warning", reason=f"{batch.health.clock_step_seconds:+,.3f} s")
    if batch.health.attaching:
        yield Finding("attaching", "warning", reason=count(batch.health.attaching))
    for place in batch.health.displaced:
        device, _, direction = place.rpartition(" ")
        yield Finding("displaced", "fault", device, direction)
    for attachment in batch.attachments:
        if attachment.mode == "xdp-generic":
            yield Finding("skb_counts", "warning", attachment.device, attachment.direction)
    for audit in batch.audit:
        if not audit.balanced:
            missing = audit.missing
            yield Finding(
                "unbalanced",
                "fault",
                audit.device,
                audit.direction,
                packets=missing.packets,
                bytes=missing.bytes,
            )
        for reason, tally in audit.unattributed.items():
            if tally.packets:
                yield Finding(
                    "unattributed", "warning", audit.device, audit.direction, reason, tally.packets, tally.bytes
                )
        if audit.capture_dropped:
            yield Finding("capture_dropped", "fault", audit.device, audit.direction, packets=audit.capture_dropped)
        for drop in audit.drops:
            if drop.packets and drop.is_loss:
                where = f"qdisc {drop.cause}" if drop.place == "qdisc" else f"the device ({drop.cause})"
                yield Finding("dropped", "warning", audit.device, audit.direction, where, drop.packets)
        bypassed = audit.remainders.get("bypassed_stack", 0)
        if bypassed > 0:
            yield Finding("bypassed", "warning", audit.device, audit.direction, packets=bypassed)
    for source, lost in batch.health.lost_payloads.items():
        gained = lost - before.lost_payloads.get(source, 0)
        if gained > 0:
            yield Finding("lost_payloads", "warning", reason=source, packets=gained)
    if batch.health.reader_endings > before.reader_endings:
        yield Finding("reader_ended", "warning", reason=batch.health.reader_fault)
    if (of_capture := batch.super_packets) and of_capture.counted_once.packets:
        once = of_capture.counted_once
        yield Finding("super_packets", "warning", reason=f"{of_capture.mtu:,}", packets=once.packets, bytes=once.bytes)
    if of_capture and of_capture.assumed_mss:
        cut = of_capture.computed
        yield Finding("computed", "note", reason=f"{of_capture.assumed_mss:,}", packets=cut.packets, bytes=cut.bytes)
    if len({attachment.device for attachment in batch.attachments}) > 1:
        yield Finding("stacked", "note")


class FindingLog:
    """Findings of all intervals so far, those alike added up: what flashed by stays to be read.

    Notes are left out; they concern how to read the view, not what happened.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str, str], tuple[Finding, int]] = {}
        self._now = 0
        self._before = Health()

    def add(self, batch: FlowBatch) -> None:
        """Take in one interval."""
        self._now = batch.end_ns
        for finding in findings(batch, self._before):
            if finding.severity == "note":
                continue
            before, _ = self._entries.get(finding.about, (replace(finding, packets=0, bytes=0), 0))
            total = replace(finding, packets=before.packets + finding.packets, bytes=before.bytes + finding.bytes)
            self._entries[finding.about] = (total, self._now)
        self._before = batch.health

    def clear(self) -> None:
        """Forget what is over."""
        self._entries = {about: entry for about, entry in self._entries.items() if entry[1] == self._now}

    def entries(self) -> list[tuple[Finding, int | None]]:
        """Each with its sum; beside it None if it is of the last interval, else when it was last seen
        (nanoseconds since the Unix epoch). What goes on comes first, then the worst, then the latest."""
        entries = [(finding, None if at == self._now else at) for finding, at in self._entries.values()]
        return sorted(entries, key=lambda e: (e[1] is not None, _RANK[e[0].severity], -(e[1] or 0)))
