"""A capture of web traffic: of each connection the look-up, the handshake, hellos or requests, and what follows."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from benchmarks.handshakes import client_hello, dns_answer, dns_query, tls_hellos

#: Every so many connections one is HTTP in clear; the others are TLS.
HTTP_EVERY = 4
#: Packets of data in a connection, behind what is read; most of them from the server.
DATA_PACKETS = 30
#: Frames of a connection of each kind: look-up, handshake of TCP, what is said first, data.
FRAMES = 2 + 3 + 2 + DATA_PACKETS

_MACS = bytes.fromhex("020000000002020000000001") + b"\x08\x00"
_NAME = b"site-00000.example"
_SYN, _ACK, _PUSH = 0x02, 0x10, 0x18
_RESOLVER = bytes([10, 255, 0, 53])


def name_of(number: int) -> str:
    """The site of a connection."""
    return f"site-{number % 100_000:05}.example"


def write_web_traffic(path: Path, connections: int) -> None:
    """Writes a pcap of so many connections, a tenth of a millisecond apart, one after the other."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        time_ns = 1_700_000_000 * 10**9
        for number in range(connections):
            for frame in _connection(number):
                time_ns += 3_000
                head = struct.pack("<IIII", *divmod(time_ns, 10**9), len(frame), len(frame))
                file.write(head + frame)


def _connection(number: int) -> Iterator[bytes]:
    client = bytes([10, 1]) + (number % 250 + 1).to_bytes(2, "big")
    server = bytes([198, 18]) + (number % 1000 + 1).to_bytes(2, "big")
    port = 1024 + number // 250
    name = name_of(number).encode()
    query, answer = dns_query(number), dns_answer(number)
    yield _ipv4(17, client, _RESOLVER, struct.pack(">HHHH", port, 53, 8 + len(query), 0) + query)
    yield _ipv4(17, _RESOLVER, client, struct.pack(">HHHH", 53, port, 8 + len(answer), 0) + answer)
    if number % HTTP_EVERY:
        service, said = 443, (_client_hello().replace(_NAME, name), _server_hello())
        data = b"\x17\x03\x03\x01\x23" + bytes(range(256)) + bytes(range(35))
    else:
        length = (DATA_PACKETS - DATA_PACKETS // 3) * 296
        service = 80
        said = (
            b"GET /index.html HTTP/1.1\r\nHost: " + name + b"\r\nUser-Agent: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length,
        )
        data = bytes(296)
    ends = ((client, port, server, service), (server, service, client, port))
    at = [1000, 5000]
    for side, flags, payload in _segments(said, data, service == 80):
        yield _tcp(*ends[side], at[side], at[1 - side], flags, payload)
        at[side] += len(payload) + (flags & _SYN and 1)


def _segments(said: tuple[bytes, bytes], data: bytes, only_down: bool) -> Iterator[tuple[int, int, bytes]]:
    yield 0, _SYN, b""
    yield 1, _SYN | _ACK, b""
    yield 0, _ACK, b""
    yield 0, _PUSH, said[0]
    yield 1, _PUSH, said[1]
    for number in range(DATA_PACKETS):
        is_up = number % 3 == 0
        yield int(not is_up), _ACK, b"" if is_up and only_down else data


def _tcp(src: bytes, src_port: int, dst: bytes, dst_port: int, seq: int, ack: int, flags: int, data: bytes) -> bytes:
    return _ipv4(6, src, dst, struct.pack(">HHIIBBHHH", src_port, dst_port, seq, ack, 0x50, flags, 64000, 0, 0) + data)


def _ipv4(protocol: int, src: bytes, dst: bytes, inner: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(inner), 0, 0, 64, protocol, 0, src, dst)
    return _MACS + head + inner


@lru_cache(1)
def _client_hello() -> bytes:
    return client_hello(_NAME.decode())


@lru_cache(1)
def _server_hello() -> bytes:
    return tls_hellos()[1][:1400]
