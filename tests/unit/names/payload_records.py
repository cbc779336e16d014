"""Payloads as an engine would send them, without an engine."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import numpy as np

from wiremeter.flows.columns import FLOW
from wiremeter.names.namer import Namer
from wiremeter.names.payloads import Payload, packed
from wiremeter.names.reader import Reader
from wiremeter.names.records import FlowKey

TCP, UDP = 6, 17
SYN, ACK, PUSH = 0x02, 0x10, 0x08
START_NS = 1_700_000_000_000_000_000
SECOND_NS, MS = 10**9, 10**6
DNS, TLS, HTTP, QUIC, FIRST = range(5)  # records.SOURCES


def address(number: int) -> bytes:
    """10.0.0.0 and so many, v4-mapped."""
    return bytes(10) + b"\xff\xff" + struct.pack("!I", (10 << 24) + number)


def key(client: int = 1, port: int = 40000, server: int = 99, server_port: int = 443, protocol: int = TCP) -> FlowKey:
    """From a client to a server."""
    return FlowKey(address(client), port, address(server), server_port, protocol, 4)


def payload(
    flow: FlowKey,
    data: bytes = b"",
    *,
    at_ns: int = START_NS,
    seq: int = 1,
    flags: int = 0,
    source: int = FIRST,
    length: int | None = None,
    attachment: int = 0,
) -> Payload:
    """One packet's; length None: all of it is there."""
    length = len(data) if length is None else length
    return Payload(at_ns, flow, seq, length, attachment, flags, source, data)


def reader_of(names: Namer) -> Reader:
    """What reads its payloads, in this process."""
    assert isinstance(names._reader, Reader)
    return names._reader


def feed(names: Namer, payloads: Iterable[Payload], devices: Mapping[int, int] | None = None) -> None:
    """As an engine would."""
    names.feed(packed(payloads), devices)


def labels(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def query(name: str, number: int = 1) -> bytes:
    """A DNS query for an A record."""
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels(name) + b"\0\1\0\1"


def answer(name: str, to: int, number: int = 1) -> bytes:
    """That its address is address(to)."""
    head = struct.pack("!HHHHHH", number, 0x8180, 1, 1, 0, 0) + labels(name) + b"\0\1\0\1"
    return head + b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4" + address(to)[12:]


def rows_of(*flows: FlowKey, at_ns: int = START_NS, flags: int = ACK) -> np.ndarray:
    """A flow of a batch for each key."""
    rows = np.zeros(len(flows), FLOW)
    for row, flow in zip(rows, flows, strict=True):
        row["src_addr"], row["dst_addr"] = np.frombuffer(flow.src_addr, "u1"), np.frombuffer(flow.dst_addr, "u1")
        for name in ("src_port", "dst_port", "protocol", "family"):
            row[name] = getattr(flow, name)
        row["first_ns"] = row["last_ns"] = at_ns
        row["tcp_flags"] = flags if flow.protocol == TCP else 0
        row["packets"] = row["skbs"] = 1
    return rows
