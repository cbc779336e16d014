"""HTTP/2 in clear: the first requests of a connection and their responses (RFC 9113; upgrades: RFC 7540).

Header compression (RFC 7541) carries its state from one header block to the next, so decoding ends with the first of
them that is missing. What is missing of a body does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from wiremeter.names.library import ffi, lib
from wiremeter.names.records import DecodeError, FlowKey, HttpTransaction

if TYPE_CHECKING:
    from hpack import Decoder

#: What a client sends first (RFC 9113, section 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Bytes of one header block, before and after decompression, at most.
MAX_BLOCK_BYTES = 64 << 10
#: The table that an encoder may use (RFC 7541, section 4.2): what browsers and servers ask for at most.
MAX_TABLE_BYTES = 64 << 10
#: Requests without a response, at most; the oldest is given up then.
MAX_OUTSTANDING = 256

#: Characters of a path that are kept; every recipient should support 8,000 (RFC 9110, section 4.1).
MAX_PATH = 8192

_HEADER_BYTES = 9


class _Frame(IntEnum):
    """Types of frames (RFC 9113, section 6)."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    CONTINUATION = 9


_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
#: Frames whose payload is read; of all others it is stepped over.
_READ = frozenset({_Frame.HEADERS, _Frame.CONTINUATION, _Frame.PUSH_PROMISE, _Frame.RST_STREAM})


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A request in HTTP/1.1 whose response comes in HTTP/2 (RFC 7540, section 3.2). last_ns: of its last byte."""

    request: HttpTransaction
    last_ns: int


@dataclass(slots=True)
class _Half:
    """One direction. `left` bytes of a frame's payload on stream `stream` are stepped over; `buffer` is what is not
    read yet, from `first_ns` on; `block` is the header block that is not whole yet."""

    decoder: Decoder
    buffer: bytearray = field(default_factory=bytearray)
    first_ns: int = 0
    left: int = 0
    stream: int = 0
    block: bytearray | None = None
    block_stream: int = 0
    block_ns: int = 0
    is_first: bool = True


@dataclass(slots=True)
class _Request:
    """A request that waits for its response."""

    time_ns: int
    last_ns: int
    method: str
    host: str | None
    path: str | None


class Http2Decoder:
    """Follows one connection from its preface on.

    `done`: nothing more can be read. `host` and `method` are those of the latest request, known before its response is.
    `application`: "grpc" if a request said so in its content-type, else "http".
    """

    def __init__(self, flow: FlowKey, redact: bool = True, upgraded: Upgraded | None = None) -> None:
        """flow: from client to server. redact: leave paths out of the records, and never keep them.

        upgraded: the request in HTTP/1.1 that the connection began with; it is stream 1 (RFC 7540, section 3.2).
        """
        from hpack import Decoder  # only the few who speak HTTP/2 in clear need it

        self.done = False
        self.application = "http"
        self.host: str | None = None
        self.method: str | None = None
        self._flow = flow
        self._redact = redact
        self._outstanding: dict[int, _Request] = {}
        if upgraded:
            first = upgraded.request
            self.host, self.method = first.host, first.method
            self._outstanding[1] = _Request(first.time_ns, upgraded.last_ns, first.method or "", first.host, first.path)
        self._halves: dict[bool, _Half] = {}
        for from_client in (True, False):
            decoder = Decoder(max_header_list_size=MAX_BLOCK_BYTES)
            # The SETTINGS that allow more than the default may be among what isn't sent to us.
            decoder.max_allowed_table_size = MAX_TABLE_BYTES
            self._halves[from_client] = _Half(decoder)
        self._preface_left = PREFACE

    def optional_bytes(self, from_client: bool) -> int:
        """How many of the next bytes of a direction are certainly no header block."""
        return self._halves[from_client].left

    def data(self, from_client: bool, chunk: bytes, time_ns: int) -> list[HttpTransaction]:
        """The next bytes of a direction, of one packet. Returns the requests whose final status is known now.

        Raises DecodeError, once, if this is no HTTP/2 or more than is read of it; then it is `done`.
        """
        if self.done:
            return []
        out: list[HttpTransaction] = []
        try:
            self._read(from_client, chunk, time_ns, out)
        except DecodeError:
            self.done = True
            if not out:
                raise
        return out

    def gap(self, from_client: bool, missing: int | None) -> list[HttpTransaction]:
        """Bytes of a direction were not seen: `missing`, or None where that isn't known."""
        half = self._halves[from_client]
        if missing is None or missing > half.left:
            self.done = True
        else:
            half.left -= missing
        return []

    def flush(self) -> list[HttpTransaction]:
        """Ends the connection: returns the requests that have had no response."""
        out = [self._record(request) for request in self._outstanding.values()]
        self._outstanding.clear()
        return out

    # --- frames

    def _read(self, from_client: bool, chunk: bytes, time_ns: int, out: list[HttpTransaction]) -> None:
        half = self._halves[from_client]
        if from_client and self._preface_left:
            length = min(len(chunk), len(self._preface_left))
            if chunk[:length] != self._preface_left[:length]:
                raise DecodeError("no preface")
            chunk, self._preface_left = chunk[length:], self._preface_left[length:]
        while chunk:
            if half.left:
                taken = min(half.left, len(chunk))
                half.left -= taken
                self._note_body(from_client, half.stream, time_ns)
                chunk = chunk[taken:]
                continue
            if not half.buffer:
                half.first_ns = time_ns
            before = len(half.buffer)
            half.buffer += chunk[: _HEADER_BYTES + MAX_BLOCK_BYTES]
            taken = self._take_frame(from_client, half, out)
            if not taken:
                return
            chunk = chunk[taken - before :]
            half.buffer.clear()

    def _take_frame(self, from_client: bool, half: _Half, out: list[HttpTransaction]) -> int:
        """Reads the frame at the beginning of the buffer; returns how many of its bytes were taken.

        Of a frame that is stepped over only the header is taken, of one that isn't whole nothing.
        """
        buffer = half.buffer
        if len(buffer) < _HEADER_BYTES:
            return 0
        length, kind, flags = int.from_bytes(buffer[:3], "big"), buffer[3], buffer[4]
        stream = int.from_bytes(buffer[5:9], "big") & 0x7FFFFFFF
        if half.is_first and (kind != _Frame.SETTINGS or stream):
            raise DecodeError("the first frame is no SETTINGS (RFC 9113, section 3.4)")
        half.is_first = False
        if half.block is not None and (kind != _Frame.CONTINUATION or stream != half.block_stream):
            raise DecodeError("a header block is interrupted (RFC 9113, section 4.3)")
        if kind not in _READ:
            half.left, half.stream = length, stream if kind == _Frame.DATA else 0
            return _HEADER_BYTES
        if length > MAX_BLOCK_BYTES:
            raise DecodeError(f"a frame of {length} bytes of header block")
        if len(buffer) < _HEADER_BYTES + length:
            return 0
        payload = bytes(buffer[_HEADER_BYTES : _HEADER_BYTES + length])
        if kind == _Frame.RST_STREAM:
            if request := self._outstanding.pop(stream, None):
                out.append(self._record(request))
        else:
            self._take_block(from_client, half, kind, flags, stream, payload, out)
        return _HEADER_BYTES + length

    def _take_block(
        self,
        from_client: bool,
        half: _Half,
        kind: int,
        flags: int,
        stream: int,
        payload: bytes,
        out: list[HttpTransaction],
    ) -> None:
        """Adds a fragment to the header block, and reads that when it is whole (RFC 9113, sections 6.2, 6.6, 6.10)."""
        if kind == _Frame.CONTINUATION:
            if half.block is None:
                raise DecodeError("a continuation of nothing")
            half.block += payload
        else:
            half.block = bytearray(_fragment(kind, flags, payload))
            half.block_ns = half.first_ns
            half.block_stream = stream
        if len(half.block) > MAX_BLOCK_BYTES:
            raise DecodeError("a header block without end")
        if not flags & _END_HEADERS:
            return
        fields = _decompress(half.decoder, bytes(half.block))
        half.block = None
        if kind == _Frame.PUSH_PROMISE:
            return  # only the state of the decompression matters
        if from_client:
            self._request(stream, fields, half.block_ns, half.first_ns, out)
        else:
            self._response(stream, fields, half.block_ns, out)

    def _note_body(self, from_client: bool, stream: int, time_ns: int) -> None:
        if from_client and (request := self._outstanding.get(stream)):
            request.last_ns = max(request.last_ns, time_ns)

    # --- messages

    def _request(
        self, stream: int, fields: dict[bytes, bytes], time_ns: int, last_ns: int, out: list[HttpTransaction]
    ) -> None:
        if b":method" not in fields:
            self._note_body(True, stream, last_ns)  # trailers
            return
        if len(self._outstanding) >= MAX_OUTSTANDING:
            out.append(self._record(self._outstanding.pop(next(iter(self._outstanding)))))
        method = fields[b":method"][:32].decode("ascii", "backslashreplace")
        host = host_name(fields.get(b":authority") or fields.get(b"host"))
        path = fields.get(b":path")
        text = None if self._redact or path is None else path[:MAX_PATH].decode("utf-8", "backslashreplace")
        self._outstanding[stream] = _Request(time_ns, last_ns, method, host, text)
        self.host, self.method = host, method
        if fields.get(b"content-type", b"").startswith(b"application/grpc"):
            self.application = "grpc"

    def _response(self, stream: int, fields: dict[bytes, bytes], time_ns: int, out: list[HttpTransaction]) -> None:
        status = fields.get(b":status", b"")
        if len(status) != 3 or not status.isdigit() or status.startswith(b"1"):
            return  # trailers, or an interim response
        request = self._outstanding.pop(stream, None)
        if request:
            out.append(self._record(request, int(status), max(0, time_ns - request.last_ns)))

    def _record(self, request: _Request, status: int | None = None, latency_ns: int | None = None) -> HttpTransaction:
        return HttpTransaction(
            request.time_ns, self._flow, "2", request.method, request.host, request.path, status, latency_ns
        )


def _fragment(kind: int, flags: int, payload: bytes) -> bytes:
    """The part of a header block in a HEADERS or PUSH_PROMISE frame, between what precedes it and the padding."""
    begin, padding = 0, 0
    if flags & _PADDED:
        if not payload:
            raise DecodeError("no length of the padding")
        begin, padding = 1, payload[0]
    if kind == _Frame.PUSH_PROMISE:
        begin += 4  # the promised stream
    elif flags & _PRIORITY:
        begin += 5
    if begin + padding > len(payload):
        raise DecodeError("more padding than payload")
    return payload[begin : len(payload) - padding]


def _decompress(decoder: Decoder, block: bytes) -> dict[bytes, bytes]:
    """The fields of a header block, of equal ones the first. Raises DecodeError."""
    from hpack import HPACKError

    fields: dict[bytes, bytes] = {}
    try:
        for name, value in decoder.decode(block, raw=True):
            fields.setdefault(bytes(name), bytes(value))
    except (HPACKError, IndexError, ValueError) as error:
        raise DecodeError(f"no header block: {error}") from error
    return fields


def host_name(authority: bytes | None) -> str | None:
    """The host of an authority, in lower case, without user, port and last dot; None if there is none.

    >>> host_name(b"Example.COM.:8080"), host_name(b"[::1]:80"), host_name(b"")
    ('example.com', '[::1]', None)
    """
    if not authority:
        return None
    host = ffi.new("uint8_t[]", lib.WM_HTTP_HOST_BYTES)
    found = ffi.buffer(host, lib.wm_http_host(ffi.from_buffer(authority), len(authority), host))[:]
    return found.decode("utf-8", "backslashreplace").lower() or None
