"""DNS messages without number, whole and damaged, read here and by dnspython: the same is said."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype
import dns.rrset

from wiremeter.names.decoders.dns_text import type_text
from wiremeter.names.records import DecodeError, DnsAnswer

from .dns_messages import Decoded, decode_message

#: DNS_MESSAGES=300000 for a long run.
MESSAGES = int(os.environ.get("DNS_MESSAGES", "5000"))

#: Written in hexadecimal here, since their text may be 60 times as long as they are.
COSTLY = ("NSEC", "NSEC3", "NXT", "CSYNC", "WKS", "APL", "HIP", "OPT")
#: Data of other classes are written in hexadecimal, too: dnspython would keep what it met for ever.
CLASSES = (1, 3, 4, 255)
LABELS = ("www", "a", "MiXed", "xn--bcher-kva", "_dmarc", "*", "b\\.c", "caf\\233", "x" * 63)
ZONES = ("example.com.", "wire.test.", "2.0.192.in-addr.arpa.", "local.", ".")
DATA = {
    "A": ("192.0.2.1", "10.0.0.1"),
    "AAAA": ("2001:db8::1", "::ffff:192.0.2.1", "::"),
    "CNAME": ("cdn.example.net.", "www.example.com."),
    "NS": ("ns1.example.com.",),
    "PTR": ("host.local.",),
    "DNAME": ("other.test.",),
    "MX": ("10 mail.example.com.",),
    "TXT": ('"v=spf1 -all"', '"a" "b\\"c" "\\200"'),
    "SOA": ("ns.example.com. host.example.com. 1 2 3 4 5",),
    "SRV": ("1 2 5060 sip.example.com.",),
    "CAA": ('0 issue "ca.example"',),
    "HTTPS": ('1 . alpn="h2,h3" ipv4hint="192.0.2.1" ipv6hint="2001:db8::1"', "0 svc.example.com."),
    "NAPTR": ('10 20 "u" "sip" "!^.*$!sip:a@example.com!" .',),
    "TYPE65280": ("\\# 3 010203",),
}


def some_name(rng: random.Random) -> str:
    return "".join(f"{rng.choice(LABELS)}." for _ in range(rng.randrange(3))) + rng.choice(ZONES).lstrip(".") or "."


def some_message(rng: random.Random) -> bytes:
    """A query or response with compression, as dnspython writes it."""
    query = dns.message.make_query(some_name(rng), rng.choice(list(DATA)), use_edns=rng.choice([None, 0]))
    if rng.random() < 0.2:
        return query.to_wire()
    message = dns.message.make_response(query)
    message.set_rcode(dns.rcode.Rcode(rng.choice([0, 0, 0, 1, 2, 3, 5] + [16, 23] * (message.edns == 0))))
    for section in (message.answer, message.answer, message.authority, message.additional):
        for _ in range(rng.randrange(4)):
            rdtype = rng.choice(list(DATA))
            data = rng.choice(DATA[rdtype])
            section.append(dns.rrset.from_text(some_name(rng), rng.randrange(1 << 31), "IN", rdtype, data))
    return message.to_wire(max_size=65535)


def damaged(rng: random.Random, data: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        made[rng.randrange(len(made))] = rng.choice((0, 1, 0xC0, 0x0C, 0x3F, 0xFF, rng.randrange(256)))
    return bytes(made[: rng.randrange(len(made) + 1)] if rng.random() < 0.2 else made)


def messages(seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    while True:
        data = some_message(rng)
        yield data
        for _ in range(9):  # which are made faster than whole ones
            yield damaged(rng, data)


def theirs(data: bytes) -> Decoded | None:
    """What dnspython reads; None where it gives nothing."""
    try:
        # An update's sections mean something else to it, and a signature would have to be checked.
        if len(data) > 2 and data[2] >> 3 & 15 == 5:
            return None
        message = dns.message.from_wire(data, ignore_trailing=True, one_rr_per_rrset=True, question_only=False)
        if any(record.rdclass not in CLASSES for record in message.answer):
            return None
        answers = tuple(
            DnsAnswer(
                record.name.to_text(omit_final_dot=True), type_text(int(record.rdtype)), record.ttl, data_of(record[0])
            )
            for record in message.answer
            for _ in record
        )
        questions = dict.fromkeys(
            (question.name.to_text(omit_final_dot=True), type_text(int(question.rdtype)))
            for question in message.question
        )
    except (dns.exception.DNSException, ValueError, NotImplementedError):
        return None
    is_response = bool(message.flags & dns.flags.QR)
    rcode = int(message.rcode()) if is_response else 0
    return Decoded(is_response, rcode, tuple(questions), answers if is_response else (), False)


def data_of(rdata: dns.rdata.Rdata) -> str:
    return rdata.to_styled_text(dns.rdata.RdataStyle(omit_final_dot=True))


def test_what_dnspython_reads_is_read_the_same() -> None:
    compared = 0
    for number, data in zip(range(MESSAGES), messages(seed=53), strict=False):
        expected = theirs(data)
        try:
            ours = decode_message(data)
        except DecodeError:
            assert expected is None or not expected.questions, data.hex()
            continue
        if expected is None or not expected.questions:
            continue
        compared += 1
        told = [answer for answer in expected.answers if answer.type not in COSTLY]
        assert ours._replace(answers=()) == expected._replace(answers=()), f"message {number}: {data.hex()}"
        assert [answer for answer in ours.answers if answer.type not in COSTLY] == told, (
            f"message {number}: {data.hex()}"
        )
    assert compared > MESSAGES * 2 // 5
