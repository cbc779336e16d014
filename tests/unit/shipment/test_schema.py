"""The tables that are shipped are those that batches have in Arrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from wiremeter.flows.columns import TransactionKind
from wiremeter.shipment.schema import ANSWER, TABLES, Column

from ..live_batches import flow, make_batch

_TYPES: dict[Any, str] = {
    pa.bool_(): "bool",
    pa.uint8(): "uint8",
    pa.uint16(): "uint16",
    pa.uint32(): "uint32",
    pa.uint64(): "uint64",
    pa.int64(): "int64",
    pa.timestamp("ns", "UTC"): "time",
    pa.binary(16): "address",
    pa.string(): "text",
    pa.dictionary(pa.int32(), pa.string()): "word",
    pa.list_(pa.string()): "texts",
}


def _logical(type: Any) -> str:
    if pa.types.is_list(type) and pa.types.is_struct(type.value_type):
        return "answers"
    return _TYPES[type]


def _same(schema: Any, columns: dict[str, Column]) -> None:
    assert schema.names == list(columns)
    for name, column in columns.items():
        logical = _logical(schema.field(name).type)
        assert logical == column.type or {logical, column.type} == {"text", "word"}, name


def test_flows_are_those_of_to_arrow() -> None:
    _same(make_batch([flow("10.0.0.1", "10.0.0.2")]).to_arrow().schema, TABLES["flows"])


@pytest.mark.parametrize("kind", ["dns", "tls", "quic", "http"])
def test_transactions_are_those_of_transactions_to_arrow(kind: TransactionKind) -> None:
    _same(make_batch([]).transactions_to_arrow(kind).schema, TABLES[kind])


def test_answers_are_those_of_transactions_to_arrow() -> None:
    answers = make_batch([]).transactions_to_arrow("dns").schema.field("answers").type.value_type
    _same(pa.schema(list(answers)), ANSWER)


def test_flows_come_first() -> None:
    assert next(iter(TABLES)) == "flows"
