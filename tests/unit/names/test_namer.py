"""What is read while an interval is being closed, ahead of its flow's counts, is told with the next one."""

from __future__ import annotations

import dns.message
import numpy as np
import pytest

from wiremeter.datapath.rows import conversation_hashes
from wiremeter.flows.columns import FLOW
from wiremeter.names.matching import rows_of_keys
from wiremeter.names.namer import Named, Namer
from wiremeter.names.payloads import Payload, packed
from wiremeter.names.records import FlowKey

from .test_quic import HELLO, crypto, seal

S_NS = 1_000_000_000
CLIENT, SERVER = (bytes(10) + b"\xff\xff" + bytes([192, 0, 2, host]) for host in (1, 2))
DNS_FLOW = FlowKey(CLIENT, 50000, SERVER, 53, 17, 4)
QUIC_FLOW = FlowKey(CLIENT, 50001, SERVER, 443, 17, 4)


def told(namer: Namer, end_ns: int, *flows: FlowKey) -> Named:
    rows = rows_of_keys(flows, FLOW)
    rows["first_ns"] = rows["last_ns"] = end_ns - S_NS // 2
    return namer.close_interval(rows, np.zeros(len(rows), np.int64), end_ns)


def feed(namer: Namer, time_ns: int, flow: FlowKey, data: bytes) -> None:
    source = 0 if flow.dst_port == 53 else 3
    namer.feed(packed([Payload(time_ns, flow, 0, len(data), 0, 0, source, data)]))


@pytest.mark.parametrize("early_ns", [-1000, 1000, 40_000_000], ids=["in-it", "just-after", "after-a-grace-period"])
def test_a_dns_flow_is_named_though_its_payload_came_ahead_of_its_counts(early_ns: int) -> None:
    namer = Namer(conversation_hashes)
    feed(namer, 10 * S_NS + early_ns, DNS_FLOW, dns.message.make_query("www.wire.test", "A").to_wire())
    told(namer, 10 * S_NS)
    named = told(namer, 11 * S_NS, DNS_FLOW, DNS_FLOW.reversed())
    assert {named.names[number].application for number in named.flow_names} == {"dns"}


def test_a_dns_name_holds_for_its_interval_only() -> None:
    namer = Namer(conversation_hashes)
    feed(namer, 9 * S_NS, DNS_FLOW, dns.message.make_query("www.wire.test", "A").to_wire())
    assert told(namer, 10 * S_NS, DNS_FLOW).names[-1].application == "dns"
    assert told(namer, 11 * S_NS, DNS_FLOW).names[-1].application == "unknown"


def test_a_quic_connection_counts_once_though_its_handshake_came_ahead_of_its_counts() -> None:
    namer = Namer(conversation_hashes)
    feed(namer, 10 * S_NS + 1000, QUIC_FLOW, seal(crypto(0, HELLO)))
    first = told(namer, 10 * S_NS)
    second = told(namer, 11 * S_NS, QUIC_FLOW, QUIC_FLOW.reversed())
    third = told(namer, 12 * S_NS, QUIC_FLOW, QUIC_FLOW.reversed())
    assert [len(first.transactions.quic), len(second.transactions.quic)] == [1, 0]
    assert [sum(named.connections.values()) for named in (first, second, third)] == [0, 1, 0]
    assert {second.names[number].domain for number in second.flow_names} == {"example.com"}
