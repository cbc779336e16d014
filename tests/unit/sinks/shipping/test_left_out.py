"""What is not to be shipped is not in what is, and is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.filter import compile_filter
from wiremeter.names.block_reader import BlockReader
from wiremeter.names.columns import DnsColumns, Told
from wiremeter.names.records import FlowKey, FlowName, HttpTransaction, RawTold, TlsHandshake, Transactions
from wiremeter.sinks.shipping.left_out import leave_out

from ...live_batches import flow, make_batch, packed
from ...names.dns_messages import CLIENT, wire_message

BANK = FlowName("tls", "www.bank.example")
SITE = FlowName("tls", "site.example")


def key(client: str, server: str, port: int) -> FlowKey:
    return FlowKey(packed(client), 50000, packed(server), port, 6, 4)


@pytest.fixture
def batch() -> FlowBatch:
    told: list[RawTold] = []
    reader = BlockReader(told.append)
    for number, name in enumerate(("www.bank.example", "site.example")):
        reader.message(1, number, CLIENT, wire_message(((name, "A"),), number=number))
    reader.flush(0)
    reader.hand_on()
    flows = [
        flow("10.0.0.1", "192.0.2.1", 50000, 443, packets=3, direction="tx", name=BANK),
        flow("192.0.2.1", "10.0.0.1", 443, 50000, packets=4, name=BANK),
        flow("10.0.0.1", "192.0.2.2", 50001, 443, packets=5, direction="tx", name=SITE),
        flow("10.0.0.2", "192.0.2.3", 50001, 22, packets=6, direction="tx"),
    ]
    transactions = Transactions(
        dns=DnsColumns.joined([*map(Told.of, told)], {1: "eth0"}),
        tls=(
            TlsHandshake(0, key("10.0.0.1", "192.0.2.1", 443), "www.BANK.example", "1.3", device="eth0"),
            TlsHandshake(1, key("10.0.0.1", "192.0.2.2", 443), "site.example", "1.3", device="eth0"),
            TlsHandshake(2, key("10.0.0.1", "192.0.2.9", 443), None, "1.3"),
        ),
        http=(HttpTransaction(0, key("10.0.0.2", "192.0.2.3", 80), "1.1", "GET", "other.example"),),
    )
    return replace(make_batch(flows), transactions=transactions)


def left(batch: FlowBatch, *expressions: str) -> tuple[FlowBatch, list[tuple[str, str, int, int | None]]]:
    rest, counts = leave_out(batch, [compile_filter(each) for each in expressions])
    return rest, [(each.direction, each.expression, each.tally.packets, each.transactions) for each in counts]


def test_nothing_to_leave_out_changes_nothing(batch: FlowBatch) -> None:
    assert leave_out(batch, []) == (batch, [])


def test_a_domain_goes_from_flows_and_transactions(batch: FlowBatch) -> None:
    rest, counts = left(batch, "domain bank.example")
    assert rest.flows["packets"].tolist() == [5, 6]
    assert [one.query for one in rest.transactions.dns] == ["site.example"]
    assert [one.sni for one in rest.transactions.tls] == ["site.example", None]
    assert len(rest.transactions.http) == 1
    assert sorted(counts, key=str) == sorted(
        [
            ("rx", "domain bank.example", 4, None),
            ("tx", "domain bank.example", 3, None),
            ("", "domain bank.example", 0, 1),
            ("", "domain bank.example", 0, 1),
        ],
        key=str,
    )


def test_totals_and_what_was_left_out_are_all_there_is(batch: FlowBatch) -> None:
    rest, counts = leave_out(batch, [compile_filter("port 22"), compile_filter("host 10.0.0.1"), compile_filter("tcp")])
    assert rest.audit == batch.audit
    assert (rest.counters == batch.counters).all()
    assert len(rest.flows) == 0
    whole = sum((each.tally.packets for each in counts), int(rest.flows["packets"].sum()))
    assert whole == int(batch.flows["packets"].sum())


def test_each_flow_counts_for_the_first_expression_that_matches(batch: FlowBatch) -> None:
    _, counts = left(batch, "port 443", "host 10.0.0.1")
    assert {expression for _, expression, _, transactions in counts if transactions is None} == {"port 443"}


@pytest.mark.parametrize(
    "expression", ["dst host 10.0.0.2 and src port 80", "tx and port 80", "rx and port 80", "dev eth0 or port 80"]
)
def test_a_transaction_goes_if_its_flow_would_either_way(expression: str, batch: FlowBatch) -> None:
    rest, _ = left(batch, expression)
    assert rest.transactions.http == ()


def test_a_device_takes_its_transactions_with_it(batch: FlowBatch) -> None:
    rest, _ = left(batch, "dev eth0")
    assert [one.sni for one in rest.transactions.tls] == [None]
    assert len(rest.transactions.dns) == 0


def test_an_empty_batch_is_one() -> None:
    rest, counts = left(make_batch([]), "port 22")
    assert (len(rest.flows), counts) == (0, [])
