"""The tables of a shipped batch: agents encode by it, servers check by it and derive their store's columns from it.

A batch is one interval of one agent: one file in a spool, one HTTP body. It is Arrow IPC streams one behind the other,
each with its end-of-stream mark; `flows` is always first, so that whoever opens the file as one stream reads the flows.
A table without rows may be left out, but for `flows`. Whoever reads passes over tables and columns that it does not
know, and takes a nullable column that is missing as null: so what is added later is nullable, and agents may be newer
or older than their server.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

#: The version of all this, for `wiremeter.format`: changes when a reader of this one could not read the other.
FORMAT = "1"
#: The HTTP media type of a batch.
MEDIA_TYPE = "application/vnd.apache.arrow.stream"

#: Types by what they mean. Numbers are what they say. "time": timestamp[ns, UTC]. "address": fixed_size_binary(16) in
#: network order, IPv4 as v4-mapped. "text": utf8, plain or a dictionary. "word": the same, of which there are few.
#: "texts": list of utf8. "answers": list of struct with the columns of ANSWER.
Type = Literal[
    "bool", "uint8", "uint16", "uint32", "uint64", "int64", "time", "address", "text", "word", "texts", "answers"
]
TableName = Literal["flows", "counters", "audit", "audit_reasons", "devices", "dns", "tls", "quic", "http", "findings"]


class Column(NamedTuple):
    """One column. is_nullable: a row may have no value."""

    type: Type
    is_nullable: bool = False


def _optional(type: Type) -> Column:
    return Column(type, is_nullable=True)


_WORD, _TEXT = Column("word"), Column("text")
_UINT8, _UINT16, _UINT64, _BOOL = Column("uint8"), Column("uint16"), Column("uint64"), Column("bool")
_OPTIONAL_WORD, _OPTIONAL_TEXT, _OPTIONAL_UINT16 = _optional("word"), _optional("text"), _optional("uint16")

_WHERE = {"device": _WORD, "direction": _WORD}
_AMOUNTS = {"packets": _UINT64, "bytes": _UINT64, "skbs": _UINT64}
#: Of transactions: when, where, and which flow, from client to server.
_TRANSACTION = {
    "time": Column("time"),
    "device": _WORD,
    "src_addr": Column("address"),
    "src_port": _UINT16,
    "dst_addr": Column("address"),
    "dst_port": _UINT16,
    "protocol": _UINT8,
    "family": _UINT8,
}
_HELLO = {
    "sni": _OPTIONAL_TEXT,
    "version": _OPTIONAL_WORD,
    "alpn": Column("texts"),
    "ja4": _OPTIONAL_TEXT,
    "ech": _BOOL,
}

#: One resource record of a DNS response; ttl in seconds, data as in a zone file.
ANSWER: dict[str, Column] = {"name": _TEXT, "type": _WORD, "ttl": Column("uint32"), "data": _TEXT}

#: Every table by name, and its columns in their order.
TABLES: dict[TableName, dict[str, Column]] = {
    # As FlowBatch.to_arrow() has them; what is known of names is null where names are off.
    "flows": {
        **_WHERE,
        "family": _UINT8,
        "vlan": _OPTIONAL_UINT16,
        "protocol": _UINT8,
        "src_addr": Column("address"),
        "dst_addr": Column("address"),
        "src_port": _UINT16,
        "dst_port": _UINT16,
        **_AMOUNTS,
        "tcp_flags": _UINT16,
        "first_time": Column("time"),
        "last_time": Column("time"),
        "application": _OPTIONAL_WORD,
        "domain": _OPTIONAL_TEXT,
        "domain_source": _OPTIONAL_WORD,
        "tls_version": _OPTIONAL_WORD,
        "tls_cipher": _OPTIONAL_WORD,
        "alpn": _OPTIONAL_WORD,
        "ja4": _OPTIONAL_TEXT,
        "ja4s": _OPTIONAL_TEXT,
        "http_method": _OPTIONAL_WORD,
        "http_status": _OPTIONAL_UINT16,
        "dns_query": _OPTIONAL_TEXT,
        "dns_rcode": _OPTIONAL_UINT16,
    },
    # All traffic of the interval, whatever of its flows was left out: IP by family and protocol (ethertype null), and
    # the rest by ethertype (family and protocol 0; ethertypes beyond 0xffff as flows.columns has them).
    "counters": {
        **_WHERE,
        "family": _UINT8,
        "protocol": _UINT16,
        "ethertype": _optional("uint32"),
        **_AMOUNTS,
    },
    # seen = flows + non_ip + the unattributed of audit_reasons, also where flows were left out ("ignored" there): they
    # count as flows. kernel_*: what the device's own counters gained, by `convention`; null where they do not span the
    # interval. capture_dropped: kernel buffers that were lost before they could be counted.
    "audit": {
        **_WHERE,
        **{f"{part}_{amount}": _UINT64 for part in ("seen", "flows", "non_ip") for amount in _AMOUNTS},
        "kernel_packets": _optional("uint64"),
        "kernel_bytes": _optional("uint64"),
        "kernel_drops": _optional("uint64"),
        "convention": _OPTIONAL_WORD,
        "capture_dropped": _UINT64,
    },
    # One row for each reason. kind: "unattributed"; "remainder", by which the device counter differs from ours, signed;
    # "drop", by the kernel's counters, reason "qdisc tbf" or "device missed"; "discard", the same where nobody misses
    # them, since no protocol of the host takes such packets; "ignored", flows that the agent was told to leave out,
    # reason the expression; "ignored_transactions" the same, and packets is how many these were. bytes and skbs null
    # where only packets are known.
    "audit_reasons": {
        **_WHERE,
        "kind": _WORD,
        "reason": _WORD,
        "packets": Column("int64"),
        "bytes": _optional("int64"),
        "skbs": _optional("int64"),
    },
    # What was metered, and how; ifindex as the agent's network namespace has it.
    "devices": {**_WHERE, "ifindex": Column("uint32"), "mode": _WORD},
    # Transactions as FlowBatch.transactions_to_arrow() has them.
    "dns": {
        **_TRANSACTION,
        "query": _TEXT,
        "qtype": _WORD,
        "rcode": _OPTIONAL_UINT16,
        "latency_ns": _optional("int64"),
        "answers": Column("answers"),
        "retry": _BOOL,
        "has_query": _BOOL,
        "cut": _BOOL,
    },
    "tls": {
        **_TRANSACTION,
        **_HELLO,
        "cipher": _OPTIONAL_WORD,
        "alpn_chosen": _OPTIONAL_WORD,
        "ja4s": _OPTIONAL_TEXT,
    },
    "quic": {**_TRANSACTION, **_HELLO},
    "http": {
        **_TRANSACTION,
        "version": _OPTIONAL_WORD,
        "method": _OPTIONAL_WORD,
        "host": _OPTIONAL_TEXT,
        "path": _OPTIONAL_TEXT,
        "status": _OPTIONAL_UINT16,
        "latency_ns": _optional("int64"),
    },
    # What an operator should know of the interval (reports.findings); device and direction "" if it is about all.
    "findings": {
        "time": Column("time"),
        "severity": _WORD,
        "kind": _WORD,
        **_WHERE,
        "text": _TEXT,
        "advice": _TEXT,
    },
}
