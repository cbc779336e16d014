"""Flows and transactions as pyarrow Tables.

Columns of the same name mean the same in all of them: addresses are fixed_size_binary(16) in network order, IPv4 as
v4-mapped, or text or `wiremeter.ip` where that is asked for; ports uint16 in host order; protocol and family uint8;
times timestamp[ns, UTC]. The schema's metadata holds `wiremeter.mode` (live, capture or simulated),
`wiremeter.start_ns` and `wiremeter.end_ns`, and `wiremeter.assumed_mss` where packets and bytes are computed from that.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from wiremeter.errors import InputError
from wiremeter.flows.columns import VLAN_NONE, AddressForm, TransactionKind, packet_address_text
from wiremeter.flows.ip_type import ip_type
from wiremeter.names.records import FlowName, Transactions
from wiremeter.names.records import column as transaction_column

if TYPE_CHECKING:
    import pyarrow as pa


# Fields of FlowName that are numbers; the others are text.
_NAME_NUMBERS = ("http_status", "dns_rcode")


def flow_table(
    flows: NDArray[np.void],
    *,
    devices: Sequence[str],
    directions: Sequence[str],
    names: Sequence[FlowName],
    flow_names: NDArray[np.uint32] | None,
    about: Mapping[str, str],
    addresses: AddressForm = "bytes",
) -> pa.Table:
    """Flows as a pyarrow Table, one row a flow, columns as FlowBatch.to_arrow says.

    flows: shape (n,), dtype FLOW. devices, directions: by the `attachment` column. names, flow_names: as in FlowBatch.
    about: what the schema's metadata shall say.
    tcp_flags is uint16; packets, bytes and skbs are uint64; of the names, http_status and dns_rcode are uint16, all
    others dictionaries of string.
    Raises InputError if pyarrow is not installed.
    """
    pa, kind = _pyarrow(), _address_type(addresses)
    attachment = flows["attachment"].astype("i4")

    def dictionary(values: Sequence[str]) -> Any:
        words = sorted(set(values))
        codes = np.array([words.index(value) for value in values], "i4")
        indices = codes[attachment] if len(codes) else attachment
        return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(words, pa.string()))

    def ends(column: str) -> Any:
        packed = np.ascontiguousarray(flows[column])
        if addresses == "text":
            indices, texts = _texts(packed, flows["family"])
            return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(texts, kind))
        values = pa.Array.from_buffers(pa.binary(16), len(packed), [None, pa.py_buffer(packed)])
        return values if addresses == "bytes" else pa.ExtensionArray.from_storage(kind, values)

    def times(column: str) -> Any:
        return pa.array(flows[column].astype("i8"), pa.timestamp("ns", "UTC"))

    def numbers(column: str, mask: NDArray[np.bool_] | None = None) -> Any:
        return pa.array(np.ascontiguousarray(flows[column]), mask=mask)

    columns = {
        "device": dictionary(devices),
        "direction": dictionary(directions),
        "family": numbers("family"),
        "vlan": numbers("vlan", flows["vlan"] == VLAN_NONE),
        "protocol": numbers("protocol"),
        "src_addr": ends("src_addr"),
        "dst_addr": ends("dst_addr"),
        "src_port": numbers("src_port"),
        "dst_port": numbers("dst_port"),
        "packets": numbers("packets"),
        "bytes": numbers("bytes"),
        "skbs": numbers("skbs"),
        "tcp_flags": numbers("tcp_flags"),
        "first_time": times("first_ns"),
        "last_time": times("last_ns"),
    }
    return _with_metadata(pa.table(columns | _name_columns(len(flows), names, flow_names, pa)), about)


def transaction_table(
    transactions: Transactions, kind: TransactionKind, *, about: Mapping[str, str], addresses: AddressForm = "bytes"
) -> pa.Table:
    """The transactions of one kind as a pyarrow Table, one row each, in order of time; columns as
    FlowBatch.transactions_to_arrow says.

    Raises InputError if pyarrow is not installed, or for a kind or a form of addresses that there is not.
    """
    pa = _pyarrow()
    schemas = _transaction_schemas(pa)
    if kind not in schemas:
        raise InputError(f'there are no transactions of kind "{kind}"; expected one of {", ".join(schemas)}')
    seen: Sequence[Any] = getattr(transactions, kind)
    columns: dict[str, Sequence[Any]] = {
        "time": transaction_column(seen, "time_ns"),
        "device": transaction_column(seen, "device"),
        **{name: transaction_column(seen, name) for name in (*_ends(pa), *schemas[kind])},
    }
    if "answers" in columns:
        columns["answers"] = [[answer._asdict() for answer in answers] for answers in columns["answers"]]
    words = pa.dictionary(pa.int32(), pa.string())
    types = {"time": pa.timestamp("ns", "UTC"), "device": words, **_ends(pa), **schemas[kind]}
    for side in ("src_addr", "dst_addr"):
        types[side] = _address_type(addresses)
        if addresses == "text":
            ends = zip(columns[side], columns["family"], strict=True)
            columns[side] = [packet_address_text(packed, family) for packed, family in ends]
    schema = pa.schema(types)
    return _with_metadata(pa.table(columns, schema), about)


def _ends(pa: Any) -> dict[str, Any]:
    """Types of the columns that say which flow, from client to server."""
    return {
        "src_addr": pa.binary(16),
        "src_port": pa.uint16(),
        "dst_addr": pa.binary(16),
        "dst_port": pa.uint16(),
        "protocol": pa.uint8(),
        "family": pa.uint8(),
    }


def _transaction_schemas(pa: Any) -> dict[str, dict[str, Any]]:
    """Types of what each kind has besides time and flow, by the fields of its record."""
    text, number, words = pa.string(), pa.uint16(), pa.dictionary(pa.int32(), pa.string())
    answer = pa.struct({"name": text, "type": text, "ttl": pa.uint32(), "data": text})
    hello = {"sni": text, "version": words, "alpn": pa.list_(text), "ja4": text, "ech": pa.bool_()}
    return {
        "dns": {
            "query": text,
            "qtype": words,
            "rcode": number,
            "latency_ns": pa.int64(),
            "answers": pa.list_(answer),
            "retry": pa.bool_(),
            "has_query": pa.bool_(),
            "cut": pa.bool_(),
        },
        "tls": hello | {"cipher": words, "alpn_chosen": words, "ja4s": text},
        "quic": hello,
        "http": {
            "version": words,
            "method": words,
            "host": text,
            "path": text,
            "status": number,
            "latency_ns": pa.int64(),
        },
    }


def _name_columns(
    count: int, names: Sequence[FlowName], flow_names: NDArray[np.uint32] | None, pa: Any
) -> dict[str, Any]:
    """What is known of each of `count` flows; null where nothing is, and all null where names are off."""
    at = pa.nulls(count, pa.uint32()) if flow_names is None else pa.array(flow_names)

    def column(fact: str) -> Any:
        known = [getattr(name, fact) for name in names]
        if fact in _NAME_NUMBERS:
            return pa.array(known, pa.uint16()).take(at)
        # Encoded before it is spread over the flows: text is read once a name, not once a flow.
        return pa.array(known, pa.string()).dictionary_encode().take(at)

    return {fact: column(fact) for fact in FlowName._fields}


def _with_metadata(table: Any, about: Mapping[str, str]) -> Any:
    return table.replace_schema_metadata({f"wiremeter.{key}": value for key, value in about.items()})


def needed(module: str, what: str) -> Any:
    """The module. Raises InputError, with the way to get it, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = "'wiremeter[arrow]'" if module == "pyarrow" else module
        raise InputError(f"{what} needs {module}, which is not installed: pip install {package}") from error


def _pyarrow() -> Any:
    return needed("pyarrow", "to_arrow")


def _address_type(form: AddressForm) -> Any:
    if form not in get_args(AddressForm):
        raise InputError(f"addresses={form!r}: it must be one of {', '.join(get_args(AddressForm))}")
    if form == "ip":
        return ip_type()
    pa = _pyarrow()
    return pa.string() if form == "text" else pa.binary(16)


def _texts(packed: NDArray[np.uint8], family: NDArray[np.uint8]) -> tuple[NDArray[np.int32], list[str]]:
    """Each address's place among the different ones, and those as text. packed: shape (n, 16); family: shape (n,)."""
    keys = np.ascontiguousarray(np.concatenate([packed, family[:, None]], axis=1)).view("V17")[:, 0]
    different, places = np.unique(keys, return_inverse=True)
    return places.astype("i4"), [packet_address_text(key[:16], key[16]) for key in map(bytes, different)]
