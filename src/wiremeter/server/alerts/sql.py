"""What a rule's text becomes before the store runs it: times filled in, and the named helpers in front of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from wiremeter.errors import InputError
from wiremeter.shipment.schema import TABLES

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PLACEHOLDER = re.compile(r"\{(?:now|ago:(\d{1,6})([smhd]))\}", re.ASCII)
_S_NS = 10**9

#: Named subqueries that rules may read from as from tables. `recent_…`: rows of the last five minutes, of live traffic.
HELPERS: dict[str, str] = {
    **{
        f"recent_{name}": f"SELECT * FROM {name} WHERE time >= {{ago:5m}} AND time < {{now}} AND batch_mode = 'live'"
        for name in TABLES
    },
    # Each agent's last heartbeat.
    "heartbeats": (
        "SELECT a.agent AS agent, max(a.seen) AS seen, argMax(a.heartbeat, a.seen) AS heartbeat "
        "FROM agents AS a GROUP BY a.agent"
    ),
    # When each agent was last heard, by a heartbeat or a batch.
    "heard": (
        "SELECT agent, max(at) AS heard FROM (SELECT agent, seen AS at FROM agents UNION ALL "
        "SELECT toString(agent) AS agent, received AS at FROM batches WHERE received >= {ago:1h}) GROUP BY agent"
    ),
}
#: The helper with numbers of the server's own, one row.
SERVER = "server"


def check_placeholders(text: str, where: str) -> None:
    """Raises InputError for braces that are no time."""
    if not text.strip():
        raise InputError(f"{where} has no expr")
    if "{" in (rest := _PLACEHOLDER.sub("", text)) or "}" in rest:
        raise InputError(f"{where}: in expr, braces hold a time: {{now}}, or {{ago:5m}} with s, m, h or d")


def statement(text: str, now_ns: int, server: Mapping[str, float]) -> str:
    """The query of a rule's text.

    server: the numbers of the helper `server`.

    >>> statement("SELECT 1", 0, {})
    'SELECT * FROM (SELECT 1)'
    >>> statement("SELECT full AS value FROM server WHERE full > 0", 0, {"full": 1})
    'WITH server AS (SELECT toFloat64(1) AS full) SELECT * FROM (SELECT full AS value FROM server WHERE full > 0)'
    """
    numbers = ", ".join(f"toFloat64({value!r}) AS {name}" for name, value in server.items())
    known = {**HELPERS, SERVER: f"SELECT {numbers}"}
    words = set(re.findall(r"\w+", text))
    named = [f"{name} AS ({known[name]})" for name in known if name in words]
    helpers = f"WITH {', '.join(named)} " if named else ""
    return _with_times(f"{helpers}SELECT * FROM ({text})", now_ns)


def _with_times(text: str, now_ns: int) -> str:
    def fill(matched: re.Match[str]) -> str:
        ago = int(matched[1]) * _UNITS[matched[2]] if matched[1] else 0
        at = datetime.fromtimestamp((now_ns // 10**6 - ago * 1000) / 1000, UTC)
        return f"toDateTime64('{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}', 3, 'UTC')"

    return _PLACEHOLDER.sub(fill, text)
