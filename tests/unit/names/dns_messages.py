"""DNS messages as they are sent, and what the decoders in C tell of them."""

from __future__ import annotations

import itertools
import struct
from typing import NamedTuple

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from wiremeter.names.block_reader import BlockReader
from wiremeter.names.columns import DnsColumns, Told
from wiremeter.names.domains import DomainCache
from wiremeter.names.records import DnsAnswer, DnsTransaction, FlowKey

CLIENT = FlowKey(bytes(10) + b"\xff\xff\x0a\0\0\1", 40000, bytes(10) + b"\xff\xff\x0a\0\0\x35", 53, 17, 4)

Questions = tuple[tuple[str, str], ...]


def wire_name(text: str) -> bytes:
    """A name as it is sent, without compression."""
    return dns.name.from_text(text or ".").to_wire() or b""


def wire_data(rdtype: str, text: str) -> bytes:
    """A record's data as they are sent, from how a zone file has them."""
    if text.startswith("\\# "):
        return bytes.fromhex(text.split(" ", 2)[2])
    return dns.rdata.from_text("IN", rdtype, text, origin=dns.name.root, relativize=False).to_wire() or b""


def wire_message(
    questions: Questions,
    answers: tuple[DnsAnswer, ...] = (),
    *,
    number: int = 7,
    is_response: bool = False,
    rcode: int = 0,
) -> bytes:
    """A query or response."""
    flags = (0x8180 if is_response else 0x0100) | rcode
    data = struct.pack("!HHHHHH", number, flags, len(questions), len(answers), 0, 0)
    for name, qtype in questions:
        data += wire_name(name) + struct.pack("!HH", dns.rdatatype.from_text(qtype), 1)
    for answer in answers:
        content = wire_data(answer.type, answer.data)
        rdtype = dns.rdatatype.from_text(answer.type)
        data += wire_name(answer.name) + struct.pack("!HHIH", rdtype, 1, answer.ttl, len(content)) + content
    return data


class Reader:
    """A BlockReader, and what it told since it was last asked."""

    def __init__(self, capacity: int = 1000) -> None:
        self.told: list[Told] = []
        self.dns = BlockReader(lambda raw: self.told.append(Told.of(raw)), capacity)

    def take(self) -> list[DnsTransaction]:
        """The transactions, in the order they were told."""
        self.dns.hand_on()
        told, self.told[:] = list(self.told), []
        return [one for part in told for one in DnsColumns(part.transactions, part.answers, part.text, {})]


class Decoded(NamedTuple):
    """What one message says."""

    is_response: bool
    rcode: int
    questions: Questions
    answers: tuple[DnsAnswer, ...]
    cut: bool


_READER, _SECONDS = Reader(capacity=512), itertools.count(1)


def decode_message(data: bytes, *, cut: bool = False, lenient: bool = False) -> Decoded:
    """Of a message alone. Raises DecodeError."""
    reader = _READER
    is_response = len(data) > 2 and data[2] >= 0x80
    flow = CLIENT.reversed() if is_response else CLIENT
    try:
        reader.dns.message(0, next(_SECONDS) * 10**9, flow, data, cut=cut, lenient=lenient)
    finally:
        reader.dns.flush(0)
        told = reader.take()
    questions = tuple((one.query, one.qtype) for one in told) if data[4:6] != b"\0\0" else ()
    if not told:
        return Decoded(is_response, 0, (), (), cut)
    first = told[0]
    assert all((one.rcode, one.answers, one.cut) == (first.rcode, first.answers, first.cut) for one in told)
    return Decoded(is_response, first.rcode or 0, questions, first.answers, first.cut)


def teach(cache: DomainCache, time_ns: int, transaction: DnsTransaction) -> None:
    """Has a cache learn what a transaction's response said, whose query was seen unless it says otherwise."""
    reader = Reader(capacity=4)
    question = ((transaction.query, transaction.qtype),) if transaction.has_query else ()
    if transaction.has_query:
        reader.dns.message(0, time_ns, transaction.flow, wire_message(question))
    is_group = transaction.flow.dst_addr[0] == 0xFF or transaction.flow.dst_addr[12] >> 4 == 0xE
    if transaction.rcode is not None:
        answering = transaction.flow
        if transaction.has_query:
            answering = answering.reversed()
            if is_group:
                answering = answering._replace(src_addr=bytes(10) + b"\xff\xff\x0a\0\0\x63")
        response = wire_message(question, transaction.answers, is_response=True, rcode=transaction.rcode)
        reader.dns.message(0, time_ns, answering, response)
    reader.dns.hand_on()
    for told in reader.told:
        cache.learn(told.addresses, told.text)
