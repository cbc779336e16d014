"""Namer: payloads in, names for flows out. Everything between is in bounds, whatever the payloads hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wiremeter.names.connections import TcpConversation
from wiremeter.names.conversations import Conversation, DnsHeard, KnownNames, Listening, canonical
from wiremeter.names.datagrams import UdpConversation
from wiremeter.names.decoders.dns import DnsMessage, decode_message, looks_like_dns
from wiremeter.names.decoders.fragments import Fragments, is_fragment
from wiremeter.names.dns_transactions import DnsTransactions
from wiremeter.names.domains import DomainCache
from wiremeter.names.matching import TCP, TCP_SYN, ConversationHashes, HashIndex, openers, rows_of_keys
from wiremeter.names.payloads import Payload
from wiremeter.names.records import (
    NAMELESS,
    DecodeError,
    DnsTransaction,
    FlowKey,
    FlowName,
    HttpTransaction,
    QuicHandshake,
    TlsHandshake,
    Transaction,
    Transactions,
)
from wiremeter.settings.words import DEFAULT_NAME_KINDS, NameKind

CONVERSATIONS_MAX = 4096
NAMES_MAX = 1 << 16
#: Transactions that one batch holds at most; further ones are counted.
TRANSACTIONS_MAX = 1 << 17
#: A conversation that nothing was heard of for so long is let go; its name stays.
SILENCE_NS = 30 * 10**9
#: By how much the clocks of flows (the kernel's tick) and of payloads may differ. What came later than this before the
#: end of an interval was perhaps read before the flow's counts, which are the next interval's.
CLOCK_SLACK_NS = 50 * 10**6
#: Flows that are named at a time.
_BLOCK_FLOWS = 1 << 16
_LAST_NS = (1 << 62) - 1  # times further on, which captures can hold, are as good as this

_KIND_OF: dict[type[Transaction], NameKind] = {
    DnsTransaction: "dns",
    TlsHandshake: "tls",
    QuicHandshake: "quic",
    HttpTransaction: "http",
}
_DNS_PORTS = {53: "dns", 5353: "mdns", 5355: "llmnr"}
_DNS_SOURCE = 0


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
    ) -> None:
        """hashes: of a batch's flows. kinds: what may be told. redact: leave out paths of HTTP. ja4s: fingerprint
        servers' answers. domains: what DNS said before."""
        self._hashes = hashes
        self._kinds = frozenset(kinds)
        self._redact = redact
        self._ja4s = ja4s
        self.domains = domains if domains is not None else DomainCache()
        self._dns: dict[int, DnsTransactions] = {}
        self._fragments = Fragments()
        self._listening = Listening(CONVERSATIONS_MAX)
        self._known = KnownNames(NAMES_MAX)
        self._dns_heard = DnsHeard(NAMES_MAX)
        self._ended: list[Transaction] = []
        self._opened = np.zeros(0, np.uint64)
        self._quic_early: tuple[QuicHandshake, ...] = ()
        #: Transactions that found no room in a batch, since the start.
        self.dropped = 0

    # --- payloads

    def feed(self, payloads: Iterable[Payload], devices: Mapping[int, int] | None = None) -> None:
        """Reads payloads, in order.

        devices: the device of each attachment; payloads of others are left out. None: all are of one device.
        """
        for payload in payloads:
            device = 0 if devices is None else devices.get(payload.attachment, -1)
            if device >= 0:
                self._read(device, payload)

    def _read(self, device: int, payload: Payload) -> None:
        flow = payload.flow
        if flow.protocol == TCP:
            self._read_tcp(device, payload)
        elif is_fragment(payload):
            for datagram in self._fragments.add(device, payload):
                self._read_dns(device, datagram)
        elif payload.source == _DNS_SOURCE:
            self._read_dns(device, payload)
        else:
            self._read_udp(device, payload)

    def _read_dns(self, device: int, payload: Payload) -> None:
        try:
            message = decode_message(payload.data, cut=len(payload.data) < payload.length, lenient=True)
        except DecodeError:
            return self._read_udp(device, payload)
        return self._tell(self._dns_message(device, payload.time_ns, payload.flow, message))

    def _dns_message(self, device: int, time_ns: int, flow: FlowKey, message: DnsMessage) -> list[DnsTransaction]:
        transactions = self._dns.get(device)
        if transactions is None:
            transactions = self._dns[device] = DnsTransactions()
        if flow.protocol != TCP:
            self._dns_heard.tell(flow.reversed() if message.is_response else flow, message, time_ns)
        return transactions.message(time_ns, flow, message)

    def _read_udp(self, device: int, payload: Payload) -> None:
        key = canonical(payload.flow)
        conversation = self._listening.get((device, key))
        if not isinstance(conversation, UdpConversation):
            if looks_like_dns(payload.data, cut=len(payload.data) < payload.length):
                return self._read_dns_elsewhere(device, payload)
            conversation = UdpConversation(payload.flow)
        before = conversation.name
        ended = conversation.datagram(payload.time_ns, payload.flow, payload.data)
        self._heard(device, key, conversation, payload.time_ns)
        self._learn(key, before, conversation.name, payload.time_ns)
        return self._tell(ended)

    def _read_dns_elsewhere(self, device: int, payload: Payload) -> None:
        try:
            message = decode_message(payload.data, cut=len(payload.data) < payload.length)
        except DecodeError:
            return
        self._tell(self._dns_message(device, payload.time_ns, payload.flow, message))

    def _read_tcp(self, device: int, payload: Payload) -> None:
        key = canonical(payload.flow)
        conversation = self._listening.get((device, key))
        if not isinstance(conversation, TcpConversation):
            conversation = TcpConversation(
                payload.flow,
                lambda time_ns, flow, message: self._dns_message(device, time_ns, flow, message),
                redact=self._redact,
                ja4s=self._ja4s,
            )
        before = conversation.name
        ended = conversation.packet(
            payload.time_ns, payload.flow, payload.seq, payload.tcp_flags, payload.length, payload.data
        )
        self._heard(device, key, conversation, payload.time_ns)
        self._tell(ended)
        self._learn(key, before, conversation.name, payload.time_ns)

    def _heard(self, device: int, key: FlowKey, conversation: Conversation, time_ns: int) -> None:
        self._listening.heard((device, key), conversation, time_ns)
        if len(self._listening) > CONVERSATIONS_MAX:
            self._let_go(self._listening.let_go(0), time_ns)

    def _learn(self, key: FlowKey, before: FlowName, name: FlowName, time_ns: int) -> None:
        if name != before:
            self._known.tell(key, name, time_ns)

    def _tell(self, ended: Iterable[Transaction]) -> None:
        for transaction in ended:
            if isinstance(transaction, DnsTransaction) and transaction.answers:
                answered_ns = transaction.time_ns + (transaction.latency_ns or 0)
                self.domains.learn(min(answered_ns, _LAST_NS), transaction)
            if _KIND_OF[type(transaction)] not in self._kinds:
                continue
            if len(self._ended) >= TRANSACTIONS_MAX:
                self.dropped += 1
            else:
                self._ended.append(transaction)

    # --- batches

    def close_interval(self, flows: NDArray[np.void], device_of: NDArray[np.int64], end_ns: int) -> Named:
        """Names the flows of an interval, and gives what ended in it.

        flows: dtype FLOW, shape (n,). device_of: shape (n,), the device of each flow. end_ns: of the interval.
        """
        end_ns = min(end_ns, _LAST_NS)
        for (_, key), conversation in self._listening:
            if ended := conversation.advance(end_ns):
                self._tell(ended)
                self._known.tell(key, conversation.name, end_ns)
        self._let_go(self._listening.let_go(end_ns - SILENCE_NS), end_ns)
        for datagram in self._fragments.expire(end_ns):
            self._read_dns(0, datagram)
        for transactions in self._dns.values():
            self._tell(transactions.expire(end_ns))
        return self._close(flows, device_of, end_ns)

    def close_last(self, flows: NDArray[np.void], device_of: NDArray[np.int64], end_ns: int) -> Named:
        """As close_interval, and ends all that is still open."""
        end_ns = min(end_ns, _LAST_NS)
        self._let_go(self._listening.let_all_go(), end_ns)
        for datagram in self._fragments.expire(_LAST_NS):
            self._read_dns(0, datagram)
        for transactions in self._dns.values():
            self._tell(transactions.flush())
        return self._close(flows, device_of, end_ns)

    def _let_go(self, gone: Iterable[tuple[FlowKey, Conversation]], end_ns: int) -> None:
        for key, conversation in gone:
            before = conversation.name
            self._tell(conversation.flush())
            self._learn(key, before, conversation.name, end_ns)

    def _close(self, flows: NDArray[np.void], device_of: NDArray[np.int64], end_ns: int) -> Named:
        hashes = self._hashes(flows)
        names, flow_names = self._name(flows, hashes, end_ns)
        ended, self._ended = self._ended, []
        transactions = _sorted(ended)
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
        return Named(names, flow_names, connections, transactions)

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
        if len(self._known) or len(self._dns_heard) or len(self.domains) or "ptr" in self._kinds:
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
        if len(rest) and len(self.domains):
            numbers, domains = self.domains.lookup_many(
                flows["src_addr"][rest],
                flows["dst_addr"][rest],
                end_ns,
                src_is_client=flows["src_port"][rest] > flows["dst_port"][rest],
            )
            _add_domains(code, rest, numbers, domains, "dns_answer", names)
        if "ptr" in self._kinds:
            rest = self._without_domain(code, names)
            numbers, domains = self._pointers(flows[rest], end_ns)
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
        by_name = _for_each(known, len(self._known), lambda place: names.number(self._known.name(place)))
        by_dns = _for_each(heard, len(self._dns_heard), lambda place: names.dns_number(*self._dns_heard.at(place)))
        return np.where(known >= 0, by_name, by_dns)


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
        return self.number(replace(self.all[number], domain=domain, domain_source=source))

    def dns_number(self, client_flow: FlowKey, message: DnsMessage) -> int:
        """Of a DNS conversation by its last message. Most are alike but for the flow: no name is made for those."""
        application = _DNS_PORTS.get(client_flow.dst_port) or _DNS_PORTS.get(client_flow.src_port, "dns")
        query = message.questions[0][0] if message.questions else None
        rcode = message.rcode if message.is_response else None
        known = self._dns_number.get((application, query, rcode))
        if known is None:
            known = self.number(FlowName(application, dns_query=query, dns_rcode=rcode))
            self._dns_number[application, query, rcode] = known
        return known


def _sorted(ended: list[Transaction]) -> Transactions:
    ended.sort(key=lambda transaction: transaction.time_ns)
    return Transactions(
        dns=tuple(t for t in ended if isinstance(t, DnsTransaction)),
        tls=tuple(t for t in ended if isinstance(t, TlsHandshake)),
        quic=tuple(t for t in ended if isinstance(t, QuicHandshake)),
        http=tuple(t for t in ended if isinstance(t, HttpTransaction)),
    )


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


def _for_each(places: NDArray[np.int64], count: int, number: Callable[[int], int]) -> NDArray[np.uint32]:
    """number(place) of each place, shape (n,), asked once for each of the `count` that occurs; 0 for −1."""
    of_place = np.zeros(count + 1, np.uint32)  # the last is that of −1
    used = np.flatnonzero(np.bincount(places[places >= 0], minlength=1))
    of_place[used] = [number(place) for place in used.tolist()]
    return of_place[places]
