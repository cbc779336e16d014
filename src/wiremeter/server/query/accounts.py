"""Totals of all traffic and the audit of it, by agent and device: exact, whatever of the flows was left out."""

from __future__ import annotations

from collections.abc import Mapping

from wiremeter.errors import InputError
from wiremeter.server.query.answer import Answer
from wiremeter.server.query.conditions import Where
from wiremeter.server.query.once import in_span
from wiremeter.server.query.reading import Reads
from wiremeter.server.query.sums import plain
from wiremeter.server.query.times import Span
from wiremeter.server.store import DATABASE

#: What totals can be told apart by; family and protocol are 0 where frames are not IP, ethertype null where they are.
TOTAL_DIMENSIONS = ("agent", "device", "direction", "family", "protocol", "ethertype", "mode")
TOTAL_WORDS: Mapping[str, str] = {"device": "device", "agent": "agent", "direction": "direction"}
#: Columns that a filter may read there.
_TOTAL_COLUMNS = frozenset({"device", "agent", "direction", "family", "protocol"})
_AUDIT_COLUMNS = _TOTAL_COLUMNS - {"family", "protocol"}


def totals(store: Reads, span: Span, condition: Where, by: tuple[str, ...]) -> Answer:
    """All traffic that was counted, not only that in flows. Raises InputError for a filter that asks of flows."""
    _check(condition, _TOTAL_COLUMNS)
    keys = [f"batch_mode AS {name}" if name == "mode" else name for name in by]
    sums = ", ".join(f"sum({name}) AS sum_{name}" for name in ("packets", "bytes", "skbs"))
    shown = ", ".join([*by, *(f"sum_{name} AS {name}" for name in ("packets", "bytes", "skbs"))])
    group = f" GROUP BY {', '.join(by)}" if by else ""
    order = f" ORDER BY {', '.join(by)}" if by else ""
    sql = (
        f"SELECT {shown} FROM (SELECT {', '.join([*keys, sums])} FROM {DATABASE}.counters "
        f"WHERE {in_span(span)} AND {condition.sql}{group}){order}"
    )
    return Answer.of(plain(store.query(sql, condition.parameters).table()), {})


def _triple(kind: str, part: str, *, skbs: str | None = None) -> str:
    amounts = [f"toInt64({part}_{name})" for name in ("packets", "bytes")]
    return f"('{kind}', {', '.join(amounts)}, {skbs or f'toInt64({part}_skbs)'})"


_MISSING = ", ".join(
    f"toInt64(seen_{name}) - toInt64(flows_{name}) - toInt64(non_ip_{name})" for name in ("packets", "bytes", "skbs")
)
_NOTHING = "CAST(NULL AS Nullable(Int64))"


def audit(store: Reads, span: Span, condition: Where) -> Answer:
    """For each agent, device and direction: what was seen, where it went, and by which reasons.

    One row for each kind and reason: `seen`; its parts `flows`, `non_ip` and `unattributed`; `missing`, seen less these
    parts, which is 0 or there is a fault; `kernel`, what the device's own counters gained where they span the interval;
    `kernel_drops`, `capture_dropped`; and the kinds of audit_reasons. bytes and skbs null where only packets are known.
    """
    _check(condition, _AUDIT_COLUMNS)
    parts = ", ".join(
        [
            *(_triple(kind, kind) for kind in ("seen", "flows", "non_ip")),
            f"('missing', {_MISSING})",
            f"('kernel', toInt64(kernel_packets), toInt64(kernel_bytes), {_NOTHING})",
            f"('kernel_drops', toInt64(kernel_drops), {_NOTHING}, {_NOTHING})",
            f"('capture_dropped', toInt64(capture_dropped), {_NOTHING}, toInt64(capture_dropped))",
        ]
    )
    place = "agent, device, direction"
    where = f"WHERE {in_span(span)} AND {condition.sql}"
    reasons = f"FROM {DATABASE}.audit_reasons {where}"
    sql = (
        f"SELECT {place}, kind, reason, sum(p) AS packets, sum(b) AS bytes, sum(s) AS skbs FROM ("
        f"SELECT {place}, toString(part.1) AS kind, '' AS reason, part.2 AS p, part.3 AS b, part.4 AS s FROM ("
        f"SELECT {place}, arrayJoin([{parts}]) AS part FROM {DATABASE}.audit {where}) "
        f"UNION ALL SELECT {place}, toString(kind), toString(reason), packets, bytes, skbs {reasons} "
        f"UNION ALL SELECT {place}, 'missing', '', -packets, -bytes, -skbs {reasons} AND kind = 'unattributed'"
        f") GROUP BY {place}, kind, reason ORDER BY {place}, kind, reason"
    )
    return Answer.of(plain(store.query(sql, condition.parameters).table()), {})


def _check(condition: Where, columns: frozenset[str]) -> None:
    if extra := condition.columns - columns:
        raise InputError(
            f"the filter asks for {', '.join(sorted(extra))}, which this does not tell; it tells "
            f"{', '.join(sorted(columns))}"
        )
