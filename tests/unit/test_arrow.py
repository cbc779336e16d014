"""A batch as a pyarrow Table."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch

from .live_batches import START_NS, flow, make_batch, packed


@pytest.fixture
def batch() -> FlowBatch:
    return make_batch(
        [
            flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=10, size=1500, tcp_flags=0x12),
            flow("2001:db8::1", "2001:db8::2", protocol=58, device="wg0", direction="tx", vlan=77),
        ],
        devices=("eth0", "wg0"),
    )


def test_table_says_what_the_flows_say(batch: FlowBatch) -> None:
    pa = pytest.importorskip("pyarrow")
    table = batch.to_arrow()
    assert table.column_names == [
        "device", "direction", "family", "vlan", "protocol", "src_addr", "dst_addr", "src_port", "dst_port",
        "packets", "bytes", "skbs", "tcp_flags", "first_time", "last_time",
    ]  # fmt: skip
    table.validate(full=True)
    first, second = table.to_pylist()
    assert first["device"] == "eth0"
    assert first["direction"] == "rx"
    assert first["vlan"] is None
    assert first["src_addr"] == packed("192.0.2.1")
    assert (first["src_port"], first["dst_port"], first["tcp_flags"]) == (443, 50000, 0x12)
    assert (first["packets"], first["bytes"], first["skbs"]) == (10, 15000, 10)
    assert (second["device"], second["direction"], second["family"], second["protocol"]) == ("wg0", "tx", 6, 58)
    assert second["vlan"] == 77
    assert table["first_time"].type == pa.timestamp("ns", "UTC")
    assert table["first_time"].cast(pa.int64())[0].as_py() == START_NS
    assert table["src_addr"].type == pa.binary(16)
    assert pa.types.is_dictionary(table["device"].type)


def test_metadata_says_what_kind_of_traffic_it_was() -> None:
    pytest.importorskip("pyarrow")
    table = make_batch([flow("10.0.0.1", "10.0.0.2")], mode="simulated").to_arrow()
    assert table.schema.metadata[b"wiremeter.mode"] == b"simulated"


def test_empty_batch_has_the_same_columns(batch: FlowBatch) -> None:
    pytest.importorskip("pyarrow")
    empty = make_batch([], devices=()).to_arrow()
    assert empty.num_rows == 0
    assert empty.schema.equals(batch.to_arrow().schema)


def test_missing_pyarrow_is_an_input_error_that_says_what_to_install(
    batch: FlowBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pyarrow":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"pip install 'wiremeter\[arrow\]'"):
        batch.to_arrow()
