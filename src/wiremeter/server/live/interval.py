"""An interval that an agent sent, as those who watch see it: the terminal's table, of the same code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from wiremeter.flows.batch import Attachment, FlowBatch
from wiremeter.flows.columns import COUNTER, ETHERTYPE_COUNTER, FLOW, VLAN_NONE, Mode, address_text, empty_rows
from wiremeter.flows.filter import compile_filter
from wiremeter.flows.top import top_conversations
from wiremeter.names.records import FlowName
from wiremeter.server.query.times import time_text
from wiremeter.server.store import Batch

_AMOUNTS = ("packets", "bytes", "skbs")
_NAME_COLUMNS = ("application", "domain", "domain_source")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one watches. filter: of flows. agent: the only one, "" for all. limit: of conversations, the largest."""

    filter: str = ""
    agent: str = ""
    sort: Literal["bytes", "packets"] = "bytes"
    limit: int = 50


class Amounts(msgspec.Struct):
    """On the wire; and kernel buffers."""

    packets: int
    bytes: int
    skbs: int


class DeviceAmounts(msgspec.Struct):
    """All traffic of a device in one direction, in flows or not."""

    device: str
    direction: str
    packets: int
    bytes: int
    skbs: int


class Conversation(msgspec.Struct, kw_only=True):
    """A flow and its reverse on one device; `local` is the side of the device. vlan null without a tag."""

    device: str
    vlan: int | None
    family: int
    protocol: int
    local_addr: str
    local_port: int
    remote_addr: str
    remote_port: int
    rx_packets: int
    rx_bytes: int
    rx_skbs: int
    tx_packets: int
    tx_bytes: int
    tx_skbs: int
    tcp_flags: int
    application: str
    domain: str | None
    domain_source: str | None


class IntervalEvent(msgspec.Struct, kw_only=True):
    """One interval of one agent. devices: all traffic. total: of the flows that fit the filter, which `conversations`
    and `other` add up to. unattributed: packets that are in no flow."""

    agent: str
    mode: str
    start: str
    end: str
    seconds: float
    devices: list[DeviceAmounts]
    unattributed: int
    total: Amounts
    conversations: list[Conversation]
    other: Amounts


def event(batch: Batch, metered: FlowBatch, view: View) -> IntervalEvent:
    """What a view shows of a batch. metered: as `metered_batch` makes it."""
    about = batch.about
    chosen = metered.filter(compile_filter(view.filter, agent=about.identity.agent))
    largest = top_conversations(chosen, view.limit, view.sort)
    total = Amounts(*(int(chosen.flows[name].sum()) for name in _AMOUNTS))
    listed = [int(largest[f"rx_{name}"].sum() + largest[f"tx_{name}"].sum()) for name in _AMOUNTS]
    return IntervalEvent(
        agent=about.identity.agent,
        mode=about.mode,
        start=time_text(about.start_ns),
        end=time_text(about.end_ns),
        seconds=(about.end_ns - about.start_ns) / 1e9,
        devices=_devices(batch),
        unattributed=_unattributed(batch),
        total=total,
        conversations=[_conversation(metered, row) for row in largest],
        other=Amounts(total.packets - listed[0], total.bytes - listed[1], total.skbs - listed[2]),
    )


def _conversation(metered: FlowBatch, row: np.void) -> Conversation:
    name = metered.names[row["name"]]
    amounts: Mapping[str, int] = {
        f"{way}_{amount}": int(row[f"{way}_{amount}"]) for way in ("rx", "tx") for amount in _AMOUNTS
    }
    return Conversation(
        device=metered.attachments[row["attachment"]].device,
        vlan=None if row["vlan"] == VLAN_NONE else int(row["vlan"]),
        family=int(row["family"]),
        protocol=int(row["protocol"]),
        local_addr=address_text(row["local_addr"]),
        local_port=int(row["local_port"]),
        remote_addr=address_text(row["remote_addr"]),
        remote_port=int(row["remote_port"]),
        tcp_flags=int(row["tcp_flags"]),
        application=name.application,
        domain=name.domain,
        domain_source=name.domain_source,
        **amounts,
    )


def metered_batch(batch: Batch) -> FlowBatch:
    """The flows of a shipped batch as the agent had them, and of names what is shown."""
    table = batch.tables["flows"].combine_chunks()
    flows = np.zeros(table.num_rows, FLOW)
    for column in ("src_port", "dst_port", "tcp_flags", "protocol", "family", *_AMOUNTS):
        flows[column] = table[column].to_numpy()
    for column in ("src_addr", "dst_addr"):
        flows[column] = _addresses(table[column])
    for column, name in (("first_ns", "first_time"), ("last_ns", "last_time")):
        flows[column] = table[name].cast(pa.int64()).to_numpy()
    flows["vlan"] = table["vlan"].fill_null(VLAN_NONE).to_numpy()
    places, flows["attachment"] = _distinct(table, ("device", "direction"))
    names, flow_names = _distinct(table, _NAME_COLUMNS)
    attachments = [
        Attachment(at, str(device), 0, cast(Literal["rx", "tx"], direction), "none")
        for at, (device, direction) in enumerate(places)
    ]
    return FlowBatch(
        batch.about.start_ns,
        batch.about.end_ns,
        tuple(attachments),
        flows,
        empty_rows(COUNTER),
        empty_rows(ETHERTYPE_COUNTER),
        (),
        mode=cast(Mode, batch.about.mode),
        names=(
            FlowName(),
            *(FlowName(application or "unknown", domain, source) for application, domain, source in names),
        ),
        flow_names=(flow_names + 1).astype("u4"),
    )


def _addresses(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    packed = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    every = np.frombuffer(packed.buffers()[1] or b"", np.uint8)
    return every[16 * packed.offset : 16 * (packed.offset + len(packed))].reshape(-1, 16)


def _distinct(table: pa.Table, columns: tuple[str, ...]) -> tuple[list[tuple[str | None, ...]], NDArray[np.int64]]:
    """The combinations of some words that are there, and each row's place among them."""
    if not table.num_rows:
        return [], np.zeros(0, np.int64)
    codes, words = np.zeros(table.num_rows, np.int64), []
    for name in columns:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        words.append(encoded.dictionary.to_pylist())
        codes = codes * len(words[-1]) + encoded.indices.to_numpy()
    found, places = np.unique(codes, return_inverse=True)
    rows: list[tuple[str | None, ...]] = []
    for code in found.tolist():
        row: list[str | None] = []
        for known in reversed(words):
            code, place = divmod(code, len(known))
            row.append(known[place])
        rows.append(tuple(reversed(row)))
    return rows, places


def _devices(batch: Batch) -> list[DeviceAmounts]:
    table = batch.tables.get("counters")
    if table is None:
        return []
    plain = pa.table({name: _plain(table[name]) for name in ("device", "direction", *_AMOUNTS)})
    sums = plain.group_by(["device", "direction"]).aggregate([(name, "sum") for name in _AMOUNTS])
    rows = [
        DeviceAmounts(row["device"], row["direction"], *(row[f"{name}_sum"] for name in _AMOUNTS))
        for row in sums.to_pylist()
    ]
    return sorted(rows, key=lambda row: (row.device, row.direction))


def _unattributed(batch: Batch) -> int:
    table = batch.tables.get("audit_reasons")
    if table is None:
        return 0
    found: Any = pc.sum(table.filter(pc.equal(_plain(table["kind"]), "unattributed"))["packets"]).as_py()
    return int(found or 0)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
