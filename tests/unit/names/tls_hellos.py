"""Hellos as bytes, from what they should say; and a ServerHello read alone."""

from __future__ import annotations

from typing import NamedTuple

from wiremeter.names.library import ffi, lib
from wiremeter.names.records import DecodeError, FlowKey

FLOW = FlowKey(b"\0" * 10 + b"\xff\xff\x0a\0\0\x01", 40000, b"\0" * 10 + b"\xff\xff\x0a\0\0\x02", 443, 6, 4)
QUIC_FLOW = FLOW._replace(protocol=17)

SNI, SIGNATURE_ALGORITHMS, ALPN, SUPPORTED_VERSIONS, ECH = 0, 13, 16, 43, 0xFE0D
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def vector(data: bytes, length: int = 2) -> bytes:
    return len(data).to_bytes(length, "big") + data


def numbers(values: tuple[int, ...]) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def server_name(name: bytes, kind: int = 0) -> bytes:
    return vector(bytes([kind]) + vector(name))


def protocols(*names: bytes) -> bytes:
    return vector(b"".join(vector(name, 1) for name in names))


def versions(*values: int) -> bytes:
    return vector(numbers(values), 1)


def algorithms(*values: int) -> bytes:
    return vector(numbers(values))


def handshake(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + vector(body, 3)


def records(message: bytes, size: int = 1 << 14, kind: int = 22) -> bytes:
    """A message in records of at most `size` bytes of content."""
    return b"".join(bytes([kind, 3, 1]) + vector(message[at : at + size]) for at in range(0, len(message), size))


def client_hello_body(
    extensions: tuple[tuple[int, bytes], ...] | None = ((SNI, server_name(b"example.com")),),
    ciphers: tuple[int, ...] = (0x1301, 0xC02F),
    version: int = 0x0303,
) -> bytes:
    """extensions: number and data of each; None leaves out even their count."""
    tail = b"" if extensions is None else vector(b"".join(numbers((each,)) + vector(data) for each, data in extensions))
    return numbers((version,)) + bytes(32) + b"\0" + vector(numbers(ciphers)) + b"\1\0" + tail


def client_hello(*arguments: object, **named: object) -> bytes:
    return handshake(1, client_hello_body(*arguments, **named))  # type: ignore[arg-type]


def server_hello_body(
    extensions: tuple[tuple[int, bytes], ...] = (),
    cipher: int = 0xC02F,
    version: int = 0x0303,
    random: bytes = bytes(32),
) -> bytes:
    tail = vector(b"".join(numbers((each,)) + vector(data) for each, data in extensions)) if extensions else b""
    return numbers((version,)) + random + b"\0" + numbers((cipher,)) + b"\0" + tail


def server_hello(*arguments: object, **named: object) -> bytes:
    return handshake(2, server_hello_body(*arguments, **named))  # type: ignore[arg-type]


class ServerHello(NamedTuple):
    version: int
    cipher: int
    alpn: bytes
    ja4s: str
    is_retry: bool


def read_server_hello(body: bytes) -> ServerHello:
    """What the decoder in C says of a ServerHello over TCP alone; raises DecodeError if it is none."""
    hello = ffi.new("struct wm_server_hello *")
    if lib.wm_server_hello_read((ffi.from_buffer("uint8_t[]", body), len(body)), 1, hello):
        raise DecodeError(body.hex())
    alpn, ja4s = bytes(hello.alpn)[: hello.alpn_bytes], bytes(hello.ja4s)[: hello.ja4s_bytes].decode()
    return ServerHello(hello.version, hello.cipher, alpn, ja4s, bool(hello.is_retry))
