"""What of DNS is not read in C: framing over TCP, and what lies inside records of the rarer types, by dnspython."""

from __future__ import annotations

import socket

import dns.rdata
import dns.rdatatype
import dns.wire
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from wiremeter.names.library import ffi, lib
from wiremeter.names.records import DecodeError

_HEADER_BYTES = 12
_LENGTH_BYTES = 2

_TYPE_TEXTS = {int(rdtype): dns.rdatatype.to_text(rdtype) for rdtype in RdataType} | {-1: ""}
# Plain numbers, since members of the library's enumerations take long to look up and compare.
_IN, _A, _AAAA = map(int, (RdataClass.IN, RdataType.A, RdataType.AAAA))
_NAMES = frozenset(map(int, (RdataType.CNAME, RdataType.PTR, RdataType.NS, RdataType.DNAME)))
#: Bitmaps and lists, whose text may be 60 times as long as they are: a message of them would take 100 ms.
_COSTLY_TYPES = frozenset(
    {
        *(RdataType.NSEC, RdataType.NSEC3, RdataType.NXT, RdataType.CSYNC, RdataType.WKS),
        *(RdataType.APL, RdataType.HIP, RdataType.OPT),
    }
)
#: No other: the library keeps a class for every type and class it has been asked for, and there are 2^32. A name that
#: is damaged is not its either.
_READABLE_TYPES = frozenset(map(int, RdataType)) - _COSTLY_TYPES - _NAMES
_KNOWN_CLASSES = frozenset(map(int, (RdataClass.IN, RdataClass.CH, RdataClass.HS, RdataClass.ANY)))
_STYLE = dns.rdata.RdataStyle(omit_final_dot=True)


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
            header = bytes(held[begin : begin + _HEADER_BYTES])
            if end - begin < _HEADER_BYTES or not lib.wm_dns_may_begin(header, len(header)):
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


def looks_like_dns(data: bytes, *, cut: bool = False) -> bool:
    """Whether a datagram on a port that promises nothing is an ordinary query or its response.

    cut: the end of the datagram is missing. Then its records may be as well, and are not looked at.

    >>> looks_like_dns(bytes.fromhex("1234 0100 0001 0000 0000 0000 03777777 00 001c 0001"))
    True
    """
    return bool(lib.wm_dns_looks_like(ffi.from_buffer(data), len(data), cut))


def type_text(rdtype: int) -> str:
    """The mnemonic of a record type; "" for -1.

    >>> type_text(28), type_text(65280)
    ('AAAA', 'TYPE65280')
    """
    return _TYPE_TEXTS.get(rdtype) or (f"TYPE{rdtype}" if rdtype >= 0 else "")


def data_text(message: bytes, at: int, size: int, rdtype: int, rdclass: int) -> str:
    """A record's data as in a zone file, names in it without the last dot; where it is not what its type promises, as
    RFC 3597 writes unknown types.

    message: from its first byte on, up to the end of the data at least; they begin at `at`.

    >>> data_text(bytes([192, 0, 2, 1]), 0, 4, 1, 1), data_text(b"abc", 0, 3, 1, 1)
    ('192.0.2.1', '\\\\# 3 616263')
    """
    data = message[at : at + size]
    if rdclass == _IN and rdtype == _A and size == 4:
        return socket.inet_ntop(socket.AF_INET, data)
    if rdclass == _IN and rdtype == _AAAA and size == 16:
        return socket.inet_ntop(socket.AF_INET6, data)
    if rdtype in _READABLE_TYPES and rdclass in _KNOWN_CLASSES:
        try:
            parser = dns.wire.Parser(message, at)
            with parser.restrict_to(size):
                rdata = dns.rdata.from_wire_parser(RdataClass(rdclass), RdataType(rdtype), parser)
            return rdata.to_styled_text(_STYLE)
        except Exception:
            # The library wraps what its parsers raise, but its texts may raise too. The record's end is known, so only
            # this record is lost, and not even that: below are its bytes.
            pass
    return rf"\# {size} {data.hex()}".rstrip()
