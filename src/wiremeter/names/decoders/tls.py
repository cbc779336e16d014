"""TLS hellos, in C (bpf/names/tls.h): what a client and its server said in clear.

Only what precedes encryption is read, which is the ClientHello and the ServerHello.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from wiremeter.names.library import ffi, lib
from wiremeter.names.records import DecodeError

#: The longest hello that is read. A ClientHello with post-quantum shares and padding has about 2 KiB.
LONGEST_HELLO: int = lib.WM_TLS_HELLO_BYTES

CLIENT_HELLO = 1  # RFC 8446, section 4
_HEADER_BYTES = 4  # of a handshake message


class ClientHello(NamedTuple):
    """What a client offers (RFC 8446, section 4.1.2).

    version: the newest that is offered; a draft of 1.3 counts as 1.3.
    sni: the host name in lower case without a last dot; None if there is none or it is not printable ASCII.
    alpn: protocol names as sent.
    ja4: None if the hello is not complete, or lists more than 1,024 cipher suites or extensions.
    ech: has an encrypted_client_hello extension; clients without a key for the site send one filled with noise
    (GREASE), and from outside the two look the same.
    """

    version: int
    sni: str | None = None
    alpn: tuple[bytes, ...] = ()
    ja4: str | None = None
    ech: bool = False
    is_complete: bool = True


def read_client_hello(message: bytes | bytearray, transport: Literal["t", "q", "d"] = "t") -> ClientHello:
    """Read a ClientHello, or what the beginning of one tells.

    message: with the header of the handshake message. transport: TLS over TCP, QUIC, or DTLS; JA4 begins with it.
    Raises DecodeError if it is none.
    """
    if len(message) < _HEADER_BYTES or message[0] != CLIENT_HELLO:
        raise DecodeError(f"no ClientHello: {message[:_HEADER_BYTES].hex()}")
    length = int.from_bytes(message[1:_HEADER_BYTES], "big")
    body = bytes(message[_HEADER_BYTES : _HEADER_BYTES + length])
    hello = ffi.new("struct wm_client_hello *")
    data = ffi.from_buffer("uint8_t[]", body)
    if lib.wm_client_hello_read((data, len(body)), len(body) < length, ord(transport), hello):
        raise DecodeError(f"a ClientHello whose parts do not fit: {body[:40].hex()}…")
    return offered(hello)


def protocol_text(name: bytes) -> str:
    r"""A protocol's name to show; bytes that are not printable ASCII as `\x` and two digits.

    >>> protocol_text(b"h2"), protocol_text(b"\n\xfa")
    ('h2', '\\x0a\\xfa')
    """
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in name)


def offered(hello: Any) -> ClientHello:
    """What struct wm_client_hello says."""
    return ClientHello(
        hello.version,
        _text(hello, "sni"),
        tuple(_names(bytes(ffi.buffer(hello.alpn.at, hello.alpn.bytes)))) if hello.alpn.bytes else (),
        _text(hello, "ja4"),
        bool(hello.has_ech),
        not hello.is_cut,
    )


def _bytes(hello: Any, name: str) -> bytes:
    return bytes(ffi.buffer(getattr(hello, name), getattr(hello, f"{name}_bytes")))


def _text(hello: Any, name: str) -> str | None:
    return _bytes(hello, name).decode("ascii") or None


def _names(data: bytes) -> Iterator[bytes]:
    """Each behind its length."""
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        yield data[at + 1 : end]
        at = end
