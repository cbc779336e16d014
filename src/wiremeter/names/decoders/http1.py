"""HTTP/1.x: requests and their responses out of the two streams of a connection, bodies skipped by their lengths."""

from __future__ import annotations

import re
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto

from wiremeter.names.decoders.applications import looks_like_request, looks_like_response
from wiremeter.names.records import DecodeError, FlowKey, HttpTransaction

#: Bytes of one head, of one chunk-size line with its extensions, and of all trailer fields of one body, at most.
MAX_HEAD_BYTES = 64 << 10
#: Requests without a response, at most; the oldest is given up then.
MAX_OUTSTANDING = 256
#: Characters of a path that are kept; every recipient should support 8,000 (RFC 9110, section 4.1).
MAX_PATH = 8192
#: The same for a host: the longest domain name is 253 characters (RFC 1035, section 2.3.4).
MAX_HOST = 255
#: Positions in a stream are known modulo 2³² only, so a gap in a body as long as that may be longer than it seems.
_AMBIGUOUS_BYTES = 1 << 32

# RFC 9110, section 5.6.2; methods of more characters than any registered one has are not believed.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") +([^\s\x00-\x1f]+) +HTTP/(1\.[0-9])[ \t]*\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/(1\.[0-9]) +([1-5][0-9][0-9])(?:[ \t][^\r\n]*)?\r?\n")
_METHOD_BEGINNING = re.compile(_TOKEN + rb"(?: |\Z)")
_HEAD_END = re.compile(rb"\n\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_FIELD = re.compile(rb"\n(host|content-length|transfer-encoding|upgrade)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
# RFC 3986, section 3.2: user information, host, port. Some clients send bytes of UTF-8 as they are.
_AUTHORITY = re.compile(rb"(?:[^@/?#\s]*@)?(\[[0-9A-Fa-f:.]+\]|[\w.~%!$&'()*+,;=\x80-\xff-]+)(?::[0-9]*)?")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")


class _State(Enum):
    """What the next byte of a direction belongs to."""

    HEAD = auto()
    BODY = auto()  # of known length
    CHUNK_SIZE = auto()
    CHUNK = auto()
    TRAILER = auto()
    SKIP = auto()  # anything up to a packet that begins like a head


@dataclass(slots=True)
class _Half:
    """One direction. `left`: bytes still to come of a body or chunk. `first_ns`: time of the first byte in `buffer`."""

    state: _State = _State.HEAD
    buffer: bytearray = field(default_factory=bytearray)
    first_ns: int = 0
    left: int = 0
    trailer_bytes: int = 0
    #: Something was missed, maybe whole messages.
    lost: bool = False
    #: The length of the body is believed only until a packet begins like a head.
    doubtful: bool = False


@dataclass(slots=True)
class _Request:
    """A request that waits for its response."""

    time_ns: int
    last_ns: int
    version: str
    method: str
    host: str | None
    path: str | None


@dataclass(slots=True)
class _Fields:
    """What of a head's fields matters here."""

    host: bytes | None = None
    length: int | None = None
    is_chunked: bool = False
    has_other_coding: bool = False
    upgrade: bytes | None = None


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A request whose response comes in another protocol. last_ns: of its last byte."""

    request: HttpTransaction
    last_ns: int


class Http1Decoder:
    """Follows one connection. Bytes that are no HTTP are skipped up to the next packet that begins like a head.

    `done`: an upgrade or a tunnel: the connection speaks something else from here on. `rest`: the bytes behind that.
    `upgraded`: the request that began HTTP/2 in clear (RFC 7540, section 3.2), if one did.
    `host` and `method` are those of the latest request, known before its response is.
    """

    application = "http"

    def __init__(self, flow: FlowKey, redact: bool = True) -> None:
        """flow: from client to server. redact: leave paths out of the records, and never keep them."""
        self.done = False
        self.rest = b""
        self.upgraded: Upgraded | None = None
        self.host: str | None = None
        self.method: str | None = None
        self._flow = flow
        self._redact = redact
        self._halves = {True: _Half(), False: _Half()}
        self._outstanding: deque[_Request] = deque()
        self._sending: _Request | None = None  # the request whose body is being sent

    @property
    def expects_response(self) -> bool:
        """Whether a request was seen whose response was not."""
        return bool(self._outstanding)

    def optional_bytes(self, from_client: bool) -> int:
        """How many of the next bytes of a direction are certainly no head."""
        half = self._halves[from_client]
        if half.state is _State.SKIP:
            return _AMBIGUOUS_BYTES
        return half.left if half.state in (_State.BODY, _State.CHUNK) else 0

    def data(self, from_client: bool, chunk: bytes, time_ns: int) -> list[HttpTransaction]:
        """The next bytes of a direction, of one packet. Returns the requests whose final status is known now."""
        half = self._halves[from_client]
        out: list[HttpTransaction] = []
        if half.state is _State.SKIP or (half.doubtful and half.state is not _State.HEAD):
            if looks_like_request(chunk) if from_client else looks_like_response(chunk):
                half.state, half.doubtful = _State.HEAD, False
                half.buffer.clear()
            elif half.state is _State.SKIP:
                self._note_body(from_client, time_ns)
                return out
        at = 0
        while at < len(chunk) and not self.done:
            try:
                at = self._step(from_client, half, chunk, at, time_ns, out)
            except DecodeError:
                self._lose(from_client)
                break
        if self.done:
            self.rest = chunk[at:]
        return out

    def gap(self, from_client: bool, missing: int | None) -> list[HttpTransaction]:
        """Bytes of a direction were not seen: `missing`, or None where that isn't known."""
        half = self._halves[from_client]
        out: list[HttpTransaction] = []
        in_body = half.state in (_State.BODY, _State.CHUNK) and half.left < _AMBIGUOUS_BYTES
        if in_body and missing is not None and missing <= half.left:
            half.left -= missing
            if not half.left:
                self._end_body(half)
            return out
        if half.state is _State.HEAD and b"\n" in half.buffer:
            # The rest of the head is missing; what is there tells the method or status and, mostly, the host.
            head = bytes(half.buffer[: half.buffer.rindex(b"\n") + 1])
            with suppress(DecodeError):
                self._head(from_client, half, head, half.first_ns, out)
        self._lose(from_client)
        return out

    def flush(self) -> list[HttpTransaction]:
        """Ends the connection: returns the requests that have had no response."""
        out = [self._record(request) for request in self._outstanding]
        self._outstanding.clear()
        self._sending = None
        return out

    # --- bytes

    def _step(
        self, from_client: bool, half: _Half, chunk: bytes, at: int, time_ns: int, out: list[HttpTransaction]
    ) -> int:
        """Takes some of a chunk, from `at`; returns where the rest begins. Raises DecodeError."""
        match half.state:
            case _State.HEAD:
                return self._take_head(from_client, half, chunk, at, time_ns, out)
            case _State.BODY | _State.CHUNK:
                taken = min(half.left, len(chunk) - at)
                half.left -= taken
                self._note_body(from_client, time_ns)
                if not half.left:
                    self._end_body(half)
                return at + taken
            case _State.CHUNK_SIZE | _State.TRAILER:
                self._note_body(from_client, time_ns)
                return self._take_line(half, chunk, at)
            case _State.SKIP:
                self._note_body(from_client, time_ns)
                return len(chunk)

    def _take_head(
        self, from_client: bool, half: _Half, chunk: bytes, at: int, time_ns: int, out: list[HttpTransaction]
    ) -> int:
        buffer = half.buffer
        if not buffer:
            # Empty lines before a head are ignored (RFC 9112, section 2.2).
            while at < len(chunk) and chunk[at] in b"\r\n":
                at += 1
            half.first_ns = time_ns
        before = len(buffer)
        buffer += chunk[at : at + MAX_HEAD_BYTES - before]
        end = _HEAD_END.search(buffer, max(0, before - 2))
        if end:
            head = bytes(buffer[: end.end()])
            buffer.clear()
            self._head(from_client, half, head, time_ns, out)
            return at + len(head) - before
        if len(buffer) >= MAX_HEAD_BYTES:
            raise DecodeError(f"a head of more than {MAX_HEAD_BYTES} bytes")
        _check_beginning(from_client, buffer, before)
        return len(chunk)

    def _take_line(self, half: _Half, chunk: bytes, at: int) -> int:
        """Takes a line of the chunked coding (RFC 9112, section 7.1)."""
        end = chunk.find(b"\n", at) + 1
        line = chunk[at : end or len(chunk)]
        half.buffer += line
        half.trailer_bytes += len(line)
        if half.trailer_bytes > MAX_HEAD_BYTES:
            raise DecodeError("chunk extensions or trailer fields without end")
        if not end:
            return len(chunk)
        line = bytes(half.buffer)
        half.buffer.clear()
        if half.state is _State.TRAILER:
            if not line.strip(b"\r\n"):
                half.state = _State.HEAD
        elif line.strip(b"\r\n"):  # the line that ends the data of the chunk before is empty
            size = _CHUNK_SIZE.fullmatch(line)
            if not size:
                raise DecodeError("no chunk size")
            half.left = int(size[1], 16)
            half.state = _State.CHUNK if half.left else _State.TRAILER
            half.trailer_bytes = 0
        return end

    def _end_body(self, half: _Half) -> None:
        half.state = _State.CHUNK_SIZE if half.state is _State.CHUNK else _State.HEAD
        half.doubtful = half.doubtful and half.state is not _State.HEAD
        half.trailer_bytes = 0

    def _note_body(self, from_client: bool, time_ns: int) -> None:
        if from_client and self._sending:
            self._sending.last_ns = max(self._sending.last_ns, time_ns)

    def _lose(self, from_client: bool) -> None:
        half = self._halves[from_client]
        half.state, half.lost, half.doubtful = _State.SKIP, True, False
        half.buffer.clear()

    # --- messages

    def _head(self, from_client: bool, half: _Half, head: bytes, last_ns: int, out: list[HttpTransaction]) -> None:
        if from_client:
            self._request(half, head, last_ns, out)
        else:
            self._response(half, head, out)

    def _request(self, half: _Half, head: bytes, last_ns: int, out: list[HttpTransaction]) -> None:
        line = _REQUEST_LINE.match(head)
        if not line:
            raise DecodeError("no request line")
        fields = _fields(head)
        method = line[1].decode("ascii")
        host, path = _target(method, line[2], fields.host)
        version = line[3].decode("ascii")
        request = _Request(half.first_ns, last_ns, version, method, host, None if self._redact else path)
        if len(self._outstanding) >= MAX_OUTSTANDING:
            out.append(self._record(self._outstanding.popleft()))
        self._outstanding.append(request)
        self._sending, self.host, self.method = request, host, method
        if fields.has_other_coding:
            raise DecodeError("a request whose end can't be told (RFC 9112, section 6.3)")
        self._begin_body(half, fields, default=0)

    def _response(self, half: _Half, head: bytes, out: list[HttpTransaction]) -> None:
        line = _STATUS_LINE.match(head)
        if not line:
            raise DecodeError("no status line")
        status = int(line[2])
        if status < 200 and status != 101:
            return  # interim: the final response follows (RFC 9110, section 15.2)
        request = self._answered(half, out)
        half.lost = False
        if status == 101 and request and (_fields(head).upgrade or b"").strip().lower() == b"h2c":
            self.upgraded, self.done = Upgraded(self._record(request), request.last_ns), True
            return
        if request is None:
            out.append(HttpTransaction(half.first_ns, self._flow, line[1].decode("ascii"), None, None, None, status))
        else:
            out.append(self._record(request, status, max(0, half.first_ns - request.last_ns)))
        method = request.method if request else None
        if status == 101 or (method == "CONNECT" and status < 300):
            self.done = True
        elif method == "HEAD" or status in (204, 304):
            half.state = _State.HEAD
        else:
            half.doubtful = request is None  # it may have answered a HEAD
            self._begin_body(half, _fields(head), default=None)

    def _answered(self, half: _Half, out: list[HttpTransaction]) -> _Request | None:
        """The request that a response belongs to: the oldest (RFC 9112, section 9.3.2).

        After a loss, responses may be missing too: the latest that was sent by then, since clients that send the next
        request before the response are rare, and one that is off by one would stay so.
        """
        waiting = self._outstanding
        if half.lost:
            while len(waiting) > 1 and waiting[1].time_ns <= half.first_ns:
                out.append(self._record(waiting.popleft()))
        if not waiting or waiting[0].time_ns > half.first_ns:
            return None
        return waiting.popleft()

    def _begin_body(self, half: _Half, fields: _Fields, default: int | None) -> None:
        """What follows a head (RFC 9112, section 6.3). default: bytes where no field tells; None is up to the end."""
        if fields.is_chunked:
            half.state, half.trailer_bytes = _State.CHUNK_SIZE, 0
            return
        left = None if fields.has_other_coding else fields.length if fields.length is not None else default
        if left is None:
            half.state = _State.SKIP
        else:
            half.left = left
            half.state = _State.BODY if left else _State.HEAD

    def _record(self, request: _Request, status: int | None = None, latency_ns: int | None = None) -> HttpTransaction:
        return HttpTransaction(
            request.time_ns,
            self._flow,
            request.version,
            request.method,
            request.host,
            request.path,
            status,
            latency_ns,
        )


def _check_beginning(from_client: bool, buffer: bytearray, before: int) -> None:
    """Raises DecodeError as soon as an unfinished head, of `before` bytes until now, can't be one."""
    if before < 40 and not (_METHOD_BEGINNING.match(buffer) if from_client else b"HTTP/1.".startswith(buffer[:7])):
        raise DecodeError("no method or version")
    has_line_now = buffer.find(b"\n", before) >= 0 > buffer.find(b"\n", 0, before)
    if has_line_now and not (_REQUEST_LINE if from_client else _STATUS_LINE).match(buffer):
        raise DecodeError("no first line")


def _fields(head: bytes) -> _Fields:
    """The fields of a head that matter. Raises DecodeError where they contradict each other."""
    if b"\n " in head or b"\n\t" in head:
        head = _FOLD.sub(b" ", head)  # obsolete line folding (RFC 9112, section 5.2)
    fields = _Fields()
    for name, value in _FIELD.findall(head):
        match name.lower():
            case b"host":
                fields.host = fields.host or value.strip()
            case b"transfer-encoding":
                fields.is_chunked = value.lower().rstrip().endswith(b"chunked")
                fields.has_other_coding = not fields.is_chunked
            case b"upgrade":
                fields.upgrade = value
            case _:
                fields.length = _content_length(value, fields.length)
    return fields


def _content_length(value: bytes, before: int | None) -> int:
    """A list of equal values is allowed (RFC 9112, section 6.3)."""
    values = {part.strip() for part in value.split(b",")}
    digits = values.pop()
    if values or not digits.isdigit() or len(digits) > 18 or before not in (None, int(digits)):
        raise DecodeError("a length that is none")
    return int(digits)


def _target(method: str, target: bytes, host: bytes | None) -> tuple[str | None, str]:
    """Host and path of a request. The host of an absolute target goes before the field (RFC 9112, section 3.2.2)."""
    if method == "CONNECT" and b"/" not in target:
        host = target
    elif not target.startswith(b"/") and (absolute := _ABSOLUTE.fullmatch(target)):
        host, target = absolute[1], absolute[2] or b"/"
    return host_name(host), target[:MAX_PATH].decode("utf-8", "backslashreplace")


def host_name(authority: bytes | None) -> str | None:
    """The host of an authority, in lower case, without user, port and last dot; None if there is none.

    >>> host_name(b"Example.COM.:8080"), host_name(b"[::1]:80"), host_name(b"")
    ('example.com', '[::1]', None)
    """
    found = _AUTHORITY.fullmatch(authority) if authority and len(authority) <= 2 * MAX_HOST else None
    if not found:
        return None
    host = found[1].decode("utf-8", "backslashreplace").lower().rstrip(".")
    return host if host and len(host) <= MAX_HOST else None
