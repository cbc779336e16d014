"""What becomes of alerts from one evaluation to the next: pending, firing, resolved. Pure; times are Unix time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from wiremeter.errors import InputError
from wiremeter.flows.columns import address_text
from wiremeter.server.alerts.rules import LABEL_NAME, Rule
from wiremeter.server.alerts.templates import filled

State = Literal["pending", "firing", "resolved"]

#: Most alerts of one rule; with more, the rule has failed: it would drown all others.
ALERTS_MAX = 1000
#: Longest value of a label; texts of names come from whoever sends them.
_LABEL_CHARACTERS = 256


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert. rule: the key of its rule. fingerprint: of its labels. active_ns: since when it is so.

    seen_ns: when it was last found so. fired_ns, resolved_ns: 0 where it has not.
    """

    rule: str
    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str]
    value: float
    state: State
    active_ns: int
    seen_ns: int
    fired_ns: int = 0
    resolved_ns: int = 0

    @property
    def identity(self) -> tuple[str, str, int]:
        """What tells one firing from all others."""
        return self.rule, self.fingerprint, self.fired_ns


class Found(NamedTuple):
    """What one row of a rule's answer says."""

    labels: dict[str, str]
    annotations: dict[str, str]
    value: float


def found_of(rule: Rule, rows: Iterable[Mapping[str, object]], links: str = "") -> dict[str, Found]:
    """By fingerprint, what rows say. links: the page of what `runbook_url` is only an anchor of.

    Raises InputError where rows are no alerts: two are the same, a column is no label, there are too many.
    """
    found: dict[str, Found] = {}
    for row in rows:
        labels, value = {}, 1.0
        for name, each in row.items():
            if name == "value":
                value = _number(each)
            elif not LABEL_NAME.fullmatch(name) or name == "alertname":
                raise InputError(f"the column {name!r} cannot be a label; name it with AS")
            elif (text := _text(each)) != "":
                labels[name] = text[:_LABEL_CHARACTERS]
        given = {name: filled(text, labels, value) for name, text in rule.labels.items()}
        annotations = {name: filled(text, labels, value) for name, text in rule.annotations.items()}
        if (link := annotations.get("runbook_url", "")).startswith("#"):
            annotations["runbook_url"] = links + link
        labels = {**labels, **given, "alertname": rule.name}
        fingerprint = fingerprint_of(labels)
        if fingerprint in found:
            raise InputError(f"two rows have the same labels, {shown(labels)}; group them, or add a column")
        if len(found) == ALERTS_MAX:
            raise InputError(f"there are more than {ALERTS_MAX} alerts; let the rule find fewer")
        found[fingerprint] = Found(labels, annotations, value)
    return found


def advance(
    rule: Rule, known: Mapping[str, Alert], found: Mapping[str, Found], now_ns: int, missed_ns: int = 0
) -> list[Alert]:
    """The rule's alerts after an evaluation that went well; those that are pending and not found are gone.

    known: by fingerprint, those before. missed_ns: for how long nobody looked. Such time counts for no alert: what is
    pending does not fire for it.
    """
    alerts = []
    for fingerprint, each in found.items():
        before = known.get(fingerprint)
        if before is None or before.state == "resolved":
            active_ns, fired_ns = now_ns, 0
        else:
            active_ns, fired_ns = before.active_ns, before.fired_ns
            if before.state == "pending":
                active_ns = min(now_ns, active_ns + missed_ns)
        if not fired_ns and now_ns - active_ns >= rule.hold_ns:
            fired_ns = now_ns
        alerts.append(
            Alert(
                rule=rule.key,
                fingerprint=fingerprint,
                labels=each.labels,
                annotations=each.annotations,
                value=each.value,
                state="firing" if fired_ns else "pending",
                active_ns=active_ns,
                seen_ns=now_ns,
                fired_ns=fired_ns,
            )
        )
    for fingerprint, alert in known.items():
        if fingerprint in found or alert.state == "pending":
            continue
        if alert.state == "firing" and now_ns - alert.seen_ns - missed_ns >= rule.keep_ns:
            alert = resolved(alert, now_ns)
        alerts.append(alert)
    return alerts


def resolved(alert: Alert, now_ns: int) -> Alert:
    """The same, over."""
    return msgspec.structs.replace(alert, state="resolved", resolved_ns=now_ns)


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """16 characters that are the same for the same labels."""
    return hashlib.sha256(json.dumps(sorted(labels.items())).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def shown(labels: Mapping[str, str]) -> str:
    """Labels in one line.

    >>> shown({"alertname": "A", "agent": "web-1"})
    'A{agent="web-1"}'
    """
    rest = ", ".join(f"{name}={json.dumps(text)}" for name, text in sorted(labels.items()) if name != "alertname")
    return f"{labels.get('alertname', '')}{{{rest}}}" if rest else labels.get("alertname", "")


def _number(value: object) -> float:
    try:
        return float(str(value)) if value is not None else 0.0
    except ValueError:
        raise InputError(f"the column value is no number: {str(value)[:60]!r}") from None


def _text(value: object) -> str:
    """A label's value; addresses, which are 16 bytes in answers, as text."""
    if isinstance(value, bytes):
        return address_text(value) if len(value) == 16 else value.decode("utf-8", "replace")
    return "" if value is None else str(value)
