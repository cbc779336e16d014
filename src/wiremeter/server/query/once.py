"""Each flow once, where several points saw it: agents at both of its ends, a bridge and its ports, loopback.

A point is a device of an agent, in one direction. Of the points that saw a flow (addresses, ports and protocol) within
five minutes, the one counts that saw most bytes of it in all of the question's range; so it is the same one as long as
it sees the flow at all, and where a path changes, another takes over. VLAN tags do not tell flows apart here: they
differ along a path.

What that cannot do: flows whose addresses are translated or that are in a tunnel on the way look like two; two flows
of the same addresses and ports in networks apart look like one; and where a flow begins or ends at an edge of five
minutes, agents whose intervals begin at other times may put its last packets on either side, which then count twice.
"""

from __future__ import annotations

from collections.abc import Collection

from wiremeter.server.query.conditions import Where
from wiremeter.server.query.times import Span
from wiremeter.server.store.schema import DATABASE, ROLLUP_AMOUNTS, SERVICE_PORT

_FLOW = "src_addr, dst_addr, src_port, dst_port, protocol"
_WITHIN = "toStartOfFiveMinutes(time)"
_POINT = ("toString(agent)", "toString(device)", "toString(direction)")


def in_span(span: Span) -> str:
    """The condition that a row is in a range, by its column time, to the millisecond as Store.source has it."""
    start, end = (f"fromUnixTimestamp64Milli(toInt64({each // 10**6}), 'UTC')" for each in span)
    return f"time >= {start} AND time < {end}"


def once_sql(columns: Collection[str], span: Span, condition: Where) -> str:
    """A subquery as Store.source gives it, of the flows that fit, each as one point saw it.

    What fits is looked for first: `agent web-1` is each flow once of what that agent saw.
    """
    fits = f"{in_span(span)} AND {condition.sql}"
    points = ", ".join(f"{each} AS point_{number}" for number, each in enumerate(_POINT))
    seen = (
        f"SELECT {_WITHIN} AS within, {_FLOW}, {points}, "
        f"sum(bytes) AS seen_bytes, sum(packets) AS seen_packets FROM {DATABASE}.flows WHERE {fits} "
        f"GROUP BY within, {_FLOW}, point_0, point_1, point_2"
    )
    window = f"OVER (PARTITION BY {_FLOW}, point_0, point_1, point_2)"
    ranked = (
        f"SELECT within, {_FLOW}, (sum(seen_bytes) {window}, sum(seen_packets) {window}, point_0, point_1, point_2) "
        f"AS rank FROM ({seen})"
    )
    left = (
        f"SELECT within, {_FLOW}, arrayJoin(arrayPopFront(arrayReverseSort(groupArray(rank)))) AS rank FROM ({ranked}) "
        f"GROUP BY within, {_FLOW} HAVING count() > 1"
    )
    wanted = sorted(set(columns) - {"time", *ROLLUP_AMOUNTS})
    shown = [f"{SERVICE_PORT} AS service_port" if name == "service_port" else name for name in wanted]
    return (
        f"(SELECT {', '.join(['time', *shown, 'packets', 'bytes', 'skbs', 'toUInt64(1) AS rows'])} "
        f"FROM {DATABASE}.flows WHERE {fits} AND ({_WITHIN}, {_FLOW}, {', '.join(_POINT)}) NOT IN "
        f"(SELECT within, {_FLOW}, rank.3, rank.4, rank.5 FROM ({left})))"
    )
