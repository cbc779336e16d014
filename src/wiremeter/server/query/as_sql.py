"""A question as SQL that a user can take elsewhere, or change: over the table of flows, without parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wiremeter.errors import InputError
from wiremeter.server.query.dimensions import AMOUNT_COLUMNS, DIMENSIONS
from wiremeter.server.query.sums import Question
from wiremeter.server.query.times import Span, time_text
from wiremeter.server.store.sql import quoted

_PARAMETER = re.compile(r"\{(\w+):\w+\}")


def as_sql(question: Question) -> str:
    """The largest, without the remainder. Raises InputError for what one SELECT over flows cannot say."""
    if question.once != "none":
        raise InputError("each flow once cannot be said in a short SELECT; count flows as often as they were seen")
    keys = question.keys
    shown = [f"{DIMENSIONS[name].shown(key)} AS {name}" for name, key in zip(question.by, keys, strict=True)]
    shown += [f"sum_{name} AS {name}" for name in AMOUNT_COLUMNS]
    parts = [f"{DIMENSIONS[name].sql} AS {key}" for name, key in zip(question.by, keys, strict=True)]
    parts += [f"{'count()' if name == 'flows' else f'sum({name})'} AS sum_{name}" for name in AMOUNT_COLUMNS]
    condition = _whole(question.condition.sql, question.condition.parameters)
    lines = [
        f"SELECT {', '.join(shown)}",
        f"FROM (SELECT {', '.join(parts)}",
        "      FROM flows",
        f"      WHERE {_within(question.span)}" + (f" AND {condition}" if condition != "1" else ""),
    ]
    if keys:
        lines += [
            f"      GROUP BY {', '.join(keys)}",
            f"      ORDER BY sum_{question.sort} DESC LIMIT {question.limit}",
        ]
    return "\n".join(lines) + ")"


def _within(span: Span) -> str:
    start, end = (f"toDateTime64('{time_text(each).rstrip('Z').replace('T', ' ')}', 3, 'UTC')" for each in span)
    return f"time >= {start} AND time < {end}"


def _whole(sql: str, parameters: Mapping[str, str]) -> str:
    return _PARAMETER.sub(lambda found: quoted(parameters[found[1]]), sql)
