"""Blocks of payload records: what an engine wrote is what is read."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.datapath import records
from wiremeter.names.payloads import Payload, PayloadBlock
from wiremeter.names.records import FlowKey
from wiremeter.settings.words import PAYLOAD_BYTES_DEFAULT, PAYLOAD_BYTES_MAX

ADDRESSES, U16, U32, U8 = st.binary(min_size=16, max_size=16), *(st.integers(0, (1 << n) - 1) for n in (16, 32, 8))
FLOWS = st.builds(FlowKey, ADDRESSES, U16, ADDRESSES, U16, U8, U8)
PAYLOADS = st.builds(
    Payload, st.integers(0, 1 << 62), FLOWS, U32, U32, U16, U16, st.integers(0, 4), st.binary(max_size=200)
)


def block_of(payloads: list[Payload], origin_ns: int = 0, gap: int = 0) -> PayloadBlock:
    """Written by the dtype that is checked against the programs' own types; `gap` bytes between records."""
    data, offsets = bytearray(), []
    for payload in payloads:
        head = np.zeros(1, records.PAYLOAD)
        for name in ("src_addr", "dst_addr"):
            head[name] = np.frombuffer(getattr(payload.flow, name), "u1")
        for name in ("src_port", "dst_port", "protocol", "family"):
            head[name] = getattr(payload.flow, name)
        for name in ("time_ns", "seq", "attachment", "tcp_flags", "source"):
            head[name] = getattr(payload, name)
        head["bytes"], head["captured"] = payload.length, len(payload.data)
        offsets.append(len(data))
        data += head.tobytes() + payload.data + bytes(gap)
    return PayloadBlock(np.frombuffer(bytes(data), np.uint8), np.array(offsets, np.uint64), origin_ns)


@given(st.lists(PAYLOADS, max_size=5), st.integers(0, 1 << 61), st.integers(0, 9))
def test_what_is_written_is_read(payloads: list[Payload], origin_ns: int, gap: int) -> None:
    block = block_of(payloads, origin_ns, gap)
    assert len(block) == len(payloads)
    assert list(block) == [payload._replace(time_ns=payload.time_ns + origin_ns) for payload in payloads]


def test_what_is_read_is_of_its_types_and_outlives_the_block() -> None:
    flow = FlowKey(bytes(16), 1, bytes(16), 2, 6, 4)
    memory = np.array(block_of([Payload(1, flow, 2, 3, 4, 5, 0, b"abc")]).data)
    (read,) = PayloadBlock(memory, np.zeros(1, np.uint64))
    memory[:] = 0xFF
    assert (type(read), type(read.flow), read.data, read.flow.reversed().src_port) == (Payload, FlowKey, b"abc", 2)


def test_an_empty_block_has_nothing() -> None:
    assert list(block_of([])) == []


def test_the_limits_are_those_of_the_programs() -> None:
    assert PAYLOAD_BYTES_DEFAULT <= PAYLOAD_BYTES_MAX == records.PAYLOAD_BYTES_MAX
