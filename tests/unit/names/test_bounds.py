"""Payloads in, names of flows out; and bounds on all that is kept between."""

from __future__ import annotations

import gc
import ipaddress

import numpy as np
import pytest

from wiremeter.datapath.rows import conversation_hashes
from wiremeter.names import block_reader
from wiremeter.names import namer as namer_module
from wiremeter.names.namer import (
    CLOCK_SLACK_NS,
    NAMES_MAX,
    Named,
    Namer,
)
from wiremeter.names.payloads import Payload
from wiremeter.names.reader import CONVERSATIONS_MAX, SILENCE_NS
from wiremeter.names.records import NAMELESS, DnsAnswer, DnsTransaction, FlowKey, FlowName, column
from wiremeter.settings.words import NameKind

from .dns_messages import teach
from .payload_records import (
    ACK,
    DNS,
    FIRST,
    HTTP,
    MS,
    SECOND_NS,
    START_NS,
    SYN,
    TLS,
    UDP,
    answer,
    feed,
    key,
    payload,
    query,
    reader_of,
    rows_of,
)
from .tls_hellos import client_hello, records, server_hello, server_name

WEB, RESOLVER = key(), key(server=53, server_port=53, protocol=UDP)


def namer(*kinds: NameKind) -> Namer:
    return Namer(conversation_hashes, kinds or ("dns", "tls", "http", "quic"))


def hello(flow: FlowKey, name: str, *, at_ns: int = START_NS, seq: int = 1) -> list[Payload]:
    """A ClientHello that names a server, and the ServerHello."""
    asked = records(client_hello(((0, server_name(name.encode())),)))
    return [
        payload(flow, asked, at_ns=at_ns, seq=seq, flags=ACK, source=TLS),
        payload(flow.reversed(), records(server_hello()), at_ns=at_ns + MS, flags=ACK, source=TLS),
    ]


def exchange(name: str, to: int, flow: FlowKey = RESOLVER, *, at_ns: int = START_NS, number: int = 1) -> list[Payload]:
    """A DNS query and its answer a millisecond later."""
    return [
        payload(flow, query(name, number), at_ns=at_ns, source=DNS),
        payload(flow.reversed(), answer(name, to, number), at_ns=at_ns + MS, source=DNS),
    ]


def closed(names: Namer, rows: np.ndarray, *, end_ns: int = START_NS + SECOND_NS, device: int = 0) -> Named:
    return names.close_interval(rows, np.full(len(rows), device, np.int64), end_ns)


def names_of(names: Namer, *flows: FlowKey, **options: int) -> list[FlowName]:
    """What each flow is called in a batch of these."""
    at_ns = options.pop("at_ns", START_NS)
    flags = options.pop("flags", ACK)
    named = closed(names, rows_of(*flows, at_ns=at_ns, flags=flags), **options)
    assert named.names[0] == NAMELESS
    assert len(set(named.names)) == len(named.names)
    return [named.names[number] for number in named.flow_names]


def test_both_flows_of_a_conversation_have_its_name_and_others_none() -> None:
    names = namer()
    feed(names, hello(WEB, "site.example"))
    there, back, other = names_of(names, WEB, WEB.reversed(), key(port=40001))
    assert there == back != other == NAMELESS
    assert (there.application, there.domain, there.domain_source) == ("tls", "site.example", "sni")


def test_a_name_stays_in_later_intervals_and_of_a_conversation_that_is_silent_for_long() -> None:
    names = namer()
    feed(names, hello(WEB, "site.example"))
    for seconds in (1, 2, SILENCE_NS // SECOND_NS + 10):
        (name,) = names_of(names, WEB, at_ns=START_NS + seconds * SECOND_NS, end_ns=START_NS + seconds * SECOND_NS)
        assert name.domain == "site.example"


def test_dns_flows_are_named_by_what_was_said_last_and_only_in_their_interval() -> None:
    names = namer()
    asked, answered = exchange("site.example", 7)
    feed(names, [asked])
    assert names_of(names, RESOLVER) == [FlowName("dns", dns_query="site.example")]
    late = answered._replace(time_ns=START_NS + SECOND_NS + MS)
    feed(names, [late])
    (name,) = names_of(names, RESOLVER.reversed(), end_ns=START_NS + 2 * SECOND_NS)
    assert (name.application, name.dns_query, name.dns_rcode) == ("dns", "site.example", 0)
    assert names_of(names, RESOLVER, end_ns=START_NS + 3 * SECOND_NS) == [NAMELESS]


def test_what_dns_says_while_an_interval_is_closed_names_the_flows_of_the_next() -> None:
    names = namer()
    end_ns = START_NS + SECOND_NS
    feed(names, exchange("site.example", 7, at_ns=end_ns - CLOCK_SLACK_NS // 2))
    assert names_of(names) == []
    (name,) = names_of(names, RESOLVER, end_ns=end_ns + SECOND_NS)
    assert name.dns_query == "site.example"


@pytest.mark.parametrize(("port", "application"), [(53, "dns"), (5353, "mdns"), (5355, "llmnr")])
def test_dns_by_any_of_its_ports(port: int, application: str) -> None:
    names, flow = namer(), key(port=port if port == 5353 else 40000, server=53, server_port=port, protocol=UDP)
    feed(names, [payload(flow, query("printer.local"), source=DNS)])
    assert names_of(names, flow) == [FlowName(application, dns_query="printer.local")]


def test_a_flow_that_told_nothing_is_named_by_what_its_client_was_answered() -> None:
    names = namer()
    feed(names, exchange("site.example", to=99))
    there, back, elsewhere, another_client = names_of(names, WEB, WEB.reversed(), key(server=98), key(client=2))
    assert there == back == FlowName("unknown", "site.example", "dns_answer")
    assert elsewhere == another_client == NAMELESS


def test_what_a_conversation_says_itself_counts_more_than_dns() -> None:
    names = namer()
    feed(names, [*exchange("cdn.example", to=99), *hello(WEB, "site.example")])
    assert [name.domain for name in names_of(names, WEB, key(port=40001))] == ["site.example", "cdn.example"]


def test_an_application_without_a_domain_gets_it_from_dns() -> None:
    names, flow = namer(), key(server_port=22)
    feed(names, [*exchange("host.example", to=99), payload(flow.reversed(), b"SSH-2.0-OpenSSH_9.6\r\n", flags=ACK)])
    (name,) = names_of(names, flow)
    assert (name.application, name.domain, name.domain_source) == ("ssh", "host.example", "dns_answer")


def test_a_new_connection_on_the_same_ports_does_not_bear_the_old_name() -> None:
    names = namer()
    feed(names, hello(WEB, "old.example"))
    assert [name.domain for name in names_of(names, WEB, flags=SYN | ACK)] == ["old.example"]
    later = START_NS + 10 * SECOND_NS
    assert names_of(names, WEB, at_ns=later, flags=SYN | ACK, end_ns=later + SECOND_NS) == [NAMELESS]
    syn = payload(WEB, at_ns=later, seq=5000, flags=SYN)
    feed(names, [syn, *hello(WEB, "new.example", at_ns=later + MS, seq=5001)])
    (name,) = names_of(names, WEB, at_ns=later, flags=SYN | ACK, end_ns=later + SECOND_NS)
    assert name.domain == "new.example"


def test_a_connection_that_opened_counts_once_with_its_name() -> None:
    names = namer()
    feed(names, hello(WEB, "site.example"))
    rows = np.concatenate(
        [rows_of(WEB, flags=SYN | ACK), rows_of(WEB.reversed(), flags=SYN | ACK, at_ns=START_NS + MS)]
    )
    named = closed(names, rows)
    ((attachment, number),) = named.connections
    assert (attachment, named.names[number].domain, named.connections[attachment, number]) == (0, "site.example", 1)
    assert closed(names, rows, end_ns=START_NS + 2 * SECOND_NS).connections == {}


def test_transactions_come_in_order_of_time_each_in_one_interval() -> None:
    names = namer()
    feed(names, [*exchange("b.example", 8, at_ns=START_NS + 5 * MS, number=2), *exchange("a.example", 7, number=1)])
    dns = closed(names, rows_of()).transactions.dns
    assert [(each.query, each.latency_ns) for each in dns] == [("a.example", MS), ("b.example", MS)]
    assert closed(names, rows_of(), end_ns=START_NS + 2 * SECOND_NS).transactions.dns == ()


def test_what_is_still_open_ends_with_the_last_interval() -> None:
    names = namer()
    feed(names, [payload(RESOLVER, query("site.example"), source=DNS), *hello(WEB, "site.example")])
    last = names.close_last(rows_of(WEB), np.zeros(1, np.int64), START_NS + SECOND_NS).transactions
    assert [(each.query, each.rcode) for each in last.dns] == [("site.example", None)]
    assert [each.sni for each in last.tls] == ["site.example"]


def test_only_the_kinds_that_are_wanted_are_told_and_dns_names_addresses_all_the_same() -> None:
    names = namer("tls")
    feed(names, [*exchange("site.example", to=99), *hello(key(port=1), "site.example")])
    named = names.close_last(rows_of(WEB), np.zeros(1, np.int64), START_NS + SECOND_NS)
    assert (named.transactions.dns, len(named.transactions.tls)) == ((), 1)
    assert named.names[named.flow_names[0]].domain == "site.example"


def test_devices_are_told_apart_and_attachments_of_none_are_left_out() -> None:
    names = namer()
    asked, answered = exchange("site.example", 7)
    devices = {0: 2, 1: 3}
    feed(names, [asked._replace(attachment=0), asked._replace(attachment=1), asked._replace(attachment=9)], devices)
    feed(names, [answered._replace(attachment=1)], devices)
    dns = names.close_last(rows_of(), np.zeros(0, np.int64), START_NS + SECOND_NS).transactions.dns
    assert sorted(each.rcode is None for each in dns) == [False, True]


def test_dns_that_no_decoder_takes_is_looked_at_as_any_datagram() -> None:
    names = namer()
    feed(names, [payload(RESOLVER, b"\x00" * 5, source=DNS), payload(RESOLVER, b"", source=DNS)])
    assert names_of(names, RESOLVER) == [NAMELESS]


def test_fragments_of_an_answer_make_one_transaction() -> None:
    names = namer()
    asked, answered = exchange("site.example", 7)
    cut = 16
    first = answered._replace(data=answered.data[:cut], length=cut, tcp_flags=0x2000, seq=9)
    last = answered._replace(
        data=answered.data[cut:], length=len(answered.data) - cut, tcp_flags=(cut + 8) // 8, seq=9,
        flow=answered.flow._replace(src_port=0, dst_port=0),
    )  # fmt: skip
    feed(names, [asked, last, first])
    (dns,) = closed(names, rows_of()).transactions.dns
    assert (dns.rcode, [each.data for each in dns.answers], dns.cut) == (0, ["10.0.0.7"], False)


# Bounds --------------------------------------------------------------------------------------------------------------


def test_of_conversations_without_number_so_many_are_read_and_so_many_names_are_kept() -> None:
    names, flows = namer(), 3 * CONVERSATIONS_MAX
    for number in range(flows):
        feed(names, hello(key(client=number, port=1000), f"site-{number}.example"))
    closed(names, rows_of())
    assert len(reader_of(names)._listening) <= CONVERSATIONS_MAX
    assert len(names._known) <= NAMES_MAX
    newest, oldest = key(client=flows - 1, port=1000), key(client=0, port=1000)
    assert [name.domain for name in names_of(names, newest, oldest)] == [f"site-{flows - 1}.example", "site-0.example"]


def test_conversations_within_one_interval_are_bounded_too() -> None:
    names = namer()
    for number in range(2 * CONVERSATIONS_MAX):
        feed(names, [payload(key(client=number), b"SSH-2.0-x\r\n", flags=ACK)])
        assert len(reader_of(names)._listening) <= CONVERSATIONS_MAX


def test_the_names_least_recently_told_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namer_module, "NAMES_MAX", 100)
    names = namer()
    for n in range(250):
        feed(names, hello(key(port=1000 + n), f"{n}.example"))
    closed(names, rows_of())
    assert (len(names._known), names._known.evicted) == (100, 150)
    found = names_of(names, *(key(port=1000 + n) for n in range(250)))
    assert [name.domain for name in found] == [None] * 150 + [f"{n}.example" for n in range(150, 250)]


def test_names_of_flows_that_are_there_stay_before_others_and_only_those_are_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(namer_module, "NAMES_MAX", 100)
    names, end_ns = namer(), START_NS
    feed(names, hello(WEB, "long.example"))
    for interval in range(20):
        feed(names, [each for n in range(30) for each in hello(key(port=1000 + 30 * interval + n), "x.example")])
        end_ns += SECOND_NS
        assert [name.domain for name in names_of(names, WEB, end_ns=end_ns)] == ["long.example"]
    assert names.forgotten == 0, "what went had no flow any more"
    feed(names, [each for n in range(101) for each in hello(key(port=5000 + n), "x.example")])
    assert names_of(names, WEB, end_ns=end_ns + SECOND_NS) == [NAMELESS]
    assert names.forgotten == 32, "this, those of the interval before, and one that was told since"


def test_a_flood_of_dns_leaves_other_names_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namer_module, "NAMES_MAX", 100)
    names = namer()
    feed(names, hello(WEB, "site.example"))
    for number in range(1000):
        feed(names, exchange(f"{number}.example", 7, RESOLVER._replace(src_port=1000 + number), number=number))
    first, last = RESOLVER._replace(src_port=1000), RESOLVER._replace(src_port=1999)
    web, of_first, of_last = names_of(names, WEB, first, last)
    assert (web.domain, of_first.dns_query, of_last) == ("site.example", "0.example", NAMELESS)
    assert names.forgotten == 900


def test_transactions_beyond_the_most_of_a_batch_are_counted() -> None:
    names = Namer(conversation_hashes, most=10)
    for number in range(25):
        feed(names, exchange("site.example", 7, number=number))
    assert len(closed(names, rows_of()).transactions.dns) == 10
    assert names.dropped == 15
    feed(names, exchange("site.example", 7, number=99))
    assert len(closed(names, rows_of(), end_ns=START_NS + 2 * SECOND_NS).transactions.dns) == 1


def test_a_name_that_is_told_again_keeps_its_place_and_is_found_by_its_newest() -> None:
    names = namer()
    feed(names, [payload(WEB, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", flags=ACK, source=HTTP)])
    assert [name.domain for name in names_of(names, WEB)] == ["a.example"]
    second = payload(WEB, b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", seq=38, flags=ACK, source=HTTP)
    feed(names, [second._replace(seq=1 + len(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"))])
    assert [name.domain for name in names_of(names, WEB, end_ns=START_NS + 2 * SECOND_NS)] == ["b.example"]
    assert len(names._known) == 1


def test_times_as_captures_may_hold_them_break_nothing() -> None:
    names, most = namer(), (1 << 64) - 1
    feed(names, [*exchange("site.example", 7, at_ns=most - 2 * MS), *hello(WEB, "site.example", at_ns=most - MS)])
    assert names_of(names, WEB, end_ns=most)[0].domain == "site.example"


def test_garbage_collection_is_left_as_it_is() -> None:
    """Reading names must not change what else the process does."""

    def collector() -> tuple[object, ...]:
        return gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), list(gc.callbacks), gc.get_debug()

    before, names = collector(), namer()
    feed(names, [payload(WEB, b"x", source=FIRST), *hello(key(2), "site.example")])
    names_of(names, WEB)
    assert collector() == before


def pointer(server: FlowKey, name: str) -> DnsTransaction:
    """A look-up of the name of a flow's destination."""
    text = ".".join(reversed(str(ipaddress.ip_address(server.dst_addr[12:])).split("."))) + ".in-addr.arpa"
    return DnsTransaction(START_NS, RESOLVER, text, "PTR", 0, MS, (DnsAnswer(text, "PTR", 300, name),))


def test_reverse_dns_names_a_flow_only_where_that_is_asked_for() -> None:
    for kinds, domain in ((("dns",), None), (("dns", "ptr"), "host.example")):
        names = namer(*kinds)
        asked = pointer(WEB, "host.example")
        teach(names.domains, START_NS, asked)
        there, back, other = names_of(names, WEB, WEB.reversed(), key(server=77))
        assert (there.domain, back.domain, other.domain) == (domain, domain, None)
        assert there.domain_source == (domain and "ptr")


def test_better_evidence_than_reverse_dns_stays() -> None:
    names = namer("dns", "tls", "ptr")
    teach(names.domains, START_NS, pointer(WEB, "host.example"))
    feed(names, hello(WEB, "site.example"))
    (name,) = names_of(names, WEB)
    assert (name.domain, name.domain_source) == ("site.example", "sni")


def test_a_hello_names_its_flow_before_the_server_has_answered() -> None:
    names = namer()
    feed(names, hello(WEB, "site.example")[:1])
    (name,) = names_of(names, WEB)
    assert (name.application, name.domain, name.domain_source) == ("tls", "site.example", "sni")


def test_each_transaction_says_which_device_carried_it() -> None:
    names = namer()
    names.device_names = {1: "eth0", 2: "br0"}
    request = payload(WEB, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", flags=ACK, source=HTTP, attachment=5)
    asked = [one._replace(attachment=6) for one in exchange("shop.example", 99)]
    feed(names, [request, *hello(key(2), "b.example"), *asked], {5: 1, 6: 2, 0: 3})
    told = names.close_last(rows_of(WEB), np.zeros(1, np.int64), START_NS + SECOND_NS).transactions
    devices = [column(of_kind, "device") for of_kind in (told.http, told.dns, told.tls)]
    assert devices == [["eth0"], ["br0"], [""]]
    assert told.dns[0].device == "br0"


def test_segments_for_which_there_is_no_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_reader, "CELLS_MAX", 2)
    names = namer()
    sent = b"\x16\x03\x01\x20\x00\x01\x00\x1f\xf0\x03\x03" + bytes(8000)
    feed(
        names,
        [payload(WEB, sent[at : at + 1000], seq=1 + at, flags=ACK, source=TLS) for at in range(0, len(sent), 1000)],
    )
    closed(names, rows_of(WEB))
    assert names.lost > 0
    before = names.lost
    closed(names, rows_of(WEB))
    assert names.lost == before, "each once"


def test_connections_that_go_before_their_time_are_counted_if_they_waited_for_something() -> None:
    names = namer()
    for n in range(CONVERSATIONS_MAX):
        done = b"SSH-2.0-x\r\n" if n % 2 else b"GET / HTTP/1.1\r\n\r\n"
        feed(names, [payload(key(port=1000 + n), done, flags=ACK)])
    assert names.lost == 0
    feed(names, [payload(key(client=2, port=n), b"SSH-2.0-x\r\n", flags=ACK) for n in range(100)])
    closed(names, rows_of(WEB))
    assert names.lost == 50
    last = names.close_last(rows_of(WEB), np.zeros(1, np.int64), START_NS + 2 * SECOND_NS).transactions
    assert len(last.http) == CONVERSATIONS_MAX // 2 - 50
    assert names.lost == 50, "the end is no loss"


def test_questions_for_which_there_is_no_room_are_counted() -> None:
    names = namer()
    feed(names, [payload(RESOLVER, query("a.example", 1), source=DNS)])
    for number in range(20):  # of one id, eight may wait
        feed(names, [payload(RESOLVER, query(f"{number}.example", 7), at_ns=START_NS + number * MS, source=DNS)])
    closed(names, rows_of(RESOLVER))
    assert names.lost == 12
