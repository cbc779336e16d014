"""A batch's exact totals as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.columns import VLAN_NONE
from wiremeter.flows.dns import rcode_name
from wiremeter.flows.protocols import ethertype_name, protocol_name
from wiremeter.names.records import NAMELESS
from wiremeter.reports import totals
from wiremeter.reports.cells import endpoint, flags_text, printable, utc_time


def totals_text(batch: FlowBatch, title: str, linktype: str, *, top: int) -> Iterator[str]:
    """Lines: what was read, packets and bytes by protocol and by what they are not attributed for, the largest flows.

    title: what was read. linktype: of the frames, "" if there were none. top: flows to show.
    """
    yield f"{title}: {batch.mode}, {linktype or 'no frames'}"
    yield f"{utc_time(batch.start_ns)} to {utc_time(batch.end_ns)}, {batch.seconds:.6f} s"
    yield ""
    yield _amounts_line("", "", "packets", "bytes")
    for kind, name, tally in _amounts(batch):
        yield _amounts_line(kind, name, tally["packets"], tally["bytes"])
    yield ""
    shown = f", the largest {top}:" if 0 < top < len(batch.flows) else ":" if top and len(batch.flows) else ""
    yield f"{len(batch.flows)} flows{shown}"
    for number in _largest(batch, top):
        yield f"  {_flow_line(batch.flows[number])}{_name_text(batch, number)}"
    yield ""
    told = {kind: list(rows) for kind, rows in totals.transactions(batch).items()}
    if any(told.values()):
        yield ", ".join(f"{len(rows)} {kind}" for kind, rows in told.items() if rows)
        for kind, rows in told.items():
            for row in rows[:top]:
                yield f"  {kind:<5} {printable(_told_text(row))}"
        yield ""


def _amounts(batch: FlowBatch) -> Iterator[tuple[str, str, Mapping[str, int]]]:
    seen = [audit.seen for audit in batch.audit]
    yield "seen", "", {"packets": sum(s.packets for s in seen), "bytes": sum(s.bytes for s in seen)}
    for family, by_number in totals.protocols(batch).items():
        for number, tally in by_number.items():
            yield family, protocol_name(int(number)) if number.isdecimal() else number, tally
    for key, tally in totals.ethertypes(batch).items():
        yield "non_ip", ethertype_name(int(key, 16)) if key.startswith("0x") else key, tally
    for reason, tally in totals.unattributed(batch).items():
        yield "unattributed", reason, tally


def _amounts_line(kind: str, name: str, packets: int | str, amount: int | str) -> str:
    return f"{kind:<13} {name:<18} {packets:>14} {amount:>17}"


def _largest(batch: FlowBatch, top: int) -> NDArray[np.intp]:
    """The indices of the flows of most bytes; equal ones in the document's order."""
    order = totals.flow_order(batch.flows)
    largest: NDArray[np.intp] = order[np.argsort(-batch.flows["bytes"][order].astype(np.int64), kind="stable")[:top]]
    return largest


def _name_text(batch: FlowBatch, number: int) -> str:
    if batch.flow_names is None:
        return ""
    name = batch.names[batch.flow_names[number]]
    application = "" if name == NAMELESS else f" {name.application}"
    return application + (f" {printable(name.domain)} ({name.domain_source})" if name.domain else "")


def _told_text(row: Mapping[str, Any]) -> str:
    """What a transaction was about, in a line; nothing of it is left out in the document."""
    flow = row["flow"]
    latency = "" if row.get("latency_ns") is None else f" {row['latency_ns'] / 1e6:.3f} ms"
    words = [
        *(str(row[key]) for key in ("method", "query", "sni", "host") if row.get(key)),
        *(str(row[key]) for key in ("path", "qtype", "version", "cipher", "status") if row.get(key)),
        *([rcode_name(row["rcode"])] if row.get("rcode") is not None else []),
        *(answer["data"] for answer in row.get("answers", ())),
    ]
    return f"{flow['src_addr']} > {flow['dst_addr']} {' '.join(words)}{latency}"


def _flow_line(row: np.void) -> str:
    protocol = int(row["protocol"])
    ends = " > ".join(endpoint(row[f"{side}_addr"], int(row[f"{side}_port"]), protocol) for side in ("src", "dst"))
    vlan = f" vlan {row['vlan']}" if row["vlan"] != VLAN_NONE else ""
    flags = f" flags {flags_text(int(row['tcp_flags']))}" if row["tcp_flags"] else ""
    return f"{protocol_name(protocol)} {ends} packets {row['packets']} bytes {row['bytes']}{vlan}{flags}"
