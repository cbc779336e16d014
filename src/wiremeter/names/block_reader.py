"""Blocks of payloads into the decoders in C (bpf/names): what they tell, and what they leave to others."""

from __future__ import annotations

import mmap
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from wiremeter.names.decoders.http2 import Upgraded
from wiremeter.names.library import ffi, lib
from wiremeter.names.payloads import Payload, PayloadBlock
from wiremeter.names.records import (
    QUESTIONS_MAX,
    DecodeError,
    FlowKey,
    HttpTransaction,
    QuicHandshake,
    RawTold,
)
from wiremeter.names.said import Said, tell_hello, tell_http
from wiremeter.names.stream_readers import Learnt, Piece, StreamReaders

#: A question that waited so long ends unanswered. Stub resolvers ask again or give up after 5 s.
TIMEOUT_NS = 10_000_000_000
#: Of a hello or head in parts, and of bodies, so much waits at once at most: 4 MB, in cells of 512 bytes.
CELLS_MAX = 8192

#: Room for what is told before it is handed on: some times as much as one message may take.
_ROOM = {
    "transactions": ("struct wm_dns_transaction", 8192 + 2 * lib.WM_TOLD_TRANSACTIONS),
    "answers": ("struct wm_dns_answer", 8192 + 2 * lib.WM_TOLD_ANSWERS),
    "heard": ("struct wm_dns_heard", 16384 + 2 * lib.WM_TOLD_HEARD),
    "addresses": ("struct wm_dns_address", 8192 + 2 * lib.WM_TOLD_ADDRESSES),
    "http": ("struct wm_http_transaction", 8192 + 2 * lib.WM_TOLD_HTTP),
    "hellos": ("struct wm_hello", 4096 + 2 * lib.WM_TOLD_HELLOS),
    "names": ("struct wm_name", 8192 + 2 * lib.WM_TOLD_NAMES),
    "text": ("uint8_t", (1 << 20) + 2 * lib.WM_TOLD_TEXT),
}
_PIECES = 8 * lib.WM_TOLD_PIECES
#: Conversations over UDP that others read at once, at most; of more, a block waits until some are forgotten.
CONVERSATIONS_MAX = 8192
_EVER = (1 << 64) - 1


class BlockReader:
    """Payloads in, in the order they were seen; transactions out, when they end, and the payloads that others read.

    A question of DNS ends by its response; by being asked again, since a response is taken to answer the latest; by
    TIMEOUT_NS; or early, as the oldest, when over `capacity` wait. Which response matches, and which teaches names, is
    said in bpf/names/dns_transactions.c; how connections over TCP are read, in bpf/names/tcp.c.
    """

    def __init__(
        self,
        on_told: Callable[[RawTold], None],
        capacity: int = QUESTIONS_MAX,
        *,
        connections: int = 4096,
        redact: bool = True,
        ja4s: bool = False,
    ) -> None:
        """on_told: takes what was told, whenever there is much of it and when `hand_on` is called. capacity: how many
        questions may wait at once, at most 344 bytes each. connections: over TCP that are read at once. redact: leave
        out paths of HTTP. ja4s: fingerprint servers' answers."""
        self._on_told = on_told
        seed = secrets.randbits(64)
        how = (lib.WM_TCP_REDACT if redact else 0) | (lib.WM_TCP_JA4S if ja4s else 0)
        # The system gives it as it is used, and full of zeros.
        self._memory = mmap.mmap(-1, lib.wm_dns_bytes(capacity))
        self._dns = ffi.cast("struct wm_dns *", ffi.from_buffer(self._memory))
        lib.wm_dns_begin(self._dns, capacity, seed)
        self._tcp_memory = mmap.mmap(-1, lib.wm_tcp_bytes(connections, CELLS_MAX))
        self._tcp = ffi.cast("struct wm_tcp *", ffi.from_buffer(self._tcp_memory))
        lib.wm_tcp_begin(self._tcp, connections, CELLS_MAX, seed, how)
        self._listening_memory = mmap.mmap(-1, lib.wm_listening_bytes(CONVERSATIONS_MAX))
        self._listening = ffi.cast("struct wm_listening *", ffi.from_buffer(self._listening_memory))
        lib.wm_listening_begin(self._listening, CONVERSATIONS_MAX, seed)
        #: Payloads of which nothing can be read, since the start.
        self.opaque = 0
        self._lost_told = 0
        self._readers = StreamReaders(redact=redact)
        self._told = ffi.new("struct wm_told *")
        self._columns: dict[str, mmap.mmap] = {}
        for name, (kind, room) in (_ROOM | {"pieces": ("struct wm_piece", _PIECES)}).items():
            column = self._columns[name] = mmap.mmap(-1, room * ffi.sizeof(kind))
            setattr(self._told, name, ffi.cast(f"{kind} *", ffi.from_buffer(column)))
            setattr(self._told, f"{name}_room", room)

    def __len__(self) -> int:
        """How many questions wait."""
        return int(self._dns.count)

    @property
    def connections(self) -> int:
        """How many connections over TCP are being read."""
        return int(lib.wm_tcp_count(self._tcp))

    @property
    def ended_early(self) -> int:
        """Questions that ended unanswered before their time, for want of space."""
        return int(self._dns.ended_early)

    @property
    def copies(self) -> int:
        """Messages that told nothing, since the same had come just before."""
        return int(self._dns.copies)

    @property
    def lost(self) -> int:
        """How often something that was read found no room, since the start: segments, heads, hellos, questions, and
        connections that went before their time for others."""
        return int(self._told.lost) + self.ended_early + int(lib.wm_tcp_lost(self._tcp))

    def read(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> Iterator[tuple[int, Payload]]:
        """Takes a block; yields each payload that others can read, with its device.

        Those are parts of datagrams, and all of a conversation over UDP from the first on that may begin something,
        until `forget` is called. devices: the device of each attachment; payloads of others are left out. None: all are
        of one device.
        """
        others = ffi.new("uint32_t[]", len(block))
        of_attachment = _by_attachment(devices)
        data = ffi.from_buffer("uint8_t[]", block.data)
        at = ffi.new(
            "struct wm_names_block *",
            {
                "data": data,
                "data_bytes": len(data),
                "offsets": ffi.from_buffer("uint64_t[]", block.offsets),
                "count": len(block),
                "origin_ns": block.origin_ns % (1 << 64),
                "devices": ffi.NULL if devices is None else of_attachment,
                "devices_count": len(of_attachment),
                "others": others,
            },
        )
        done = 0
        while done < len(block):
            self._make_room()
            done = lib.wm_names_read(self._dns, self._tcp, self._listening, at, done, self._told)
            self._take_pieces()
            for payload in block.at(ffi.unpack(others, at.others_count)):
                yield 0 if devices is None else devices[payload.attachment], payload
        self.opaque += at.opaque_count

    def forget(self, device: int, flow: FlowKey) -> None:
        """Nobody reads this conversation over UDP any more; `flow` is of either direction."""
        lib.wm_listening_forget(self._listening, device, _ends(flow))

    def learn(self, device: int, flow: FlowKey, time_ns: int, said: Said) -> None:
        """What others have read of a conversation over UDP; `flow` is of either direction."""
        self._make_room()
        lib.wm_udp_learn(self._listening, device, _ends(flow), time_ns, said.struct(), self._told)

    def tell(self, device: int, ended: QuicHandshake | HttpTransaction) -> None:
        """A transaction that others have read."""
        self._make_room()
        if isinstance(ended, HttpTransaction):
            tell_http(self._told, device, ended)
        else:
            tell_hello(self._told, device, ended)

    def message(
        self, device: int, time_ns: int, flow: FlowKey, data: bytes, *, cut: bool = False, lenient: bool = False
    ) -> None:
        """Takes one DNS message, without the length that precedes it over TCP, as `flow` carried it at `time_ns`.

        cut: its end is known to be missing. lenient: there is reason to believe that it is DNS; then a damaged first
        question is one of no name and type, if the header makes sense.
        Raises DecodeError if there is no whole header, or no question where the header promises one.
        """
        self._make_room()
        how = (lib.WM_DNS_IS_CUT if cut else 0) | (lib.WM_DNS_LENIENT if lenient else 0)
        if lib.wm_dns_take(self._dns, device, time_ns, _ends(flow), ffi.from_buffer(data), len(data), how, self._told):
            raise DecodeError("no header of a DNS message, or no question where it promises one")

    def advance(self, now_ns: int, silent_ns: int) -> None:
        """Ends what has waited for too long by `now_ns`, lets go connections silent since `silent_ns`, and hands on."""
        self._end(now_ns - TIMEOUT_NS)
        self._advance(now_ns, max(silent_ns, 0))
        self.hand_on()

    def flush(self, now_ns: int) -> None:
        """Ends all that is open, as when a capture is over, and hands on."""
        self._advance(now_ns, _EVER)
        self._end(_EVER)
        self.hand_on()

    def hand_on(self) -> None:
        """Hands on what was told since the last time."""
        told = {}
        for name, (kind, _) in _ROOM.items():
            count = f"{name}_bytes" if name == "text" else f"{name}_count"
            told[name] = self._columns[name][: getattr(self._told, count) * ffi.sizeof(kind)]
            setattr(self._told, count, 0)
        gained, self._lost_told = self.lost - self._lost_told, self.lost
        told["lost"] = gained.to_bytes(8, sys.byteorder) if gained else b""
        if any(told.values()):
            self._on_told(told)

    def _make_room(self) -> None:
        if not lib.wm_told_has_room(self._told, 2):
            self.hand_on()

    def _end(self, until_ns: int) -> None:
        while until_ns >= 0 and not lib.wm_dns_expire(self._dns, until_ns, self._told):
            self.hand_on()

    def _advance(self, now_ns: int, silent_ns: int) -> None:
        while not lib.wm_tcp_advance(self._tcp, self._dns, now_ns, silent_ns, self._told):
            self._take_pieces()
            self._make_room()

    # --- streams that are read here

    def _take_pieces(self) -> None:
        """Reads the pieces that there are, and those that come of it."""
        while self._told.pieces_count:
            pieces = [self._piece(self._told.pieces[number]) for number in range(self._told.pieces_count)]
            self._told.pieces_count = 0
            for number, piece, device in pieces:
                self._make_room()
                self._learn(number, piece, device, self._readers.take(piece))

    def _piece(self, raw: Any) -> tuple[int, Piece, int]:
        """A piece, after the number of its connection and before that of its device."""
        flow = _flow(raw.flow)
        data = ffi.buffer(self._told.text + raw.data_at, raw.data_bytes)[:]
        piece = Piece(raw.kind, raw.time_ns, raw.serial, flow, bool(raw.from_client), data)
        if raw.kind == lib.WM_PIECE_GAP:
            piece = piece._replace(missing=None if raw.missing < 0 else raw.missing)
        elif raw.kind == lib.WM_PIECE_REQUEST:
            host_at, path_at = raw.method_bytes, raw.method_bytes + raw.host_bytes
            method, host, path = (
                said.decode("utf-8", "backslashreplace") or None
                for said in (data[:host_at], data[host_at:path_at], data[path_at:])
            )
            request = HttpTransaction(raw.time_ns, flow, "2", method, host, path)
            piece = piece._replace(upgraded=Upgraded(request, raw.last_ns))
        return raw.connection, piece, raw.device

    def _learn(self, number: int, piece: Piece, device: int, learnt: Learnt) -> None:
        for one in learnt.ended:
            self.tell(device, one)
        said = Said.of(learnt)
        lib.wm_tcp_learn(self._tcp, number, piece.serial, piece.time_ns, said.struct())
        if learnt.done:
            lib.wm_tcp_close(self._tcp, self._dns, number, piece.serial, piece.time_ns, self._told)
        elif learnt.optional:
            lib.wm_tcp_allow_missing(
                self._tcp,
                self._dns,
                number,
                piece.serial,
                piece.from_client,
                learnt.optional,
                piece.time_ns,
                self._told,
            )


def _ends(flow: FlowKey) -> Any:
    return ffi.new("struct wm_ends *", flow._asdict())


def _flow(ends: Any) -> FlowKey:
    """Of struct wm_ends."""
    src, dst = bytes(ffi.buffer(ends.src_addr)), bytes(ffi.buffer(ends.dst_addr))
    return FlowKey(src, ends.src_port, dst, ends.dst_port, ends.protocol, ends.family)


def _by_attachment(devices: Mapping[int, int] | None) -> Any:
    found = [-1] * (max(devices or (), default=-1) + 1)
    for attachment, device in (devices or {}).items():
        found[attachment] = device
    return ffi.new("int32_t[]", found)
