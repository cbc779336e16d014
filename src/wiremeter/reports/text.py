"""A batch as plain text: a block of lines each interval, or tables of a whole capture.

In a block each line is whole in itself, so that grep and awk can read it:

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

Of more domains, applications or questions than are shown, one line named (others) holds the sum.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wiremeter.flows import totals
from wiremeter.flows.batch import FlowBatch, Health, Tally
from wiremeter.flows.by_name import sum_of
from wiremeter.flows.columns import VLAN_NONE, address_text
from wiremeter.flows.dns import DnsTotal, dns_total, dns_totals, rcode_name
from wiremeter.flows.protocols import ethertype_name, protocol_name
from wiremeter.flows.top import DeviceRate, device_rates, flow_order
from wiremeter.names.records import NAMELESS, FlowKey, FlowName, Transaction
from wiremeter.reports.cells import NO_NAME, OTHERS, clock_time, endpoint, flags_text, printable, utc_time
from wiremeter.reports.findings import findings
from wiremeter.reports.selection import Selected, Selection, has_names, select, select_applications, select_domains
from wiremeter.reports.units import duration_text, percent, rate_text


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
    whole = sum(total.tally.packets if by_packets else total.tally.bytes for total in selected.protocols)
    for total in selected.protocols[selection.shown]:
        share = percent(total.tally.packets if by_packets else total.tally.bytes, whole).strip()
        amounts = _amounts(total.tally.bytes, total.tally.packets, seconds, selection)
        yield f"protocol {total.family} {total.protocol} {share} {amounts}"
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
        for name, total in [*shown, *([(OTHERS, sum_of(others))] if others else [])]:
            share = percent(total.tally.bytes, selected.total.bytes).strip()
            amounts = _amounts(total.tally.bytes, total.tally.packets, batch.seconds or 1.0, selection)
            begun = "" if total.connections is None else f" connections {total.connections}"
            yield f"{kind} {name} {share} {amounts} flows {total.flows}{begun}"
    questions = dns_totals(batch.transactions.dns, selection.dns_sort, reverse=selection.reverse)
    for question in questions[selection.shown]:
        yield _dns_line(f"{question.query or '.'} {question.qtype}", question)
    if hidden := {(question.query, question.qtype) for question in questions[selection.rest]}:
        left = [one for one in batch.transactions.dns if (one.query, one.qtype) in hidden]
        yield _dns_line(OTHERS, dns_total(left))


def _dns_line(question: str, total: DnsTotal) -> str:
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
    bits = (
        rate_text(rate.bits_per_second / 8, "B/s") if selection.in_bytes else rate_text(rate.bits_per_second, "bit/s")
    )
    lost = sum(tally.packets for tally in audit.unattributed.values())
    cost = "" if rate.ns_per_run is None else f" ns/run {rate.ns_per_run:.0f}"
    return (
        f"device {rate.device} {rate.direction} {rate.mode} {bits} {rate_text(rate.packets_per_second, 'pps')} "
        f"packets {audit.seen.packets} bytes {audit.seen.bytes} skbs {audit.seen.skbs} "
        f"unattributed {lost} dropped {audit.dropped} audit {'ok' if audit.balanced else 'OFF'}{cost}"
    )


def _flow_line(row: np.void, batch: FlowBatch, selection: Selection) -> str:
    attachment = batch.attachments[row["attachment"]]
    amounts = _amounts(int(row["bytes"]), int(row["packets"]), batch.seconds or 1.0, selection)
    ends = f"{_end(row, 'src', selection)} > {_end(row, 'dst', selection)}"
    return f"flow {attachment.device} {attachment.direction} {_protocol(row)} {ends} {amounts}{_extras(row)}"


def _conversation_line(row: np.void, batch: FlowBatch, selection: Selection) -> str:
    seconds = batch.seconds or 1.0
    device = batch.attachments[row["attachment"]].device
    ends = f"{_end(row, 'local', selection)} <> {_end(row, 'remote', selection)}"
    halves = " ".join(
        f"{side} {_amounts(int(row[f'{side}_bytes']), int(row[f'{side}_packets']), seconds, selection)}"
        for side in ("rx", "tx")
    )
    return f"conversation {device} {_protocol(row)} {ends} {halves}{_extras(row)}"


def _amounts(amount: int, packets: int, seconds: float, selection: Selection) -> str:
    per_second = amount / seconds
    shown = rate_text(per_second, "B/s") if selection.in_bytes else rate_text(per_second * 8, "bit/s")
    return f"{shown} {rate_text(packets / seconds, 'pps')}"


def _end(row: np.void, side: str, selection: Selection) -> str:
    return endpoint(row[f"{side}_addr"], int(row[f"{side}_port"]), int(row["protocol"]), services=selection.services)


def _protocol(row: np.void) -> str:
    return protocol_name(int(row["protocol"]))


def _extras(row: np.void) -> str:
    vlan = f" vlan {row['vlan']}" if row["vlan"] != VLAN_NONE else ""
    return vlan + (f" flags {flags_text(int(row['tcp_flags']))}" if row["tcp_flags"] else "")


# --- a whole capture as tables


def summary(batch: FlowBatch, title: str, linktype: str, *, top: int) -> Iterator[str]:
    """Lines: what was read, packets and bytes by protocol and by what they are not attributed for, the largest flows.

    title: what was read. linktype: of the frames, "" if there were none. top: flows to show.
    """
    yield f"{title}: {batch.mode}, {linktype or 'no frames'}"
    yield f"{utc_time(batch.start_ns)} to {utc_time(batch.end_ns)}, {batch.seconds:.6f} s"
    for finding in findings(batch):
        if finding.kind in ("super_packets", "computed"):
            yield printable(finding.text)
    yield ""
    yield _total_line("", "", "packets", "bytes")
    for kind, name, tally in _totals(batch):
        yield _total_line(kind, name, tally.packets, tally.bytes)
    yield ""
    shown = f", the largest {top}:" if 0 < top < len(batch.flows) else ":" if top and len(batch.flows) else ""
    yield f"{len(batch.flows)} flows{shown}"
    order = flow_order(batch.flows)  # of equally large ones too, so that engines print the same
    for number in order[np.argsort(-batch.flows["bytes"][order].astype(np.int64), kind="stable")[:top]]:
        yield f"  {_summary_flow(batch.flows[number])}{_summary_name(batch, number)}"
    yield ""
    told = {kind: getattr(batch.transactions, kind) for kind in ("dns", "tls", "quic", "http")}
    if any(told.values()):
        yield ", ".join(f"{len(found)} {kind}" for kind, found in told.items() if found)
        for kind, found in told.items():
            for one in found[:top]:
                yield f"  {kind:<5} {printable(_transaction_text(one))}"
        yield ""


def _totals(batch: FlowBatch) -> Iterator[tuple[str, str, Tally]]:
    yield "seen", "", totals.seen(batch)
    for family, by_number in totals.protocols(batch.counters).items():
        for number, tally in by_number.items():
            yield family, protocol_name(int(number)) if number.isdecimal() else number, tally
    for key, tally in totals.ethertypes(batch).items():
        yield "non_ip", ethertype_name(int(key, 16)) if key.startswith("0x") else key, tally
    for reason, tally in totals.unattributed(batch).items():
        yield "unattributed", reason, tally


def _total_line(kind: str, name: str, packets: int | str, amount: int | str) -> str:
    return f"{kind:<13} {name:<18} {packets:>14} {amount:>17}"


def _summary_flow(row: np.void) -> str:
    protocol = int(row["protocol"])
    ends = " > ".join(endpoint(row[f"{side}_addr"], int(row[f"{side}_port"]), protocol) for side in ("src", "dst"))
    return f"{protocol_name(protocol)} {ends} packets {row['packets']} bytes {row['bytes']}{_extras(row)}"


def _summary_name(batch: FlowBatch, number: int) -> str:
    name = NAMELESS if batch.flow_names is None else batch.names[batch.flow_names[number]]
    application = "" if name == NAMELESS else f" {name.application}"
    return application + (f" {printable(name.domain)} ({name.domain_source})" if name.domain else "")


def _transaction_text(one: Transaction) -> str:
    """What a transaction was about, in a line; nothing of it is left out in the document."""
    names = (getattr(one, fact, None) for fact in ("method", "query", "sni", "host"))
    facts = (getattr(one, fact, None) for fact in ("path", "qtype", "version", "cipher", "status"))
    rcode, latency_ns = getattr(one, "rcode", None), getattr(one, "latency_ns", None)
    words = [
        *(str(fact) for fact in (*names, *facts) if fact),
        *([] if rcode is None else [rcode_name(rcode)]),
        *(answer.data for answer in getattr(one, "answers", ())),
    ]
    latency = "" if latency_ns is None else f" {latency_ns / 1e6:.3f} ms"
    return f"{_ends(one.flow)} {' '.join(words)}{latency}"


def _ends(flow: FlowKey) -> str:
    return " > ".join(map(address_text, (flow.src_addr, flow.dst_addr)))
