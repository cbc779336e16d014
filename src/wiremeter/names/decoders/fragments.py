"""UDP datagrams that came in IP fragments, put together again (RFC 791, section 3.2; RFC 8200, section 4.5)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from wiremeter.names.payloads import Payload

#: `tcp_flags` of a UDP payload: where a fragment belongs, in units of 8 bytes, and this bit if others follow.
MORE_FRAGMENTS = 0x2000
_UDP_HEADER = 8

#: Datagrams that are waited for at once, and for how long.
DATAGRAMS_MAX = 64
PATIENCE_NS = 10**9

_Key = tuple[int, bytes, bytes, int]


def is_fragment(payload: Payload) -> bool:
    """Whether this is a part of a datagram."""
    return bool(payload.tcp_flags & 0x3FFF)


@dataclass(slots=True)
class _Datagram:
    first: Payload | None = None
    first_ns: int = 0
    length: int | None = None
    parts: dict[int, bytes] = field(default_factory=dict)
    #: The parts from the beginning on, up to the first that is missing.
    data: bytearray = field(default_factory=bytearray)

    def take(self, offset: int, part: bytes) -> None:
        """Keep a part, unless there is one for its place."""
        self.parts.setdefault(offset, part)
        while following := self.parts.get(at := len(self.data)):
            self.data += following
            self.parts[at] = b""  # a place that is taken, and bytes that are kept once


class Fragments:
    """Waits for the parts of datagrams; within bounds of number and time."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[_Key, _Datagram] = OrderedDict()

    def add(self, device: int, payload: Payload) -> Iterator[tuple[int, Payload]]:
        """Takes a fragment; yields its datagram if that is whole now, and any that is not waited for any more.

        Each comes after its device.

        A whole one has the time of the fragment that completed it and the ports of the first; of the others as much as
        there was from the beginning on, if the first was there, and its time.
        """
        key = device, payload.flow.src_addr, payload.flow.dst_addr, payload.seq
        datagram = self._waiting.setdefault(key, _Datagram(first_ns=payload.time_ns))
        offset = (payload.tcp_flags & 0x1FFF) * 8
        if offset == 0:
            datagram.first = payload
        else:
            # Offsets are from the UDP header on, which a payload does not have.
            offset -= _UDP_HEADER
        datagram.take(offset, payload.data if len(payload.data) == payload.length else b"")
        if not payload.tcp_flags & MORE_FRAGMENTS:
            datagram.length = offset + payload.length
        if datagram.first and len(datagram.data) == datagram.length:
            del self._waiting[key]
            data = bytes(datagram.data)
            yield device, datagram.first._replace(time_ns=payload.time_ns, length=len(data), tcp_flags=0, data=data)
        yield from self.expire(payload.time_ns)

    def expire(self, now_ns: int) -> Iterator[tuple[int, Payload]]:
        """Yields the beginnings of datagrams whose rest did not come, each after its device."""
        while self._waiting:
            key, datagram = next(iter(self._waiting.items()))
            if len(self._waiting) <= DATAGRAMS_MAX and now_ns - datagram.first_ns < PATIENCE_NS:
                return
            del self._waiting[key]
            if datagram.first:
                data = bytes(datagram.data) or datagram.first.data
                # At least one byte is missing, however long it was.
                length = max(datagram.length or 0, len(data) + 1)
                yield key[0], datagram.first._replace(length=length, tcp_flags=0, data=data)
