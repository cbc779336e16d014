"""A batch as a document of exact totals: the public format of `wiremeter replay --format json` (docs/replay.md)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.columns import (
    ETHERTYPE_LLC,
    ETHERTYPE_NONE,
    ETHERTYPE_OTHER,
    FAMILY_NAMES,
    PROTOCOL_UNKNOWN,
    VLAN_NONE,
)
from wiremeter.names.records import FlowKey

_ETHERTYPE_KEYS = {ETHERTYPE_LLC: "llc", ETHERTYPE_NONE: "none", ETHERTYPE_OTHER: "other"}


def totals_document(batch: FlowBatch, source: Mapping[str, Any]) -> Iterator[str]:
    """The document in pieces, which together are JSON with a flow a line. The same counts give the same bytes.

    source: where the frames came from, as the document's `source`.
    """
    head = {
        "source": source,
        "seen": _tally(*(sum(getattr(audit.seen, name) for audit in batch.audit) for name in ("packets", "bytes"))),
        "families": families(batch),
        "protocols": protocols(batch),
        "ethertypes": ethertypes(batch),
        "unattributed": unattributed(batch),
    }
    yield "{"
    for key, value in head.items():
        yield f'"{key}": {json.dumps(value)},\n '
    yield from _list("flows", _flows(batch))
    for kind, rows in transactions(batch).items() if batch.flow_names is not None else ():
        yield ",\n "
        yield from _list(kind, rows)
    yield "}\n"


def _list(key: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    yield f'"{key}": ['
    separator = "\n  "
    for row in rows:
        yield separator + json.dumps(row)
        separator = ",\n  "
    yield "]"


def _flows(batch: FlowBatch) -> Iterator[dict[str, Any]]:
    for number in flow_order(batch.flows):
        flow = _flow(batch.flows[number])
        if batch.flow_names is not None:
            name = batch.names[batch.flow_names[number]]
            flow |= {
                "application": name.application,
                "domain": name.domain,
                "domain_source": name.domain_source,
            }
        yield flow


def transactions(batch: FlowBatch) -> dict[str, Iterator[dict[str, Any]]]:
    """What payloads told, by kind, in order of time; `flow` in the client's direction."""
    found = batch.transactions
    return {
        "dns": (
            {
                "query": t.query,
                "qtype": t.qtype,
                "rcode": t.rcode,
                "latency_ns": t.latency_ns,
                "answers": [{"name": a.name, "type": a.type, "ttl": a.ttl, "data": a.data} for a in t.answers],
                "time_ns": t.time_ns,
                "retry": t.retry,
                "flow": _key(t.flow),
            }
            for t in found.dns
        ),
        "tls": (
            {
                "sni": t.sni,
                "version": t.version,
                "alpn": t.alpn,
                "ja4": t.ja4,
                "ech": t.ech,
                "cipher": t.cipher,
                "alpn_chosen": t.alpn_chosen,
                "ja4s": t.ja4s,
                "time_ns": t.time_ns,
                "flow": _key(t.flow),
            }
            for t in found.tls
        ),
        "quic": (
            {
                "sni": t.sni,
                "version": t.version,
                "alpn": t.alpn,
                "ja4": t.ja4,
                "ech": t.ech,
                "time_ns": t.time_ns,
                "flow": _key(t.flow),
            }
            for t in found.quic
        ),
        "http": (
            {
                "method": t.method,
                "host": t.host,
                "path": t.path,
                "status": t.status,
                "latency_ns": t.latency_ns,
                "version": t.version,
                "time_ns": t.time_ns,
                "flow": _key(t.flow),
            }
            for t in found.http
        ),
    }


def _key(flow: FlowKey) -> dict[str, Any]:
    return {
        "src_addr": _address(flow.src_addr, flow.family),
        "src_port": flow.src_port,
        "dst_addr": _address(flow.dst_addr, flow.family),
        "dst_port": flow.dst_port,
        "protocol": flow.protocol,
    }


def families(batch: FlowBatch) -> dict[str, dict[str, int]]:
    """Packets and bytes of each family; all three are there."""
    counters = batch.counters
    return {name: _sum(counters[counters["family"] == family]) for family, name in FAMILY_NAMES.items()}


def protocols(batch: FlowBatch) -> dict[str, dict[str, dict[str, int]]]:
    """Packets and bytes by family and IP protocol number; "unknown" where the header was too damaged to name one."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for family, name in FAMILY_NAMES.items():
        if family:
            of_family = batch.counters[batch.counters["family"] == family]
            found[name] = {
                "unknown" if number == PROTOCOL_UNKNOWN else str(number): _sum(
                    of_family[of_family["protocol"] == number]
                )
                for number in np.unique(of_family["protocol"])
            }
    return found


def ethertypes(batch: FlowBatch) -> dict[str, dict[str, int]]:
    """Packets and bytes of frames that are not IP by ethertype; llc, none and other for those without a usable one."""
    rows = batch.ethertypes
    return {
        _ETHERTYPE_KEYS.get(int(number), f"0x{number:04x}"): _sum(rows[rows["ethertype"] == number])
        for number in np.unique(rows["ethertype"])
    }


def unattributed(batch: FlowBatch) -> dict[str, dict[str, int]]:
    """Packets and bytes in no flow, by reason."""
    reasons = dict.fromkeys(reason for audit in batch.audit for reason in audit.unattributed)
    tallies = {
        reason: [audit.unattributed[reason] for audit in batch.audit if reason in audit.unattributed]
        for reason in reasons
    }
    return {
        reason: _tally(sum(t.packets for t in found), sum(t.bytes for t in found)) for reason, found in tallies.items()
    }


def flow_order(flows: NDArray[np.void]) -> NDArray[np.intp]:
    """Indices of flows by family, source, destination, protocol, ports and VLAN, whatever engine counted them."""
    source, destination = (np.ascontiguousarray(flows[name]).view(">u8") for name in ("src_addr", "dst_addr"))
    keys = (
        *(flows[name] for name in ("attachment", "vlan", "dst_port", "src_port", "protocol")),
        *(destination[:, 1], destination[:, 0], source[:, 1], source[:, 0]),
        flows["family"],
    )
    return np.lexsort(keys)


def _flow(row: np.void) -> dict[str, Any]:
    family = int(row["family"])
    return {
        "family": FAMILY_NAMES[family],
        "protocol": int(row["protocol"]),
        "src_addr": _address(row["src_addr"].tobytes(), family),
        "src_port": int(row["src_port"]),
        "dst_addr": _address(row["dst_addr"].tobytes(), family),
        "dst_port": int(row["dst_port"]),
        "vlan": None if row["vlan"] == VLAN_NONE else int(row["vlan"]),
        "packets": int(row["packets"]),
        "bytes": int(row["bytes"]),
        "first_ns": int(row["first_ns"]),
        "last_ns": int(row["last_ns"]),
        "tcp_flags": int(row["tcp_flags"]),
    }


def _address(packed: bytes, family: int) -> str:
    """By the packet's family: an IPv6 packet may have a v4-mapped address, which is no IPv4 address."""
    return socket.inet_ntop(socket.AF_INET, packed[12:]) if family == 4 else socket.inet_ntop(socket.AF_INET6, packed)


def _sum(rows: NDArray[np.void]) -> dict[str, int]:
    return _tally(int(rows["packets"].sum()), int(rows["bytes"].sum()))


def _tally(packets: int, bytes: int) -> dict[str, int]:
    return {"packets": packets, "bytes": bytes}
