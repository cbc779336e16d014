"""A batch as its document: the public JSON of `live`, `replay` and `simulate`, as reports.schema defines it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType
from numpy.typing import NDArray

from wiremeter.flows import batch as batches
from wiremeter.flows import totals
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.by_name import NameTotal
from wiremeter.flows.columns import FAMILY_NAMES, VLAN_NONE, packet_address_text
from wiremeter.flows.dns import DnsTotal, dns_totals
from wiremeter.flows.top import DeviceRate, device_rates
from wiremeter.names import records
from wiremeter.reports import schema
from wiremeter.reports.cells import utc_time, utf8_text
from wiremeter.reports.findings import findings
from wiremeter.reports.schema import Document, Source
from wiremeter.reports.selection import (
    Selected,
    Selection,
    rest_of,
    select,
    select_applications,
    select_domains,
    select_hosts,
)

LIVE = Source(kind="live")
#: Rows turned into records at a time.
_ROWS_AT_A_TIME = 4096
_UNSET_FLOW_FIELDS = {"device": UNSET, "direction": UNSET, "skbs": UNSET}


def document(
    batch: FlowBatch, selection: Selection, source: Source = LIVE, before: batches.Health | None = None
) -> Document:
    """The whole document of one batch.

    selection.limit None: all rows, and the transactions. source: where the batch came from.
    before: the meter's state at the end of the interval before; None if this is the first.
    """
    head, rows = _document(batch, selection, source, before)
    return msgspec.structs.replace(head, **{key: tuple(found) for key, found in rows.items()})


def document_lines(
    batch: FlowBatch, selection: Selection, source: Source = LIVE, before: batches.Health | None = None
) -> Iterator[str]:
    """The same as JSON with a flow, a conversation or a transaction a line, in pieces: a million flows need no memory.

    The same counts give the same bytes.
    """
    head, rows = _document(batch, selection, source, before)
    separator = "{"
    for key in Document.__struct_fields__:
        if key in rows:
            yield f'{separator}"{key}": ['
            row_separator = "\n  "
            for row in rows[key]:
                yield row_separator + to_json(row)
                row_separator = ",\n  "
            yield "]"
        elif (value := getattr(head, key)) is not UNSET:
            yield f'{separator}"{key}": {to_json(value)}'
        else:
            continue
        separator = ",\n "
    yield "}\n"


def to_json(value: Any) -> str:
    """JSON that a terminal can show: what could move its cursor or turn the direction of text is escaped.

    >>> to_json({"domain": "a\\x9b\\u202eb.example"})
    '{"domain":"a\\\\u009b\\\\u202eb.example"}'
    """
    text = msgspec.json.encode(value).decode()
    return text if text.isascii() and "\x7f" not in text else _NOT_ASCII.sub(_escaped, text)


_NOT_ASCII = re.compile("[^\x20-\x7e]")


def _escaped(found: re.Match[str]) -> str:
    letter = found[0]
    if letter.isprintable():
        return letter
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _document(
    batch: FlowBatch, selection: Selection, source: Source, before: batches.Health | None
) -> tuple[Document, dict[str, Iterator[Struct]]]:
    """The document without its rows, and the rows."""
    selected = select(batch, selection)
    is_live = batch.mode == "live"
    rows: dict[str, Iterator[Struct]] = {
        "conversations" if selection.pairs else "flows": (
            _conversations(batch, selected) if selection.pairs else _flows(batch, selected)
        )
    }
    if batch.flow_names is not None and selection.limit is None:
        rows |= _transactions(batch.transactions, is_live=batch.mode == "live")
    tally = functools.partial(_tally, is_live=is_live)
    head = Document(
        source=source,
        mode=batch.mode,
        start_time=utc_time(batch.start_ns),
        end_time=utc_time(batch.end_ns),
        seconds=batch.seconds,
        balanced=all(audit.balanced for audit in batch.audit),
        seen=tally(totals.seen(batch)),
        families={name: tally(total) for name, total in totals.families(batch).items()},
        protocols=_protocols(batch.counters, is_live),
        ethertypes={name: tally(total) for name, total in totals.ethertypes(batch).items()},
        unattributed={reason: tally(total) for reason, total in totals.unattributed(batch).items()},
        devices=tuple(
            _device(rate, is_live) for rate in device_rates(batch) if selection.device in (None, rate.device)
        ),
        filter=selection.filter.text,
        **(_by_name(batch, selected, selection) if batch.flow_names is not None else {}),
        **(_by_host(batch, selected, selection) if selection.view == "hosts" else {}),
        flows_total=len(batch.flows),
        flows_matched=selected.matched,
        matched=tally(selected.total),
        matched_protocols=UNSET if selected.mask is None else _protocols(batch.flows[selected.mask], is_live),
        alarms=tuple(
            msgspec.convert(finding, schema.Finding, from_attributes=True) for finding in findings(batch, before)
        ),
        health=msgspec.convert(batch.health, schema.Health, from_attributes=True) if is_live else UNSET,
    )
    return head, rows


def _protocols(rows: NDArray[np.void], is_live: bool) -> schema.Protocols:
    return {
        family: {number: _tally(total, is_live) for number, total in by_number.items()}
        for family, by_number in totals.protocols(rows).items()
    }


def _tally(tally: batches.Tally, is_live: bool) -> schema.Tally:
    return schema.Tally(tally.packets, tally.bytes, tally.skbs if is_live else UNSET)


def _device(rate: DeviceRate, is_live: bool) -> schema.Device:
    audit = rate.audit
    return schema.Device(
        device=utf8_text(rate.device),
        direction=rate.direction,
        attach_mode=rate.mode,
        packets_per_second=rate.packets_per_second,
        bits_per_second=rate.bits_per_second,
        skbs_per_second=rate.skbs_per_second if is_live else UNSET,
        seen=_tally(audit.seen, is_live),
        flows=_tally(audit.flows, is_live),
        non_ip=_tally(audit.non_ip, is_live),
        unattributed={reason: _tally(tally, is_live) for reason, tally in audit.unattributed.items()},
        missing=_tally(audit.missing, is_live),
        balanced=audit.balanced,
        kernel=msgspec.convert(audit.kernel, schema.KernelCounters | None, from_attributes=True),
        remainders=dict(audit.remainders),
        drops=tuple(schema.Drop(*drop) for drop in audit.drops),
        capture_dropped=audit.capture_dropped,
    )


# --- by name


def _by_name(batch: FlowBatch, selected: Selected, selection: Selection) -> dict[str, Any]:
    is_live = batch.mode == "live"
    shown = selection.shown
    applications = select_applications(batch, selected, selection)
    domains = select_domains(batch, selected, selection)
    questions = dns_totals(batch.transactions.dns, selection.dns_sort, reverse=selection.reverse)
    return {
        "applications": tuple(
            schema.NameSum(application=total.name or UNSET, **_sum(total, is_live)) for total in applications[shown]
        ),
        "applications_other": schema.NameSum(**_sum(rest_of(applications, selection), is_live)),
        "domains": tuple(schema.NameSum(domain=total.name, **_sum(total, is_live)) for total in domains[shown]),
        "domains_other": schema.NameSum(**_sum(rest_of(domains, selection), is_live)),
        "dns_summary": schema.DnsSummary(
            **_dns_sum(questions.together()),
            questions=tuple(
                schema.DnsSum(query=total.query, qtype=total.qtype, **_dns_sum(total)) for total in questions[shown]
            ),
        ),
    }


def _by_host(batch: FlowBatch, selected: Selected, selection: Selection) -> dict[str, Any]:
    is_live = batch.mode == "live"
    hosts, others, _ = select_hosts(batch, selected, selection)
    return {
        "hosts": tuple(schema.NameSum(host=total.name or UNSET, **_sum(total, is_live)) for total in hosts),
        "hosts_other": schema.NameSum(**_sum(others, is_live)),
    }


def _sum(total: NameTotal, is_live: bool) -> dict[str, Any]:
    both = total.tally
    return {
        "packets": both.packets,
        "bytes": both.bytes,
        "skbs": both.skbs if is_live else UNSET,
        "rx": _tally(total.rx, is_live),
        "tx": _tally(total.tx, is_live),
        "flows": total.flows,
        "connections": total.connections,
    }


def _dns_sum(total: DnsTotal) -> dict[str, Any]:
    return {
        "queries": total.queries,
        "retries": total.retries,
        "unanswered": total.unanswered,
        "rcodes": dict(total.rcodes),
        "latency_median_ns": total.median_ns,
        "latency_max_ns": total.max_ns,
    }


# --- rows


def flow_records(batch: FlowBatch, selection: Selection) -> Iterator[schema.Flow]:
    """The flows that a selection shows, as the document has them."""
    yield from _flows(batch, select(batch, selection))


def _flows(batch: FlowBatch, selected: Selected) -> Iterator[schema.Flow]:
    places = [{"device": utf8_text(a.device), "direction": a.direction} for a in batch.attachments]
    for row, common in _rows(batch, selected):
        ends = {
            "src_addr": packet_address_text(row["src_addr"], row["family"]),
            "src_port": row["src_port"],
            "dst_addr": packet_address_text(row["dst_addr"], row["family"]),
            "dst_port": row["dst_port"],
            "packets": row["packets"],
            "bytes": row["bytes"],
        }
        live = places[row["attachment"]] | {"skbs": row["skbs"]} if batch.mode == "live" else _UNSET_FLOW_FIELDS
        yield schema.Flow(**ends, **common, **live)


def _conversations(batch: FlowBatch, selected: Selected) -> Iterator[schema.Conversation]:
    is_live = batch.mode == "live"
    devices = [utf8_text(a.device) if is_live else UNSET for a in batch.attachments]
    for row, common in _rows(batch, selected):
        rx, tx = (
            schema.Tally(row[f"{side}_packets"], row[f"{side}_bytes"], row[f"{side}_skbs"] if is_live else UNSET)
            for side in ("rx", "tx")
        )
        yield schema.Conversation(
            device=devices[row["attachment"]],
            local_addr=packet_address_text(row["local_addr"], row["family"]),
            local_port=row["local_port"],
            remote_addr=packet_address_text(row["remote_addr"], row["family"]),
            remote_port=row["remote_port"],
            rx=rx,
            tx=tx,
            **common,
        )


def _rows(batch: FlowBatch, selected: Selected) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each selected row as plain values, and the fields that flows and conversations share."""
    has_names = batch.flow_names is not None
    names = [
        {"application": name.application, "domain": name.domain, "domain_source": name.domain_source}
        for name in (batch.names if has_names else ())
    ]
    columns = [column for column in (selected.flows.dtype.names or ()) if column not in ("hash", "name")]
    for start in range(0, len(selected.flows), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        rows = selected.flows[part]
        values = (_values(rows, column) for column in columns)
        for name, row in zip(selected.names[part].tolist(), zip(*values, strict=True), strict=True):
            plain = dict(zip(columns, row, strict=True))
            common = {
                "family": FAMILY_NAMES[plain["family"]],
                "protocol": plain["protocol"],
                "vlan": None if plain["vlan"] == VLAN_NONE else plain["vlan"],
                "first_ns": plain["first_ns"],
                "last_ns": plain["last_ns"],
                "tcp_flags": plain["tcp_flags"],
            }
            yield plain, common | names[name] if has_names else common


def _values(rows: NDArray[np.void], column: str) -> Iterable[Any]:
    """One column as Python values; addresses as their 16 bytes."""
    if not column.endswith("_addr"):
        values: list[Any] = rows[column].tolist()
        return values
    packed = np.ascontiguousarray(rows[column]).tobytes()
    return (packed[at : at + 16] for at in range(0, len(packed), 16))


def _transactions(found: records.Transactions, *, is_live: bool) -> dict[str, Iterator[Struct]]:
    """What payloads told, by kind, in order of time."""

    def device(one: Any) -> str | UnsetType:
        return utf8_text(one.device) if is_live else UNSET

    def dns(one: records.DnsTransaction) -> schema.Dns:
        answers = tuple(schema.DnsAnswer(*answer) for answer in one.answers)
        told = (one.query, one.qtype, one.rcode, one.latency_ns, answers, one.time_ns, one.retry)
        return schema.Dns(*told, _key(one.flow), device(one))

    def other(kind: type[Struct], one: Any) -> Struct:
        *names, _, _ = kind.__struct_fields__
        return kind(*(getattr(one, name) for name in names), _key(one.flow), device(one))

    return {
        "dns": map(dns, found.dns),
        "tls": (other(schema.Tls, one) for one in found.tls),
        "quic": (other(schema.Quic, one) for one in found.quic),
        "http": (other(schema.Http, one) for one in found.http),
    }


def _key(flow: records.FlowKey) -> schema.FlowKey:
    return schema.FlowKey(
        packet_address_text(flow.src_addr, flow.family),
        flow.src_port,
        packet_address_text(flow.dst_addr, flow.family),
        flow.dst_port,
        flow.protocol,
    )
