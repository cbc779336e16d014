"""TLS hellos, in C (bpf/names/tls.h): what a client and its server said in clear.

Only what precedes encryption is read, which is the ClientHello and the ServerHello.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from wiremeter.names.decoders.tls_registry import cipher_name, version_name
from wiremeter.names.library import ffi, lib
from wiremeter.names.records import DecodeError, FlowKey, TlsHandshake

#: The longest hello that is read. A ClientHello with post-quantum shares and padding has about 2 KiB.
LONGEST_HELLO: int = lib.WM_TLS_HELLO_BYTES

CLIENT_HELLO = 1  # RFC 8446, section 4
_HEADER_BYTES = 4  # of a handshake message
#: Cells for both hellos of a connection and what they say, whatever their length.
_CELLS = 3 * (LONGEST_HELLO // (lib.WM_CELL_BYTES - 8) + 1) + 2
#: Memory that nobody writes to takes no room.
_untouched = ffi.new_allocator(should_clear_after_alloc=False)


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
    return _offered(hello)


def protocol_text(name: bytes) -> str:
    r"""A protocol's name to show; bytes that are not printable ASCII as `\x` and two digits.

    >>> protocol_text(b"h2"), protocol_text(b"\n\xfa")
    ('h2', '\\x0a\\xfa')
    """
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in name)


class TlsDecoder:
    """The handshake of one TCP conversation.

    flow: from client to server. ja4s: fingerprint the server's answer, too (bpf/names/ja4.h says why not always).
    done: nothing more is to be learnt.
    The two directions may be given in any order; within one, bytes from the first on, each once and in order.
    """

    def __init__(self, flow: FlowKey, ja4s: bool = False) -> None:
        self.done = False
        self._flow = flow
        self._tls = ffi.new("struct wm_tls *")
        self._memory = _untouched(f"struct wm_cell[{_CELLS}]")
        self._cells = ffi.new("struct wm_cells *", {"cells": self._memory, "capacity": _CELLS})
        self._room = _untouched(f"uint8_t[{lib.WM_TLS_ROOM}]")
        self._to = ffi.new("struct wm_tls_to *", {"cells": self._cells, "room": self._room, "with_ja4s": ja4s})

    @property
    def cells(self) -> int:
        """How many pieces of memory hold what waits."""
        return int(self._cells.count)

    @property
    def pending(self) -> TlsHandshake | None:
        """What the client asked for, while the server has not answered."""
        return None if self.done else self._handshake(with_choice=False)

    def data(self, from_client: bool, chunk: bytes, time_ns: int) -> list[TlsHandshake]:
        """Take the next bytes of a direction. Returns the handshake once the server has answered, or cannot any more.

        Raises DecodeError, once, if what the client sends is not TLS. If what the server sends is not, the handshake
        comes without its choice.
        """
        if self.done:
            return []
        took = lib.wm_tls_data(self._tls, self._to, from_client, ffi.from_buffer(chunk), len(chunk), time_ns)
        if took == lib.WM_TLS_NONE:
            self.done = True
            raise DecodeError(f"no TLS: {chunk[:11].hex()}…")
        return self._settle(took)

    def gap(self, from_client: bool, missing: int | None = None) -> list[TlsHandshake]:
        """Bytes of a direction are missing, so that nothing further can be read of it; make use of what is there."""
        return [] if self.done else self._settle(lib.wm_tls_gap(self._tls, self._to, from_client))

    def flush(self) -> list[TlsHandshake]:
        """Nothing more will come: the handshake that still waits for its other half, if there is one."""
        return [] if self.done else self._settle(lib.wm_tls_end(self._tls, self._to))

    def _settle(self, took: int) -> list[TlsHandshake]:
        self.done = took != lib.WM_TLS_WAITS
        told = self._handshake(with_choice=True) if took == lib.WM_TLS_TOLD else None
        return [told] if told else []

    def _handshake(self, with_choice: bool) -> TlsHandshake | None:
        known = lib.wm_tls_handshake(self._tls, self._to)
        if not known.offer:
            return None
        offer, choice = _offered(known.offer), known.choice if with_choice else None
        chosen = _bytes(choice, "alpn") if choice else b""
        return TlsHandshake(
            self._tls.time_ns,
            self._flow,
            sni=offer.sni,
            version=version_name(choice.version if choice else offer.version),
            alpn=tuple(map(protocol_text, offer.alpn)),
            ja4=offer.ja4,
            ech=offer.ech,
            cipher=cipher_name(choice.cipher) if choice else None,
            alpn_chosen=protocol_text(chosen) if chosen else None,
            ja4s=_text(choice, "ja4s") if choice else None,
        )


def _offered(hello: Any) -> ClientHello:
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
