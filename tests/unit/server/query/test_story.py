"""The story of one flow holds all that is stored of it and its reverse, and nothing of others."""

from __future__ import annotations

from typing import Any

import pytest

from wiremeter.errors import InputError
from wiremeter.names.records import DnsAnswer, DnsTransaction, FlowKey, FlowName, TlsHandshake, Transactions
from wiremeter.server.query.story import FlowId, FlowStory, story
from wiremeter.server.query.times import Span
from wiremeter.server.store import Store

from ...live_batches import flow, make_batch, packed
from .stored import EPOCH_NS, store_batch

S_NS = 10**9
SPAN = Span(EPOCH_NS, EPOCH_NS + 600 * S_NS)
CLIENT, SERVER = "10.3.0.1", "198.51.100.3"
SAID = FlowName("tls", "www.example.org", "sni")
GUESSED = FlowName("tls", "www.example.org", "dns_answer")


@pytest.fixture(scope="module")
def store(opened: Store) -> Store:
    """Three intervals of a flow and its reverse on one agent, one of them on another, and flows beside it."""
    there = FlowKey(packed(CLIENT), 50000, packed(SERVER), 443, 6, 4)
    asking = FlowKey(packed(CLIENT), 40000, packed("10.3.0.53"), 53, 17, 4)
    looked_up = DnsTransaction(
        EPOCH_NS - 60 * S_NS, asking, "WWW.example.org", "A", 0, 10**6, (DnsAnswer("www.example.org", "A", 60, SERVER),)
    )
    other = DnsTransaction(
        EPOCH_NS - 50 * S_NS, asking, "other.example", "A", 0, 10**6, (DnsAnswer("other.example", "A", 60, SERVER),)
    )
    hello = TlsHandshake(EPOCH_NS + S_NS, there, "www.example.org", "1.3")
    elsewhere = TlsHandshake(EPOCH_NS + S_NS, there._replace(src_port=50001), "no.example", "1.3")
    for number in range(3):
        name = GUESSED if number == 0 else SAID
        rows = [
            flow(CLIENT, SERVER, 50000, 443, direction="tx", packets=10 + number, name=name),
            flow(SERVER, CLIENT, 443, 50000, packets=20 + number, size=1000, name=name),
            flow(CLIENT, SERVER, 50001, 443, direction="tx", packets=5),
            flow(CLIENT, SERVER, 50000, 443, protocol=17, direction="tx", packets=3),
        ]
        told = Transactions(dns=(looked_up, other), tls=(hello, elsewhere)) if number == 0 else Transactions()
        store_batch(opened, make_batch(rows, transactions=told), "web-1", number, start_ns=EPOCH_NS + number * 5 * S_NS)
    far = make_batch([flow(CLIENT, SERVER, 50000, 443, packets=9)])
    store_batch(opened, far, "gateway", start_ns=EPOCH_NS + 2 * S_NS)
    return opened


def ask(store: Store, limit: int = 100, **more: Any) -> FlowStory:
    flow = FlowId(**{"src_addr": CLIENT, "dst_addr": SERVER, "src_port": 50000, "dst_port": 443, "protocol": 6, **more})
    return story(store, flow, SPAN, limit=limit)


def test_both_directions_are_told_of_each_who_saw_them(store: Store) -> None:
    found = ask(store)
    assert [(row["way"], row["agent"], row["direction"], row["packets"], row["intervals"]) for row in found.seen] == [
        ("forward", "gateway", "rx", 9, 1),
        ("forward", "web-1", "tx", 10 + 11 + 12, 3),
        ("reverse", "web-1", "rx", 20 + 21 + 22, 3),
    ]
    assert found.seen[2]["bytes"] == 63_000
    assert [row["packets"] for row in found.intervals] == [12, 22, 11, 21, 9, 10, 20]
    assert not found.more


def test_the_reverse_is_the_same_story_seen_from_there(store: Store) -> None:
    turned = ask(store, src_addr=SERVER, dst_addr=CLIENT, src_port=443, dst_port=50000, agent="web-1")
    assert [(row["way"], row["packets"]) for row in turned.seen] == [("forward", 63), ("reverse", 33)]
    assert (turned.flow.src_addr, turned.flow.dst_port) == (SERVER, 50000)


def test_intervals_are_bounded_and_it_says_so(store: Store) -> None:
    found = ask(store, limit=3)
    assert (len(found.intervals), found.more) == (3, True)


def test_its_own_transactions_are_there_and_no_others(store: Store) -> None:
    transactions = ask(store).transactions
    assert [row["sni"] for row in transactions["tls"]] == ["www.example.org"]
    assert {kind for kind, rows in transactions.items() if rows} == {"tls"}


def test_a_name_has_its_evidence(store: Store) -> None:
    said, guessed = ask(store, agent="web-1").names
    assert (said.domain, said.domain_source, said.packets) == ("www.example.org", "sni", 11 + 12 + 21 + 22)
    assert "TLS hello" in str(said.why)
    assert [row["sni"] for row in said.evidence] == ["www.example.org"]
    assert (guessed.domain_source, guessed.packets) == ("dns_answer", 30)
    assert [(row["query"], row["src_addr"]) for row in guessed.evidence] == [("WWW.example.org", CLIENT)]
    (nameless,) = ask(store, agent="gateway").names
    assert (nameless.domain, nameless.why, nameless.evidence) == ("", None, [])


def test_of_one_device_nothing_else_is_told(store: Store) -> None:
    assert ask(store, device="nothing").seen == []
    assert {row["agent"] for row in ask(store, agent="gateway", device="eth0").intervals} == {"gateway"}


@pytest.mark.parametrize("address", ["", "x", "10.3.0", "fe80::1%eth0", "' OR 1", "10.3.0.1/32"])
def test_what_is_no_address_is_refused(store: Store, address: str) -> None:
    with pytest.raises(InputError, match="dst_addr"):
        ask(store, dst_addr=address)


def test_addresses_are_read_as_people_write_them(store: Store) -> None:
    assert len(ask(store, src_addr="::ffff:10.3.0.1", dst_addr=" 198.51.100.3 ").seen) == 3
