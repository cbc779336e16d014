"""A batch as plain text: a block of lines each interval.

Each line is whole in itself, so that grep and awk can read it:

    14:31:07 device eth0 rx tcx 31.0 Mbit/s 2 kpps packets 2391 bytes 3872310 skbs 239 unattributed 0 dropped 0 audit ok
    14:31:07 alarm eth0 rx: 12 packets unattributed, table_full: raise --flow-table
    14:31:07 protocol ipv4 tcp 93.1 % 1.15 Gbit/s 98.2 kpps
    14:31:07 flow eth0 rx tcp 192.0.2.1:443 > 192.0.2.9:51234 812 Mbit/s 67.1 kpps flags PA
    14:31:07 conversation eth0 tcp 192.0.2.9:51234 <> 192.0.2.1:443 rx 812 Mbit/s 67.1 kpps tx 17.7 Mbit/s 33.5 kpps

A device's packets, bytes and skbs are those of the interval. What is not live says so after the time: simulated.
Where names were found, flows and conversations end with them and their evidence, and more lines follow the protocols:

    14:31:07 application tls 91.0 % 1.12 Gbit/s 95.1 kpps flows 12 connections 4
    14:31:07 domain www.example.com 65.2 % 812 Mbit/s 67.1 kpps flows 2 connections 1
    14:31:07 domain (no name) 3.1 % 38.6 Mbit/s 3.20 kpps flows 40 connections 2
    14:31:07 dns www.example.com A queries 3 retries 1 unanswered 0 NOERROR 3 median 1.24 ms max 9.80 ms
    14:31:07 flow eth0 rx tcp 192.0.2.1:443 > 192.0.2.9:5123 812 Mbit/s 67.1 kpps application tls domain example.com sni

With --view hosts more lines are of flows by their other end: `host 192.0.2.1 65.2 % 812 Mbit/s 67.1 kpps flows 2`.
Of more domains, applications, hosts or questions than are shown, one line named (others) holds the sum.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wiremeter.flows.batch import FlowBatch, Health
from wiremeter.flows.by_name import NameTotal
from wiremeter.flows.columns import VLAN_NONE
from wiremeter.flows.dns import DnsTotal, dns_totals
from wiremeter.flows.protocols import protocol_name
from wiremeter.flows.top import DeviceRate, device_rates
from wiremeter.names.records import NAMELESS, FlowName
from wiremeter.reports.cells import NO_NAME, OTHERS, clock_time, endpoint, flags_text, printable
from wiremeter.reports.findings import findings
from wiremeter.reports.selection import (
    Selected,
    Selection,
    has_names,
    select,
    select_applications,
    select_domains,
    select_hosts,
    select_protocols,
)
from wiremeter.reports.units import duration_text, percent, rate_text, traffic_text


def text_block(batch: FlowBatch, selection: Selection, before: Health | None = None) -> str:
    """All lines for one interval, and an empty one.

    before: the meter's state at the end of the interval before; None if this is the first.
    """
    now = clock_time(batch.end_ns)
    head = now if batch.mode == "live" else f"{now} {batch.mode}"
    return "".join(f"{head} {printable(line)}\n" for line in _lines(batch, selection, before)) + "\n"


def _lines(batch: FlowBatch, selection: Selection, before: Health | None) -> Iterator[str]:
    selected = select(batch, selection)
    seconds = batch.seconds or 1.0
    yield f"interval {seconds:.3f} s flows {len(batch.flows)} matched {selected.matched}"
    for rate in device_rates(batch):
        if selection.device in (None, rate.device):
            yield _device_line(rate, selection)
    for alarm in findings(batch, before):
        yield f"{'note' if alarm.severity == 'note' else 'alarm'} {alarm.text}"
    by_packets = selection.sort == "packets"
    protocols = select_protocols(batch, selected, selection)
    whole = sum(total.tally.packets if by_packets else total.tally.bytes for total in protocols)
    for total in protocols[selection.shown]:
        share = percent(total.tally.packets if by_packets else total.tally.bytes, whole).strip()
        amounts = _amounts(total.tally.bytes, total.tally.packets, seconds, selection)
        yield f"protocol {total.family} {total.protocol} {share} {amounts}"
    if selection.view == "hosts":
        hosts, others, found = select_hosts(batch, selected, selection)
        for host in hosts:
            yield _sum_line(f"host {host.name}", host, batch, selected, selection)
        if found > len(hosts):
            yield _sum_line(f"host {OTHERS}", others, batch, selected, selection)
    if has_names(batch):
        yield from _name_lines(batch, selected, selection)
    line = _conversation_line if selection.pairs else _flow_line
    for row, name in zip(selected.flows, selected.names, strict=True):
        yield line(row, batch, selection) + _name_text(batch.names[int(name)])


def _name_lines(batch: FlowBatch, selected: Selected, selection: Selection) -> Iterator[str]:
    for kind, sums in (
        ("application", select_applications(batch, selected, selection)),
        ("domain", select_domains(batch, selected, selection)),
    ):
        shown = [(total.name or NO_NAME, total) for total in sums[selection.shown]]
        others = sums[selection.rest]
        for name, total in [*shown, *([(OTHERS, others.together())] if others else [])]:
            yield _sum_line(f"{kind} {name}", total, batch, selected, selection)
    questions = dns_totals(batch.transactions.dns, selection.dns_sort, reverse=selection.reverse)
    for question in questions[selection.shown]:
        yield dns_line(f"{question.name} {question.qtype}", question)
    if hidden := questions[selection.rest]:
        yield dns_line(OTHERS, hidden.together())


def _sum_line(who: str, total: NameTotal, batch: FlowBatch, selected: Selected, selection: Selection) -> str:
    share = percent(total.tally.bytes, selected.total.bytes).strip()
    amounts = _amounts(total.tally.bytes, total.tally.packets, batch.seconds or 1.0, selection)
    begun = "" if total.connections is None else f" connections {total.connections}"
    return f"{who} {share} {amounts} flows {total.flows}{begun}"


def dns_line(question: str, total: DnsTotal) -> str:
    """How often something was asked, and how that was answered."""
    rcodes = "".join(f" {rcode} {responses}" for rcode, responses in total.rcodes.items())
    latency = ""
    if total.median_ns is not None and total.max_ns is not None:
        latency = f" median {duration_text(total.median_ns)} max {duration_text(total.max_ns)}"
    counts = f"queries {total.queries} retries {total.retries} unanswered {total.unanswered}"
    return f"dns {question} {counts}{rcodes}{latency}"


def _name_text(name: FlowName) -> str:
    if name == NAMELESS:
        return ""
    domain = f" domain {name.domain} {name.domain_source}" if name.domain else ""
    return f" application {name.application}{domain}"


def _device_line(rate: DeviceRate, selection: Selection) -> str:
    audit = rate.audit
    traffic = traffic_text(rate.bits_per_second / 8, in_bytes=selection.in_bytes)
    lost = sum(tally.packets for tally in audit.unattributed.values())
    cost = "" if rate.ns_per_run is None else f" ns/run {rate.ns_per_run:.0f}"
    return (
        f"device {rate.device} {rate.direction} {rate.mode} {traffic} {rate_text(rate.packets_per_second, 'pps')} "
        f"packets {audit.seen.packets} bytes {audit.seen.bytes} skbs {audit.seen.skbs} "
        f"unattributed {lost} dropped {audit.dropped} audit {'ok' if audit.balanced else 'OFF'}{cost}"
    )


def _flow_line(row: np.void, batch: FlowBatch, selection: Selection) -> str:
    attachment = batch.attachments[row["attachment"]]
    amounts = _amounts(int(row["bytes"]), int(row["packets"]), batch.seconds or 1.0, selection)
    ends = f"{_end(row, 'src', selection)} > {_end(row, 'dst', selection)}"
    return f"flow {attachment.device} {attachment.direction} {_protocol(row)} {ends} {amounts}{flow_extras(row)}"


def _conversation_line(row: np.void, batch: FlowBatch, selection: Selection) -> str:
    seconds = batch.seconds or 1.0
    device = batch.attachments[row["attachment"]].device
    ends = f"{_end(row, 'local', selection)} <> {_end(row, 'remote', selection)}"
    halves = " ".join(
        f"{side} {_amounts(int(row[f'{side}_bytes']), int(row[f'{side}_packets']), seconds, selection)}"
        for side in ("rx", "tx")
    )
    return f"conversation {device} {_protocol(row)} {ends} {halves}{flow_extras(row)}"


def _amounts(amount: int, packets: int, seconds: float, selection: Selection) -> str:
    return f"{traffic_text(amount / seconds, in_bytes=selection.in_bytes)} {rate_text(packets / seconds, 'pps')}"


def _end(row: np.void, side: str, selection: Selection) -> str:
    return endpoint(row[f"{side}_addr"], int(row[f"{side}_port"]), int(row["protocol"]), services=selection.services)


def _protocol(row: np.void) -> str:
    return protocol_name(int(row["protocol"]))


def flow_extras(row: np.void) -> str:
    """What a flow or conversation has beside its amounts: VLAN and TCP flags."""
    vlan = f" vlan {row['vlan']}" if row["vlan"] != VLAN_NONE else ""
    return vlan + (f" flags {flags_text(int(row['tcp_flags']))}" if row["tcp_flags"] else "")
