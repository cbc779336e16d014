"""A batch as a JSON document; its keys are an interface.

    start_time, end_time   RFC 3339, UTC, nanoseconds; seconds: the length between them
    mode                   live, capture or simulated
    balanced               whether every audit adds up
    devices[]              device, direction, attach_mode, packets_per_second, bits_per_second, skbs_per_second,
                           seen, flows, non_ip: {packets, bytes, skbs}; unattributed: by reason, the same;
                           missing: what the audit lacks, the same, and balanced;
                           kernel: {packets, bytes, drops, convention} or null; remainders: packets by cause
    protocols[]            family (ipv4, ipv6, non_ip), protocol, packets, bytes, skbs; largest first
    applications[]         application ("unknown" where it is), packets, bytes, skbs; rx, tx: the same; flows;
                           connections: TCP and QUIC connections that began, null where a filter is set; largest first
    applications_other     the sum of those that are not shown, the same without a name
    domains[]              domain (null: all flows without one), and the same; domains_other likewise
    dns                    queries, retries, unanswered, rcodes: responses by code, latency_median_ns, latency_max_ns;
                           questions[]: query, qtype, and the same; those most asked; of all flows, filter or not
    filter                 the filter expression, "" if none
    flows_total            flows in the interval; flows_matched: those that pass the filter, and their sum
    matched                {packets, bytes, skbs}
    flows[]                device, direction, family, vlan (null without a tag), protocol, src_addr, src_port, dst_addr,
                           dst_port, packets, bytes, skbs, tcp_flags (a number), first_time, last_time,
                           application, domain or null, domain_source (its evidence) or null
    conversations[]        in its place, if asked for: device, family, vlan, protocol, local_addr, local_port,
                           remote_addr, remote_port, rx and tx: {packets, bytes, skbs}, tcp_flags, first_time,
                           last_time, application, domain, domain_source
    alarms[]               kind, severity (fault, warning, note), device, direction, reason ("" where it has none),
                           packets, bytes, text
    health                 flips, early_flips, table_lines, table_peak_lines, table_bytes, regions, drain_seconds,
                           grace_seconds, displaced[], programs[]: {device, direction, run_ns, runs},
                           payloads, lost_payloads: by source, since the meter started

Packets, bytes and skbs are those of the interval. Names of protocols and families are those of the metrics. Where names
are off, the keys from applications to dns are not there, nor those of a flow from application on.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from wiremeter.flows.batch import FlowBatch, Health, Tally
from wiremeter.flows.by_name import NameTotal, sum_of
from wiremeter.flows.columns import FAMILY_NAMES, VLAN_NONE, address_text
from wiremeter.flows.dns import DnsTotal, dns_total, dns_totals
from wiremeter.flows.protocols import protocol_name
from wiremeter.flows.top import DeviceRate, device_rates
from wiremeter.names.records import FlowName
from wiremeter.reports.cells import utc_time
from wiremeter.reports.findings import alarms
from wiremeter.reports.selection import Selected, Selection, select, select_applications, select_domains


def document(batch: FlowBatch, selection: Selection, before: Health | None = None) -> dict[str, Any]:
    """The document, ready for a JSON encoder.

    before: the meter's state at the end of the interval before; None if this is the first.
    """
    selected = select(batch, selection)
    has_names = batch.flow_names is not None
    of_row = _conversation if selection.pairs else _flow
    rows = [of_row(row, batch) for row in selected.flows]
    if has_names:
        rows = [row | _name(batch.names[int(name)]) for row, name in zip(rows, selected.names, strict=True)]
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
        **(_by_name(batch, selected, selection) if has_names else {}),
        "filter": selection.filter.text,
        "flows_total": len(batch.flows),
        "flows_matched": selected.matched,
        "matched": selected.total._asdict(),
        "conversations" if selection.pairs else "flows": rows,
        "alarms": [asdict(alarm) | {"text": alarm.text} for alarm in alarms(batch, before)],
        "health": asdict(batch.health),
    }


def _by_name(batch: FlowBatch, selected: Selected, selection: Selection) -> dict[str, Any]:
    applications = select_applications(batch, selected, selection)
    domains = select_domains(batch, selected, selection)
    questions = dns_totals(batch.transactions.dns, selection.dns_sort, reverse=selection.reverse)
    return {
        "applications": [{"application": total.name} | _total(total) for total in applications[: selection.limit]],
        "applications_other": _total(sum_of(applications[selection.limit :])),
        "domains": [{"domain": total.name} | _total(total) for total in domains[: selection.limit]],
        "domains_other": _total(sum_of(domains[selection.limit :])),
        "dns": _dns(dns_total(batch.transactions.dns))
        | {
            "questions": [
                {"query": total.query, "qtype": total.qtype} | _dns(total) for total in questions[: selection.limit]
            ]
        },
    }


def _total(total: NameTotal) -> dict[str, Any]:
    return total.tally._asdict() | {
        "rx": total.rx._asdict(),
        "tx": total.tx._asdict(),
        "flows": total.flows,
        "connections": total.connections,
    }


def _dns(total: DnsTotal) -> dict[str, Any]:
    return {
        "queries": total.queries,
        "retries": total.retries,
        "unanswered": total.unanswered,
        "rcodes": dict(total.rcodes),
        "latency_median_ns": total.median_ns,
        "latency_max_ns": total.max_ns,
    }


def _name(name: FlowName) -> dict[str, Any]:
    return {"application": name.application, "domain": name.domain, "domain_source": name.domain_source}


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
        "capture_dropped": audit.capture_dropped,
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
