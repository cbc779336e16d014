"""Flows of batches as a file: Parquet, CSV or JSON lines, by the name's ending. One row a flow and interval.

CSV and JSON lines have the fields of a flow in the document (docs/documents.md), behind the interval's start_ns and
end_ns; Parquet has the columns of FlowBatch.to_arrow() and the interval's start_time and end_time. Where amounts are
computed from an assumed MSS, rows say so in assumed_mss, and Parquet in its metadata.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import IO, Any, Protocol, Self

import msgspec
import numpy as np

from wiremeter.errors import InputError
from wiremeter.flows.arrow import needed
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.columns import COUNTER, ETHERTYPE_COUNTER, FLOW, empty_rows
from wiremeter.reports.document import flow_records
from wiremeter.reports.json_rows import to_json
from wiremeter.reports.schema import Flow
from wiremeter.reports.selection import Selection, chosen_flows, flow_indexes


class _Format(Protocol):
    def write(self, batch: FlowBatch, selection: Selection) -> None: ...
    def close(self) -> None: ...


class FlowFile:
    """A file that flows are written to. A context manager."""

    def __init__(self, path: str, selection: Selection) -> None:
        """Opens the file anew. selection: which flows, and their order.

        Raises InputError for another ending, a file that cannot be written, and Parquet without pyarrow.
        """
        self.path = path
        self._is_begun = False
        self._selection = selection
        format_of = _FORMATS.get(os.path.splitext(path)[1].lower())
        if format_of is None:
            *endings, last = _FORMATS
            raise InputError(f"{path}: the name of a file to write must end in {', '.join(endings)} or {last}")
        if format_of is _Parquet:  # before what the file held is gone
            needed("pyarrow", f"{path}: Parquet")
        with contextlib.ExitStack() as opening, self._telling():
            self._format = format_of(opening.enter_context(io.BufferedWriter(io.FileIO(path, "w"))))
            self._resources = opening.pop_all()

    def write(self, batch: FlowBatch) -> None:
        """Appends the flows of one interval. Raises InputError if that cannot be done."""
        self._is_begun = True
        with self._telling():
            self._format.write(batch, self._selection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with self._telling(), self._resources:
            if not self._is_begun and kind is None:
                self._format.write(_NOTHING, self._selection)  # a file without rows has its columns all the same
            self._format.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror or error}") from error


class _Csv:
    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", newline="")
        self._rows = csv.writer(self._text)
        self._columns: tuple[str, ...] = ()

    def write(self, batch: FlowBatch, selection: Selection) -> None:
        if not self._columns:
            self._columns = (*_interval(batch), *_COLUMNS)
            self._rows.writerow(self._columns)
        for row in _records(batch, selection):
            self._rows.writerow([row.get(column) for column in self._columns])
        self._text.flush()

    def close(self) -> None:
        self._text.close()


class _JsonLines:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, batch: FlowBatch, selection: Selection) -> None:
        self._file.writelines(f"{to_json(row)}\n".encode() for row in _records(batch, selection))
        self._file.flush()

    def close(self) -> None: ...


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        from pyarrow import parquet

        self._file, self._open = file, parquet.ParquetWriter
        self._writer: Any = None

    def write(self, batch: FlowBatch, selection: Selection) -> None:
        import pyarrow as pa

        shown = flow_indexes(batch, selection, chosen_flows(batch, selection))
        names = None if batch.flow_names is None else batch.flow_names[shown]
        table = replace(batch, flows=batch.flows[shown], flow_names=names).to_arrow()
        for name, time_ns in (("end_time", batch.end_ns), ("start_time", batch.start_ns)):
            times = pa.array(np.full(len(table), time_ns, "i8"), pa.timestamp("ns", "UTC"))
            table = table.add_column(0, name, times)
        about = table.schema.metadata
        for of_one_interval in (b"wiremeter.start_ns", b"wiremeter.end_ns"):
            del about[of_one_interval]
        table = table.replace_schema_metadata(about)
        self._writer = self._writer or self._open(self._file, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer:
            self._writer.close()


_NOTHING = FlowBatch(
    0, 0, (), empty_rows(FLOW), empty_rows(COUNTER), empty_rows(ETHERTYPE_COUNTER), audit=(), mode="capture"
)
_FORMATS: dict[str, Callable[[IO[bytes]], _Format]] = {".parquet": _Parquet, ".csv": _Csv, ".jsonl": _JsonLines}
#: Those that live traffic has more are left out of all.
_COLUMNS = tuple(name for name in Flow.__struct_fields__ if name not in ("device", "direction", "skbs"))


def _records(batch: FlowBatch, selection: Selection) -> Iterator[dict[str, Any]]:
    interval = _interval(batch)
    for flow in flow_records(batch, selection):
        values = msgspec.structs.asdict(flow)
        yield interval | {name: values[name] for name in _COLUMNS if values[name] is not msgspec.UNSET}


def _interval(batch: FlowBatch) -> dict[str, Any]:
    """What all rows of a batch have in common."""
    found = {"start_ns": batch.start_ns, "end_ns": batch.end_ns}
    if batch.super_packets and batch.super_packets.assumed_mss:
        found["assumed_mss"] = batch.super_packets.assumed_mss
    return found
