"""Types and data of DNS records as text; of the rarer types by dnspython."""

from __future__ import annotations

import socket

import dns.rdata
import dns.rdatatype
import dns.wire
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

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
