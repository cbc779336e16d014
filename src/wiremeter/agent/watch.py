"""What in a batch an operator should read about, once when it changes instead of with every batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from wiremeter.flows.batch import Attachment, FlowBatch

#: What goes on for long is repeated this often.
REPEAT_SECONDS = 60.0

#: Reasons for unattributed packets that a setting can change, and what to do.
_ADVICE = {
    "table_full": "the flow table is too small: raise flow_table, or shorten interval",
    "no_region": "a CPU came online that has no flow table: restart the agent",
}


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
        self._displaced: frozenset[str] = frozenset()
        self._clock = clock
        self._said: dict[tuple[str, ...], float] = {}
        self._unsaid: dict[tuple[str, ...], int] = {}

    def look(self, batch: FlowBatch) -> Iterator[Notice]:
        """What is new in `batch`."""
        yield from self._attachment_changes(batch)
        yield from self._displacements(batch)
        yield from self._imbalances(batch)
        yield from self._avoidable_losses(batch)
        yield from self._capture_losses(batch)

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

    def _displacements(self, batch: FlowBatch) -> Iterator[Notice]:
        now = frozenset(batch.health.displaced)
        before, self._displaced = self._displaced, now
        for where in sorted(now - before):
            yield Notice(
                logging.WARNING,
                "displaced: another program now comes before ours and may hide packets; `wiremeter doctor` names it",
                _where_fields(where),
            )
        for where in sorted(before - now):
            yield Notice(logging.INFO, "no longer displaced", _where_fields(where))

    def _imbalances(self, batch: FlowBatch) -> Iterator[Notice]:
        for audit in batch.audit:
            if not audit.balanced and self._is_due("imbalance", audit.device, audit.direction):
                where = {"device": audit.device, "direction": audit.direction}
                yield Notice(
                    logging.ERROR,
                    "the audit does not balance: a fault in the meter, please report it",
                    where | {"seen_packets": audit.seen.packets} | _prefixed("missing", audit.missing._asdict()),
                )

    def _avoidable_losses(self, batch: FlowBatch) -> Iterator[Notice]:
        for audit in batch.audit:
            for reason, advice in _ADVICE.items():
                lost = audit.unattributed.get(reason)
                if not lost or not lost.packets:
                    continue
                about = (reason, audit.device, audit.direction)
                self._unsaid[about] = self._unsaid.get(about, 0) + lost.packets
                if self._is_due(*about):
                    yield Notice(
                        logging.WARNING,
                        f"packets were counted but are in no flow: {advice}",
                        {
                            "device": audit.device,
                            "direction": audit.direction,
                            "reason": reason,
                            "packets": self._unsaid.pop(about),
                        },
                    )

    def _capture_losses(self, batch: FlowBatch) -> Iterator[Notice]:
        for audit in batch.audit:
            if not audit.capture_dropped:
                continue
            about = ("capture_dropped", audit.device, audit.direction)
            self._unsaid[about] = self._unsaid.get(about, 0) + audit.capture_dropped
            if self._is_due(*about):
                yield Notice(
                    logging.WARNING,
                    "packets came faster than they could be captured and are in no count: use another way to attach",
                    {"device": audit.device, "direction": audit.direction, "skbs": self._unsaid.pop(about)},
                )

    def _is_due(self, *about: str) -> bool:
        now = self._clock()
        said = self._said.get(about)
        if said is not None and now - said < REPEAT_SECONDS:
            return False
        self._said[about] = now
        return True


def attachment_fields(attachment: Attachment) -> dict[str, object]:
    """An attachment as fields of a log record."""
    return {
        "device": attachment.device,
        "direction": attachment.direction,
        "mode": attachment.mode,
        "ifindex": attachment.ifindex,
    }


def _where_fields(where: str) -> dict[str, object]:
    device, _, direction = where.rpartition(" ")
    return {"device": device, "direction": direction}


def _prefixed(prefix: str, values: Mapping[str, object]) -> dict[str, object]:
    return {f"{prefix}_{name}": value for name, value in values.items()}
