"""A batch as its document: the public JSON of `live`, `replay` and `simulate`, as reports.schema defines it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Struct
from numpy.typing import NDArray

from wiremeter.flows import batch as batches
from wiremeter.flows import totals
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.by_name import DIRECTIONS, Measure, NameTotal, NameTotals
from wiremeter.flows.columns import FAMILY_NAMES, VLAN_NONE
from wiremeter.flows.dns import DnsTotal, dns_totals
from wiremeter.flows.top import DeviceRate, device_rates
from wiremeter.names import records
from wiremeter.names.columns import DnsColumns
from wiremeter.names.records import column
from wiremeter.reports import schema
from wiremeter.reports.cells import utc_time, utf8_text
from wiremeter.reports.findings import findings
from wiremeter.reports.json_rows import (
    Column,
    Columns,
    Rows,
    Words,
    addresses,
    chosen,
    lists,
    numbers,
    optional,
    to_json,
    words,
)
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


def document(
    batch: FlowBatch, selection: Selection, source: Source = LIVE, before: batches.Health | None = None
) -> Document:
    """The whole document of one batch.

    selection.limit None: all rows, and the transactions. source: where the batch came from.
    before: the meter's state at the end of the interval before; None if this is the first.
    """
    head, parts = _document(batch, selection, source, before)
    found = {key: part.rows.objects() for key, part in parts.items()}
    return msgspec.structs.replace(
        head, **{key: tuple(rows) if parts[key].is_list else next(rows) for key, rows in found.items()}
    )


def document_lines(
    batch: FlowBatch, selection: Selection, source: Source = LIVE, before: batches.Health | None = None
) -> Iterator[str]:
    """The same as JSON with a flow, a conversation or a transaction a line, in pieces: a million flows need no memory.

    The same counts give the same bytes.
    """
    head, parts = _document(batch, selection, source, before)
    separator = "{"
    for key in Document.__struct_fields__:
        if key in parts:
            yield f'{separator}"{key}": '
            yield from parts[key].written()
        elif (value := getattr(head, key)) is not UNSET:
            yield f'{separator}"{key}": {to_json(value)}'
        else:
            continue
        separator = ",\n "
    yield "}\n"


class _Part(NamedTuple):
    """What of a document is written by columns: a list, with a row a line if so said, or the only row."""

    rows: Rows[Any]
    is_list: bool = True
    by_line: bool = False

    def written(self) -> Iterator[str]:
        """In pieces."""
        yield "[" * self.is_list + "\n  " * (self.by_line and self.rows.count > 0)
        yield from self.rows.written(",\n  " if self.by_line else ",")
        yield "]" * self.is_list


def _document(
    batch: FlowBatch, selection: Selection, source: Source, before: batches.Health | None
) -> tuple[Document, dict[str, _Part]]:
    """The document without its rows, and the rows."""
    selected = select(batch, selection)
    is_live = batch.mode == "live"
    rows: dict[str, Rows[Any]] = {
        "conversations" if selection.pairs else "flows": (
            _conversations(batch, selected) if selection.pairs else _flows(batch, selected)
        )
    }
    if batch.flow_names is not None and selection.limit is None:
        rows |= _transactions(batch.transactions, is_live=is_live)
    parts = {key: _Part(found, by_line=True) for key, found in rows.items()}
    others: dict[str, Any] = {}
    if batch.flow_names is not None:
        for key, field, sums in (
            ("applications", "application", select_applications(batch, selected, selection)),
            ("domains", "domain", select_domains(batch, selected, selection)),
        ):
            parts[key] = _Part(_name_sums(sums[selection.shown], field, is_live=is_live))
            others[f"{key}_other"] = schema.NameSum(**_sum(rest_of(sums, selection), is_live))
        parts["dns_summary"] = _Part(_dns_summary(batch, selection), is_list=False)
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
        **others,
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
    return head, parts


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


def _name_sums(totals: NameTotals, field: str, *, is_live: bool) -> Rows[schema.NameSum]:
    """field: which of NameSum's the names are."""
    amounts: list[Measure] = ["packets", "bytes", "skbs"] if is_live else ["packets", "bytes"]
    begun = totals.sums("connections")
    columns: dict[str, Column | Columns] = {
        field: chosen(Words.of(totals.labels.tolist()), np.arange(len(totals))),
        **{amount: numbers(totals.sums(amount)) for amount in amounts},
        "flows": numbers(totals.sums("flows")),
        "connections": numbers(begun) if totals.has_connections else words([None] * len(totals)),
    }
    for half, side in enumerate(DIRECTIONS):
        columns[side] = {
            amount: numbers(totals.by_measure[:, NameTotals.measures.index(amount), half]) for amount in amounts
        }
    return Rows(schema.NameSum, columns, len(totals))


def _dns_summary(batch: FlowBatch, selection: Selection) -> Rows[schema.DnsSummary]:
    found = dns_totals(batch.transactions.dns, selection.dns_sort, reverse=selection.reverse)
    shown = found[selection.shown]
    names, types = zip(*shown.questions, strict=True) if len(shown) else ((), ())
    by_question: Columns = {
        "query": chosen(Words.of(names), np.arange(len(shown))),
        "qtype": words(types),
        **{amount: numbers(shown.numbers(amount)) for amount in ("queries", "retries", "unanswered")},
        "rcodes": chosen(Words.of(shown.rcodes), np.arange(len(shown))),
        "latency_median_ns": numbers(shown.numbers("medians"), -1),
        "latency_max_ns": numbers(shown.numbers("longest"), -1),
    }
    questions = Rows(schema.DnsSum, by_question, len(shown)).words()
    all_of_them = _dns_sum(found.together())
    columns: Columns = {name: chosen(Words.of([value]), np.zeros(1)) for name, value in all_of_them.items()} | {
        "questions": lists(questions, np.array([len(shown)]))
    }
    return Rows(schema.DnsSummary, columns, 1)


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
    return _flows(batch, select(batch, selection)).objects()


def _flows(batch: FlowBatch, selected: Selected) -> Rows[schema.Flow]:
    flows = selected.flows
    columns = _common(batch, selected) | {
        "src_addr": addresses(flows["src_addr"], flows["family"]),
        "src_port": numbers(flows["src_port"]),
        "dst_addr": addresses(flows["dst_addr"], flows["family"]),
        "dst_port": numbers(flows["dst_port"]),
        "packets": numbers(flows["packets"]),
        "bytes": numbers(flows["bytes"]),
    }
    if batch.mode == "live":
        columns |= {
            "device": _devices(batch, flows),
            "direction": chosen(Words.of([a.direction for a in batch.attachments]), flows["attachment"]),
            "skbs": numbers(flows["skbs"]),
        }
    return Rows(schema.Flow, columns, len(flows))


def _conversations(batch: FlowBatch, selected: Selected) -> Rows[schema.Conversation]:
    is_live = batch.mode == "live"
    pairs = selected.flows
    columns: dict[str, Column | Columns] = _common(batch, selected) | {
        f"{side}_addr": addresses(pairs[f"{side}_addr"], pairs["family"]) for side in ("local", "remote")
    }
    columns |= {f"{side}_port": numbers(pairs[f"{side}_port"]) for side in ("local", "remote")}
    for side in ("rx", "tx"):
        amounts = ("packets", "bytes", "skbs") if is_live else ("packets", "bytes")
        columns[side] = {amount: numbers(pairs[f"{side}_{amount}"]) for amount in amounts}
    if is_live:
        columns["device"] = _devices(batch, pairs)
    return Rows(schema.Conversation, columns, len(pairs))


def _devices(batch: FlowBatch, rows: NDArray[np.void]) -> Column:
    return chosen(Words.of([utf8_text(a.device) for a in batch.attachments]), rows["attachment"])


def _common(batch: FlowBatch, selected: Selected) -> dict[str, Column | Columns]:
    """What flows and conversations share."""
    rows = selected.flows
    columns: dict[str, Column | Columns] = {
        "family": chosen(_FAMILIES, rows["family"]),
        "protocol": numbers(rows["protocol"]),
        "vlan": numbers(rows["vlan"], VLAN_NONE),
        "first_ns": numbers(rows["first_ns"]),
        "last_ns": numbers(rows["last_ns"]),
        "tcp_flags": numbers(rows["tcp_flags"]),
    }
    if batch.flow_names is not None:
        for fact in ("application", "domain", "domain_source"):
            columns[fact] = chosen(Words.of([getattr(name, fact) for name in batch.names]), selected.names)
    return columns


_FAMILIES = Words.of([FAMILY_NAMES.get(number) for number in range(max(FAMILY_NAMES) + 1)])


def _transactions(found: records.Transactions, *, is_live: bool) -> dict[str, Rows[Any]]:
    """What payloads told, by kind, in order of time."""
    kinds: tuple[tuple[str, type[Struct]], ...] = (
        ("dns", schema.Dns),
        ("tls", schema.Tls),
        ("quic", schema.Quic),
        ("http", schema.Http),
    )
    return {name: _told(getattr(found, name), kind, is_live=is_live) for name, kind in kinds}


def _told(seen: Sequence[Any], kind: type[Struct], *, is_live: bool) -> Rows[Any]:
    *facts, _, _ = kind.__struct_fields__
    columns: dict[str, Column | Columns] = {fact: _fact(seen, fact) for fact in facts}
    families = np.array(column(seen, "family"), np.uint8)
    columns["flow"] = {
        end: (
            addresses(np.frombuffer(b"".join(column(seen, end)), np.uint8).reshape(-1, 16), families)
            if end.endswith("_addr")
            else numbers(np.array(column(seen, end)))
        )
        for end in schema.FlowKey.__struct_fields__
    }
    if is_live:
        columns["device"] = words(map(utf8_text, column(seen, "device")))
    return Rows(kind, columns, len(seen))


def _fact(seen: Sequence[Any], name: str) -> Column:
    if name == "answers":
        return _answers(seen)
    values = column(seen, name)
    return optional(values) if name in _NUMBERS else words(values)


_NUMBERS = ("time_ns", "latency_ns", "rcode", "status")


def _answers(seen: Sequence[records.DnsTransaction]) -> Column:
    facts = schema.DnsAnswer.__struct_fields__
    if isinstance(seen, DnsColumns):
        counts = seen.rows["answers"]
        told: dict[str, Sequence[Any]] = {fact: seen.answer_column(fact) for fact in facts}
    else:
        counts = np.array([len(one.answers) for one in seen], np.uint32)
        each = [answer for one in seen for answer in one.answers]
        told = {fact: [getattr(answer, fact) for answer in each] for fact in facts}
    columns = {fact: optional(values) if fact == "ttl" else words(values) for fact, values in told.items()}
    return lists(Rows(schema.DnsAnswer, columns, int(counts.sum())).words(), counts)
