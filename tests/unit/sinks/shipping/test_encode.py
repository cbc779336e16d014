"""What is shipped is what Arrow's own writer would say, and what others read as it lies."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pytest

from wiremeter import simulate
from wiremeter.flows.batch import Audit, Drop, FlowBatch, KernelCounters, Tally
from wiremeter.flows.columns import TransactionKind
from wiremeter.names.block_reader import BlockReader
from wiremeter.names.columns import DnsColumns, Told
from wiremeter.names.records import DnsAnswer, FlowName, RawTold, Transactions
from wiremeter.reports.findings import findings
from wiremeter.shipment.identity import About, Identity, new_boot
from wiremeter.shipment.schema import TABLES
from wiremeter.sinks.shipping.encode import encode
from wiremeter.sinks.shipping.left_out import LeftOut

from ...fabricated import fabricate_audit, fabricate_batch, fabricate_transactions
from ...live_batches import flow, make_batch
from ...names.dns_messages import CLIENT, wire_message
from ...shipped import rows_of, tables_of

KINDS: tuple[TransactionKind, ...] = ("dns", "tls", "quic", "http")
SITE = FlowName("tls", "www.example.com", "sni", "1.3", "TLS_AES_128_GCM_SHA256", "h2", "t13d…", "t13…")
PAGE = FlowName("http", "www.example.com", "http_host", http_method="GET", http_status=404)


ANSWERS = (
    (DnsAnswer("a.example", "A", 60, "192.0.2.1"), DnsAnswer("a.example", "A", 61, "192.0.2.2")),
    (),
    (DnsAnswer("b.example", "CNAME", 9, "a.example"), DnsAnswer("a.example", "A", 60, "192.0.2.1")),
    (DnsAnswer("c.example", "AAAA", 5, "2001:db8::1"), DnsAnswer("c.example", "MX", 5, "10 mail.c.example")),
    (DnsAnswer("d.example", "TXT", 5, '"v=spf1 -all"'), DnsAnswer("d.example", "TYPE65280", 1, "\\# 2 abcd")),
)


def about(batch: FlowBatch, **more: Any) -> About:
    identity = Identity("web-1", new_boot(), 3)
    return About(
        identity=identity, mode=batch.mode, start_ns=batch.start_ns, end_ns=batch.end_ns, version="1.0", **more
    )


def shipped(batch: FlowBatch, **more: Any) -> dict[str, Any]:
    return tables_of(encode(batch, about(batch), **more))


def plain(table: Any) -> list[dict[str, Any]]:
    return table.to_pylist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def simulated() -> FlowBatch:
    (batch,) = simulate("web", seconds=2, packets_per_second=5_000, ipv6=0.3, interval=None)
    return batch


@pytest.fixture(scope="module")
def named() -> FlowBatch:
    """With DNS in columns."""
    told: list[RawTold] = []
    reader = BlockReader(told.append)
    for number, answers in enumerate(ANSWERS):
        question = ((answers[0].name if answers else f"host{number}.example", "A"),)
        reader.message(number % 2, 2 * number, CLIENT, wire_message(question, number=number))
        answer = wire_message(question, answers, number=number, is_response=True)
        reader.message(number % 2, 2 * number + 1, CLIENT.reversed(), answer)
    reader.message(1, 99, CLIENT, wire_message((("never.answered.example", "AAAA"),), number=99))
    reader.flush(0)
    reader.hand_on()
    return replace(make_batch([]), transactions=Transactions(dns=DnsColumns.joined([*map(Told.of, told)], {1: "eth0"})))


@pytest.fixture(scope="module")
def fabricated() -> FlowBatch:
    """With all kinds as objects."""
    batch = make_batch(
        [flow("10.0.0.1", "10.0.0.2", name=SITE), flow("10.0.0.3", "::1"), flow("::2", "::1", name=PAGE)]
    )
    return replace(batch, transactions=fabricate_transactions())


@pytest.mark.parametrize("which", ["simulated", "named", "fabricated"])
def test_flows_and_transactions_are_those_of_arrow(which: str, request: pytest.FixtureRequest) -> None:
    batch: FlowBatch = request.getfixturevalue(which)
    tables = shipped(batch)
    assert rows_of(tables["flows"]) == rows_of(batch.to_arrow())
    for kind in KINDS:
        expected = batch.transactions_to_arrow(kind)
        assert plain(tables[kind]) == plain(expected) if len(expected) else kind not in tables


@pytest.mark.parametrize("different", [254, 255, 256, 65_535, 65_536])
def test_dictionaries_of_any_size(different: int) -> None:
    batch = make_batch([flow("10.0.0.1", "10.0.0.2", vlan=7)])
    names = (FlowName(), *(FlowName("dns", dns_query=f"host{number}.example") for number in range(different)))
    many = replace(
        batch,
        flows=np.repeat(batch.flows, different + 1),
        names=names,
        flow_names=np.arange(different + 1, dtype="u4"),
    )
    found = shipped(many)["flows"].column("dns_query").to_pylist()
    assert sorted(found, key=str) == sorted((name.dns_query for name in names), key=str)


def test_a_batch_without_flows_is_a_table_without_rows() -> None:
    tables = shipped(make_batch([]))
    assert tables["flows"].num_rows == 0
    assert tables["flows"].schema.names == list(TABLES["flows"])


def test_metadata_says_which_batch_it_is() -> None:
    batch = make_batch([])
    said = about(batch, dropped={"spool_full": 2})
    metadata = tables_of(encode(batch, said))["flows"].schema.metadata
    assert About.from_metadata({key.decode(): value.decode() for key, value in metadata.items()}) == said


def test_counters_and_audit_are_all_there() -> None:
    audit = fabricate_audit(
        flows=Tally(3, 300, 2),
        non_ip=Tally(1, 60, 1),
        unattributed={"table_full": Tally(5, 500, 5)},
        kernel=KernelCounters(9, 860, 1, "skb"),
        remainders={"bypassed_stack": -2, "unexplained": 0},
        drops=(Drop("qdisc", "tbf", 4), Drop("device", "missed", 0)),
    )
    batch = fabricate_batch([(0, 4, 6, 3, 300, 2), (0, 0, 0, 1, 60, 1)], [(0, 0x806, 1, 60, 1)], audit=(audit,))
    left_out = [
        LeftOut("eth0", "rx", "port 22", Tally(1, 100, 1)),
        LeftOut("eth0", "", "domain a.example", Tally(), transactions=7),
    ]
    tables = shipped(batch, findings=findings(batch), left_out=left_out)
    where = {"device": "eth0", "direction": "rx"}
    amounts = {"packets": 1, "bytes": 60, "skbs": 1}
    assert plain(tables["counters"]) == [
        where | {"family": 4, "protocol": 6, "ethertype": None, "packets": 3, "bytes": 300, "skbs": 2},
        where | {"family": 0, "protocol": 0, "ethertype": 0x806, **amounts},
    ]
    (row,) = plain(tables["audit"])
    assert (row["seen_packets"], row["kernel_packets"], row["kernel_drops"], row["convention"]) == (9, 9, 1, "skb")
    assert [(r["kind"], r["reason"], r["packets"], r["bytes"]) for r in plain(tables["audit_reasons"])] == [
        ("unattributed", "table_full", 5, 500),
        ("remainder", "bypassed_stack", -2, None),
        ("drop", "qdisc tbf", 4, None),
        ("ignored", "port 22", 1, 100),
        ("ignored_transactions", "domain a.example", 7, None),
    ]
    assert {row["kind"] for row in plain(tables["findings"])} >= {"unattributed", "dropped"}
    assert {row["mode"] for row in plain(tables["devices"])} == {"tcx"}


def test_a_device_that_came_has_no_kernel_counters() -> None:
    batch = fabricate_batch(audit=(Audit("eth0", "rx", Tally(), Tally(), Tally(), {}),))
    (row,) = plain(shipped(batch)["audit"])
    assert row["kernel_packets"] is None
    assert row["convention"] is None


def test_columns_are_those_of_the_contract(named: FlowBatch) -> None:
    for name, table in shipped(named, findings=findings(named)).items():
        assert table.schema.names == list(TABLES[name])  # type: ignore[index]


def test_names_that_no_flow_has_are_not_shipped() -> None:
    batch = make_batch([flow("10.0.0.1", "10.0.0.2", name=SITE), flow("10.0.0.1", "10.0.0.2", name=PAGE)])
    left = replace(batch, flows=batch.flows[:1], flow_names=batch.flow_names[:1])  # type: ignore[index]
    assert shipped(left)["flows"].column("http_status").to_pylist() == [None]
    (domain,) = shipped(left)["flows"].column("tls_cipher").chunks
    assert domain.dictionary.to_pylist() == ["TLS_AES_128_GCM_SHA256"]


def test_polars_and_duckdb_read_a_file_as_it_lies(simulated: FlowBatch, tmp_path: Path) -> None:
    path = tmp_path / "batch.arrows"
    path.write_bytes(encode(simulated, about(simulated)))
    expected = int(simulated.flows["bytes"].sum())
    frame = polars.read_ipc_stream(path)
    assert (len(frame), frame["bytes"].sum()) == (len(simulated.flows), expected)
    assert set(frame["device"].unique()) == {a.device for a in simulated.attachments}
    flows = pa.ipc.open_stream(path.open("rb")).read_all()
    counted = duckdb.from_arrow(flows).aggregate("count(*), sum(bytes)").fetchall()
    assert counted == [(len(simulated.flows), expected)]


def test_a_file_says_what_it_is_with_nothing_but_arrow(simulated: FlowBatch) -> None:
    stream = io.BytesIO(encode(simulated, about(simulated)))
    seen = []
    while stream.tell() < len(stream.getbuffer()):
        seen.append(pa.ipc.open_stream(stream).read_all().schema.metadata[b"wiremeter.table"])
    assert seen[0] == b"flows"
    assert {b"counters", b"audit", b"devices"} <= set(seen)
