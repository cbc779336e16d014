"""TLS hellos out of a byte stream: records, handshake messages, and what a client and its server said in clear.

Only what precedes encryption is read, which is the ClientHello and the ServerHello.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from wiremeter.names.decoders.applications import looks_like_tls
from wiremeter.names.decoders.hellos import ClientHello, ServerHello
from wiremeter.names.decoders.ja4 import ja4, ja4s
from wiremeter.names.decoders.tls_registry import cipher_name, version_name
from wiremeter.names.records import DecodeError, FlowKey, TlsHandshake

# Content types of records (RFC 8446, section 5.1) and types of handshake messages (section 4).
_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA, _HEARTBEAT = 20, 21, 22, 23, 24
CLIENT_HELLO, SERVER_HELLO = 1, 2

# Extensions that are looked into (IANA, "TLS ExtensionType Values").
_SERVER_NAME, _SIGNATURE_ALGORITHMS, _ALPN, _SUPPORTED_VERSIONS, _ENCRYPTED_CLIENT_HELLO = 0, 13, 16, 43, 0xFE0D

_HEADER_BYTES = 5
_OLD_HEADER_BYTES = 11  # of a hello in the form of SSL 2.0
#: The longest record: 2^14 bytes and what a cipher may add (RFC 5246, section 6.2.3; less in TLS 1.3).
_LONGEST_RECORD = (1 << 14) + 2048
#: The longest hello that is read. A ClientHello with post-quantum shares and padding has about 2 KiB.
LONGEST_HELLO = 1 << 16
#: So much of one direction is looked through for its hello, record headers included.
_LONGEST_STREAM = 2 * LONGEST_HELLO

#: The random of a ServerHello that is a HelloRetryRequest: SHA-256 of that word (RFC 8446, section 4.1.3).
_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")

#: What a host name may look like: printable ASCII without space. The DNS would take more, a screen or a label less.
_HOST_NAME = re.compile(rb"[!-~]{1,255}")


class HandshakeMessage(NamedTuple):
    """One handshake message without its four bytes of header. type: CLIENT_HELLO, SERVER_HELLO, …"""

    type: int
    body: bytes


# --- bytes


class Ended(DecodeError):
    """There should be more bytes."""


class Cursor:
    """Reads numbers and vectors (RFC 8446, section 3.4) from left to right. Raises Ended at the end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self.data):
            raise Ended(f"{length} bytes expected, {self.left} left")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def vector(self, length: int) -> bytes:
        """The bytes whose count stands before them in `length` bytes."""
        return self.take(self.number(length))


def _numbers(data: bytes) -> tuple[int, ...]:
    if len(data) % 2:
        raise DecodeError(f"a list of 16-bit numbers has {len(data)} bytes")
    return struct.unpack(f">{len(data) // 2}H", data)


def _extensions(cursor: Cursor) -> Iterator[tuple[int, bytes]]:
    """Each extension's number and data, to the end of a hello. Hellos before TLS 1.3 may have none."""
    if not cursor.left:
        return
    length = cursor.number(2)
    if length < cursor.left:
        raise DecodeError(f"{cursor.left - length} bytes after the hello")
    missing = length - cursor.left
    while cursor.left:
        head = cursor.number(4)
        yield head >> 16, cursor.take(head & 0xFFFF)
    if missing:
        raise Ended(f"{missing} bytes of extensions missing")


def _host_name(data: bytes) -> str | None:
    """The first host name of a server_name extension (RFC 6066, section 3); A-labels stay as they are."""
    names = Cursor(Cursor(data).vector(2))
    while names.left:
        kind, name = names.number(1), names.vector(2)
        if kind == 0:
            name = name.removesuffix(b".")
            return name.decode("ascii").lower() if _HOST_NAME.fullmatch(name) else None
    return None


def _protocol_names(data: bytes) -> tuple[bytes, ...]:
    """RFC 7301, section 3.1."""
    names = Cursor(Cursor(data).vector(2))
    found = []
    while names.left:
        found.append(names.vector(1))
    return tuple(found)


def protocol_text(name: bytes) -> str:
    r"""A protocol's name to show; bytes that are not printable ASCII as `\x` and two digits.

    >>> protocol_text(b"h2"), protocol_text(b"\n\xfa")
    ('h2', '\\x0a\\xfa')
    """
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in name)


# --- hellos


def parse_client_hello(body: bytes, *, cut: bool = False) -> ClientHello:
    """Read a ClientHello (RFC 8446, section 4.1.2; before TLS 1.3: RFC 5246, section 7.4.1.2).

    body: without the header of the handshake message.
    cut: its end may be missing; what is there whole is taken.
    Raises DecodeError if it is no ClientHello.
    """
    cursor = Cursor(body)
    legacy_version = cursor.number(2)
    ciphers: tuple[int, ...] = ()
    order: list[int] = []
    found: dict[int, bytes] = {}
    is_complete = True
    try:
        cursor.take(32)  # random
        cursor.vector(1)  # session id
        ciphers = _numbers(cursor.vector(2))
        cursor.vector(1)  # compression methods
        for number, data in _extensions(cursor):
            order.append(number)
            found.setdefault(number, data)
    except Ended:
        if not cut:
            raise
        is_complete = False
    versions = found.get(_SUPPORTED_VERSIONS)
    algorithms = found.get(_SIGNATURE_ALGORITHMS)
    return ClientHello(
        legacy_version,
        ciphers,
        tuple(order),
        # Some clients send the extension empty, as only servers should.
        sni=_host_name(found[_SERVER_NAME]) if found.get(_SERVER_NAME) else None,
        alpn=_protocol_names(found[_ALPN]) if _ALPN in found else (),
        supported_versions=() if versions is None else _numbers(Cursor(versions).vector(1)),
        signature_algorithms=() if algorithms is None else _numbers(Cursor(algorithms).vector(2)),
        ech=_ENCRYPTED_CLIENT_HELLO in found,
        is_complete=is_complete,
    )


def partial_client_hello(message: bytes) -> ClientHello:
    """What the beginning of a ClientHello tells, where the rest of it will not come.

    message: with the header of the handshake message.
    Raises DecodeError if it begins like no ClientHello.
    """
    cursor = Cursor(message)
    if cursor.number(1) != CLIENT_HELLO:
        raise DecodeError("no ClientHello")
    length = cursor.number(3)
    is_whole = length <= cursor.left
    hello = parse_client_hello(cursor.take(length if is_whole else cursor.left), cut=True)
    # Cut just before its extensions, a hello looks like one without any.
    return hello if is_whole else replace(hello, is_complete=False)


def parse_server_hello(body: bytes) -> ServerHello:
    """Read a ServerHello (RFC 8446, section 4.1.3; before TLS 1.3: RFC 5246, section 7.4.1.3).

    body: without the header of the handshake message.
    Raises DecodeError if it is no ServerHello.
    """
    cursor = Cursor(body)
    version = cursor.number(2)
    random = cursor.take(32)
    cursor.vector(1)  # session id
    cipher = cursor.number(2)
    cursor.take(1)  # compression method
    order: list[int] = []
    alpn = None
    for number, data in _extensions(cursor):
        order.append(number)
        if number == _SUPPORTED_VERSIONS:
            version = Cursor(data).number(2)
        elif number == _ALPN:
            alpn = next(iter(_protocol_names(data)), None)
    return ServerHello(version, cipher, tuple(order), alpn, random == _RETRY_RANDOM)


# --- streams


class HandshakeReader:
    """Handshake messages of one direction of a stream, up to its hello; all bytes of it, from the first, in order.

    done: the hello was read (of a server: the one after its HelloRetryRequest), or there will be none in clear.
    """

    def __init__(self) -> None:
        self.done = False
        self._stream = bytearray()  # not looked at yet: less than a record's header, or a short record in part
        self._message = bytearray()  # handshake messages that are not whole yet
        self._record_left = 0  # bytes of the present handshake record that are still to come
        self._seen = 0

    @property
    def so_far(self) -> bytes:
        """The bytes of the message that is not whole yet, with its header."""
        return bytes(self._message)

    def feed(self, chunk: bytes) -> list[HandshakeMessage]:
        """Take the next bytes and return the messages that have become whole; the hello is the last one.

        Raises DecodeError if this is no TLS, once; then it is `done`.
        """
        if self.done:
            return []
        try:
            return self._read(chunk)
        except DecodeError:
            self.done = True
            raise

    def _read(self, chunk: bytes) -> list[HandshakeMessage]:
        at_start = self._seen == len(self._stream)
        self._seen += len(chunk)
        self._stream += chunk
        if at_start and self._stream and self._stream[0] & 0x80:
            return self._read_old_hello()
        at = 0
        messages: list[HandshakeMessage] = []
        while not self.done and at < len(self._stream):
            if self._record_left:
                content = self._stream[at : at + self._record_left]
                at += len(content)
                self._record_left -= len(content)
                self._message += content
                messages += self._take_messages()
            elif taken := self._begin_record(at):
                at += taken
            else:
                break
        del self._stream[: len(self._stream) if self.done else at]
        if not self.done and self._seen > _LONGEST_STREAM:
            raise DecodeError(f"no hello within {_LONGEST_STREAM} bytes")
        return messages

    def _begin_record(self, at: int) -> int:
        """Step over a record's header, or over the whole of a record that says nothing; 0 while bytes are missing."""
        header = self._stream[at : at + _HEADER_BYTES]
        if len(header) < _HEADER_BYTES:
            return 0
        kind, length = header[0], int.from_bytes(header[3:5], "big")
        if not _CHANGE_CIPHER_SPEC <= kind <= _HEARTBEAT or header[1] != 3 or length > _LONGEST_RECORD:
            raise DecodeError(f"no TLS record: {header.hex()}")
        if kind == _HANDSHAKE:
            if not length:
                raise DecodeError("an empty handshake record")
            self._record_left = length
            return _HEADER_BYTES
        if self._message:
            raise DecodeError(f"a record of type {kind} within a handshake message")
        if (kind, length) not in ((_CHANGE_CIPHER_SPEC, 1), (_ALERT, 2)):
            self.done = True  # what follows is encrypted
            return 0
        record = self._stream[at : at + _HEADER_BYTES + length]
        if len(record) < _HEADER_BYTES + length:
            return 0
        # A hello may come after a warning ("unrecognized name", RFC 6066, section 3), and after the change_cipher_spec
        # that stands beside a HelloRetryRequest for the sake of middleboxes (RFC 8446, appendix D.4).
        self.done = kind == _ALERT and not _is_warning(record[_HEADER_BYTES:])
        return len(record)

    def _take_messages(self) -> list[HandshakeMessage]:
        messages = []
        at = 0
        while not self.done and len(self._message) >= at + 4:
            kind, length = self._message[at], int.from_bytes(self._message[at + 1 : at + 4], "big")
            if length > LONGEST_HELLO:
                raise DecodeError(f"a handshake message of {length} bytes")
            if len(self._message) < at + 4 + length:
                break
            body = bytes(self._message[at + 4 : at + 4 + length])
            at += 4 + length
            messages.append(HandshakeMessage(kind, body))
            is_retry = kind == SERVER_HELLO and body[2:34] == _RETRY_RANDOM
            self.done = kind in (CLIENT_HELLO, SERVER_HELLO) and not is_retry
        del self._message[:at]
        return messages

    def _read_old_hello(self) -> list[HandshakeMessage]:
        if len(self._stream) < _OLD_HEADER_BYTES:
            return []
        if not looks_like_tls(bytes(self._stream)):
            raise DecodeError(f"no hello: {self._stream[:_OLD_HEADER_BYTES].hex()}")
        length = int.from_bytes(self._stream[:2], "big") & 0x7FFF
        if len(self._stream) < 2 + length:
            return []
        self.done = True
        return [HandshakeMessage(CLIENT_HELLO, _renewed(bytes(self._stream[2 : 2 + length])))]


def _is_warning(alert: bytearray) -> bool:
    """Whether the connection goes on after an alert; not after close_notify, 0 (RFC 5246, section 7.2)."""
    level, description = alert
    return level == 1 and description != 0


def _renewed(hello: bytes) -> bytes:
    """A ClientHello in the form of SSL 2.0, which has no extensions, in the form that TLS gives it."""
    ciphers = hello[9 : 9 + int.from_bytes(hello[3:5], "big")]
    challenge = hello[-int.from_bytes(hello[7:9], "big") :]
    # Suites of SSL 3.0 and TLS begin with a zero there (RFC 5246, appendix E.2).
    suites = b"".join(ciphers[at + 1 : at + 3] for at in range(0, len(ciphers), 3) if not ciphers[at])
    return hello[1:3] + challenge.rjust(32, b"\0") + b"\0" + len(suites).to_bytes(2, "big") + suites + b"\1\0"


# --- conversations


class TlsDecoder:
    """The handshake of one TCP conversation.

    flow: from client to server. ja4s: fingerprint the server's answer, too (ja4.py says why not always).
    done: nothing more is to be learnt.
    The two directions may be given in any order; within one, bytes from the first on, each once and in order.
    """

    def __init__(self, flow: FlowKey, ja4s: bool = False) -> None:
        self.done = False
        self._flow = flow
        self._ja4s = ja4s
        self._time_ns: int | None = None
        self._client = HandshakeReader()
        self._server = HandshakeReader()
        self._offer: ClientHello | None = None
        self._choice: ServerHello | None = None
        self._is_server_over = False  # no ServerHello will come, or it has

    @property
    def pending(self) -> TlsHandshake | None:
        """What the client asked for, while the server has not answered."""
        if self.done or self._offer is None or self._time_ns is None:
            return None
        return _handshake(self._time_ns, self._flow, self._offer, self._fingerprint, None, False)

    @cached_property
    def _fingerprint(self) -> str | None:
        """JA4 of the offer, which is there: a quarter of what a handshake costs, and asked for twice."""
        assert self._offer
        return ja4(self._offer, "t") if self._offer.is_complete else None

    def data(self, from_client: bool, chunk: bytes, time_ns: int) -> list[TlsHandshake]:
        """Take the next bytes of a direction. Returns the handshake once the server has answered, or cannot any more.

        Raises DecodeError, once, if what the client sends is not TLS. If what the server sends is not, the handshake
        comes without its choice.
        """
        if self.done:
            return []
        if from_client:
            self._read_client(chunk, time_ns)
        else:
            self._read_server(chunk)
        return self._settle()

    def gap(self, from_client: bool) -> list[TlsHandshake]:
        """Bytes of a direction are missing, so that nothing further can be read of it; make use of what is there."""
        if self.done:
            return []
        if from_client:
            self._take_partial_offer()
            self.done = self._offer is None
        else:
            self._is_server_over = True
        return self._settle()

    def flush(self) -> list[TlsHandshake]:
        """Nothing more will come: the handshake that still waits for its other half, if there is one."""
        if self.done:
            return []
        self._take_partial_offer()
        self._is_server_over = self.done = True
        return self._settle()

    def _read_client(self, chunk: bytes, time_ns: int) -> None:
        if self._offer:
            return  # a second hello, after a HelloRetryRequest, repeats the first
        if self._time_ns is None:
            self._time_ns = time_ns
        try:
            for message in self._client.feed(chunk):
                if message.type == CLIENT_HELLO:
                    self._offer = parse_client_hello(message.body)
        except DecodeError:
            self.done = True
            raise
        self.done = self._client.done and self._offer is None

    def _read_server(self, chunk: bytes) -> None:
        try:
            for message in self._server.feed(chunk):
                if message.type == SERVER_HELLO:
                    self._choice = parse_server_hello(message.body)
        except DecodeError:
            self._is_server_over = True
        self._is_server_over |= self._server.done

    def _take_partial_offer(self) -> None:
        if self._offer or not self._client.so_far:
            return
        try:
            self._offer = partial_client_hello(self._client.so_far)
        except DecodeError:
            self._offer = None

    def _settle(self) -> list[TlsHandshake]:
        if self._offer is None or not self._is_server_over:
            return []
        self.done = True
        assert self._time_ns is not None  # set with the first bytes of the client
        return [_handshake(self._time_ns, self._flow, self._offer, self._fingerprint, self._choice, self._ja4s)]


def _handshake(
    time_ns: int,
    flow: FlowKey,
    offer: ClientHello,
    fingerprint: str | None,
    choice: ServerHello | None,
    with_ja4s: bool,
) -> TlsHandshake:
    version = offer.version if choice is None else choice.version
    # A HelloRetryRequest is no answer yet, but binds to its version and cipher suite (RFC 8446, section 4.1.4).
    is_final = choice is not None and not choice.is_retry
    return TlsHandshake(
        time_ns,
        flow,
        sni=offer.sni,
        version=version_name(version),
        alpn=tuple(map(protocol_text, offer.alpn)),
        ja4=fingerprint,
        ech=offer.ech,
        cipher=None if choice is None else cipher_name(choice.cipher),
        alpn_chosen=None if choice is None or choice.alpn is None else protocol_text(choice.alpn),
        ja4s=ja4s(choice, "t") if with_ja4s and choice is not None and is_final else None,
    )
