"""Answers as bytes: JSON, JSON lines, CSV, Arrow and Parquet, each as a stream, none of them there as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, ipc, parquet

from wiremeter.flows.columns import address_text
from wiremeter.server.query.answer import Answer

FormatName = Literal["json", "jsonl", "csv", "arrow", "parquet"]
MEDIA_TYPES: dict[FormatName, str] = {
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
#: Where an answer's facts stand in the schema of Arrow and Parquet.
METADATA_KEY = "wiremeter"
_ROWS_AT_A_TIME = 8192


def accepted(accept: str) -> FormatName | None:
    """The first of a header's media types that can be had; None if there is none.

    >>> accepted("text/html, text/csv;q=0.9"), accepted("*/*"), accepted("image/png")
    ('csv', 'json', None)
    """
    known: dict[str, FormatName] = {kind: name for name, kind in MEDIA_TYPES.items()}
    known |= {"*/*": "json", "application/*": "json", "text/*": "csv", "application/jsonl": "jsonl"}
    for each in accept.split(","):
        if (kind := each.partition(";")[0].strip().lower()) in known:
            return known[kind]
    return None if accept.strip() else "json"


def encode(answer: Answer, form: FormatName) -> Iterator[bytes]:
    """The answer's bytes, piece by piece. Raises what its rows raise."""
    match form:
        case "json":
            return _json(answer)
        case "jsonl":
            return _lines(answer)
        case "csv":
            return _written(answer, _csv_schema(answer.schema), csv.CSVWriter, _csv_rows)
        case "arrow":
            return _written(answer, _with_facts(answer), ipc.new_stream, lambda batch: batch)
        case "parquet":
            return _written(answer, _with_facts(answer), parquet.ParquetWriter, lambda batch: batch)


class _Sink:
    """A file that keeps what is written until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _written(
    answer: Answer, schema: pa.Schema, writer: Callable[..., Any], shaped: Callable[[pa.RecordBatch], pa.RecordBatch]
) -> Iterator[bytes]:
    sink = _Sink()
    with pa.PythonFile(sink, mode="w") as file, writer(file, schema) as out:
        for batch in answer:
            out.write_batch(pa.RecordBatch.from_arrays(shaped(batch).columns, schema=schema))
            yield sink.take()
    yield sink.take()


def _with_facts(answer: Answer) -> pa.Schema:
    return answer.schema.with_metadata({METADATA_KEY: msgspec.json.encode(answer.about)})


def _json(answer: Answer) -> Iterator[bytes]:
    facts = msgspec.json.encode(answer.about)
    yield facts[:-1] + (b"," if answer.about else b"") + b'"rows":['
    is_first = True
    for rows in _rows(answer):
        yield (b"" if is_first else b",\n") + b",\n".join(map(msgspec.json.encode, rows))
        is_first = False
    yield b'],"next":' + msgspec.json.encode(answer.next_page() if answer.next_page else None) + b"}\n"


def _lines(answer: Answer) -> Iterator[bytes]:
    for rows in _rows(answer):
        yield b"\n".join(map(msgspec.json.encode, rows)) + b"\n"


def tagged_lines(answer: Answer) -> Iterator[bytes]:
    """JSON lines, each an object with one field: `facts` first, a `row` in each, `next` at the end."""
    with answer:
        yield msgspec.json.encode({"facts": answer.about}) + b"\n"
        for rows in _rows(answer):
            yield b"".join(msgspec.json.encode({"row": row}) + b"\n" for row in rows)
        yield msgspec.json.encode({"next": answer.next_page() if answer.next_page else None}) + b"\n"


def json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """A table as JSON has it: addresses and times as text, other bytes in hexadecimal digits."""
    return [row for rows in _rows(Answer.of(table, {})) for row in rows]


def _rows(answer: Answer) -> Iterator[list[dict[str, Any]]]:
    for batch in answer:
        for start in range(0, batch.num_rows, _ROWS_AT_A_TIME):
            piece = batch.slice(start, _ROWS_AT_A_TIME)
            columns = [_values(column) for column in piece.columns]
            names = answer.schema.names
            if rows := [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]:
                yield rows


def _values(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_timestamp(kind):
        return list(_times(column).to_pylist())
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16:
        return [None if value is None else address_text(value) for value in column.to_pylist()]
    if pa.types.is_string(kind):
        return _texts(column)
    return [_jsonable(value) for value in column.to_pylist()]


def _texts(column: pa.Array) -> list[str | None]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:  # SQL makes such of whatever it likes
        return [
            None if value is None else value.decode(errors="replace") for value in column.cast(pa.binary()).to_pylist()
        ]


def _jsonable(value: Any) -> Any:
    """What JSON has no word for, as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(name): _jsonable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _times(column: pa.Array) -> pa.Array:
    """RFC 3339, in UTC; a time without a zone is taken as UTC, which the store's are."""
    if column.type.tz not in (None, "UTC"):
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    return pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _csv_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(f.name, f.type if _is_plain(f.type) else pa.string()) for f in schema])


def _csv_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Numbers as they are, all else as text; lists and the like as JSON."""
    columns = []
    for column in batch.columns:
        if not _is_plain(column.type):
            texts = [v if v is None or isinstance(v, str) else msgspec.json.encode(v).decode() for v in _values(column)]
            column = pa.array(texts, pa.string())
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=_csv_schema(batch.schema))
