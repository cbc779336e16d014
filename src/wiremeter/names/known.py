"""What is known of conversations whose payloads were read, within bounds, to be found by the flows of a batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wiremeter.names.columns import HEARD
from wiremeter.names.matching import ConversationHashes, HashIndex, rows_of_keys
from wiremeter.names.records import FlowKey, FlowName

_Places = NDArray[np.int64]


class KnownNames:
    """Names by conversation, the least recently told go first; each in a place, by which it is found again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: OrderedDict[FlowKey, int] = OrderedDict()
        self._names: list[FlowName] = []
        self._since_ns = np.zeros(most, np.uint64)
        self._hashes = np.zeros(most, np.uint64)
        self._unhashed: dict[int, FlowKey] = {}
        self._index: HashIndex | None = None
        #: Names that went for want of room.
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._places)

    def tell(self, conversation: FlowKey, name: FlowName, time_ns: int) -> None:
        """Remembers what is known of a conversation by its canonical key, since `time_ns`."""
        place = self._places.get(conversation)
        if place is not None:
            self._places.move_to_end(conversation)
            self._names[place] = name
        else:
            place = self._take_place(name)
            self._places[conversation] = place
            self._unhashed[place] = conversation
        self._since_ns[place] = time_ns

    def _take_place(self, name: FlowName) -> int:
        if len(self._names) < self._most:
            self._names.append(name)
            return len(self._names) - 1
        _, place = self._places.popitem(last=False)
        self.evicted += 1
        self._names[place] = name
        return place

    def find(self, flows: NDArray[np.void], hashes: NDArray[np.uint64], hash_of: ConversationHashes) -> _Places:
        """Where the name of each flow is, and −1 where none is known. Shape (n,).

        flows: columns of FLOW, shape (n,). hashes: theirs, by `hash_of`.
        """
        if self._unhashed:
            places = np.fromiter(self._unhashed, np.intp)
            self._hashes[places] = hash_of(rows_of_keys(list(self._unhashed.values()), flows.dtype))
            self._unhashed.clear()
            self._index = None
        if self._index is None:
            self._index = HashIndex(self._hashes[: len(self._names)])
        return self._index.positions(hashes)

    def name(self, place: int) -> FlowName:
        """The name there."""
        return self._names[place]

    def since_ns(self, places: _Places) -> NDArray[np.uint64]:
        """Since when the names there are known, shape (n,)."""
        return self._since_ns[places]


class DnsHeard:
    """What was last said in each DNS conversation of late; becomes names only for flows that ask for them.

    Apart from other names and gone with its interval, so that a flood of them leaves the others alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = np.zeros(0, HEARD)
        self._parts = np.zeros(0, np.intp)  # of each row, whose text is its query's
        self._texts: list[bytes] = []
        self._index: HashIndex | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def tell(self, heard: NDArray[np.void], text: bytes) -> None:
        """Messages, dtype HEARD, in order. Further conversations than there is room for stay unnamed."""
        rows = np.concatenate([self._rows, heard])
        parts = np.concatenate([self._parts, np.full(len(heard), len(self._texts))])
        self._texts.append(text)
        _, first = np.unique(rows["hash"], return_index=True)
        _, last = np.unique(rows["hash"][::-1], return_index=True)
        kept = (len(rows) - 1 - last)[np.argsort(first)][: self._most]
        self._keep(rows[kept], parts[kept])

    def _keep(self, rows: NDArray[np.void], parts: NDArray[np.intp]) -> None:
        used, self._parts = np.unique(parts, return_inverse=True)
        self._texts = [self._texts[number] for number in used.tolist()]
        self._rows, self._index = rows, None

    def find(self, flows: NDArray[np.void], hashes: NDArray[np.uint64], hash_of: ConversationHashes) -> _Places:
        """As KnownNames.find."""
        if self._index is None:
            self._index = HashIndex(hash_of(self._as_flows(flows.dtype)))
        return self._index.positions(hashes)

    def _as_flows(self, dtype: np.dtype[np.void]) -> NDArray[np.void]:
        flows = np.zeros(len(self._rows), dtype)
        for column in FlowKey._fields:
            values = self._rows[column]
            is_address = column.endswith("_addr")
            flows[column] = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 16) if is_address else values
        return flows

    def at(self, places: NDArray[np.intp]) -> Iterator[tuple[int, int, str | None, int | None]]:
        """What was said there: the ports of the client and of the server, the question, the response code."""
        rows = self._rows[places]
        columns = (rows[name].tolist() for name in ("src_port", "dst_port", "query_at", "query_bytes", "rcode"))
        for client_port, server_port, at, size, rcode, part in zip(*columns, self._parts[places].tolist(), strict=True):
            query = None if size < 0 else self._texts[part][at : at + size].decode("ascii", "replace")
            yield client_port, server_port, query, None if rcode < 0 else rcode

    def forget_before(self, time_ns: int) -> None:
        """Forgets what was said before."""
        kept = self._rows["time_ns"] >= max(time_ns, 0)
        if not kept.all():
            self._keep(self._rows[kept], self._parts[kept])
