"""Blocks of payloads into the decoders in C (bpf/names): what they tell of DNS, and what they leave to others."""

from __future__ import annotations

import mmap
import secrets
from array import array
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from wiremeter.names.library import ffi, lib
from wiremeter.names.payloads import Payload, PayloadBlock
from wiremeter.names.records import DecodeError, FlowKey, RawTold

#: A question that waited so long ends unanswered. Stub resolvers ask again or give up after 5 s.
TIMEOUT_NS = 10_000_000_000

#: Room for what is told before it is handed on: as much again as one message may take.
_ROOM = {
    "transactions": ("struct wm_dns_transaction", 8192 + lib.WM_TOLD_TRANSACTIONS),
    "answers": ("struct wm_dns_answer", 8192 + lib.WM_TOLD_ANSWERS),
    "heard": ("struct wm_dns_heard", 16384 + lib.WM_TOLD_HEARD),
    "addresses": ("struct wm_dns_address", 8192 + lib.WM_TOLD_ADDRESSES),
    "text": ("uint8_t", (1 << 20) + lib.WM_TOLD_TEXT),
}
#: Conversations that others read at once, at most; of more, a block waits until some are forgotten.
CONVERSATIONS_MAX = 8192
_EVER = (1 << 64) - 1


class BlockReader:
    """Payloads in, in the order they were seen; DNS transactions out, when they end, and the payloads that others read.

    A question ends by its response; by being asked again, since a response is taken to answer the latest; by
    TIMEOUT_NS; or early, as the oldest, when over `capacity` wait. Which response matches, and which teaches names, is
    said in bpf/names/dns_transactions.c.
    """

    def __init__(self, on_told: Callable[[RawTold], None], capacity: int = 65_536) -> None:
        """on_told: takes what was told, whenever there is much of it and when `hand_on` is called. capacity: how many
        questions may wait at once, at most 344 bytes each."""
        self._on_told = on_told
        # The system gives it as it is used, and full of zeros.
        self._memory = mmap.mmap(-1, lib.wm_dns_bytes(capacity))
        self._dns = ffi.cast("struct wm_dns *", ffi.from_buffer(self._memory))
        lib.wm_dns_begin(self._dns, capacity, secrets.randbits(64))
        #: Payloads of which nothing can be read, since the start.
        self.opaque = 0
        self._late = mmap.mmap(-1, lib.wm_listening_bytes(CONVERSATIONS_MAX))
        self._listening = ffi.cast("struct wm_listening *", ffi.from_buffer(self._late))
        lib.wm_listening_begin(self._listening, CONVERSATIONS_MAX, secrets.randbits(64))
        self._late_offsets = array("Q", map(lib.wm_late_offset, range(lib.WM_LATE_PACKETS)))
        self._told = ffi.new("struct wm_told *")
        self._columns: dict[str, mmap.mmap] = {}
        for name, (kind, room) in _ROOM.items():
            column = self._columns[name] = mmap.mmap(-1, room * ffi.sizeof(kind))
            setattr(self._told, name, ffi.cast(f"{kind} *", ffi.from_buffer(column)))
            setattr(self._told, f"{name}_room", room)

    def __len__(self) -> int:
        """How many questions wait."""
        return int(self._dns.count)

    @property
    def ended_early(self) -> int:
        """Questions that ended unanswered before their time, for want of space."""
        return int(self._dns.ended_early)

    @property
    def copies(self) -> int:
        """Messages that told nothing, since the same had come just before."""
        return int(self._dns.copies)

    def read(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> Iterator[tuple[int, Payload]]:
        """Takes the DNS messages of a block; yields each payload that others can read, with its device.

        Those are all of a conversation from the first on that may begin something, until `forget` is called. All other
        payloads are opaque. devices: the device of each attachment; payloads of others are left out. None: all are of
        one device.
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
            if not lib.wm_told_has_room(self._told):
                self.hand_on()
            done = lib.wm_names_read(self._dns, self._listening, at, done, self._told)
            numbers = ffi.unpack(others, at.others_count)
            # What was kept belongs before the last, which began to be read by it.
            late = PayloadBlock(self._late, self._late_offsets).at(list(at.late[0 : at.late_count]))
            for payload in chain(block.at(numbers[:-1]), late, block.at(numbers[-1:])):
                yield 0 if devices is None else devices[payload.attachment], payload
        self.opaque += at.opaque_count

    def forget(self, device: int, flow: FlowKey) -> None:
        """Nobody reads this conversation any more; `flow` is of either direction."""
        lib.wm_listening_forget(self._listening, device, _ends(flow))

    def message(
        self, device: int, time_ns: int, flow: FlowKey, data: bytes, *, cut: bool = False, lenient: bool = False
    ) -> tuple[str, int | None] | None:
        """Takes one message, without the length that precedes it over TCP, as `flow` carried it at `time_ns`.

        cut: its end is known to be missing. lenient: there is reason to believe that it is DNS; then a damaged first
        question is one of no name and type, if the header makes sense.
        Returns the question and response code of the last transaction that ended by it, if any did.
        Raises DecodeError if there is no whole header, or no question where the header promises one.
        """
        if not lib.wm_told_has_room(self._told):
            self.hand_on()
        before = self._told.transactions_count
        how = (lib.WM_DNS_IS_CUT if cut else 0) | (lib.WM_DNS_LENIENT if lenient else 0)
        if lib.wm_dns_take(self._dns, device, time_ns, _ends(flow), ffi.from_buffer(data), len(data), how, self._told):
            raise DecodeError("no header of a DNS message, or no question where it promises one")
        if self._told.transactions_count == before:
            return None
        last = self._told.transactions[self._told.transactions_count - 1]
        query = ffi.buffer(self._told.text + last.query_at, last.query_bytes)[:].decode("ascii")
        return query, None if last.rcode < 0 else last.rcode

    def expire(self, now_ns: int) -> None:
        """Ends what was asked TIMEOUT_NS before `now_ns` or earlier."""
        self._end(now_ns - TIMEOUT_NS)

    def flush(self) -> None:
        """Ends all that wait, as when a capture is over."""
        self._end(_EVER)

    def hand_on(self) -> None:
        """Hands on what was told since the last time."""
        told = {}
        for name, column in self._columns.items():
            count = f"{name}_bytes" if name == "text" else f"{name}_count"
            told[name] = column[: getattr(self._told, count) * ffi.sizeof(_ROOM[name][0])]
            setattr(self._told, count, 0)
        if any(told.values()):
            self._on_told(told)

    def _end(self, until_ns: int) -> None:
        while until_ns >= 0 and not lib.wm_dns_expire(self._dns, until_ns, self._told):
            self.hand_on()


def _ends(flow: FlowKey) -> Any:
    return ffi.new("struct wm_ends *", dict(zip(FlowKey._fields, flow, strict=True)))


def _by_attachment(devices: Mapping[int, int] | None) -> Any:
    found = [-1] * (max(devices or (), default=-1) + 1)
    for attachment, device in (devices or {}).items():
        found[attachment] = device
    return ffi.new("int32_t[]", found)
