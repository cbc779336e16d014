"""A batch's exact totals as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from wiremeter.cli import totals
from wiremeter.flows.batch import VLAN_NONE, FlowBatch
from wiremeter.flows.protocols import ethertype_name, protocol_name
from wiremeter.tui.cells import endpoint, flags_text, utc_time


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
    for row in _largest(batch, top):
        yield f"  {_flow_line(row)}"
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


def _largest(batch: FlowBatch, top: int) -> NDArray[np.void]:
    """The flows of most bytes; equal ones in the document's order."""
    rows = totals.sorted_flows(batch.flows)
    order = np.argsort(-rows["bytes"].astype(np.int64), kind="stable")
    return rows[order[:top]]


def _flow_line(row: np.void) -> str:
    protocol = int(row["protocol"])
    ends = " > ".join(endpoint(row[f"{side}_addr"], int(row[f"{side}_port"]), protocol) for side in ("src", "dst"))
    vlan = f" vlan {row['vlan']}" if row["vlan"] != VLAN_NONE else ""
    flags = f" flags {flags_text(int(row['tcp_flags']))}" if row["tcp_flags"] else ""
    return f"{protocol_name(protocol)} {ends} packets {row['packets']} bytes {row['bytes']}{vlan}{flags}"
