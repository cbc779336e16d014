"""How servers answer: counts, failures and latencies of DNS, HTTP, TLS and QUIC transactions, the largest by any
dimensions, and over time.

Counts add up: the row in which `other` is true has the rest of them, and its percentiles are of all the rest. One
statement each, so that all of an answer is of one state of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from wiremeter.errors import InputError
from wiremeter.server.query.answer import Answer
from wiremeter.server.query.conditions import Where
from wiremeter.server.query.dimensions import Dimension, plain_dimensions, read_names
from wiremeter.server.query.once import in_span
from wiremeter.server.query.reading import Reads
from wiremeter.server.query.sums import LIMITS, plain
from wiremeter.server.query.times import Span
from wiremeter.server.store import DATABASE

TransactionKind = Literal["dns", "tls", "quic", "http"]
QualitySort = Literal["transactions", "errors", "unanswered", "error_ratio", "latency"]

#: DDSketch's bound: a percentile is so far from the true one, at most, by its own size.
LATENCY_ERROR = 0.01
_PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of transactions. counts: how many by what became of them, as SQL; all that add up. errors: the count
    that makes the error ratio, of those that were answered. has_latency: whether the table tells it."""

    dimensions: Mapping[str, Dimension]
    counts: Mapping[str, str]
    errors: str | None = None
    has_latency: bool = False

    @property
    def sorts(self) -> dict[str, str]:
        """By what they can be sorted, as SQL over the sums."""
        found = {name: f"sum_{name}" for name in ("transactions", "errors", "unanswered") if name in self.counts}
        found |= {"error_ratio": _ratio("errors")} if self.errors else {}
        return found | ({"latency": "percentiles[3]"} if self.has_latency else {})


_COMMON = {
    **plain_dimensions("agent", "device", "family", "protocol"),
    "client_addr": Dimension("src_addr", ("src_addr",), is_address=True),
    "server_addr": Dimension("dst_addr", ("dst_addr",), is_address=True),
    "server_port": Dimension("dst_port", ("dst_port",)),
}
_SNI = Dimension("lower(sni)", ("sni",))
_COUNT = {"transactions": "count()"}

KINDS: Mapping[TransactionKind, Kind] = {
    "dns": Kind(
        dimensions={
            **_COMMON,
            "domain": Dimension("lower(query)", ("query",)),
            **plain_dimensions("qtype"),
            "rcode": Dimension("ifNull(toInt32(rcode), -1)", ("rcode",), is_optional=True),
        },
        # That a name does not exist (3) is an answer, and no fault of the server's.
        counts={
            **_COUNT,
            "unanswered": "countIf(isNull(rcode))",
            "errors": "countIf(rcode NOT IN (0, 3))",
            "nxdomain": "countIf(rcode = 3)",
            "retries": "countIf(retry)",
        },
        errors="errors",
        has_latency=True,
    ),
    "http": Kind(
        dimensions={
            **_COMMON,
            "domain": Dimension("lower(host)", ("host",)),
            **plain_dimensions("method", "path", "version"),
            "status": Dimension("ifNull(toInt32(status), -1)", ("status",), is_optional=True),
        },
        counts={
            **_COUNT,
            "unanswered": "countIf(isNull(status))",
            "errors": "countIf(status >= 500)",
            "client_errors": "countIf(status BETWEEN 400 AND 499)",
        },
        errors="errors",
        has_latency=True,
    ),
    "tls": Kind(
        dimensions={
            **_COMMON,
            "domain": _SNI,
            **plain_dimensions("version", "cipher", "ja4", "ja4s"),
            "alpn": Dimension("alpn_chosen", ("alpn_chosen",)),
        },
        counts={**_COUNT, "unanswered": "countIf(cipher = '')", "encrypted_names": "countIf(ech)"},
    ),
    "quic": Kind(
        dimensions={**_COMMON, "domain": _SNI, **plain_dimensions("version", "ja4")},
        counts={**_COUNT, "encrypted_names": "countIf(ech)"},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityQuestion:
    """Which transactions, told apart by what. limit: how many are told apart, at most. least: transactions that one
    must have to be among these, so that a single slow one is not the slowest of all."""

    kind: TransactionKind
    span: Span
    condition: Where = field(default_factory=Where)
    by: tuple[str, ...] = ()
    sort: QualitySort = "transactions"
    limit: int = 10
    least: int = 1


def read_quality_dimensions(kind: TransactionKind, words: Iterable[str]) -> tuple[str, ...]:
    """Names of dimensions of one kind. Raises InputError.

    >>> read_quality_dimensions("dns", ["server_addr,qtype"])
    ('server_addr', 'qtype')
    """
    return read_names(words, KINDS[kind].dimensions, f"dimension of {kind} transactions")


def quality(store: Reads, question: QualityQuestion, step: int = 0) -> Answer:
    """The largest, then the rest. step: for each step of so many seconds, 0 for all of the range at once.

    Raises InputError where the kind has nothing to be sorted by so, and as Store.query.
    """
    kind = KINDS[question.kind]
    if question.sort not in kind.sorts:
        raise InputError(f"{question.kind} cannot be sorted by {question.sort}; those are {', '.join(kind.sorts)}")
    keys = [f"d{place}" for place in range(len(question.by))]
    dimensions = [kind.dimensions[name] for name in question.by]
    begins = f"intDiv(toUnixTimestamp64Milli(time), {step * 1000}) * {step * 1000}" if step else "0"
    named = [f"{dimension.sql} AS {key}" for dimension, key in zip(dimensions, keys, strict=True)]
    source = (
        f"(SELECT *, {', '.join([f'{begins} AS begins', *named])} FROM {DATABASE}.{question.kind} "
        f"WHERE {in_span(question.span)} AND {question.condition.sql})"
    )
    sums = [f"{sql} AS sum_{name}" for name, sql in kind.counts.items()]
    if kind.has_latency:
        levels = ", ".join(str(each / 100) for each in _PERCENTILES)
        sums += [
            "count(latency_ns) AS measured",
            "avg(latency_ns) AS mean",
            f"quantilesDD({LATENCY_ERROR}, {levels})(latency_ns) AS percentiles",
            "max(latency_ns) AS slowest",
        ]
    order = f"{kind.sorts[question.sort]} DESC NULLS LAST, sum_transactions DESC"
    largest = (
        f"SELECT {', '.join(keys)} FROM (SELECT {', '.join([*keys, *sums])} FROM {source} GROUP BY {', '.join(keys)} "
        f"HAVING sum_transactions >= {question.least}) ORDER BY {', '.join([order, *keys])} LIMIT {question.limit}"
    )
    is_other = f"({', '.join(keys)}) NOT IN ({largest})" if keys else "0"
    own = [f"if(is_other, defaultValueOfArgumentType({key}), {key}) AS {key}_of" for key in keys]
    groups = ["begins", "is_other", *(f"{key}_of" for key in keys)]
    shown = [
        *(["fromUnixTimestamp64Milli(toInt64(begins), 'UTC') AS time"] if step else []),
        *(
            f"if(is_other, NULL, {dimension.shown(f'{key}_of')}) AS `{name}`"
            for name, dimension, key in zip(question.by, dimensions, keys, strict=True)
        ),
        *_shown(kind),
        "is_other AS other",
    ]
    sql = (
        f"SELECT {', '.join(shown)} FROM (SELECT {', '.join(['begins', f'{is_other} AS is_other', *own, *sums])} "
        f"FROM {source} GROUP BY {', '.join(groups)}) ORDER BY begins, is_other, {order}{LIMITS}"
    )
    rows = plain(store.query(sql, question.condition.parameters).table())
    rows = rows.set_column(rows.schema.get_field_index("other"), "other", rows["other"].cast(pa.bool_()))
    total = {name: pc.sum(rows[name]).as_py() or 0 for name in kind.counts}
    return Answer.of(rows, {**({"step_seconds": step} if step else {}), "total": total})


def _shown(kind: Kind) -> list[str]:
    """The columns of an answer, of the sums."""
    found = [f"sum_{name} AS {name}" for name in kind.counts]
    if kind.errors:
        found.append(f"{_ratio(kind.errors)} AS error_ratio")
    if kind.has_latency:
        found += ["measured AS latencies", _latency("mean", "mean")]
        for place, each in enumerate(_PERCENTILES, 1):  # a sketch's may lie beyond the largest
            found.append(_latency(f"least(percentiles[{place}], toFloat64(slowest))", f"p{each}"))
        found.append(_latency("slowest", "max"))
    return found


def _ratio(errors: str) -> str:
    """Of those that were answered; null where none was."""
    return f"if(sum_transactions > sum_unanswered, sum_{errors} / (sum_transactions - sum_unanswered), NULL)"


def _latency(sql: str, name: str) -> str:
    return f"if(measured = 0, NULL, toInt64(round({sql}))) AS latency_{name}_ns"
