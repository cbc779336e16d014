"""Payloads on their way from an engine to the decoders: blocks of records, and the records in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wiremeter.names.records import FlowKey

# struct wm_payload in bpf/records.h; datapath/records.py holds the same against the compiled object's BTF.
_HEAD = struct.Struct("=Q16s16sHHIIHHHBBB3x")


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

    data: the bytes they lie in. offsets: shape (n,), where each begins. origin_ns: added to their times.
    """

    data: Any
    offsets: NDArray[np.uint64]
    origin_ns: int = 0

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[Payload]:
        # All bytes at once: slices of a view would each take a second object. And no named tuple by its name: half of
        # what it costs is the call of its constructor, and a DNS server's packets are many.
        data, origin_ns, size, new = bytes(self.data), self.origin_ns, _HEAD.size, tuple.__new__
        for at in self.offsets.tolist():
            (time_ns, src, dst, sport, dport, seq, length, captured, attachment, flags, protocol, family, source) = (
                _HEAD.unpack_from(data, at)
            )
            begin = at + size
            flow = new(FlowKey, (src, sport, dst, dport, protocol, family))
            payload = data[begin : begin + captured]
            yield new(Payload, (time_ns + origin_ns, flow, seq, length, attachment, flags, source, payload))
