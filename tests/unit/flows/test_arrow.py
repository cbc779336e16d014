"""A batch as a pyarrow Table."""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest

from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.columns import TransactionKind
from wiremeter.names.records import (
    DnsAnswer,
    DnsTransaction,
    FlowKey,
    FlowName,
    HttpTransaction,
    QuicHandshake,
    TlsHandshake,
    Transactions,
)

from ..live_batches import START_NS, asked, flow, make_batch, packed

NAME_COLUMNS = list(FlowName._fields)
SITE = FlowName("tls", "www.example.com", "sni", "1.3", "TLS_AES_128_GCM_SHA256", "h2", "t13d…", "t13…")
PAGE = FlowName("http", "www.example.com", "http_host", http_method="GET", http_status=404)
CLIENT = FlowKey(packed("10.0.0.5"), 50000, packed("192.0.2.1"), 443, 6, 4)
SAID = Transactions(
    dns=(
        DnsTransaction(
            START_NS,
            CLIENT,
            "www.example.com",
            "A",
            rcode=0,
            latency_ns=1_500_000,
            answers=(
                DnsAnswer("www.example.com", "CNAME", 60, "example.com"),
                DnsAnswer("example.com", "A", 300, "192.0.2.1"),
            ),
        ),
        asked("nosuch.example", rcode=None, retry=True),
    ),
    tls=(
        TlsHandshake(START_NS, CLIENT, "www.example.com", "1.3", ("h2", "http/1.1"), "t13d…", alpn_chosen="h2"),
        TlsHandshake(START_NS, CLIENT, None, None, ech=True),
    ),
    quic=(QuicHandshake(START_NS, CLIENT, "www.example.com", "1", ("h3",)),),
    http=(HttpTransaction(START_NS, CLIENT, "1.1", "GET", "www.example.com", "/", 200, 2_000_000),),
)
KINDS: tuple[TransactionKind, ...] = ("dns", "tls", "quic", "http")


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
        "packets", "bytes", "skbs", "tcp_flags", "first_time", "last_time", *NAME_COLUMNS,
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
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'wiremeter\[arrow\]'"):
        batch.to_arrow()


def test_flows_bear_all_that_is_known_of_them_and_null_what_is_not() -> None:
    pa = pytest.importorskip("pyarrow")
    names = (SITE, PAGE, None)
    table = make_batch([flow("10.0.0.1", "10.0.0.2", at, name=name) for at, name in enumerate(names)]).to_arrow()
    table.validate(full=True)
    for row, name in zip(table.select(NAME_COLUMNS).to_pylist(), names, strict=True):
        assert row == {column: getattr(name or FlowName(), column) for column in NAME_COLUMNS}
    assert table["domain"].type == pa.dictionary(pa.int32(), pa.string())
    assert table["http_status"].type == pa.uint16()


def test_names_that_are_off_are_null_not_unknown(batch: FlowBatch) -> None:
    pytest.importorskip("pyarrow")
    assert batch.flow_names is None
    assert all(batch.to_arrow()[column].null_count == 2 for column in NAME_COLUMNS)


def test_transactions_say_what_was_said() -> None:
    pa = pytest.importorskip("pyarrow")
    batch = make_batch([], transactions=SAID)
    tables = {kind: batch.transactions_to_arrow(kind) for kind in KINDS}
    for kind, table in tables.items():
        table.validate(full=True)
        assert table.num_rows == len(getattr(SAID, kind))
        assert table["time"].type == pa.timestamp("ns", "UTC")
        first = table.to_pylist()[0]
        assert (first["src_addr"], first["src_port"]) == (packed("10.0.0.5"), 50000)
        assert (first["dst_addr"], first["dst_port"], first["protocol"]) == (packed("192.0.2.1"), 443, 6)
    answered, lost = tables["dns"].to_pylist()
    assert (answered["query"], answered["qtype"], answered["rcode"]) == ("www.example.com", "A", 0)
    assert answered["latency_ns"] == 1_500_000
    assert answered["answers"][1] == {"name": "example.com", "type": "A", "ttl": 300, "data": "192.0.2.1"}
    assert (lost["rcode"], lost["latency_ns"], lost["answers"], lost["retry"]) == (None, None, [], True)
    hello, hidden = tables["tls"].to_pylist()
    assert (hello["sni"], hello["alpn"], hello["alpn_chosen"]) == ("www.example.com", ["h2", "http/1.1"], "h2")
    assert (hidden["sni"], hidden["alpn"], hidden["ech"]) == (None, [], True)
    assert tables["quic"].to_pylist()[0]["alpn"] == ["h3"]
    assert tables["http"].to_pylist()[0]["status"] == 200


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_transaction_has_a_column(kind: TransactionKind) -> None:
    pytest.importorskip("pyarrow")
    table = make_batch([], transactions=SAID).transactions_to_arrow(kind)
    one = getattr(SAID, kind)[0]
    own = set(getattr(one, "_fields", None) or (field.name for field in fields(one))) - {"time_ns", "flow"}
    assert set(table.column_names) == own | {"time", *FlowKey._fields}
    empty = make_batch([]).transactions_to_arrow(kind)
    assert empty.schema.equals(table.schema)


def test_unknown_kind_is_refused_with_the_known_ones() -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="dns, tls, quic, http"):
        make_batch([]).transactions_to_arrow("smtp")  # type: ignore[arg-type]


def test_all_tables_come_back_from_parquet_as_they_went(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    batch = make_batch([flow("10.0.0.1", "10.0.0.2", name=SITE), flow("10.0.0.1", "10.0.0.3")], transactions=SAID)
    for table in (batch.to_arrow(), *(batch.transactions_to_arrow(kind) for kind in KINDS)):
        parquet.write_table(table, tmp_path / "table.parquet")
        back = parquet.read_table(tmp_path / "table.parquet")
        assert back.schema.equals(table.schema)
        assert back.to_pylist() == table.to_pylist()


def test_transactions_of_simulated_traffic_say_so() -> None:
    pytest.importorskip("pyarrow")
    table = replace(make_batch([]), mode="simulated").transactions_to_arrow("dns")
    assert table.schema.metadata[b"wiremeter.mode"] == b"simulated"


def test_addresses_are_objects_where_that_is_asked_for(batch: FlowBatch, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = batch.to_arrow("ip")
    texts = [ipaddress.ip_address(text) for text in batch.to_arrow("text")["src_addr"].to_pylist()]
    assert table["src_addr"].to_pylist() == texts
    assert {type(address) for address in texts} == {ipaddress.IPv4Address, ipaddress.IPv6Address}
    assert table["dst_addr"].cast(pa.binary(16)) == batch.to_arrow()["dst_addr"]
    parquet.write_table(table, tmp_path / "flows.parquet")
    assert parquet.read_table(tmp_path / "flows.parquet").equals(table)
    said = replace(batch, transactions=SAID)
    assert said.transactions_to_arrow("tls", "ip")["src_addr"].to_pylist() == [ipaddress.ip_address("10.0.0.5")] * 2


def test_a_form_of_addresses_that_there_is_not_is_refused(batch: FlowBatch) -> None:
    for make in (batch.to_arrow, partial(batch.transactions_to_arrow, "dns")):
        with pytest.raises(InputError, match="addresses='texts': it must be one of bytes, text, ip"):
            make(addresses="texts")  # type: ignore[arg-type]
