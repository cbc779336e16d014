"""What is known of conversations whose payloads were read, within bounds, to be found by the flows of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiremeter.names.columns import HEARD, NAME
from wiremeter.names.decoders.applications import APPLICATIONS
from wiremeter.names.decoders.tls import protocol_text
from wiremeter.names.decoders.tls_registry import cipher_name, version_name
from wiremeter.names.library import lib
from wiremeter.names.matching import ConversationHashes, HashIndex
from wiremeter.names.records import FlowKey, FlowName

_Places = NDArray[np.int64]
_APPLICATIONS = {number: name for name, number in APPLICATIONS.items()}
_SOURCES = {lib.WM_NAME_SNI: "sni", lib.WM_NAME_HTTP_HOST: "http_host", lib.WM_NAME_QUIC_SNI: "quic_sni"}
_TEXTS = ("domain", "method", "alpn", "ja4", "ja4s", "query")  # as they lie one behind the other


def _as_flows(rows: NDArray[np.void], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Rows of `dtype`, which has the columns of FLOW, with the ends of these; else 0."""
    flows = np.zeros(len(rows), dtype)
    for column in FlowKey._fields:
        values = rows[column]
        is_address = column.endswith("_addr")
        flows[column] = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 16) if is_address else values
    return flows


class KnownNames:
    """Names by conversation. Those go first that were not told and named no flow for longest.

    Each is in a place, until more is told. It becomes an object only for flows that ask for it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = np.zeros(0, NAME)
        self._texts = np.zeros(0, object)  # of each row; its columns that end in `_at` are places there
        self._told: list[tuple[NDArray[np.void], list[bytes]]] = []  # since then
        self._told_rows = 0
        self._used = np.zeros(0, np.int64)  # in which round each was told or last found
        self._round = 0
        self._index: HashIndex | None = None
        #: Names that went for want of room while there were flows to bear them.
        self.evicted = 0

    def __len__(self) -> int:
        self._settle()
        return len(self._rows)

    def tell(self, names: NDArray[np.void], text: bytes) -> None:
        """Remembers what is known of conversations. names: dtype NAME, in order."""
        if not len(names):
            return
        rows = names.copy()
        begin = names["domain_at"].astype(np.int64)
        end = names["query_at"].astype(np.int64) + names["query_bytes"]
        for column in _TEXTS:
            rows[f"{column}_at"] -= names["domain_at"]
        self._told.append((rows, [text[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True)]))
        self._told_rows += len(rows)
        if self._told_rows >= self._most:
            self._settle()

    def _settle(self) -> None:
        """Of each conversation what was told last, in that order."""
        if not self._told:
            return
        rows = np.concatenate([self._rows, *(rows for rows, _ in self._told)])
        texts = np.empty(len(rows), object)
        texts[:] = [*self._texts, *(text for _, part in self._told for text in part)]
        used = np.concatenate([self._used, np.full(self._told_rows, self._round)])
        self._told, self._told_rows, self._index = [], 0, None
        _, last = np.unique(rows["hash"][::-1], return_index=True)
        kept = np.sort(len(rows) - 1 - last)
        if len(kept) > self._most:
            by_use = kept[np.argsort(used[kept], kind="stable")]
            gone, kept = by_use[: -self._most], np.sort(by_use[-self._most :])
            self.evicted += int(np.count_nonzero(used[gone] >= self._round - 1))
        self._rows, self._texts, self._used = rows[kept], texts[kept], used[kept]

    def next_round(self) -> None:
        """An interval is over: what names no flow in the next one is missed by nobody when it goes."""
        self._round += 1

    def find(self, flows: NDArray[np.void], hashes: NDArray[np.uint64], hash_of: ConversationHashes) -> _Places:
        """Where the name of each flow is, and −1 where none is known. Shape (n,).

        flows: columns of FLOW, shape (n,). hashes: theirs, by `hash_of`.
        """
        self._settle()
        if self._index is None:
            # Of a conversation on two devices the one that was told last is found.
            self._index = HashIndex(hash_of(_as_flows(self._rows, flows.dtype))[::-1])
        places = self._index.positions(hashes)
        found: _Places = np.where(places >= 0, len(self._rows) - 1 - places, -1)
        self._used[found[found >= 0]] = self._round
        return found

    def names(self, places: _Places) -> Iterator[FlowName]:
        """The names there."""
        yield from map(_flow_name, self._rows[places].tolist(), self._texts[places])

    def since_ns(self, places: _Places) -> NDArray[np.uint64]:
        """Since when the names there are known, shape (n,)."""
        since: NDArray[np.uint64] = self._rows["time_ns"][places]
        return since


def _flow_name(row: tuple[Any, ...], text: bytes) -> FlowName:
    """row: of dtype NAME. text: which it points into."""
    (domain_at, method_at, alpn_at, ja4_at, ja4s_at, query_at, cipher, version) = row[8:16]
    (domain, method, alpn, ja4, ja4s, query, status, rcode, application, source) = row[16:]

    def said(at: int, size: int) -> str | None:
        return text[at : at + size].decode("utf-8", "backslashreplace") if size else None

    return FlowName(
        _APPLICATIONS.get(application, "unknown"),
        said(domain_at, domain),
        _SOURCES.get(source) if domain else None,
        None if version < 0 else version_name(version),
        None if cipher < 0 else cipher_name(cipher),
        protocol_text(text[alpn_at : alpn_at + alpn]) if alpn else None,
        said(ja4_at, ja4),
        said(ja4s_at, ja4s),
        said(method_at, method),
        None if status < 0 else status,
        said(query_at, query),
        None if rcode < 0 else rcode,
    )


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
        #: How often a conversation found no room.
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._rows)

    def tell(self, heard: NDArray[np.void], text: bytes) -> None:
        """Messages, dtype HEARD, in order. More conversations than there is room for are counted, and stay unnamed."""
        rows = np.concatenate([self._rows, heard])
        parts = np.concatenate([self._parts, np.full(len(heard), len(self._texts))])
        self._texts.append(text)
        _, first = np.unique(rows["hash"], return_index=True)
        _, last = np.unique(rows["hash"][::-1], return_index=True)
        kept = (len(rows) - 1 - last)[np.argsort(first)]
        self.dropped += max(len(kept) - self._most, 0)
        kept = kept[: self._most]
        self._keep(rows[kept], parts[kept])

    def _keep(self, rows: NDArray[np.void], parts: NDArray[np.intp]) -> None:
        used, self._parts = np.unique(parts, return_inverse=True)
        self._texts = [self._texts[number] for number in used.tolist()]
        self._rows, self._index = rows, None

    def find(self, flows: NDArray[np.void], hashes: NDArray[np.uint64], hash_of: ConversationHashes) -> _Places:
        """As KnownNames.find."""
        if self._index is None:
            self._index = HashIndex(hash_of(_as_flows(self._rows, flows.dtype)))
        return self._index.positions(hashes)

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
