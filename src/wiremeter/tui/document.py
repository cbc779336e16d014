"""A batch as a JSON document; its keys are an interface.

    start_time, end_time   RFC 3339, UTC, nanoseconds; seconds: the length between them
    mode                   live, capture or simulated
    balanced               whether every audit adds up
    devices[]              device, direction, attach_mode, packets_per_second, bits_per_second, skbs_per_second,
                           seen, flows, non_ip: {packets, bytes, skbs}; unattributed: by reason, the same;
                           missing: what the audit lacks, the same, and balanced;
                           kernel: {packets, bytes, drops, convention} or null; remainders: packets by cause
    protocols[]            family (ipv4, ipv6, non_ip), protocol, packets, bytes, skbs; largest first
    filter                 the filter expression, "" if none
    flows_total            flows in the interval; flows_matched: those that pass the filter, and their sum
    matched                {packets, bytes, skbs}
    flows[]                device, direction, family, vlan (null without a tag), protocol, src_addr, src_port, dst_addr,
                           dst_port, packets, bytes, skbs, tcp_flags (a number), first_time, last_time
    conversations[]        in its place, if asked for: device, family, vlan, protocol, local_addr, local_port,
                           remote_addr, remote_port, rx and tx: {packets, bytes, skbs}, tcp_flags, first_time, last_time
    alarms[]               kind, severity (fault, warning, note), device, direction, reason ("" where it has none),
                           packets, bytes, text
    health                 flips, early_flips, table_lines, table_peak_lines, table_bytes, regions, drain_seconds,
                           grace_seconds, displaced[], programs[]: {device, direction, run_ns, runs}

Packets, bytes and skbs are those of the interval. Names of protocols and families are those of the metrics.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from wiremeter.flows.batch import FAMILY_NAMES, VLAN_NONE, FlowBatch, Tally, address_text
from wiremeter.flows.protocols import protocol_name
from wiremeter.flows.top import DeviceRate, device_rates
from wiremeter.tui.alarms import alarms
from wiremeter.tui.cells import utc_time
from wiremeter.tui.selection import Selection, select


def document(batch: FlowBatch, selection: Selection) -> dict[str, Any]:
    """The document, ready for a JSON encoder."""
    selected = select(batch, selection)
    rows = [_conversation(row, batch) if selection.pairs else _flow(row, batch) for row in selected.flows]
    return {
        "start_time": utc_time(batch.start_ns),
        "end_time": utc_time(batch.end_ns),
        "seconds": batch.seconds,
        "mode": batch.mode,
        "balanced": all(audit.balanced for audit in batch.audit),
        "devices": [_device(rate) for rate in device_rates(batch) if selection.device in (None, rate.device)],
        "protocols": [
            {"family": total.family, "protocol": total.protocol} | total.tally._asdict() for total in selected.protocols
        ],
        "filter": selection.filter.text,
        "flows_total": len(batch.flows),
        "flows_matched": selected.matched,
        "matched": selected.total._asdict(),
        "conversations" if selection.pairs else "flows": rows,
        "alarms": [asdict(alarm) | {"text": alarm.text} for alarm in alarms(batch)],
        "health": asdict(batch.health),
    }


def _device(rate: DeviceRate) -> dict[str, Any]:
    audit = rate.audit
    return {
        "device": rate.device,
        "direction": rate.direction,
        "attach_mode": rate.mode,
        "packets_per_second": rate.packets_per_second,
        "bits_per_second": rate.bits_per_second,
        "skbs_per_second": rate.skbs_per_second,
        "seen": audit.seen._asdict(),
        "flows": audit.flows._asdict(),
        "non_ip": audit.non_ip._asdict(),
        "unattributed": {reason: tally._asdict() for reason, tally in audit.unattributed.items()},
        "missing": audit.missing._asdict(),
        "balanced": audit.balanced,
        "kernel": asdict(audit.kernel) if audit.kernel else None,
        "remainders": dict(audit.remainders),
    }


def _flow(row: np.void, batch: FlowBatch) -> dict[str, Any]:
    attachment = batch.attachments[row["attachment"]]
    return (
        {"device": attachment.device, "direction": attachment.direction}
        | _common(row)
        | _end(row, "src")
        | _end(row, "dst")
        | _tally(row, "")
        | _trailer(row)
    )


def _conversation(row: np.void, batch: FlowBatch) -> dict[str, Any]:
    return (
        {"device": batch.attachments[row["attachment"]].device}
        | _common(row)
        | _end(row, "local")
        | _end(row, "remote")
        | {"rx": _tally(row, "rx_"), "tx": _tally(row, "tx_")}
        | _trailer(row)
    )


def _common(row: np.void) -> dict[str, Any]:
    return {
        "family": FAMILY_NAMES[int(row["family"])],
        "vlan": None if row["vlan"] == VLAN_NONE else int(row["vlan"]),
        "protocol": protocol_name(int(row["protocol"])),
    }


def _end(row: np.void, side: str) -> dict[str, Any]:
    return {f"{side}_addr": address_text(row[f"{side}_addr"]), f"{side}_port": int(row[f"{side}_port"])}


def _tally(row: np.void, prefix: str) -> dict[str, int]:
    return {name: int(row[f"{prefix}{name}"]) for name in Tally._fields}


def _trailer(row: np.void) -> dict[str, Any]:
    return {
        "tcp_flags": int(row["tcp_flags"]),
        "first_time": utc_time(int(row["first_ns"])),
        "last_time": utc_time(int(row["last_ns"])),
    }
