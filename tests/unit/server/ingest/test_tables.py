"""Batches as bytes: what agents send is read; what is damaged, hostile or of another shape is refused, cheaply."""

from __future__ import annotations

import io
import random
import struct
import time

import pyarrow as pa
import pytest

from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch
from wiremeter.server.ingest.declared import declared_bytes
from wiremeter.server.ingest.tables import read_tables
from wiremeter.server.ingest.times import correction_ns, moved
from wiremeter.shipment.schema import TableName

from ..batches import encoded, simulated


@pytest.fixture(scope="module")
def batch() -> FlowBatch:
    return simulated()


@pytest.fixture(scope="module")
def content(batch: FlowBatch) -> bytes:
    return encoded(batch)


def test_what_an_agent_sends_is_read_whole(batch: FlowBatch, content: bytes) -> None:
    about, tables = read_tables(content)
    assert about.identity.agent == "web-1"
    flows = tables["flows"]
    assert flows.num_rows == len(batch.flows)
    assert sum(flows["bytes"].to_pylist()) == int(batch.flows["bytes"].sum())
    assert tables["dns"].num_rows == len(batch.transactions.dns)
    assert sum(tables["counters"]["packets"].to_pylist()) == int(batch.counters["packets"].sum())


def test_it_says_beforehand_what_it_decompresses_to(content: bytes) -> None:
    source = pa.BufferReader(content)
    with pa.ipc.open_stream(content) as reader:
        flows = reader.read_all()
    assert declared_bytes(source) == pytest.approx(flows.nbytes, rel=0.1)


def huge(declared: int) -> bytes:
    """A stream whose one compressed buffer says that it is so long."""
    out, table = io.BytesIO(), pa.table({"a": pa.array(range(1000), pa.int64())})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table)
    content = bytearray(out.getvalue())
    at = content.index(struct.pack("<q", 8000))
    content[at : at + 8] = struct.pack("<q", declared)
    return bytes(content)


@pytest.mark.parametrize("declared", [1 << 40, (1 << 63) - 1, -5])
def test_a_kilobyte_that_claims_a_terabyte_is_refused_before_memory_is_taken(declared: int) -> None:
    before = pa.total_allocated_bytes()
    with pytest.raises(InputError, match=r"decompresses|negative"):
        read_tables(huge(declared))
    assert pa.total_allocated_bytes() - before < 1 << 20


def behind_the_first(content: bytes) -> bytes:
    """All tables but the first."""
    source = pa.BufferReader(content)
    declared_bytes(source)
    return content[source.tell() :]


@pytest.mark.parametrize("damage", ["cut", "flipped", "doubled", "other table first", "nothing", "text"])
def test_what_is_damaged_is_an_error_that_says_where(content: bytes, damage: str) -> None:
    broken = {
        "cut": content[: len(content) // 2],
        "flipped": content[:200] + bytes([content[200] ^ 0xFF]) + content[201:],
        "doubled": content + content,
        "other table first": behind_the_first(content),
        "nothing": b"",
        "text": b"GET / HTTP/1.1",
    }[damage]
    with pytest.raises(InputError):
        read_tables(broken)


def test_any_flipped_bytes_are_refused_or_read_and_never_worse(content: bytes) -> None:
    rng = random.Random(1)
    deadline = time.monotonic() + 60
    refused = 0
    for _ in range(1500):
        broken = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            read_tables(bytes(broken))
        except InputError:
            refused += 1
        if time.monotonic() > deadline:
            break
    assert refused > 20


# --- clocks


def test_times_within_reason_stay(content: bytes) -> None:
    about, _ = read_tables(content)
    assert correction_ns(about, about.end_ns + 3600 * 10**9) == 0


@pytest.mark.parametrize("days", [-400, 3])
def test_times_of_a_clock_that_is_far_off_are_moved_all_alike(content: bytes, days: int) -> None:
    about, tables = read_tables(content)
    now_ns = about.end_ns - days * 24 * 3600 * 10**9
    by_ns = correction_ns(about, now_ns)
    later, moved_tables = moved(about, tables, by_ns)
    assert now_ns - 10**6 < later.end_ns <= now_ns
    columns: list[tuple[TableName, str]] = [("flows", "first_time"), ("flows", "last_time"), ("dns", "time")]
    for table, column in columns:
        before, after = (each[table][column].cast(pa.int64()).to_pylist() for each in (tables, moved_tables))
        assert {b - a for a, b in zip(before, after, strict=True)} == {by_ns}
    assert moved_tables["flows"].schema == tables["flows"].schema
