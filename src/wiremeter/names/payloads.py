"""Payloads on their way from an engine to the decoders: blocks of records, and the records in them."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from wiremeter.names.records import FlowKey

# struct wm_payload in bpf/records.h; datapath/records.py holds the same against the compiled object's BTF.
_HEAD = struct.Struct("=Q16s16sHHIIHHHBBB3x")
#: Where in a record its attachment (16 bits) and its source (8 bits) lie.
ATTACHMENT_AT, SOURCE_AT = 54, 60


class Payload(NamedTuple):
    """What one packet carried behind its TCP or UDP header.

    time_ns: since the Unix epoch. flow: as the packet was sent. seq: TCP sequence number of the first byte; of UDP, the
    packet's identification. length: bytes of payload in the packet, or super-packet; `data` holds the first of them.
    attachment: the engine's number of the device and direction. tcp_flags: of UDP, where a fragment belongs. source: by
    number, of records.SOURCES of the datapath.
    """

    time_ns: int
    flow: FlowKey
    seq: int
    length: int
    attachment: int
    tcp_flags: int
    source: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PayloadBlock:
    """Records as an engine left them. Valid until the engine is asked for more.

    data: a buffer that they lie in. offsets: another, of uint64, shape (n,): where each begins. origin_ns: added to
    their times.
    """

    data: Any
    offsets: Any
    origin_ns: int = 0

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[Payload]:
        return self.at(range(len(self)))

    @property
    def last_ns(self) -> int:
        """When the packet of the last record came, nanoseconds since the Unix epoch. There must be one."""
        (last,) = self.at((len(self) - 1,))
        return last.time_ns

    def at(self, numbers: Iterable[int]) -> Iterator[Payload]:
        """The records of these numbers."""
        data = memoryview(self.data).cast("B")
        for number in numbers:
            at = int(self.offsets[number])
            (time_ns, src, dst, sport, dport, seq, length, captured, attachment, flags, protocol, family, source) = (
                _HEAD.unpack_from(data, at)
            )
            begin = at + _HEAD.size
            flow = FlowKey(src, sport, dst, dport, protocol, family)
            payload = bytes(data[begin : begin + captured])
            yield Payload(time_ns + self.origin_ns, flow, seq, length, attachment, flags, source, payload)


def packed(payloads: Iterable[Payload]) -> PayloadBlock:
    """Payloads as an engine would leave them, for traffic that is made up."""
    data, offsets = bytearray(), []
    for each in payloads:
        offsets.append(len(data))
        flow = each.flow
        data += _HEAD.pack(
            each.time_ns, flow.src_addr, flow.dst_addr, flow.src_port, flow.dst_port, each.seq, each.length,
            len(each.data), each.attachment, each.tcp_flags, flow.protocol, flow.family, each.source,
        )  # fmt: skip
        data += each.data + bytes(-len(each.data) % 8)
    return PayloadBlock(bytes(data), array("Q", offsets))
