"""Tables as pyarrow has them: the exact types that the store takes, and shipped tables cast to those."""

from __future__ import annotations

from functools import cache

import pyarrow as pa

from wiremeter.errors import InputError
from wiremeter.shipment.schema import ANSWER, TABLES, Column, TableName

_WORDS = pa.dictionary(pa.int32(), pa.string())
_TYPES = {
    "bool": pa.bool_(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "int64": pa.int64(),
    "time": pa.timestamp("ns", "UTC"),
    "address": pa.binary(16),
    "text": pa.string(),
    "word": _WORDS,
    "texts": pa.list_(pa.string()),
    "answers": pa.list_(
        pa.struct([(name, pa.uint32() if column.type == "uint32" else pa.string()) for name, column in ANSWER.items()])
    ),
}


def _type(table: TableName, column: Column) -> pa.DataType:
    """Flows repeat their texts, so those are dictionaries."""
    return _WORDS if table == "flows" and column.type == "text" else _TYPES[column.type]


@cache
def arrow_schema(name: TableName) -> pa.Schema:
    """The columns of a shipped table as `Batch.tables` must have them."""
    return pa.schema([pa.field(key, _type(name, column), column.is_nullable) for key, column in TABLES[name].items()])


def conform(name: TableName, table: pa.Table) -> pa.Table:
    """The table with exactly the columns and types of `arrow_schema(name)`.

    Columns that are not known are left out; a nullable one that is missing is null. Raises InputError for one that
    is missing and must not be, has another type, or has nulls where none may be.
    """
    columns = []
    for field in arrow_schema(name):
        if field.name not in table.column_names:
            if not field.nullable:
                raise InputError(f"table {name} lacks the column {field.name}")
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        if column.null_count and not field.nullable:
            raise InputError(f"table {name}: column {field.name} has nulls, and may have none")
        columns.append(_cast(name, field, column))
    return pa.table(columns, schema=arrow_schema(name))


def _cast(name: TableName, field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if column.type == field.type:
        return column
    plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    wanted = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    is_text = pa.types.is_string(plain) or pa.types.is_large_string(plain)
    if not (plain == wanted or (is_text and pa.types.is_string(wanted)) or pa.types.is_nested(wanted)):
        raise InputError(f"table {name}: column {field.name} is {column.type}, expected {field.type}")
    try:
        if pa.types.is_dictionary(field.type) and not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"table {name}: column {field.name} is {column.type}, expected {field.type}: {error}"
        ) from error
    except pa.ArrowNotImplementedError as error:
        raise InputError(f"table {name}: column {field.name} is {column.type}, expected {field.type}") from error
