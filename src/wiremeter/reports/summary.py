"""A whole capture, or an interval of one, as tables for people; and how its rate went over time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows import totals
from wiremeter.flows.batch import FlowBatch, Health, Tally
from wiremeter.flows.by_name import NameTotal, NameTotals
from wiremeter.flows.columns import address_text
from wiremeter.flows.dns import dns_totals, rcode_name
from wiremeter.flows.protocols import ethertype_name, protocol_name
from wiremeter.names.records import NAMELESS, FlowKey, Transaction
from wiremeter.reports.cells import NO_NAME, OTHERS, bar, endpoint, printable, sparkline, utc_time
from wiremeter.reports.findings import findings
from wiremeter.reports.selection import (
    Selected,
    Selection,
    has_names,
    select_applications,
    select_domains,
    select_hosts,
    select_protocols,
)
from wiremeter.reports.text import dns_line, flow_extras
from wiremeter.reports.units import duration_text, percent, rate_text, traffic_text
from wiremeter.settings.words import View

#: What is said of a capture beside its numbers; the rest of the findings is about live traffic.
_TOLD = ("super_packets", "computed", "lost_payloads")
_BAR_COLUMNS = 40
_LINE_COLUMNS = 64


def summary(
    batch: FlowBatch,
    selected: Selected,
    selection: Selection,
    title: str,
    linktype: str,
    view: View | None = None,
    rate: str = "",
    before: Health | None = None,
) -> Iterator[str]:
    """Lines: what was read, its rate, packets and bytes by protocol and by what they are not attributed for, and then
    flows or conversations, applications, domains, DNS questions and single transactions.

    selected: by the selection, of the batch. title: what was read. linktype: of the frames, "" if there were none.
    view: only this of the lists. rate: a line about the rate over time. before: the state at the end of the interval
    before; None if this is the first.
    """
    yield f"{title}: {batch.mode}, {linktype or 'no frames'}"
    yield f"{utc_time(batch.start_ns)} to {utc_time(batch.end_ns)}, {batch.seconds:.6f} s"
    if batch.seconds > 0:
        yield f"average {_rates(totals.seen(batch), batch.seconds, selection)}"
    if rate:
        yield rate
    for finding in findings(batch, before):
        if finding.kind in _TOLD:
            yield printable(finding.text)
    yield ""
    yield _total_line("", "", "packets", "bytes")
    for kind, name, tally in _totals(batch):
        yield _total_line(kind, name, tally.packets, tally.bytes)
    if selection.filter.text:
        yield ""
        yield f"filter {printable(selection.filter.text)}: {selected.matched} of {len(batch.flows)} flows"
        yield _total_line("matched", "", selected.total.packets, selected.total.bytes)
        for total in select_protocols(batch, selected, selection):
            yield _total_line(total.family, total.protocol, total.tally.packets, total.tally.bytes)
    yield ""
    if view in (None, "flows"):
        yield from _flow_lines(batch, selected, selection)
    if view == "hosts":
        hosts, others, found = select_hosts(batch, selected, selection)
        yield _heading(found, "hosts", selection, "the largest")
        yield from _sum_lines(hosts, others if found > len(hosts) else None, selected)
        yield ""
    if not has_names(batch):
        return
    if view in (None, "applications"):
        yield from _name_lines("applications", select_applications(batch, selected, selection), selected, selection)
    if view in (None, "domains"):
        yield from _name_lines("domains", select_domains(batch, selected, selection), selected, selection)
    if view in (None, "dns"):
        yield from _question_lines(batch, selection)
    if view is None:
        yield from _transaction_lines(batch, selection)


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


def _heading(found: int, what: str, selection: Selection, order: str) -> str:
    if not found or selection.limit == 0:
        return f"{found} {what}"
    shown = "" if selection.limit is None or found <= selection.limit else f", {order} {selection.limit}"
    return f"{found} {what}{shown}:"


def _flow_lines(batch: FlowBatch, selected: Selected, selection: Selection) -> Iterator[str]:
    order = "the largest" if selection.sort in ("bytes", "packets") else f"by {selection.sort} the first"
    if selection.pairs:
        yield f"{selected.matched} flows, by conversation {order} {len(selected.flows)}:"
    else:
        yield _heading(selected.matched, "flows", selection, order)
    line = _conversation if selection.pairs else _flow
    for row, name in zip(selected.flows, selected.names, strict=True):
        yield f"  {line(row, batch.seconds, selection)}{_name(batch, int(name))}"
    yield ""


def _flow(row: np.void, seconds: float, selection: Selection) -> str:
    protocol = int(row["protocol"])
    ends = " > ".join(
        endpoint(row[f"{side}_addr"], int(row[f"{side}_port"]), protocol, services=selection.services)
        for side in ("src", "dst")
    )
    tally = Tally(int(row["packets"]), int(row["bytes"]))
    return f"{protocol_name(protocol)} {ends} {_amounts(tally, seconds, selection)}{flow_extras(row)}"


def _conversation(row: np.void, seconds: float, selection: Selection) -> str:
    protocol = int(row["protocol"])
    ends = " <> ".join(
        endpoint(row[f"{side}_addr"], int(row[f"{side}_port"]), protocol, services=selection.services)
        for side in ("local", "remote")
    )
    there, back = (Tally(int(row[f"{side}_packets"]), int(row[f"{side}_bytes"])) for side in ("tx", "rx"))
    return (
        f"{protocol_name(protocol)} {ends} there {_amounts(there, seconds, selection)} "
        f"back {_amounts(back, seconds, selection)}{flow_extras(row)}"
    )


def _amounts(tally: Tally, seconds: float, selection: Selection) -> str:
    rate = f" {_bit_rate(tally, seconds, selection)}" if seconds > 0 else ""
    return f"packets {tally.packets} bytes {tally.bytes}{rate}"


def _rates(tally: Tally, seconds: float, selection: Selection) -> str:
    return f"{_bit_rate(tally, seconds, selection)} {rate_text(tally.packets / seconds, 'pps')}"


def _bit_rate(tally: Tally, seconds: float, selection: Selection) -> str:
    return traffic_text(tally.bytes / seconds, in_bytes=selection.in_bytes)


def _name(batch: FlowBatch, number: int) -> str:
    name = batch.names[number]
    application = "" if name == NAMELESS else f" {name.application}"
    return application + (f" {printable(name.domain)} ({name.domain_source})" if name.domain else "")


def _name_lines(what: str, sums: NameTotals, selected: Selected, selection: Selection) -> Iterator[str]:
    yield _heading(len(sums), what, selection, "the largest")
    shown, others = sums[selection.shown], sums[selection.rest]
    yield from _sum_lines(shown, others.together() if others and shown else None, selected)
    yield ""


def _sum_lines(shown: Sequence[NameTotal], others: NameTotal | None, selected: Selected) -> Iterator[str]:
    named = [(total.name or NO_NAME, total) for total in shown]
    for name, total in [*named, *([(OTHERS, others)] if others else [])]:
        share = percent(total.tally.bytes, selected.total.bytes)
        begun = "" if total.connections is None else f" connections {total.connections}"
        amounts = f"packets {total.tally.packets} bytes {total.tally.bytes} flows {total.flows}{begun}"
        yield f"  {share} {printable(name)} {amounts}"


def _question_lines(batch: FlowBatch, selection: Selection) -> Iterator[str]:
    questions = dns_totals(batch.transactions.dns, selection.dns_sort, reverse=selection.reverse)
    yield _heading(len(questions), "different DNS questions", selection, "those asked most,")
    for question in questions[selection.shown]:
        yield f"  {printable(dns_line(f'{question.name} {question.qtype}', question))}"
    yield ""


def _transaction_lines(batch: FlowBatch, selection: Selection) -> Iterator[str]:
    told = {kind: getattr(batch.transactions, kind) for kind in ("dns", "tls", "quic", "http")}
    if not any(told.values()):
        return
    yield ", ".join(f"{len(found)} {kind}" for kind, found in told.items() if found)
    for kind, found in told.items():
        for one in found[selection.shown]:
            yield f"  {kind:<5} {printable(_transaction_text(one))}"
    yield ""


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


# --- over time


def rate_line(bytes_per_second: NDArray[np.float64], bin_ns: int, selection: Selection) -> str:
    """A picture of a rate over time, and its peak; bytes_per_second: over bin_ns each, oldest first."""
    if len(bytes_per_second) < 2:
        return ""
    width = min(len(bytes_per_second), _LINE_COLUMNS)
    joined = -(-len(bytes_per_second) // width)
    padded = np.pad(bytes_per_second, (0, -len(bytes_per_second) % joined)).reshape(-1, joined).max(axis=1)
    peak = traffic_text(float(bytes_per_second.max()), in_bytes=selection.in_bytes)
    return f"rate {sparkline(padded, len(padded))} peak {peak} over {duration_text(bin_ns)}"


@dataclass(frozen=True, slots=True)
class Point:
    """What one interval had: of all traffic, or of the flows that pass a filter."""

    start_ns: int
    seconds: float
    tally: Tally
    flows: int


def point_of(batch: FlowBatch, selected: Selected, selection: Selection) -> Point:
    """One interval as a point of the series. selected: by the selection, of the batch."""
    if not selection.filter.text:
        return Point(batch.start_ns, batch.seconds, totals.seen(batch), len(batch.flows))
    return Point(batch.start_ns, batch.seconds, selected.total, selected.matched)


def series(points: Collection[Point], selection: Selection, *, pictured: bool) -> Iterator[str]:
    """A table with a line for each interval: when it began, its rate, packets per second and flows.

    pictured: with a bar beside each, the longest for the highest rate.
    """
    by_packets = selection.sort == "packets"
    heights = [(p.tally.packets if by_packets else p.tally.bytes) / p.seconds if p.seconds > 0 else 0.0 for p in points]
    peak = max(heights, default=0.0)
    yield f"{'interval from':<30} {'rate':>12} {'packets':>12} {'flows':>9}"
    for point, height in zip(points, heights, strict=True):
        rate = _bit_rate(point.tally, point.seconds, selection) if point.seconds > 0 else ""
        packets = rate_text(point.tally.packets / point.seconds, "pps") if point.seconds > 0 else ""
        picture = f" {bar(height / peak if peak else 0.0, _BAR_COLUMNS)}" if pictured else ""
        yield f"{utc_time(point.start_ns)} {rate:>12} {packets:>12} {point.flows:>9}{picture}".rstrip()
    yield ""
