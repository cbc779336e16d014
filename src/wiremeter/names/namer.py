"""Namer: what payloads told, and names for flows out of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wiremeter.names.begun import Begun
from wiremeter.names.columns import DnsColumns, Told
from wiremeter.names.domains import DomainCache
from wiremeter.names.known import DnsHeard, KnownNames
from wiremeter.names.matching import TCP_SYN, ConversationHashes, HashIndex, openers, rows_of_keys
from wiremeter.names.payloads import PayloadBlock
from wiremeter.names.records import (
    NAMELESS,
    TCP,
    FlowName,
    QuicHandshake,
    RawTold,
    Transactions,
)
from wiremeter.names.transactions import HttpColumns, QuicColumns, TlsColumns
from wiremeter.settings.words import DEFAULT_NAME_KINDS, NameKind

if TYPE_CHECKING:
    from wiremeter.names.reader import Audience, PayloadReader

NAMES_MAX = 1 << 16
#: Transactions that one batch holds at most; further ones are counted.
TRANSACTIONS_MAX = 1 << 17
#: And so many bytes of text for each of these, with the answers of DNS.
_TEXT_BYTES = 1024
#: By how much the clocks of flows (the kernel's tick) and of payloads may differ. What came later than this before the
#: end of an interval was perhaps read before the flow's counts, which are the next interval's.
CLOCK_SLACK_NS = 50 * 10**6
#: From here on systems choose ports of clients (Linux's ip_local_port_range; IANA's dynamic ports begin at 49152).
FIRST_EPHEMERAL_PORT = 32_768
#: Flows that are named at a time.
_BLOCK_FLOWS = 1 << 16
_LAST_NS = (1 << 62) - 1  # times further on, which captures can hold, are as good as this

_DNS_PORTS = {53: "dns", 5353: "mdns", 5355: "llmnr"}


class Named(NamedTuple):
    """What a batch gets: see FlowBatch.names, flow_names, connections and transactions."""

    names: tuple[FlowName, ...]
    flow_names: NDArray[np.uint32]
    connections: dict[tuple[int, int], int]
    transactions: Transactions


class Namer:
    """Reads the payloads of one meter, and names the flows of its batches."""

    def __init__(
        self,
        hashes: ConversationHashes,
        kinds: Collection[NameKind] = DEFAULT_NAME_KINDS,
        *,
        redact: bool = True,
        ja4s: bool = False,
        domains: DomainCache | None = None,
        most: int = TRANSACTIONS_MAX,
        open_reader: Callable[[Audience], PayloadReader] | None = None,
    ) -> None:
        """hashes: of a batch's flows. kinds: what may be told. redact: leave out paths of HTTP. ja4s: fingerprint
        servers' answers. domains: what DNS said before. most: transactions of a batch, and of names no more than that
        are known. open_reader: makes what reads payloads and tells it to whom it is given; by default a Reader, of
        which redact and ja4s are."""
        self._hashes = hashes
        self._kinds = frozenset(kinds)
        self.domains = domains if domains is not None else DomainCache()
        self._reader = open_reader(self) if open_reader else _reader(self, redact=redact, ja4s=ja4s)
        self._told: list[Told] = []  # of this interval
        self._transactions = self._text_bytes = 0  # there
        self._most = most
        self._known = KnownNames(min(NAMES_MAX, most))
        self._dns_heard = DnsHeard(min(NAMES_MAX, most))
        self._begun = Begun()
        #: Names of devices by number, for what is told; who knows them puts them here.
        self.device_names: dict[int, str] = {}
        self._opened = np.zeros(0, np.uint64)
        self._quic_early: tuple[QuicHandshake, ...] = ()
        #: Transactions that found no room in a batch, since the start.
        self.dropped = 0
        #: How often something that was read found no room to be told, since the start.
        self.lost = 0

    @property
    def forgotten(self) -> int:
        """How often a name that was read found no room while its flow was there, since the start."""
        return self._known.evicted + self._dns_heard.dropped

    # --- what is told

    def feed(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> None:
        """As Reader.feed."""
        self._reader.feed(block, devices)

    def take(self, raw: RawTold) -> None:
        """As Audience."""
        told = Told.of(raw)
        self.domains.learn(told.addresses, told.text)
        self._dns_heard.tell(told.heard, told.text)
        self._known.tell(told.names, told.text)
        self.lost += sum(told.lost.tolist())
        self._keep(
            told.transactions if "dns" in self._kinds else told.transactions[:0],
            told.http if "http" in self._kinds else told.http[:0],
            told.hellos[_is_wanted(told.hellos, self._kinds)],
            told,
        )

    def _keep(self, dns: NDArray[np.void], http: NDArray[np.void], hellos: NDArray[np.void], told: Told) -> None:
        """Keeps transactions for the batch; those without room in it are counted."""
        kept = []
        for rows in (dns, http, hellos):
            room = max(self._most - self._transactions, 0)
            if self._text_bytes + len(told.text) > self._most * _TEXT_BYTES:
                room = 0
            kept.append(rows[:room])
            self.dropped += len(rows) - len(kept[-1])
            self._transactions += len(kept[-1])
        if any(map(len, kept)):
            none = told.names[:0], told.addresses[:0], told.heard[:0]
            answers = told.answers if len(kept[0]) else told.answers[:0]
            self._told.append(Told(kept[0], answers, none[2], none[1], kept[1], kept[2], none[0], told.text))
            self._text_bytes += len(told.text)

    # --- batches

    def close_interval(self, flows: NDArray[np.void], device_of: NDArray[np.int64], end_ns: int) -> Named:
        """Names the flows of an interval, and gives what ended in it.

        flows: dtype FLOW, shape (n,). device_of: shape (n,), the device of each flow. end_ns: of the interval.
        """
        self._reader.advance(end_ns)
        return self._close(flows, device_of, min(end_ns, _LAST_NS))

    def close_last(self, flows: NDArray[np.void], device_of: NDArray[np.int64], end_ns: int) -> Named:
        """As close_interval, and ends all that is still open."""
        self._reader.end(end_ns)
        return self._close(flows, device_of, min(end_ns, _LAST_NS))

    def _close(self, flows: NDArray[np.void], device_of: NDArray[np.int64], end_ns: int) -> Named:
        hashes = self._hashes(flows)
        names, flow_names = self._name(flows, hashes, end_ns)
        transactions = self._ended()
        per_device = hashes + device_of.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        opened = openers(flows, per_device, self._opened)
        self._opened = per_device[opened]
        shakes, self._quic_early = (*self._quic_early, *transactions.quic), ()
        rows = np.concatenate([opened, self._quic_openers(flows, hashes, shakes, end_ns)])
        pairs, counts = np.unique(
            np.stack([flows["attachment"][rows].astype(np.int64), flow_names[rows].astype(np.int64)], axis=1),
            axis=0,
            return_counts=True,
        )
        connections = {(int(a), int(n)): int(count) for (a, n), count in zip(pairs, counts, strict=True)}
        self._dns_heard.forget_before(end_ns - CLOCK_SLACK_NS)
        self._known.next_round()
        return Named(names, flow_names, connections, transactions)

    def _ended(self) -> Transactions:
        """What ended in the interval."""
        told, self._told, self._transactions, self._text_bytes = self._told, [], 0, 0
        devices = self.device_names
        return Transactions(
            DnsColumns.joined(told, devices),
            TlsColumns.joined(told, devices),
            QuicColumns.joined(told, devices),
            HttpColumns.joined(told, devices),
        )

    def _quic_openers(
        self, flows: NDArray[np.void], hashes: NDArray[np.uint64], handshakes: tuple[QuicHandshake, ...], end_ns: int
    ) -> NDArray[np.int64]:
        """The rows of the clients of handshakes. One that ended too late to have a row yet is kept for the next."""
        if not handshakes:
            return np.zeros(0, np.int64)
        clients = rows_of_keys([shake.flow for shake in handshakes], flows.dtype)
        client_hashes = self._hashes(clients)
        at = HashIndex(client_hashes).positions(hashes)
        rows = np.flatnonzero(at >= 0)
        is_client = flows["src_port"][rows] == clients["src_port"][at[rows]]
        is_client &= (flows["src_addr"][rows] == clients["src_addr"][at[rows]]).all(axis=1)
        opening: NDArray[np.int64] = rows[is_client].astype(np.int64)
        found = set(hashes[opening].tolist())
        self._quic_early = tuple(
            shake
            for shake, its_hash in zip(handshakes, client_hashes.tolist(), strict=True)
            if its_hash not in found and shake.time_ns >= end_ns - CLOCK_SLACK_NS
        )
        return opening

    def _name(
        self, flows: NDArray[np.void], hashes: NDArray[np.uint64], end_ns: int
    ) -> tuple[tuple[FlowName, ...], NDArray[np.uint32]]:
        """The distinct names, NAMELESS first, and each flow's index into them."""
        names = _DistinctNames()
        flow_names = np.zeros(len(flows), np.uint32)
        self._begun.next_round()
        if len(flows):
            # By the block: what is made on the way for a million flows would take more memory than their rows.
            for begin in range(0, len(flows), _BLOCK_FLOWS):
                rows = slice(begin, begin + _BLOCK_FLOWS)
                flow_names[rows] = self._name_block(flows[rows], hashes[rows], end_ns, names)
        return tuple(names.all), flow_names

    def _name_block(
        self, flows: NDArray[np.void], hashes: NDArray[np.uint64], end_ns: int, names: _DistinctNames
    ) -> NDArray[np.uint32]:
        """Each flow's number in `names`, which get those that are new."""
        code = self._evidence(flows, hashes, names)
        rest = self._without_domain(code, names)
        # Columns, not rows: NumPy copies chosen rows of a struct field by field, thirty times as slowly.
        is_new = (flows["protocol"] == TCP) & (flows["tcp_flags"] & TCP_SYN > 0)
        # Of two ports that hosts choose at random neither tells who is the server.
        src_is_client = (flows["src_port"] > flows["dst_port"]) & (flows["dst_port"] < FIRST_EPHEMERAL_PORT)
        first_ns, src, dst = flows["first_ns"], flows["src_addr"], flows["dst_addr"]
        if len(rest) < len(flows):  # of all, no copy is needed
            first_ns, is_new = first_ns.take(rest), is_new.take(rest)
            src_is_client, hashes = src_is_client.take(rest), hashes.take(rest)
            src, dst = src.take(rest, axis=0), dst.take(rest, axis=0)
        began_ns = self._begun.of(first_ns, is_new, hashes)
        if len(rest) and len(self.domains):
            numbers, domains = self.domains.lookup_many(
                src,
                dst,
                end_ns,
                src_is_client=src_is_client,
                began_ns=began_ns + CLOCK_SLACK_NS,
            )
            _add_domains(code, rest, numbers, domains, "dns_answer", names)
        if "ptr" in self._kinds:
            rest = self._without_domain(code, names)
            numbers, domains = self._pointers(flows.take(rest), end_ns)
            _add_domains(code, rest, numbers, domains, "ptr", names)
        return code

    @staticmethod
    def _without_domain(code: NDArray[np.uint32], names: _DistinctNames) -> NDArray[np.intp]:
        has_domain = np.array([name.domain is not None for name in names.all])
        return np.flatnonzero(~has_domain[code])

    def _pointers(self, flows: NDArray[np.void], end_ns: int) -> tuple[NDArray[np.uint32], tuple[str, ...]]:
        """By reverse DNS, as DomainCache.lookup_many: the name of the end with the lower port, likely the server."""
        src_is_client = flows["src_port"] > flows["dst_port"]
        servers = np.where(src_is_client[:, None], flows["dst_addr"], flows["src_addr"])
        distinct, of_flow = np.unique(np.ascontiguousarray(servers).view("V16")[:, 0], return_inverse=True)
        found = ["", *(self.domains.lookup_ptr(server.tobytes(), end_ns) or "" for server in distinct)]
        numbers = np.array([number if name else 0 for number, name in enumerate(found)], np.uint32)
        return numbers[1:][of_flow], tuple(found)

    def _evidence(
        self, flows: NDArray[np.void], hashes: NDArray[np.uint64], names: _DistinctNames
    ) -> NDArray[np.uint32]:
        """What conversations told of themselves: each flow's number in `names`."""
        known = self._known.find(flows, hashes, self._hashes)
        # A connection that began after the last that is known of these ports is another one.
        begun = (known >= 0) & (flows["protocol"] == TCP) & (flows["tcp_flags"] & TCP_SYN > 0)
        known[begun] = np.where(
            self._known.since_ns(known[begun]) + CLOCK_SLACK_NS < flows["first_ns"][begun], -1, known[begun]
        )
        heard = self._dns_heard.find(flows, hashes, self._hashes)
        by_name = _for_each(known, lambda places: map(names.number, self._known.names(places)))
        by_dns = _for_each(heard, lambda places: starmap(names.dns_number, self._dns_heard.at(places)))
        return np.where(known >= 0, by_name, by_dns)


def _reader(audience: Audience, *, redact: bool, ja4s: bool) -> PayloadReader:
    from wiremeter.names.reader import Reader  # with all decoders: who has another process read does without

    return Reader(audience, redact=redact, ja4s=ja4s)


class _DistinctNames:
    """Names and their numbers, NAMELESS first."""

    def __init__(self) -> None:
        self.all = [NAMELESS]
        self._number = {NAMELESS: 0}
        self._dns_number: dict[tuple[str, str | None, int | None], int] = {}

    def number(self, name: FlowName) -> int:
        """Of a name that may have been there before."""
        number = self._number.setdefault(name, len(self.all))
        if number == len(self.all):
            self.all.append(name)
        return number

    def with_domain(self, number: int, domain: str, source: str) -> int:
        """Of that name with a domain that it did not tell itself."""
        return self.number(self.all[number]._replace(domain=domain, domain_source=source))

    def dns_number(self, client_port: int, server_port: int, query: str | None, rcode: int | None) -> int:
        """Of a DNS conversation by its last message. Most are alike but for the flow: no name is made for those."""
        application = _DNS_PORTS.get(server_port) or _DNS_PORTS.get(client_port, "dns")
        known = self._dns_number.get((application, query, rcode))
        if known is None:
            known = self.number(FlowName(application, dns_query=query, dns_rcode=rcode))
            self._dns_number[application, query, rcode] = known
        return known


def _is_wanted(hellos: NDArray[np.void], kinds: Collection[NameKind]) -> NDArray[np.bool_]:
    """Which handshakes are of the kinds that are told."""
    is_quic: NDArray[np.bool_] = hellos["quic"] > 0
    return (is_quic & ("quic" in kinds)) | (~is_quic & ("tls" in kinds))


def _add_domains(
    code: NDArray[np.uint32],
    rows: NDArray[np.intp],
    numbers: NDArray[np.uint32],
    domains: tuple[str, ...],
    source: str,
    names: _DistinctNames,
) -> None:
    """Gives names, of which `code` holds the number of each flow, the domains that were found for some rows.

    numbers: into `domains`, one for each of `rows`; 0: none was found.
    """
    named = np.flatnonzero(numbers)
    both = code[rows[named]].astype(np.int64) * len(domains) + numbers[named]
    pairs, of_pair = np.unique(both, return_inverse=True)
    changed = [names.with_domain(pair // len(domains), domains[pair % len(domains)], source) for pair in pairs.tolist()]
    code[rows[named]] = np.array(changed, np.uint32)[of_pair]


def _for_each(places: NDArray[np.int64], numbers_of: Callable[[NDArray[np.intp]], Iterable[int]]) -> NDArray[np.uint32]:
    """The number of each place, shape (n,), asked once for each that occurs; 0 for −1."""
    used = np.flatnonzero(np.bincount(places[places >= 0], minlength=1))
    of_place = np.zeros((used[-1] if len(used) else 0) + 2, np.uint32)  # the last is that of −1
    of_place[used] = np.fromiter(numbers_of(used), np.uint32, len(used))
    return of_place[places]
