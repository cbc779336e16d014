"""DNS messages: bytes in, questions and answers out (RFC 1035; mDNS RFC 6762, LLMNR RFC 4795, EDNS RFC 6891).

What lies inside a record is read by dnspython. The envelope (header, names, where a record begins and ends) is walked
here, because a monitor sees messages that are cut, of which the library gives nothing, and because it sees many: a
response with four answers takes the library 330 µs and this module 16.
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from typing import NamedTuple

import dns.name
import dns.rdata
import dns.rdatatype
import dns.wire
from dns.opcode import Opcode
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from wiremeter.names.records import DecodeError, DnsAnswer

#: Bounds on what one message may cost: answers are read as long as they end within so many bytes of it, and until they
#: have so many characters. The rest is stepped over and the message flagged cut. Only zone transfers are so large.
MAX_ANSWER_BYTES = 4096
MAX_ANSWER_CHARACTERS = 16384
MAX_QUESTIONS = 128

_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_LENGTH_BYTES = 2
#: What reading past the end or into damage raises in here; none of it leaves this module but DecodeError.
_DAMAGE = (DecodeError, IndexError, struct.error)

_KNOWN_OPCODES = frozenset(map(int, Opcode)) | {6}  # stateful operations, RFC 8490
_QR, _AA, _TC, _RA, _Z = 0x8000, 0x0400, 0x0200, 0x0080, 0x0040
#: The highest bit of a class means "cache flush" or "unicast response" in mDNS (RFC 6762, sections 10.2 and 5.4).
_CLASS_BITS = 0x7FFF

_MAX_NAME_BYTES = 255
_MAX_LABELS = 127  # of one byte each; no name needs more pointers
#: Bytes that stand for themselves in a zone file's names, except for the dot between labels.
_PLAIN_BYTES = bytes(set(range(0x21, 0x7F)) - set(b'"().;\\@$'))

_TYPE_TEXTS = {int(rdtype): dns.rdatatype.to_text(rdtype) for rdtype in RdataType}
# Plain numbers, since members of the library's enumerations take long to look up and compare.
_QUERY, _UPDATE, _IN, _A, _AAAA, _OPT = map(
    int, (Opcode.QUERY, Opcode.UPDATE, RdataClass.IN, RdataType.A, RdataType.AAAA, RdataType.OPT)
)
_NAMES = frozenset(map(int, (RdataType.CNAME, RdataType.PTR, RdataType.NS, RdataType.DNAME)))
#: Bitmaps and lists, whose text may be 60 times as long as they are: a message of them would take 100 ms.
_COSTLY_TYPES = frozenset(
    {
        *(RdataType.NSEC, RdataType.NSEC3, RdataType.NXT, RdataType.CSYNC, RdataType.WKS),
        *(RdataType.APL, RdataType.HIP, RdataType.OPT),
    }
)
#: No other: the library keeps a class for every type and class it has been asked for, and there are 2^32.
_READABLE_TYPES = frozenset(map(int, RdataType)) - _COSTLY_TYPES
_QUESTION_TYPES = frozenset(map(int, RdataType)) - {RdataType.NONE, RdataType.OPT}
_KNOWN_CLASSES = frozenset(map(int, (RdataClass.IN, RdataClass.CH, RdataClass.HS, RdataClass.ANY)))
_STYLE = dns.rdata.RdataStyle(omit_final_dot=True)

#: Longer messages seldom come twice, and this short they cannot say much: with what was read of them, 4,096 take under
#: 16 MiB, however compressed.
_MEMO_BYTES = 256
_MEMO_MESSAGES = 4096


class DnsMessage(NamedTuple):
    """What a DNS message says.

    rcode: with the upper bits that EDNS adds (RFC 6891, section 6.1.3). questions: (name, type), names as they were
    sent, without the last dot, unusual bytes escaped as in a zone file. answers: the records of the answer section; in
    an mDNS query those the asker knows already. truncated: the sender says it left something out. cut: some of what was
    sent is missing here, because the bytes ended, are damaged, or more were sent than is kept.

    No dataclass, since a frozen one takes longer to make than the memo takes to find what is in it.
    """

    id: int
    is_response: bool
    opcode: int
    rcode: int
    questions: tuple[tuple[str, str], ...]
    answers: tuple[DnsAnswer, ...]
    authoritative: bool
    truncated: bool
    cut: bool


def decode_message(data: bytes, *, cut: bool = False, lenient: bool = False) -> DnsMessage:
    """Read one DNS message, without the length that precedes it over TCP. Bytes behind the message are left alone.

    cut: the end of the message is known to be missing. lenient: there is reason to believe that it is DNS; then a
    damaged first question is one of no name and type, if the header makes sense.
    A message that ends or is damaged behind its first question gives what lies before that, flagged cut. The bounds
    above keep the cost of the most hostile messages that were tried under 20 ms.
    Raises DecodeError if there is no whole header, or no question where the header promises one.

    >>> decode_message(bytes.fromhex("1234 0100 0001 0000 0000 0000 03777777 00 001c 0001")).questions
    (('www', 'AAAA'),)
    """
    if len(data) > _MEMO_BYTES:
        return _decode(data, cut, lenient)
    # Many ask the same within seconds; only the id differs, so the rest is the key.
    known = _decode_short(b"\0\0" + data[2:], cut, lenient)
    return DnsMessage(data[0] << 8 | data[1], *known[1:])


def looks_like_dns(data: bytes, *, cut: bool = False) -> bool:
    """Whether a datagram on a port that promises nothing is an ordinary query or its response.

    cut: the end of the datagram is missing. Then its records may be as well, and are not looked at.
    Asks for one question of a known type and class, a name of printable bytes, header bits that fit, and records that
    end exactly where the datagram does: random bytes pass less than once in 10^9. What it does not know it refuses, so
    mDNS, updates and transfers, which have ports of their own, are refused.

    >>> looks_like_dns(bytes.fromhex("1234 0100 0001 0000 0000 0000 03777777 00 001c 0001"))
    True
    """
    try:
        _, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
        if questions != 1 or flags >> 11 & 0xF != _QUERY or flags & _Z:
            return False
        is_query = not flags & _QR
        if is_query and (flags & (_AA | _TC | _RA | 0xF) or answers or authorities or additionals > 2):
            return False
        name, at = _read_name(data, _HEADER.size)
        qtype, qclass = _QUESTION.unpack_from(data, at)
        if "\\" in name or qtype not in _QUESTION_TYPES or qclass not in _KNOWN_CLASSES:
            return False
        if cut:
            return True
        at += _QUESTION.size
        for _ in range(answers + authorities + additionals):
            at = _after_record(data, at)
    except _DAMAGE:
        return False
    return at == len(data)


class DnsStream:
    """One direction of DNS over TCP: the stream's bytes in, whole messages out (RFC 1035, section 4.2.2).

    Nothing in the stream marks where a message begins but the length of the one before it. So whoever meets a gap, or
    a DecodeError, must give the stream up. Holds no more than one message and what was fed last.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._is_broken = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The messages that `chunk`, which continues the stream, completes; in their order, without their lengths.

        Raises DecodeError where the stream cannot be DNS, since a message is shorter than a header or its header is
        none; if `chunk` has messages before that, by the next call. Every later call raises too.

        >>> stream = DnsStream()
        >>> stream.feed(bytes([0, 13]) + b"id"), stream.feed(bytes(11) + bytes([0]))
        ([], [b'id\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'])
        """
        if self._is_broken:
            raise DecodeError("this stream was given up before")
        held = self._held
        held += chunk
        messages: list[bytes] = []
        at = 0
        while len(held) - at >= _LENGTH_BYTES:
            begin = at + _LENGTH_BYTES
            end = begin + int.from_bytes(held[at:begin], "big")
            if end - begin < _HEADER.size or not _may_begin(held[begin : begin + _HEADER.size]):
                self._is_broken = True
                held.clear()
                if messages:
                    return messages
                raise DecodeError("not DNS over TCP, or its beginning was missed")
            if end > len(held):
                break
            messages.append(bytes(held[begin:end]))
            at = end
        del held[:at]
        return messages

    def unfinished(self) -> bytes:
        """What is there of the message that has begun, to be read as cut when nothing more will come."""
        return bytes(self._held[_LENGTH_BYTES:])


def _may_begin(header: bytes | bytearray) -> bool:
    """Whether these may be the first bytes of a header; what is not there yet may be."""
    return (len(header) < 3 or header[2] >> 3 & 0xF in _KNOWN_OPCODES) and (
        len(header) < 6 or header[4] << 8 | header[5] <= MAX_QUESTIONS
    )


# --- the envelope


@lru_cache(_MEMO_MESSAGES)
def _decode_short(data: bytes, cut: bool, lenient: bool) -> DnsMessage:
    return _decode(data, cut, lenient)


def _decode(data: bytes, cut: bool, lenient: bool) -> DnsMessage:
    if len(data) < _HEADER.size:
        raise DecodeError(f"{len(data)} bytes, and a DNS message begins with {_HEADER.size}")
    number, flags, question_count, answer_count, authority_count, additional_count = _HEADER.unpack_from(data)
    opcode = flags >> 11 & 0xF
    if opcode == _UPDATE:  # It has conditions in the place of answers (RFC 2136, section 2).
        authority_count += answer_count
        answer_count = 0
    questions: list[tuple[str, str]] = []
    answers: list[DnsAnswer] = []
    extended_rcode = 0
    try:
        at = _read_questions(data, question_count, questions)
        at = _read_answers(data, at, answer_count, answers)
        for _ in range(authority_count):
            at = _after_record(data, at)
        extended_rcode = _read_extended_rcode(data, at, additional_count)
    except _DAMAGE as error:
        if question_count and not questions:
            if not lenient or not _may_begin(data):
                raise DecodeError("a DNS message without the question that its header promises") from error
            questions.append(("", ""))
        cut = True
    return DnsMessage(
        number,
        bool(flags & _QR),
        opcode,
        extended_rcode << 4 | flags & 0xF,
        tuple(questions),
        tuple(answers),
        bool(flags & _AA),
        bool(flags & _TC),
        cut or len(questions) < question_count or len(answers) < answer_count,
    )


def _read_questions(data: bytes, count: int, questions: list[tuple[str, str]]) -> int:
    """Append up to MAX_QUESTIONS to `questions`; returns where the answers begin."""
    at = _HEADER.size
    if count == 1:
        end = data.find(0, at) + 1 + _QUESTION.size
        if question := _read_question(data[at:end]):
            questions.append(question)
            return end
    for number in range(count):
        if number < MAX_QUESTIONS:
            name, at = _read_name(data, at)
            qtype, _ = _QUESTION.unpack_from(data, at)
            questions.append((name, _type_text(qtype)))
        else:
            at = _after_name(data, at)
        at += _QUESTION.size
    return at


@lru_cache(_MEMO_MESSAGES)
def _read_question(data: bytes) -> tuple[str, str] | None:
    """The question that is all of `data`, without a pointer; None if there is none. A response repeats its query's, so
    every second one is known."""
    try:
        name, at = _read_name(data, 0)
        qtype, _ = _QUESTION.unpack_from(data, at)
    except _DAMAGE:
        return None
    return (name, _type_text(qtype)) if at + _QUESTION.size == len(data) else None


def _read_answers(data: bytes, at: int, count: int, answers: list[DnsAnswer]) -> int:
    """Append to `answers` those within the bounds; returns where the section ends."""
    characters, name, pointer = 0, "", b""
    for _ in range(count):
        if characters >= MAX_ANSWER_CHARACTERS or at >= MAX_ANSWER_BYTES:
            at = _after_record(data, at)
            continue
        # The records of one name follow each other, most with the same pointer to it.
        if data[at] >= 0xC0 and data[at : at + 2] == pointer:
            at += 2
        else:
            pointer = data[at : at + 2]
            name, at = _read_name(data, at)
        rdtype, rdclass, ttl, size = _RECORD.unpack_from(data, at)
        begin = at + _RECORD.size
        at = _end_of_data(data, begin, size)
        if at > MAX_ANSWER_BYTES:
            continue
        if ttl > 0x7FFFFFFF:  # RFC 2181, section 8
            ttl = 0
        text = _data_text(data, begin, at, rdtype, rdclass & _CLASS_BITS)
        answers.append(DnsAnswer(name, _type_text(rdtype), ttl, text))
        characters += len(name) + len(text)
    return at


def _read_extended_rcode(data: bytes, at: int, count: int) -> int:
    """The upper eight bits of the response code, from the OPT record if there is one among `count` at `at`."""
    extended_rcode = 0
    for _ in range(count):
        end = _after_record(data, at)
        if data[at] == 0 and data[at + 1] << 8 | data[at + 2] == _OPT:
            extended_rcode = data[at + 5]  # the first byte of what is the TTL elsewhere
        at = end
    return extended_rcode


def _after_record(data: bytes, at: int) -> int:
    at = _after_name(data, at) + _RECORD.size
    return _end_of_data(data, at, data[at - 2] << 8 | data[at - 1])


def _end_of_data(data: bytes, begin: int, size: int) -> int:
    end = begin + size
    if end > len(data):
        raise DecodeError("a record goes on behind the end of the message")
    return end


def _after_name(data: bytes, at: int) -> int:
    while size := data[at]:
        if size >= 0xC0:
            return at + 2
        if size >= 0x40:
            raise DecodeError(f"label type {size >> 6} is not in use")  # RFC 6891, section 5
        at += 1 + size
    return at + 1


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    """The name at `at`, and what follows it (RFC 1035, section 4.1.4).

    Every pointer must point before all that was read of the name so far, so none can lead in a circle.
    """
    labels: list[bytes] = []
    total, hops, after, lowest = 1, 0, 0, at
    while size := data[at]:
        if size >= 0xC0:
            after = after or at + 2
            at = (size & 0x3F) << 8 | data[at + 1]
            hops += 1
            if at >= lowest or hops > _MAX_LABELS:
                raise DecodeError("a compression pointer that does not lead back")
            lowest = at
            continue
        at += 1
        total += 1 + size
        if size >= 0x40 or total > _MAX_NAME_BYTES:
            raise DecodeError("a name of over 255 bytes or with a label type that is not in use")
        labels.append(data[at : at + size])
        at += size
    return _name_text(labels), after or at + 1


def _name_text(labels: list[bytes]) -> str:
    joined = b".".join(labels)
    if len(joined.translate(None, _PLAIN_BYTES)) == len(labels) - 1:  # nothing but the dots is left
        return joined.decode("ascii")
    return dns.name.Name([*labels, b""]).to_text(omit_final_dot=True)


# --- what lies inside a record


def _data_text(data: bytes, at: int, end: int, rdtype: int, rdclass: int) -> str:
    """A record's data as in a zone file; where it is not what its type promises, as RFC 3597 writes unknown types."""
    size = end - at
    if rdclass == _IN and rdtype == _A and size == 4:
        return socket.inet_ntop(socket.AF_INET, data[at:end])
    if rdclass == _IN and rdtype == _AAAA and size == 16:
        return socket.inet_ntop(socket.AF_INET6, data[at:end])
    try:
        if rdtype in _NAMES:
            name, after = _read_name(data, at)
            if after == end:
                return name
        elif rdtype in _READABLE_TYPES and rdclass in _KNOWN_CLASSES:
            parser = dns.wire.Parser(data, at)
            with parser.restrict_to(size):
                rdata = dns.rdata.from_wire_parser(RdataClass(rdclass), RdataType(rdtype), parser)
            return rdata.to_styled_text(_STYLE)
    except Exception:
        # The library wraps what its parsers raise, but its texts may raise too. The record's end is known, so only
        # this record is lost, and not even that: below are its bytes.
        pass
    return rf"\# {size} {data[at:end].hex()}".rstrip()


def _type_text(rdtype: int) -> str:
    return _TYPE_TEXTS.get(rdtype) or f"TYPE{rdtype}"
