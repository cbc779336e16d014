"""Which name an address was resolved to, for which client: what DNS answers tell about the connections that follow."""

from __future__ import annotations

import copy
import os
import stat
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from wiremeter.errors import InputError
from wiremeter.files import write_whole
from wiremeter.names.library import ffi, lib

#: A name holds at least so long after it was learned or last looked up, however short its TTL. Clients go on using an
#: address after its TTL: pools and browsers for minutes, a connection for as long as it lasts, with pauses up to the
#: usual keep-alive interval of two hours (RFC 1122, section 4.2.3.6). A name that holds too long is wrong only where
#: its address moves to another name that the client then uses without asking for it.
HOLD_NS = 2 * 3600 * 1_000_000_000
#: Longer TTLs count as this (RFC 8767, section 4).
MAX_TTL_S = 7 * 86_400
#: Pairs of client and address that are kept, if nothing else is said.
ADDRESSES_MAX = 1 << 16
#: Longer names are not those of hosts (RFC 1035, section 2.3.4) but bytes with escapes; they are not learned.
MAX_NAME_CHARACTERS = 253

_S_NS = 1_000_000_000
_LAST_NS = (1 << 62) - 1  # times further on, which captures can hold, are as good as this
_NEVER_NS = (1 << 63) - 1
#: The client of what was announced to all. No client has this address, the unspecified one.
_EVERYONE = bytes(16)
#: The client that has all of DomainCache.own. Nor this one, of a prefix to be discarded (RFC 6666).
_OWN = bytes.fromhex("0100000000000000") + b"wm-owner"
#: When full, one of so many entries goes at once: finding the least recently used takes a look at all.
_EVICTED_SHARE = 16

_FORMAT = "wiremeter domain cache"
_VERSION = 1
_MAX_BYTES_OF_ENTRY = 512

_Slots = NDArray[np.intp]
_Words = NDArray[np.uint64]


class _Index(NamedTuple):
    """Entries in order of their hashes, and where in it those begin whose upper bits are 0, 1, …"""

    hashes: _Words
    keys: _Words
    slots: NDArray[np.int64]
    starts: NDArray[np.uint32]
    shift: int


class _Learnt(NamedTuple):
    """Names of addresses, in the order they were learned: the pairs of client and address, and arrays of shape (n,)."""

    keys: list[bytes]
    names: list[str]
    until_ns: NDArray[np.int64]
    used_ns: NDArray[np.int64]
    since_ns: NDArray[np.int64]

    @classmethod
    def of(cls, addresses: NDArray[np.void], text: bytes, client_of: Callable[[bytes], bytes]) -> _Learnt:
        """What answers said: dtype ADDRESS."""
        times_ns = np.minimum(addresses["time_ns"], _LAST_NS).astype(np.int64)
        until_ns = times_ns + np.minimum(addresses["ttl"], MAX_TTL_S).astype(np.int64) * _S_NS
        pairs = zip(addresses["client"].tolist(), addresses["address"].tolist(), strict=True)
        names = zip(addresses["name_at"].tolist(), addresses["name_bytes"].tolist(), strict=True)
        return cls(
            [client_of(client) + address for client, address in pairs],
            [text[at : at + size].decode("ascii", "replace") for at, size in names],
            until_ns,
            times_ns,
            times_ns,
        )

    @classmethod
    def loaded(cls, entries: list[_Entry], now_ns: int) -> _Learnt:
        """What a file says, of entries that have a client."""
        until_ns, used_ns, since_ns = (
            np.array([getattr(entry, column) for entry in entries], np.int64)
            for column in ("until_ns", "used_ns", "since_ns")
        )
        keys = [(entry.client or b"") + entry.address for entry in entries]
        return cls(keys, [entry.name for entry in entries], until_ns, used_ns, np.minimum(since_ns, now_ns))


def _at(kind: str, values: NDArray[Any]) -> Any:
    """A C pointer to the first of them."""
    return ffi.cast(f"{kind} *", values.ctypes.data)


class DomainCache:
    """Names by client and address, as DNS answered them; bounded, the least recently learned or used go first.

    Addresses are 16 bytes in network order, IPv4 as v4-mapped; names lower case, without the last dot; times in
    nanoseconds since the Unix epoch. The name of an address is the one its client asked for, whatever CNAMEs lie
    between; if it asked for several, the latest. What was announced by multicast holds for every client.
    """

    def __init__(self, capacity: int = ADDRESSES_MAX) -> None:
        """capacity: how many (client, address) pairs are kept, and how many PTR records beside them."""
        self._capacity = capacity
        #: Where the pair of a client and an address, 32 bytes, lies in the columns.
        self._slots: dict[bytes, int] = {}
        self._free = array("i", reversed(range(capacity)))  # a list of numbers would take 2 MB
        self._names = [""] * capacity
        #: The name before, of a flow that began before the present one was learned.
        self._former = [""] * capacity
        self._keys = np.zeros((capacity, 4), np.uint64)
        self._since_ns = np.zeros(capacity, np.int64)
        self._former_ns = np.zeros(capacity, np.int64)
        self._until_ns = np.zeros(capacity, np.int64)
        self._used_ns = np.zeros(capacity, np.int64)
        self._index: _Index | None = None
        #: Unpredictable: two for each half of an address, and one for clients.
        self._hash_keys = np.frombuffer(os.urandom(8 * 5), np.uint64) | np.uint64(1)
        self._pointers: OrderedDict[bytes, tuple[str, int]] = OrderedDict()
        #: Addresses of one host that are one client, since it may ask over IPv4 and connect over IPv6.
        self.own: frozenset[bytes] = frozenset()
        #: Entries that went before their time, for want of space.
        self.evictions = 0

    def __len__(self) -> int:
        """How many (client, address) pairs are kept, those included whose time is over."""
        return len(self._slots)

    # --- learning

    def learn(self, addresses: NDArray[np.void], text: bytes) -> None:
        """Takes what answers said of addresses (RFC 1034; the hints of HTTPS and SVCB: RFC 9460). PTR records are kept
        apart.

        addresses: dtype ADDRESS, shape (n,), in order of time. text: which their names lie in.
        """
        is_pointer = addresses["is_pointer"] != 0
        self._learn_pointers(addresses[is_pointer], text)
        addresses = addresses[~is_pointer]
        for begin in range(0, len(addresses), self._capacity):
            self._store(_Learnt.of(addresses[begin : begin + self._capacity], text, self._client))

    def _learn_pointers(self, addresses: NDArray[np.void], text: bytes) -> None:
        learnt = _Learnt.of(addresses, text, self._client)
        held_ns = np.maximum(learnt.until_ns, learnt.used_ns + HOLD_NS)
        for key, name, until_ns in zip(learnt.keys, learnt.names, held_ns.tolist(), strict=True):
            self._store_pointer(key[16:], name, until_ns)

    def _client(self, address: bytes) -> bytes:
        return _OWN if address in self.own else address

    def _store_pointer(self, address: bytes, name: str, until_ns: int) -> None:
        self._pointers[address] = (name, until_ns)
        self._pointers.move_to_end(address)
        if len(self._pointers) > self._capacity:
            self._pointers.popitem(last=False)
            self.evictions += 1

    def _store(self, learnt: _Learnt) -> None:
        """No more than there is capacity for."""
        new = set(learnt.keys) - self._slots.keys()
        while len(self._free) < len(new):
            self._make_room(int(learnt.used_ns[-1]))
            new = set(learnt.keys) - self._slots.keys()
        slots = np.fromiter(map(self._slot, learnt.keys), np.intp, len(learnt.keys))
        for slot, name, since_ns in zip(slots.tolist(), learnt.names, learnt.since_ns.tolist(), strict=True):
            before = self._names[slot]
            if before != name:
                self._former[slot] = before
                self._former_ns[slot] = self._since_ns[slot] if before else _NEVER_NS
                self._names[slot], self._since_ns[slot] = name, since_ns
        self._until_ns[slots], self._used_ns[slots] = learnt.until_ns, learnt.used_ns

    def _slot(self, key: bytes) -> int:
        """Where a pair lies; one that is new gets a free slot."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self._free.pop()
            self._keys[slot] = np.frombuffer(key, np.uint64)
            self._names[slot] = ""
            self._index = None
        return slot

    def _make_room(self, now_ns: int) -> None:
        """Drop all whose time is over; if there are none, those that were not learned or used for the longest time."""
        kept = np.fromiter(self._slots.values(), np.intp, len(self._slots))
        gone = kept[self._end_ns(kept) < now_ns]
        if not len(gone):
            count = min(max(self._capacity // _EVICTED_SHARE, 1), len(kept))
            gone = kept[np.argpartition(self._used_ns[kept], count - 1)[:count]]
            self.evictions += count
        for slot in gone.tolist():
            del self._slots[self._keys[slot].tobytes()]
            self._free.append(slot)
        self._index = None

    def _end_ns(self, slots: _Slots | slice) -> NDArray[np.int64]:
        return np.maximum(self._until_ns[slots], self._used_ns[slots] + HOLD_NS)

    # --- looking up

    def lookup(self, client: bytes, server: bytes, time_ns: int) -> str | None:
        """The name that `client` asked for and got `server`, or that was announced to all; None if there is none."""
        for key in (self._client(client) + server, _EVERYONE + server):
            slot = self._slots.get(key)
            if slot is None:
                continue
            used_ns = int(self._used_ns[slot])
            if max(int(self._until_ns[slot]), used_ns + HOLD_NS) >= time_ns:
                self._used_ns[slot] = max(used_ns, time_ns)
                return self._names[slot]
        return None

    def lookup_ptr(self, server: bytes, time_ns: int) -> str | None:
        """The name in an address's PTR record, if one was seen. Who runs the address writes it: weak evidence."""
        name, until_ns = self._pointers.get(server, (None, 0))
        return name if until_ns >= time_ns else None

    def lookup_many(
        self,
        src: NDArray[np.uint8],
        dst: NDArray[np.uint8],
        time_ns: int,
        *,
        src_is_client: NDArray[np.bool_] | None = None,
        began_ns: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.uint32], tuple[str, ...]]:
        """The names of many flows: (numbers of shape (n,), the names that they number; number 0 is "", no name).

        src, dst: shape (n, 16), the flows' addresses.
        src_is_client: shape (n,), set where the flow is known to go from client to server. Where it is not, both ways
        are tried, src as the client first. What was announced to all is asked only where it is: an announcement
        does not tell who is the client, and the name of a client is not that of its connections.
        began_ns: shape (n,), when each flow began; names learned later are none of its. None: now.
        """
        known = np.zeros(len(src), np.bool_) if src_is_client is None else src_is_client
        found = self._find(src, dst, known, time_ns)
        if began_ns is not None:
            self._leave_later(found, began_ns)
        is_used = np.zeros(2 * self._capacity, np.bool_)
        is_used[found[found >= 0]] = True  # a mark for each is faster than sorting them
        used = np.flatnonzero(is_used)
        slots = used % self._capacity
        self._used_ns[slots] = np.maximum(self._used_ns[slots], time_ns)
        numbers = {"": 0}
        number_of = np.zeros(2 * self._capacity + 1, np.uint32)  # the last one is that of −1, not found
        names = (self._former[at - self._capacity] if at >= self._capacity else self._names[at] for at in used.tolist())
        number_of[used] = [numbers.setdefault(name, len(numbers)) for name in names]
        return number_of[found], tuple(numbers)

    def _leave_later(self, found: _Slots, began_ns: NDArray[np.int64]) -> None:
        """Takes from `found` the slots whose names were learned after flows began; the capacity further on is the name
        before."""
        late = np.flatnonzero((found >= 0) & (self._since_ns[found] > began_ns))
        has_former = self._former_ns[found[late]] <= began_ns[late]
        found[late] = np.where(has_former, found[late] + self._capacity, -1)

    def _find(
        self, src: NDArray[np.uint8], dst: NDArray[np.uint8], src_is_client: NDArray[np.bool_], time_ns: int
    ) -> _Slots:
        """The slot of each flow, -1 for none. In C: bpf/names/domains.c."""
        found = np.full(len(src), -1, np.int64)
        if not self._slots:
            return found.astype(np.intp)
        index = self._index = self._index or self._indexed()
        if src.strides != dst.strides or src.strides[1] != 1:
            src, dst = np.ascontiguousarray(src), np.ascontiguousarray(dst)
        end_ns = self._end_ns(slice(None))
        own, known = b"".join(self.own), np.ascontiguousarray(src_is_client)
        given = ffi.new(
            "struct wm_domains *",
            {
                "hash_keys": _at("uint64_t", self._hash_keys),
                "hashes": _at("uint64_t", index.hashes),
                "pairs": _at("uint64_t", index.keys),
                "slots": _at("int64_t", index.slots),
                "starts": _at("uint32_t", index.starts),
                "shift": index.shift,
                "own_count": len(self.own),
                "end_ns": _at("int64_t", end_ns),
                "own": (own_at := ffi.from_buffer("uint8_t[]", own)),
                "owner": (owner_at := ffi.from_buffer("uint8_t[]", _OWN)),
            },
        )
        lib.wm_domains_find(
            given,
            _at("uint8_t", src),
            _at("uint8_t", dst),
            src.strides[0],
            _at("uint8_t", known),
            len(src),
            time_ns,
            _at("int64_t", found),
        )
        del own_at, owner_at  # until here what they point at had to be held
        return found.astype(np.intp, copy=False)

    def _hashes(self, keys: _Words) -> _Words:
        """Of pairs of client and address, shape (n, 4)."""
        hashes = np.empty(len(keys), np.uint64)
        lib.wm_domains_hash(_at("uint64_t", self._hash_keys), _at("uint64_t", keys), len(keys), _at("uint64_t", hashes))
        return hashes

    def _indexed(self) -> _Index:
        slots = np.fromiter(self._slots.values(), np.int64, len(self._slots))
        keys = np.ascontiguousarray(self._keys[slots])
        hashes = self._hashes(keys)
        order = np.argsort(hashes)
        bits = len(slots).bit_length() + 1  # two to four times as many as entries
        starts = np.zeros((1 << bits) + 1, np.uint32)
        places = (hashes >> np.uint64(64 - bits)).astype(np.intp)
        np.cumsum(np.bincount(places, minlength=1 << bits), out=starts[1:])
        return _Index(hashes[order], keys[order], slots[order], starts, 64 - bits)

    # --- across restarts

    def snapshot(self) -> DomainCache:
        """A copy to be saved elsewhere, while this one goes on learning: made in milliseconds, which saving is not."""
        still = copy.copy(self)
        still._slots, still._names, still._pointers = self._slots.copy(), self._names.copy(), self._pointers.copy()
        still._until_ns, still._used_ns = self._until_ns.copy(), self._used_ns.copy()
        still._since_ns = self._since_ns.copy()
        return still

    def save(self, path: Path) -> None:
        """Write all that is kept to a file that only its owner can read: whole, or not at all.

        Raises InputError if that cannot be done; a file that was there before is still there then.
        """
        entries = [*self._entries(), *self._pointer_entries()]
        rows = msgspec.json.Encoder().encode_lines(entries)
        header = _Header(_FORMAT, _VERSION, len(entries), zlib.crc32(rows))
        try:
            write_whole(path, msgspec.json.encode(header) + b"\n" + rows)
        except OSError as error:
            raise InputError(f"{path}: the domain cache cannot be saved: {error.strerror}") from error

    def load(self, path: Path, now_ns: int) -> int:
        """Take what a file of save() holds and is not over at `now_ns`; returns how much that is.

        What is known already stays as it is, being newer. Raises InputError, and changes nothing, if the file cannot be
        read, is damaged or not of ours.
        """
        taken: list[_Entry] = []
        pointers = 0
        for entry in _read_entries(path, (2 * self._capacity + 1) * _MAX_BYTES_OF_ENTRY):
            # A clock that was set back must not make entries hold for longer than they ever could.
            until_ns = min(entry.until_ns, now_ns + MAX_TTL_S * _S_NS)
            used_ns = min(entry.used_ns, now_ns)
            if max(until_ns, used_ns + HOLD_NS) < now_ns:
                continue
            if entry.client is None:
                if entry.address not in self._pointers:
                    self._store_pointer(entry.address, entry.name, until_ns)
                    pointers += 1
            elif entry.client + entry.address not in self._slots:
                taken.append(msgspec.structs.replace(entry, until_ns=until_ns, used_ns=used_ns))
        for begin in range(0, len(taken), self._capacity):
            self._store(_Learnt.loaded(taken[begin : begin + self._capacity], now_ns))
        return len(taken) + pointers

    def _entries(self) -> Iterator[_Entry]:
        """Least recently used first, so that a smaller cache which loads them keeps the others."""
        for key, slot in sorted(self._slots.items(), key=lambda item: int(self._used_ns[item[1]])):
            until_ns, used_ns, since_ns = (int(c[slot]) for c in (self._until_ns, self._used_ns, self._since_ns))
            yield _Entry(key[:16], key[16:], self._names[slot], until_ns, used_ns, since_ns)

    def _pointer_entries(self) -> Iterator[_Entry]:
        for address, (name, until_ns) in self._pointers.items():
            yield _Entry(None, address, name, until_ns, 0)


# --- the file


_Address = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)]
_Time = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Header(msgspec.Struct, frozen=True):
    """The file's first line. crc32: of all the others."""

    format: str
    version: int
    entries: int
    crc32: int


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """Every other line. client None: a PTR record. since_ns is not in files of the first versions."""

    client: _Address | None
    address: _Address
    name: _Name
    until_ns: _Time
    used_ns: _Time
    since_ns: _Time = 0


def _read_entries(path: Path, max_bytes: int) -> list[_Entry]:
    try:
        with open(path, "rb", opener=_open_own) as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{path}: the domain cache cannot be read: {error.strerror}") from error
    first, _, rows = content.partition(b"\n")
    try:
        header = msgspec.json.decode(first, type=_Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a domain cache of wiremeter") from error
    if header.format != _FORMAT:
        raise InputError(f"{path}: not a domain cache of wiremeter")
    if header.version != _VERSION:
        raise InputError(f"{path}: domain cache of version {header.version}, and this wiremeter reads {_VERSION}")
    if len(content) > max_bytes:
        raise InputError(f"{path}: domain cache of over {max_bytes} bytes, more than this one may hold; remove it")
    damaged = f"{path}: the domain cache is damaged; remove it to begin with an empty one"
    if header.crc32 != zlib.crc32(rows):
        raise InputError(damaged)
    try:
        entries = msgspec.json.Decoder(_Entry).decode_lines(rows)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(damaged) from error
    if len(entries) != header.entries:
        raise InputError(damaged)
    return entries


def _open_own(path: str, flags: int) -> int:
    """Opens a file that nobody but this user or root can have written; a FIFO must not make us wait for its writer.

    Raises InputError for anything else: names of traffic are to be what DNS said, not what a neighbour wrote.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        why = "it is no regular file"
    elif found.st_uid not in (0, os.geteuid()):
        why = f"it belongs to user {found.st_uid}, and this process is of user {os.geteuid()}"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = f"others may write to it (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return descriptor
    os.close(descriptor)
    raise InputError(f"{path}: the domain cache is not trusted: {why}; remove it to begin with an empty one")
