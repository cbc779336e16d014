"""Names by DNS: only by answers that were asked for, and only for flows that began after them."""

from __future__ import annotations

import numpy as np
import pytest

from wiremeter.datapath.rows import conversation_hashes
from wiremeter.names.namer import CLOCK_SLACK_NS, Namer
from wiremeter.names.payloads import Payload
from wiremeter.names.records import DnsTransaction, FlowKey

from .dns_messages import wire_name
from .payload_records import (
    ACK,
    DNS,
    FIRST,
    MS,
    SECOND_NS,
    START_NS,
    SYN,
    UDP,
    address,
    answer,
    feed,
    key,
    payload,
    query,
    rows_of,
)

RESOLVER = key(server=53, server_port=53, protocol=UDP)
WEB, BANK = key(), "login.bank.example"


def namer() -> Namer:
    return Namer(conversation_hashes)


def named(
    names: Namer, flow: FlowKey, seconds: float, *, flags: int = ACK, since: float | None = None
) -> tuple[str | None, str | None]:
    """The name of a flow in the second that ends then. since: when in it the flow's first packet came."""
    end_ns = START_NS + int(seconds * SECOND_NS)
    first_ns = end_ns - SECOND_NS // 2 if since is None else START_NS + int(since * SECOND_NS)
    rows = np.concatenate([rows_of(each, at_ns=first_ns, flags=flags) for each in (flow, flow.reversed())])
    told = names.close_interval(rows, np.zeros(2, np.int64), end_ns)
    there, back = (told.names[number] for number in told.flow_names)
    assert there == back
    return there.domain, there.domain_source


def exchange(name: str, *, at: float = 0, to: int = 99, number: int = 1, asker: FlowKey = RESOLVER) -> list[Payload]:
    at_ns = START_NS + int(at * SECOND_NS)
    return [
        payload(asker, query(name, number), at_ns=at_ns, source=DNS),
        payload(asker.reversed(), answer(name, to, number), at_ns=at_ns + MS, source=DNS),
    ]


# --- asked for


SPOOFED = {
    "nobody asked": [payload(RESOLVER.reversed(), answer(BANK, 99), source=DNS)],
    "another id": [
        payload(RESOLVER, query(BANK, 1), source=DNS),
        payload(RESOLVER.reversed(), answer(BANK, 99, number=2), at_ns=START_NS + MS, source=DNS),
    ],
    "another port": [
        payload(RESOLVER, query(BANK), source=DNS),
        payload(RESOLVER._replace(src_port=40001).reversed(), answer(BANK, 99), at_ns=START_NS + MS, source=DNS),
    ],
    "another server": [
        payload(RESOLVER, query(BANK), source=DNS),
        payload(RESOLVER._replace(dst_addr=address(54)).reversed(), answer(BANK, 99), source=DNS),
    ],
    "another question": [
        payload(RESOLVER, query("other.example"), source=DNS),
        payload(RESOLVER.reversed(), answer(BANK, 99), at_ns=START_NS + MS, source=DNS),
    ],
    "other letters than asked": [
        payload(RESOLVER, query("LoGin.bank.exAmple"), source=DNS),
        payload(RESOLVER.reversed(), answer(BANK, 99), at_ns=START_NS + MS, source=DNS),
    ],
}


@pytest.mark.parametrize("packets", SPOOFED.values(), ids=SPOOFED)
def test_an_answer_that_was_not_asked_for_names_nothing(packets: list[Payload]) -> None:
    names = namer()
    feed(names, packets)
    assert named(names, WEB, 1, flags=SYN | ACK) == (None, None)
    assert len(names.domains) == 0


def test_it_replaces_no_true_name_and_is_told_as_a_transaction_of_its_own() -> None:
    names = namer()
    feed(names, [*exchange("shop.example"), *SPOOFED["nobody asked"]])
    rows = rows_of(WEB, at_ns=START_NS + SECOND_NS // 2, flags=SYN | ACK)
    told = names.close_interval(rows, np.zeros(1, np.int64), START_NS + SECOND_NS)
    assert told.names[told.flow_names[0]].domain == "shop.example"
    assert [(one.query, one.has_query) for one in told.transactions.dns] == [("shop.example", True), (BANK, False)]


def test_letters_as_the_client_chose_them_are_no_hindrance() -> None:
    names = namer()
    feed(names, exchange("ShoP.exAmple"))
    assert named(names, WEB, 1) == ("shop.example", "dns_answer")


def test_a_second_answer_to_one_question_teaches_nothing() -> None:
    names = namer()
    feed(
        names, [*exchange("shop.example", to=98), payload(RESOLVER.reversed(), answer("shop.example", 99), source=DNS)]
    )
    assert named(names, WEB, 1) == (None, None)


# --- announced


def announcement(name: str, to: int = 99) -> Payload:
    flow = key(client=7, port=5353, server_port=5353, protocol=UDP)._replace(
        dst_addr=bytes(10) + b"\xff\xff\xe0\0\0\xfb"
    )
    record = wire_name(name) + b"\0\1\x80\1\0\0\0\x78\0\4" + address(to)[12:]
    return payload(flow, b"\0\0\x84\0\0\0\0\1\0\0\0\0" + record, source=DNS)


def test_what_is_announced_to_all_names_hosts_of_the_link_and_no_others() -> None:
    for name, found in (("printer.local", "printer.local"), (BANK, None)):
        names = namer()
        feed(names, [announcement(name)])
        rows = rows_of(WEB, at_ns=START_NS + SECOND_NS // 2)
        told = names.close_interval(rows, np.zeros(1, np.int64), START_NS + SECOND_NS)
        assert told.names[told.flow_names[0]].domain == found


def test_an_announcement_from_another_port_names_nothing() -> None:
    names, packet = namer(), announcement("printer.local")
    feed(names, [packet._replace(flow=packet.flow._replace(src_port=5354))])
    assert named(names, WEB, 1) == (None, None)


def test_a_one_shot_query_to_mdns_and_its_answer_are_one_transaction() -> None:
    """RFC 6762, section 6.7."""
    asker = key(port=50123, server_port=5353, protocol=UDP)._replace(dst_addr=bytes(10) + b"\xff\xff\xe0\0\0\xfb")
    printer = asker.reversed()._replace(src_addr=address(9))
    names = namer()
    asked = payload(asker, query("printer.local", 77), source=DNS)
    answered = payload(printer, answer("printer.local", 99, 77), at_ns=START_NS + 2 * MS, source=DNS)
    feed(names, [asked, answered])
    rows = rows_of(WEB, at_ns=START_NS + SECOND_NS // 2)
    told = names.close_interval(rows, np.zeros(1, np.int64), START_NS + SECOND_NS)
    (one,) = told.transactions.dns
    assert (one.flow, one.query, one.rcode, one.latency_ns) == (asker, "printer.local", 0, 2 * MS)
    assert told.names[told.flow_names[0]].domain == "printer.local"


# --- who is the client


@pytest.mark.parametrize(("port", "server_port"), [(40_000, 50_000), (50_000, 40_000)])
def test_between_two_ports_that_were_chosen_at_random_both_directions_have_the_name(
    port: int, server_port: int
) -> None:
    names = namer()
    feed(names, exchange("db.internal"))
    assert named(names, key(port=port, server_port=server_port), 1) == ("db.internal", "dns_answer")


# --- began after it


def test_a_running_flow_is_not_named_by_a_later_answer() -> None:
    names = namer()
    assert named(names, WEB, 1, flags=SYN | ACK) == (None, None)
    feed(names, exchange("late.example", at=1.5))
    for seconds in (2, 3, 4):
        assert named(names, WEB, seconds, since=seconds - 0.1) == (None, None)
    assert named(names, key(port=40001), 5, flags=SYN | ACK) == ("late.example", "dns_answer")


def test_it_may_be_named_by_one_that_came_as_it_began() -> None:
    """The clock of flows is the kernel's tick, that of payloads is not."""
    names = namer()
    feed(names, exchange("site.example", at=0.5))
    assert named(names, WEB, 1, flags=SYN, since=0.5 - CLOCK_SLACK_NS / 2 / SECOND_NS)[0] == "site.example"
    assert named(names, key(port=40001), 1, flags=SYN, since=0.5 - 2 * CLOCK_SLACK_NS / SECOND_NS)[0] is None


def test_a_running_flow_keeps_its_name_when_its_address_gets_another() -> None:
    names = namer()
    feed(names, exchange("first.example"))
    assert named(names, WEB, 1, flags=SYN | ACK)[0] == "first.example"
    feed(names, exchange("second.example", at=1.5, number=2))
    new = key(port=40001)
    for seconds in (2, 3):
        assert named(names, WEB, seconds)[0] == "first.example"
    assert named(names, new, 4, flags=SYN)[0] == "second.example"
    assert named(names, WEB, 5)[0] == "first.example"


def test_an_answer_that_repeats_a_name_is_no_later_one() -> None:
    names = namer()
    feed(names, exchange("site.example"))
    assert named(names, WEB, 1, flags=SYN)[0] == "site.example"
    feed(names, exchange("site.example", at=1.5, number=2))
    assert named(names, WEB, 2)[0] == "site.example"


def test_ports_that_are_used_again_begin_a_new_flow() -> None:
    names = namer()
    assert named(names, WEB, 1, flags=SYN)[0] is None
    feed(names, exchange("site.example", at=1.5))
    assert named(names, WEB, 2, since=1.8)[0] is None
    assert named(names, WEB, 3, flags=SYN)[0] == "site.example"


def test_a_udp_flow_that_ran_before_is_not_named_either() -> None:
    names, flow = namer(), key(server_port=4500, protocol=UDP)
    assert named(names, flow, 1)[0] is None
    feed(names, [*exchange("vpn.example", at=1.5), payload(flow, b"\xff" * 40, source=FIRST)])
    assert named(names, flow, 2, since=1.9)[0] is None
    assert named(names, flow._replace(src_port=40009), 3)[0] == "vpn.example"


# --- bounded


def test_a_response_without_a_question_ends_what_waits_and_teaches_nothing() -> None:
    names = namer()
    data = answer("shop.example", 99)
    bare = data[:4] + b"\0\0" + data[6:12] + data[12:].split(b"\0\1\0\1", 1)[1].replace(b"\xc0\x0c", wire_name(BANK))
    feed(names, [payload(RESOLVER, query("shop.example"), source=DNS), payload(RESOLVER.reversed(), bare, source=DNS)])
    rows = rows_of(WEB, at_ns=START_NS + SECOND_NS // 2)
    told = names.close_interval(rows, np.zeros(1, np.int64), START_NS + SECOND_NS)
    dns: list[DnsTransaction] = list(told.transactions.dns)
    assert [(one.query, one.rcode) for one in dns] == [("shop.example", 0)]
    assert told.names[told.flow_names[0]].domain is None
