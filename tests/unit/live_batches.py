"""Fabricated batches for the tests of what is shown."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import Attachment, Audit, FlowBatch, Health, Tally
from wiremeter.flows.columns import CONNECTIONS, COUNTER, ETHERTYPE_COUNTER, FLOW, VLAN_NONE, AttachMode, Mode
from wiremeter.flows.top import top_conversations
from wiremeter.names.records import NAMELESS, DnsTransaction, FlowKey, FlowName, Transactions

START_NS = 1_763_821_860_000_000_000
SECOND_NS = 1_000_000_000


def packed(address: str) -> bytes:
    """16 bytes in network order, IPv4 as v4-mapped."""
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else b"\0" * 10 + b"\xff\xff" + parsed.packed


def flow(
    src: str,
    dst: str,
    src_port: int = 0,
    dst_port: int = 0,
    *,
    protocol: int = 6,
    device: str = "eth0",
    direction: str = "rx",
    packets: int = 1,
    size: int = 100,
    vlan: int = VLAN_NONE,
    tcp_flags: int = 0,
    name: FlowName | None = None,
) -> dict[str, Any]:
    """One flow as a dictionary for `make_batch`; `size` is the bytes of one packet."""
    return {
        "src_addr": list(packed(src)),
        "dst_addr": list(packed(dst)),
        "src_port": src_port,
        "dst_port": dst_port,
        "protocol": protocol,
        "family": ipaddress.ip_address(src).version,
        "vlan": vlan,
        "tcp_flags": tcp_flags,
        "packets": packets,
        "bytes": packets * size,
        "skbs": packets,
        "place": (device, direction),
        "name": name,
    }


def asked(query: str, qtype: str = "A", rcode: int | None = 0, milliseconds: float = 1, **more: Any) -> DnsTransaction:
    """One DNS question and, unless rcode is None, its response so much later."""
    key = FlowKey(packed("10.0.0.5"), 40000, packed("198.51.100.7"), 53, 17, 4)
    latency_ns = None if rcode is None else round(milliseconds * 1e6)
    return DnsTransaction(START_NS, key, query, qtype, rcode, latency_ns, **more)


def make_batch(
    flows: Sequence[Mapping[str, Any]] = (),
    *,
    devices: Mapping[str, AttachMode] | Iterable[str] = ("eth0",),
    non_ip: Mapping[tuple[str, str], Sequence[tuple[int, int]]] | None = None,
    unattributed: Mapping[tuple[str, str], Mapping[str, Tally]] | None = None,
    missing: Tally = Tally(),  # noqa: B008 - a tuple
    start_ns: int = START_NS,
    seconds: float = 1.0,
    health: Health | None = None,
    mode: Mode = "live",
    connections: Mapping[FlowName, int] | None = None,
    transactions: Transactions = Transactions(),  # noqa: B008 - frozen
) -> FlowBatch:
    """A batch whose counters and audit follow from its flows.

    devices: names, or names with the attach mode of rx.
    non_ip: by device and direction, (ethertype, packets of 60 bytes).
    missing: what the audit of every device and direction lacks.
    connections: how many began, by name; all of the first device, sent.
    Names are off unless a flow has one.
    """
    modes = dict(devices) if isinstance(devices, Mapping) else dict.fromkeys(devices, "tcx")
    places = [(device, direction) for device in modes for direction in ("rx", "tx")]
    attachments = tuple(
        Attachment(at, device, 2 + at // 2, direction, modes[device] if direction == "rx" else "tcx")  # type: ignore[arg-type]
        for at, (device, direction) in enumerate(places)
    )
    rows = np.zeros(len(flows), FLOW)
    for row, values in zip(rows, flows, strict=True):
        for name, value in values.items():
            if name not in ("place", "name"):
                row[name] = value
        row["attachment"] = places.index(values["place"])
        row["first_ns"], row["last_ns"] = start_ns, start_ns + SECOND_NS // 2
    counters, ethertypes, audits = [], [], []
    for at, place in enumerate(places):
        here = rows[rows["attachment"] == at]
        for family, protocol in sorted({(int(r["family"]), int(r["protocol"])) for r in here}):
            of = here[(here["family"] == family) & (here["protocol"] == protocol)]
            counters.append((at, family, protocol, *(of[n].sum() for n in Tally._fields)))
        frames = Tally()
        for ethertype, packets in (non_ip or {}).get(place, ()):
            ethertypes.append((at, ethertype, packets, 60 * packets, packets))
            frames = frames.plus(Tally(packets, 60 * packets, packets))
        if frames.packets:
            counters.append((at, 0, 0, *frames))
        in_flows = Tally(*(int(here[name].sum()) for name in Tally._fields))
        lost = dict((unattributed or {}).get(place, {}))
        seen = in_flows.plus(frames).plus(missing)
        for tally in lost.values():
            seen = seen.plus(tally)
        audits.append(Audit(place[0], place[1], seen, in_flows, frames, lost))  # type: ignore[arg-type]
    names = tuple(dict.fromkeys([NAMELESS, *(f["name"] for f in flows if f["name"]), *(connections or ())]))
    begun = [(1, names.index(name), count) for name, count in (connections or {}).items()]
    return FlowBatch(
        start_ns,
        start_ns + int(seconds * SECOND_NS),
        attachments,
        rows,
        np.array(counters, COUNTER),
        np.array(ethertypes, ETHERTYPE_COUNTER),
        tuple(audits),
        health or Health(),
        mode,
        names,
        np.array([names.index(f["name"] or NAMELESS) for f in flows], "u4") if len(names) > 1 else None,
        np.array(begun, CONNECTIONS),
        transactions,
    )


def conversations(batch: FlowBatch) -> NDArray[np.void]:
    """All of them."""
    return top_conversations(batch, len(batch.flows))
