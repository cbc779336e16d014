"""What in a batch an operator should read about, once when it changes instead of with every batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from wiremeter.flows.batch import Attachment, FlowBatch, Health
from wiremeter.reports.findings import Finding, findings

#: What goes on for long is repeated this often.
REPEAT_SECONDS = 60.0


class Notice(NamedTuple):
    """A log record to be."""

    level: int
    message: str
    fields: Mapping[str, object]


class Watch:
    """Compares each batch with what was known before it."""

    def __init__(self, attachments: Iterable[Attachment], clock: Callable[[], float] = time.monotonic) -> None:
        """attachments: those already reported."""
        self._attachments = {attachment.id: attachment for attachment in attachments}
        self._health = Health()
        self._states: dict[tuple[str, ...], Finding] = {}
        self._clock = clock
        self._said: dict[tuple[str, ...], float] = {}
        self._unsaid: dict[tuple[str, ...], Finding] = {}

    def look(self, batch: FlowBatch) -> Iterator[Notice]:
        """What is new in `batch`."""
        yield from self._attachment_changes(batch)
        yield from self._findings(batch)

    def rest(self) -> Iterator[Notice]:
        """What is still to be said when no batch follows."""
        yield from map(_notice, self._unsaid.values())
        self._unsaid.clear()

    def _attachment_changes(self, batch: FlowBatch) -> Iterator[Notice]:
        now = {attachment.id: attachment for attachment in batch.attachments}
        before, self._attachments = self._attachments, now
        for id in before.keys() - now.keys():
            yield Notice(logging.INFO, "detached", attachment_fields(before[id]))
        for id, attachment in now.items():
            known = before.get(id)
            if known is None:
                yield Notice(logging.INFO, "attached", attachment_fields(attachment))
            elif known.device != attachment.device:
                yield Notice(logging.INFO, "renamed", attachment_fields(attachment) | {"before": known.device})

    def _findings(self, batch: FlowBatch) -> Iterator[Notice]:
        """Those with advice: what goes on, when it begins and ends; what happened, now and then and summed up."""
        found = [one for one in findings(batch, self._health) if one.severity != "note" and one.advice]
        self._health = batch.health
        before, self._states = self._states, {one.about: one for one in found if one.is_state}
        for about in before.keys() - self._states.keys():
            yield Notice(logging.INFO, f"over: {before[about].what}", _fields(before[about]))
        for finding in found:
            if finding.is_state:
                if finding.about not in before:
                    yield _notice(finding)
                continue
            topic = _topic(finding)
            unsaid = self._unsaid.get(topic, replace(finding, packets=0, bytes=0))
            total = replace(finding, packets=unsaid.packets + finding.packets, bytes=unsaid.bytes + finding.bytes)
            self._unsaid[topic] = total
        yield from self._due()

    def _due(self) -> Iterator[Notice]:
        """What was not said of late, of this interval or of those before."""
        now = self._clock()
        self._said = {topic: at for topic, at in self._said.items() if now - at < REPEAT_SECONDS}
        for topic in self._unsaid.keys() - self._said.keys():
            self._said[topic] = now
            yield _notice(self._unsaid.pop(topic))


def attachment_fields(attachment: Attachment) -> dict[str, object]:
    """An attachment as fields of a log record."""
    return {
        "device": attachment.device,
        "direction": attachment.direction,
        "mode": attachment.mode,
        "ifindex": attachment.ifindex,
    }


def _topic(finding: Finding) -> tuple[str, ...]:
    """What is summed up in one notice. By how much a clock was set is another amount each time."""
    return (finding.kind,) if finding.kind == "clock_set" else finding.about


def _notice(finding: Finding) -> Notice:
    level = logging.ERROR if finding.severity == "fault" else logging.WARNING
    return Notice(level, f"{finding.what}: {finding.advice}", _fields(finding))


def _fields(finding: Finding) -> dict[str, object]:
    """What is not in the message; 0 packets or bytes are no number."""
    unit = "skbs" if finding.kind == "capture_dropped" else "packets"
    fields = {
        "device": finding.device,
        "direction": finding.direction,
        "reason": finding.reason,
        unit: finding.packets,
        "bytes": finding.bytes,
    }
    return {name: value for name, value in fields.items() if value}
