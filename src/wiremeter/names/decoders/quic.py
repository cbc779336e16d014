"""ClientHellos out of QUIC: Initial packets of versions 1 and 2, whose keys everybody on the way can derive.

Their encryption hides nothing: it follows from a connection id that is sent in clear (RFC 9001, section 5.2).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from wiremeter.names.decoders.tls import LONGEST_HELLO, protocol_text, read_client_hello
from wiremeter.names.records import DecodeError, FlowKey, QuicHandshake


class Version(NamedTuple):
    """What differs between versions. initial, handshake: types of long packets; that of 0-RTT lies between them."""

    name: str
    salt: bytes
    label: str
    initial: int
    handshake: int


#: RFC 9000, section 17.2, and RFC 9001, section 5.2; RFC 9369, section 3.
VERSIONS = {
    0x00000001: Version("1", bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic", 0, 2),
    0x6B3343CF: Version("2", bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2", 1, 3),
}

_LONGEST_CONNECTION_ID = 20
#: The sample for header protection begins as if the packet number were as long as it can be (RFC 9001, section 5.4.2).
_SAMPLE_AT = 4
_SAMPLE_BYTES = 16
_TAG_BYTES = 16

# Limits for hostile traffic. An honest ClientHello takes a few packets of one connection id, and a few dozen fragments
# where the client shuffles it.
_PACKETS = 256  # that are looked at in a conversation
_PACKETS_PER_DATAGRAM = 16
_CONNECTIONS = 4  # that are remembered
_FRAGMENTS = 512  # of CRYPTO data that wait for what belongs before them

# Frames that an Initial packet may carry (RFC 9000, section 12.4).
_PADDING, _PING, _ACK, _ACK_ECN, _CRYPTO, _CONNECTION_CLOSE = 0x00, 0x01, 0x02, 0x03, 0x06, 0x1C
_NOT_PADDING = re.compile(rb"[^\0]")


# --- bytes


class Ended(DecodeError):
    """There should be more bytes."""


class Cursor:
    """Reads numbers and bytes from left to right. Raises Ended at the end."""

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


# --- packets


@dataclass(frozen=True, slots=True)
class _Packet:
    """A long packet of a known version: where it lies in its datagram.

    number_at: where its protected packet number begins. end: behind the packet; beyond the datagram if that was cut.
    """

    datagram: bytes
    start: int
    number_at: int
    end: int
    version: Version
    is_initial: bool
    destination: bytes

    @property
    def is_cut(self) -> bool:
        return self.end > len(self.datagram)


def _varint(cursor: Cursor) -> int:
    """A number whose two highest bits say its length (RFC 9000, section 16).

    >>> [_varint(Cursor(bytes.fromhex(text))) for text in ("25", "4025", "9d7f3e7d", "c2197c5eff14e88c")]
    [37, 37, 494878333, 151288809941952652]
    """
    first = cursor.number(1)
    more = (1 << (first >> 6)) - 1
    return (first & 0x3F) << (8 * more) | cursor.number(more)


def _connection_id(cursor: Cursor) -> bytes:
    length = cursor.number(1)
    if length > _LONGEST_CONNECTION_ID:
        raise DecodeError(f"a connection id of {length} bytes")
    return cursor.take(length)


def _long_packet(datagram: bytes, start: int) -> _Packet | None:
    """The packet that begins at `start` (RFC 9000, section 17.2); None if it is one that does not say where it ends.

    Raises DecodeError if its header is malformed or not there whole.
    """
    cursor = Cursor(datagram, start)
    first = cursor.number(1)
    if first & 0xC0 != 0xC0:
        return None
    version = VERSIONS.get(cursor.number(4))
    kind = first >> 4 & 3
    if version is None or not version.initial <= kind <= version.handshake:
        return None
    destination = _connection_id(cursor)
    _connection_id(cursor)  # source
    if kind == version.initial:
        cursor.take(_varint(cursor))  # token
    length = _varint(cursor)
    if length < _SAMPLE_AT + _SAMPLE_BYTES:
        raise DecodeError(f"a packet of {length} bytes")
    return _Packet(datagram, start, cursor.at, cursor.at + length, version, kind == version.initial, destination)


def _initial_packets(datagram: bytes) -> Iterator[_Packet]:
    """Initial packets among those that share a datagram (RFC 9000, section 12.2)."""
    at = 0
    for _ in range(_PACKETS_PER_DATAGRAM):
        try:
            packet = _long_packet(datagram, at)
        except DecodeError:
            return
        if packet is None:
            return
        if packet.is_initial:
            yield packet
        at = packet.end


def looks_like_quic_initial(data: bytes) -> bool:
    """Whether a UDP payload begins with an Initial packet of a known version; its end may be missing.

    >>> looks_like_quic_initial(bytes.fromhex("c000000001088394c8f03e5157080000449e"))
    True
    """
    try:
        packet = _long_packet(data, 0)
    except DecodeError:
        return False
    return packet is not None and packet.is_initial


# --- protection


class Keys(NamedTuple):
    """What protects Initial packets of one side: key and nonce base of AES-128-GCM, key of header protection."""

    key: bytes
    iv: bytes
    hp: bytes


def client_keys(version: Version, destination: bytes) -> Keys:
    """The client's keys; they follow from the destination of its first Initial packet (RFC 9001, section 5.2)."""
    secret = _expand(hmac.digest(version.salt, destination, "sha256"), "client in", 32)
    return Keys(
        key=_expand(secret, f"{version.label} key", 16),
        iv=_expand(secret, f"{version.label} iv", 12),
        hp=_expand(secret, f"{version.label} hp", 16),
    )


def _expand(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, section 7.1) without context, to at most 32 bytes, for which one block is enough."""
    name = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return hmac.digest(secret, info + b"\1", "sha256")[:length]


def _packet_number(truncated: int, bits: int, largest: int) -> int:
    """The packet number next to what is expected that ends in `truncated` (RFC 9000, appendix A.3).

    >>> hex(_packet_number(0x9B32, 16, largest=0xA82F30EA))
    '0xa82f9b32'
    """
    expected, window = largest + 1, 1 << bits
    number = expected & ~(window - 1) | truncated
    if number <= expected - window // 2 and number < (1 << 62) - window:
        return number + window
    if number > expected + window // 2 and number >= window:
        return number - window
    return number


class _Protection:
    """Opens packets of one connection (RFC 9001, section 5)."""

    def __init__(self, keys: Keys) -> None:
        # Imported when the first packet comes, since it takes a tenth of a second and 10 MB.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._keys = keys
        self._largest = -1  # packet number of those that were opened
        self._aead = AESGCM(keys.key)
        self._header = Cipher(algorithms.AES(keys.hp), modes.ECB()).encryptor()

    def open(self, packet: _Packet) -> bytes | None:
        """The packet's frames; None if these are not its keys.

        Of a packet that is cut the tag is not there to tell, and bytes made with other keys come out as noise.
        """
        sample_at = packet.number_at + _SAMPLE_AT
        sample = packet.datagram[sample_at : sample_at + _SAMPLE_BYTES]
        if len(sample) < _SAMPLE_BYTES:
            return None
        mask = self._header.update(sample)
        first = packet.datagram[packet.start] ^ mask[0] & 0x0F
        content_at = packet.number_at + (first & 3) + 1
        hidden = packet.datagram[packet.number_at : content_at]
        shown = bytes(a ^ b for a, b in zip(hidden, mask[1:], strict=False))
        number = _packet_number(int.from_bytes(shown, "big"), 8 * len(shown), self._largest)
        nonce = (int.from_bytes(self._keys.iv, "big") ^ number).to_bytes(12, "big")
        if packet.is_cut:
            is_noise = first & 0x0C  # reserved bits, zero (RFC 9000, section 17.2)
            content = packet.datagram[content_at : packet.end - _TAG_BYTES]
            return None if is_noise else self._decrypt_unchecked(nonce, content)
        content = packet.datagram[content_at : packet.end]
        header = bytes([first]) + packet.datagram[packet.start + 1 : packet.number_at] + shown
        frames = self._decrypt(nonce, content, header)
        if frames is not None:
            self._largest = max(self._largest, number)
        return frames

    def _decrypt(self, nonce: bytes, content: bytes, header: bytes) -> bytes | None:
        from cryptography.exceptions import InvalidTag

        try:
            return self._aead.decrypt(nonce, content, header)
        except InvalidTag:
            return None

    def _decrypt_unchecked(self, nonce: bytes, content: bytes) -> bytes:
        """GCM without its tag is counter mode, and begins to count at 2 (NIST SP 800-38D, section 7.1)."""
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        counter = nonce + (2).to_bytes(4, "big")
        return Cipher(algorithms.AES(self._keys.key), modes.CTR(counter)).decryptor().update(content)


# --- frames


def _crypto_pieces(frames: bytes, is_cut: bool) -> list[tuple[int, bytes]]:
    """What CRYPTO frames carry, each with its offset (RFC 9000, section 19).

    Raises DecodeError at a frame that has no place in an Initial packet, or at the end unless the packet is cut.
    """
    pieces: list[tuple[int, bytes]] = []
    cursor = Cursor(frames)
    try:
        while cursor.left:
            kind = cursor.number(1)
            if kind == _PADDING:
                other = _NOT_PADDING.search(frames, cursor.at)
                cursor.at = other.start() if other else len(frames)
            elif kind == _CRYPTO:
                offset, length = _varint(cursor), _varint(cursor)
                pieces.append((offset, cursor.take(min(length, cursor.left) if is_cut else length)))
            elif kind in (_ACK, _ACK_ECN):
                _skip_ack(cursor, kind == _ACK_ECN)
            elif kind == _CONNECTION_CLOSE:
                _varint(cursor)  # error code
                _varint(cursor)  # type of the frame to blame
                cursor.take(_varint(cursor))  # reason
            elif kind != _PING:
                raise DecodeError(f"a frame of type {kind}")
    except Ended:
        if not is_cut:
            raise
    return pieces


def _skip_ack(cursor: Cursor, has_ecn: bool) -> None:
    """RFC 9000, section 19.3."""
    _varint(cursor)  # largest acknowledged
    _varint(cursor)  # delay
    ranges = _varint(cursor)
    _varint(cursor)  # first range
    for _ in range(ranges):  # as many as it says; the cursor ends before, if they are not there
        _varint(cursor)  # gap
        _varint(cursor)  # length
    for _ in range(3 if has_ecn else 0):
        _varint(cursor)


class _CryptoStream:
    """Pieces in any order, as far as they join to a beginning without gaps. Of overlapping ones the first counts."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._waiting: list[tuple[int, bytes]] = []  # a heap
        self._waiting_bytes = 0

    def add(self, offset: int, piece: bytes) -> None:
        """Raises DecodeError if this is more than a hello needs."""
        if offset + len(piece) > LONGEST_HELLO:
            raise DecodeError(f"CRYPTO data up to {offset + len(piece)}")
        if offset > len(self.data):
            if len(self._waiting) >= _FRAGMENTS or self._waiting_bytes + len(piece) > LONGEST_HELLO:
                raise DecodeError("too many fragments of CRYPTO data")
            heappush(self._waiting, (offset, piece))
            self._waiting_bytes += len(piece)
            return
        self.data += piece[len(self.data) - offset :]
        while self._waiting and self._waiting[0][0] <= len(self.data):
            offset, piece = heappop(self._waiting)
            self._waiting_bytes -= len(piece)
            self.data += piece[len(self.data) - offset :]


# --- conversations


class _Connection:
    """What is known of one connection: its keys and the hello so far."""

    def __init__(self, packet: _Packet) -> None:
        self.version = packet.version
        self.stream = _CryptoStream()
        self._protection = _Protection(client_keys(packet.version, packet.destination))

    def pieces(self, packet: _Packet) -> list[tuple[int, bytes]] | None:
        """CRYPTO data of a packet; None if the packet is not of this connection.

        Raises DecodeError if it is, but malformed.
        """
        frames = self._protection.open(packet)
        if frames is None:
            return None
        try:
            return _crypto_pieces(frames, packet.is_cut)
        except DecodeError:
            if packet.is_cut:
                return None  # noise
            raise


class QuicDecoder:
    """The client's part of the handshake of one UDP conversation.

    flow: from client to server. done: nothing more is to be learnt.
    undecodable: Initial packets of the client that no key opened, or that were malformed.
    """

    def __init__(self, flow: FlowKey) -> None:
        self.done = False
        self.undecodable = 0
        self._flow = flow
        self._time_ns: int | None = None
        self._packets_left = _PACKETS
        self._connections: dict[tuple[Version, bytes], _Connection] = {}  # by the client's first destination

    def datagram(self, from_client: bool, payload: bytes, time_ns: int) -> list[QuicHandshake]:
        """Take a datagram, in any order. Returns the handshake when the ClientHello is whole. Raises nothing.

        What servers send is passed over: their Initials add nothing that is recorded, and after a Retry the client's
        next packet shows the new connection id itself.
        """
        if self.done or not from_client:
            return []
        for packet in _initial_packets(payload):
            if not self._packets_left:
                return self.flush()
            self._packets_left -= 1
            try:
                connection = self._take(packet, time_ns)
            except DecodeError:
                connection = None
            if connection is None:
                self.undecodable += 1
            elif message := _whole_message(connection.stream.data):
                return self._finish(message, connection)
        return []

    def flush(self) -> list[QuicHandshake]:
        """Nothing more will come: what the beginning of a ClientHello tells, if that is all there was."""
        if self.done:
            return []
        self.done = True
        longest = max(self._connections.values(), key=lambda each: len(each.stream.data), default=None)
        if longest is None:
            return []
        try:
            return [self._handshake(longest.stream.data, longest.version)]
        except DecodeError:
            return []

    def _take(self, packet: _Packet, time_ns: int) -> _Connection | None:
        """Add a packet's CRYPTO data to its connection; None if there are no keys that fit.

        Raises DecodeError if it is malformed.
        """
        key = packet.version, packet.destination
        known = [each for each in reversed(self._connections.values()) if each.version is packet.version]
        # Later packets of a client go to an id that the server chose, under the keys of the first.
        first = self._connections.get(key) or _Connection(packet)
        for connection in [first, *(each for each in known if each is not first)]:
            pieces = connection.pieces(packet)
            if pieces is None:
                continue
            if connection is first:
                self._remember(key, connection)
            if self._time_ns is None:
                self._time_ns = time_ns
            for offset, piece in pieces:
                connection.stream.add(offset, piece)
            return connection
        return None

    def _remember(self, key: tuple[Version, bytes], connection: _Connection) -> None:
        self._connections[key] = connection
        if len(self._connections) > _CONNECTIONS:
            del self._connections[next(iter(self._connections))]

    def _finish(self, message: bytes, connection: _Connection) -> list[QuicHandshake]:
        self.done = True
        try:
            return [self._handshake(message, connection.version)]
        except DecodeError:
            self.undecodable += 1
            return []

    def _handshake(self, message: bytes | bytearray, version: Version) -> QuicHandshake:
        """What a message tells, or its beginning. Raises DecodeError if it is no ClientHello."""
        hello = read_client_hello(message, "q")
        assert self._time_ns is not None  # set with the first packet that was opened
        return QuicHandshake(
            self._time_ns,
            self._flow,
            sni=hello.sni,
            version=version.name,
            alpn=tuple(map(protocol_text, hello.alpn)),
            ja4=hello.ja4,
            ech=hello.ech,
        )


def _whole_message(data: bytearray) -> bytes | None:
    """The first handshake message, with its header, if all of it is there."""
    if len(data) < 4:
        return None
    end = 4 + int.from_bytes(data[1:4], "big")
    return bytes(data[:end]) if len(data) >= end else None
