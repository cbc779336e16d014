"""The story of one flow and its reverse: who saw how much of it when, what was said on it, and why it has its name."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from wiremeter.errors import InputError
from wiremeter.server.query.formats import json_rows
from wiremeter.server.query.once import in_span
from wiremeter.server.query.quality import KINDS, TransactionKind
from wiremeter.server.query.reading import Reads
from wiremeter.server.query.search import shown_columns, shown_rows
from wiremeter.server.query.sums import LIMITS
from wiremeter.server.query.times import Span, time_text
from wiremeter.server.store import DATABASE

#: Rows of each kind of transactions, and of names, at most.
_TRANSACTIONS_MAX, _NAMES_MAX, _EVIDENCE_MAX = 100, 20, 5
#: Nanoseconds before the range in which a DNS answer is looked for that gave the name.
_ANSWERS_BEFORE_NS = 3600 * 10**9
_AMOUNTS = ("packets", "bytes", "skbs")
#: What a flow's name holds, as flows have it.
_NAME = ("application", "domain", "domain_source")
_DETAILS = ("tls_version", "tls_cipher", "alpn", "ja4", "ja4s", "http_method", "http_status", "dns_query", "dns_rcode")
#: By evidence: what it means, and the transactions that hold it.
_WHY: Mapping[str, tuple[str, TransactionKind]] = {
    "sni": ("the client named it in its TLS hello", "tls"),
    "quic_sni": ("the client named it in its QUIC hello", "quic"),
    "http_host": ("the request named it as its host", "http"),
    "dns_answer": ("the client looked up this name before, and was told this address: inferred", "dns"),
    "ptr": ("a reverse DNS answer named the address, as its owner likes: inferred", "dns"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowId:
    """One flow, by what packets say. agent, device: the only ones that are asked, "" for all."""

    src_addr: str
    dst_addr: str
    src_port: int
    dst_port: int
    protocol: int
    agent: str = ""
    device: str = ""


class FlowKey(msgspec.Struct):
    """One flow, by what packets say."""

    src_addr: str
    src_port: int
    dst_addr: str
    dst_port: int
    protocol: int


class FlowName(msgspec.Struct, kw_only=True):
    """A name that it had. why: what the evidence means. evidence: transactions that hold it, the newest first; none
    where they are older, or were seen by nobody."""

    application: str
    domain: str
    domain_source: str
    packets: int
    first_time: str
    last_time: str
    why: str | None
    evidence: list[dict[str, Any]]


class FlowStory(msgspec.Struct, kw_only=True):
    """seen: sums by way, agent, device, direction and VLAN tag; way: `forward` as it was asked for, `reverse` back.

    intervals: each one of each of these, the newest first. more: whether there are older ones. names: the latest
    first. transactions: by kind, the newest first, 100 of each at most.
    """

    from_: str = msgspec.field(name="from")
    to: str
    flow: FlowKey
    seen: list[dict[str, Any]]
    intervals: list[dict[str, Any]]
    more: bool
    names: list[FlowName]
    transactions: dict[str, list[dict[str, Any]]]


def story(store: Reads, flow: FlowId, span: Span, *, limit: int) -> FlowStory:
    """limit: intervals, at most. Raises InputError for addresses that are none, and as Store.query."""
    ends = {"a": _address(flow.src_addr, "src_addr"), "b": _address(flow.dst_addr, "dst_addr")}
    parameters: dict[str, object] = {**ends, "agent": flow.agent, "device": flow.device}
    forward = _is("a", flow.src_port, "b", flow.dst_port)
    condition = f"protocol = {flow.protocol} AND ({forward} OR {_is('b', flow.dst_port, 'a', flow.src_port)})"
    for name in ("agent", "device"):
        if parameters[name]:
            condition += f" AND {name} = {{{name}:String}}"
    where = f"{in_span(span)} AND {condition}"

    def ask(sql: str) -> list[dict[str, Any]]:
        return json_rows(shown_rows(store.query(sql + LIMITS, parameters).table()))

    flows = f"(SELECT *, if({forward}, 'forward', 'reverse') AS way FROM {DATABASE}.flows WHERE {where})"
    place = "way, agent, device, direction, vlan"
    sums = ", ".join(f"sum(flows.{name}) AS {name}" for name in _AMOUNTS)
    seen = ask(
        f"SELECT {place}, {sums}, count() AS intervals, min(flows.first_time) AS first_time, "
        f"max(flows.last_time) AS last_time, groupBitOr(flows.tcp_flags) AS tcp_flags "
        f"FROM {flows} AS flows GROUP BY {place} ORDER BY {place}"
    )
    columns = ", ".join(["time", place, *_AMOUNTS, "tcp_flags", "first_time", "last_time", *_NAME, *_DETAILS])
    intervals = ask(f"SELECT {columns} FROM {flows} ORDER BY time DESC, {place} LIMIT {limit + 1}")
    named = ask(
        f"SELECT {', '.join(_NAME)}, sum(flows.packets) AS packets, min(flows.first_time) AS first_time, "
        f"max(flows.last_time) AS last_time FROM {flows} AS flows GROUP BY {', '.join(_NAME)} "
        f"ORDER BY last_time DESC, packets DESC LIMIT {_NAMES_MAX}"
    )
    transactions: dict[str, list[dict[str, Any]]] = {
        kind: ask(
            f"SELECT {', '.join(shown_columns(kind))} FROM {DATABASE}.{kind} AS rows WHERE {where} "
            f"ORDER BY time DESC LIMIT {_TRANSACTIONS_MAX}"
        )
        for kind in KINDS
    }
    return FlowStory(
        from_=time_text(span.start_ns),
        to=time_text(span.end_ns),
        flow=FlowKey(_shown(ends["a"]), flow.src_port, _shown(ends["b"]), flow.dst_port, flow.protocol),
        seen=seen,
        intervals=intervals[:limit],
        more=len(intervals) > limit,
        names=[
            FlowName(
                **row,
                why=_WHY[row["domain_source"]][0] if row["domain_source"] in _WHY else None,
                evidence=_evidence(store, flow, ends, span, row, transactions),
            )
            for row in named
        ],
        transactions=transactions,
    )


def _evidence(
    store: Reads,
    flow: FlowId,
    ends: Mapping[str, str],
    span: Span,
    name: Mapping[str, Any],
    transactions: Mapping[str, list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    source, domain = name["domain_source"], name["domain"]
    if source not in _WHY:
        return []
    kind = _WHY[source][1]
    if kind != "dns":
        column = "host" if kind == "http" else "sni"
        return [row for row in transactions[kind] if str(row[column]).lower() == domain][:_EVIDENCE_MAX]
    # Questions for this name that were answered with one of the addresses, or reverse questions for one.
    if source == "dns_answer":
        fits = "lower(query) = {domain:String} AND (has(answers.data, {a:String}) OR has(answers.data, {b:String}))"
        values = {end: _shown(address) for end, address in ends.items()} | {"domain": domain}
    else:
        fits = "lower(query) IN ({a:String}, {b:String})"
        values = {end: ipaddress.ip_address(_shown(address)).reverse_pointer for end, address in ends.items()}
    agent = " AND agent = {agent:String}" if flow.agent else ""
    within = Span(max(0, span.start_ns - _ANSWERS_BEFORE_NS), span.end_ns)
    rows = store.query(
        f"SELECT {', '.join(shown_columns('dns'))} FROM {DATABASE}.dns AS rows WHERE {in_span(within)}{agent} "
        f"AND ({fits}) ORDER BY time DESC LIMIT {_EVIDENCE_MAX}{LIMITS}",
        {**values, "agent": flow.agent},
    )
    return json_rows(shown_rows(rows.table()))


def _is(src: str, src_port: int, dst: str, dst_port: int) -> str:
    return (
        f"(src_addr = toIPv6({{{src}:String}}) AND src_port = {src_port} "
        f"AND dst_addr = toIPv6({{{dst}:String}}) AND dst_port = {dst_port})"
    )


def _address(text: str, what: str) -> str:
    """As the store has it: IPv6, IPv4 as v4-mapped. Raises InputError."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        raise InputError(f"{what}: {text!r} is no address; expected one such as 192.0.2.1 or 2001:db8::1") from None
    if address.version == 6 and address.scope_id:
        raise InputError(f"{what}: {text} has a zone, which packets do not tell; leave it out")
    return f"::ffff:{address}" if address.version == 4 else str(address)


def _shown(address: str) -> str:
    mapped = ipaddress.IPv6Address(address)
    return str(mapped.ipv4_mapped or mapped)
