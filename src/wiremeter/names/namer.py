"""Namer: payloads in, names for flows out. Everything between is in bounds, whatever the payloads hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wiremeter.names.connections import TcpConversation
from wiremeter.names.conversations import Conversation, KnownNames, Listening, canonical
from wiremeter.names.datagrams import UdpConversation
from wiremeter.names.dns import DnsMessage, decode_message, looks_like_dns
from wiremeter.names.dns_transactions import DnsTransactions
from wiremeter.names.domains import DomainCache
from wiremeter.names.fragments import Fragments, is_fragment
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

Kind = Literal["dns", "tls", "http", "quic", "ptr"]
#: What is read unless something else is asked for. "ptr" names flows by reverse DNS that was seen, too.
DEFAULT_KINDS: tuple[Kind, ...] = ("dns", "tls", "http", "quic")
KINDS: tuple[Kind, ...] = (*DEFAULT_KINDS, "ptr")

CONVERSATIONS_MAX = 4096
NAMES_MAX = 1 << 16
#: Transactions that one batch holds at most; further ones are counted.
TRANSACTIONS_MAX = 1 << 17
#: A conversation that nothing was heard of for so long is let go; its name stays.
SILENCE_NS = 30 * 10**9
#: By how much the clocks of flows (the kernel's tick) and of payloads may differ.
CLOCK_SLACK_NS = 50 * 10**6
_LAST_NS = (1 << 63) - 1  # times further on, which captures can hold, are as good as this

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
        kinds: Collection[Kind] = DEFAULT_KINDS,
        *,
        redact: bool = True,
        domains: DomainCache | None = None,
    ) -> None:
        """hashes: of a batch's flows. kinds: what may be told. redact: leave out paths of HTTP. domains: what DNS said
        before."""
        self._hashes = hashes
        self._kinds = frozenset(kinds)
        self._redact = redact
        self.domains = domains if domains is not None else DomainCache()
        self._dns: dict[int, DnsTransactions] = {}
        self._fragments = Fragments()
        self._listening = Listening(CONVERSATIONS_MAX)
        self._known = KnownNames(NAMES_MAX)
        # Apart, and only for their interval, so that a flood of them leaves the other names alone.
        self._known_dns = KnownNames(NAMES_MAX)
        self._index = HashIndex(np.zeros(0, np.uint64))
        self._index_of: tuple[FlowName, ...] = ()
        self._index_since = np.zeros(0, np.uint64)
        self._index_version = -1
        self._ended: list[Transaction] = []
        self._opened = np.zeros(0, np.uint64)
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
            port = min(flow.src_port, flow.dst_port, key=lambda port: port not in _DNS_PORTS)
            query = message.questions[0][0] if message.questions else None
            name = FlowName(
                _DNS_PORTS.get(port, "dns"), dns_query=query, dns_rcode=message.rcode if message.is_response else None
            )
            self._known_dns.tell(canonical(flow), name, time_ns)
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
        self._listening.heard((device, key), conversation, payload.time_ns)
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
            )
        before = conversation.name
        ended = conversation.packet(
            payload.time_ns, payload.flow, payload.seq, payload.tcp_flags, payload.length, payload.data
        )
        self._listening.heard((device, key), conversation, payload.time_ns)
        self._tell(ended)
        self._learn(key, before, conversation.name, payload.time_ns)

    def _learn(self, key: FlowKey, before: FlowName, name: FlowName, time_ns: int) -> None:
        if name != before:
            self._known.tell(key, name, time_ns)

    def _tell(self, ended: Iterable[Transaction]) -> None:
        for transaction in ended:
            if isinstance(transaction, DnsTransaction):
                answered_ns = transaction.time_ns + (transaction.latency_ns or 0)
                self.domains.learn(min(answered_ns, _LAST_NS), transaction)
            if _kind(transaction) not in self._kinds:
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
            before = conversation.name
            self._tell(conversation.advance(end_ns))
            self._learn(key, before, conversation.name, end_ns)
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
        rows = np.concatenate([opened, self._quic_openers(flows, hashes, transactions.quic)])
        pairs, counts = np.unique(
            np.stack([flows["attachment"][rows].astype(np.int64), flow_names[rows].astype(np.int64)], axis=1),
            axis=0,
            return_counts=True,
        )
        connections = {(int(a), int(n)): int(count) for (a, n), count in zip(pairs, counts, strict=True)}
        # What came while the interval was being closed was read by now, but its flows are the next one's.
        self._known_dns.forget_before(end_ns)
        return Named(names, flow_names, connections, transactions)

    def _quic_openers(
        self, flows: NDArray[np.void], hashes: NDArray[np.uint64], handshakes: tuple[QuicHandshake, ...]
    ) -> NDArray[np.int64]:
        if not handshakes or not len(flows):
            return np.zeros(0, np.int64)
        clients = rows_of_keys([shake.flow for shake in handshakes], flows.dtype)
        index = HashIndex(self._hashes(clients))
        at = index.positions(hashes)
        rows = np.flatnonzero(at >= 0)
        is_client = flows["src_port"][rows] == clients["src_port"][at[rows]]
        is_client &= (flows["src_addr"][rows] == clients["src_addr"][at[rows]]).all(axis=1)
        opening: NDArray[np.int64] = rows[is_client].astype(np.int64)
        return opening

    def _name(
        self, flows: NDArray[np.void], hashes: NDArray[np.uint64], end_ns: int
    ) -> tuple[tuple[FlowName, ...], NDArray[np.uint32]]:
        """The distinct names, NAMELESS first, and each flow's index into them."""
        self._refresh_index(flows.dtype)
        at = self._index.positions(hashes)
        # A connection that began after the last that is known of these ports is another one.
        known = at >= 0
        if known.any():
            begun = known & (flows["protocol"] == TCP) & (flows["tcp_flags"] & TCP_SYN > 0)
            begun[begun] = self._index_since[at[begun]] + CLOCK_SLACK_NS < flows["first_ns"][begun]
            at[begun] = -1
        by_evidence = [NAMELESS, *self._index_of]
        code = at + 1
        has_domain = np.array([name.domain is not None for name in by_evidence])
        rest = np.flatnonzero(~has_domain[code])
        domain_code = np.zeros(len(flows), np.int64)
        domains: tuple[str, ...] = ("",)
        if len(rest):
            found, domains = self.domains.lookup_many(
                flows["src_addr"][rest],
                flows["dst_addr"][rest],
                end_ns,
                src_is_client=flows["src_port"][rest] > flows["dst_port"][rest],
            )
            domain_code[rest] = found
        pairs = code * len(domains) + domain_code
        distinct, flow_names = np.unique(pairs, return_inverse=True)
        names = []
        for pair in distinct.tolist():
            evidence, domain = divmod(pair, len(domains))
            name = by_evidence[evidence]
            if domain:
                name = replace(name, domain=domains[domain], domain_source="dns_answer")
            names.append(name)
        return _compact(names, flow_names.astype(np.uint32))

    def _refresh_index(self, dtype: np.dtype[np.void]) -> None:
        version = self._known.version + self._known_dns.version
        if version == self._index_version:
            return
        entries = [*self._known, *self._known_dns]
        hashes = self._hashes(rows_of_keys([key for key, _ in entries], dtype))
        self._index = HashIndex(hashes)
        self._index_of = tuple(name for _, (name, _) in entries)
        self._index_since = np.array([time_ns for _, (_, time_ns) in entries], np.uint64)
        self._index_version = version


def _kind(transaction: Transaction) -> Kind:
    match transaction:
        case DnsTransaction():
            return "dns"
        case TlsHandshake():
            return "tls"
        case QuicHandshake():
            return "quic"
        case HttpTransaction():
            return "http"


def _sorted(ended: list[Transaction]) -> Transactions:
    ended.sort(key=lambda transaction: transaction.time_ns)
    return Transactions(
        dns=tuple(t for t in ended if isinstance(t, DnsTransaction)),
        tls=tuple(t for t in ended if isinstance(t, TlsHandshake)),
        quic=tuple(t for t in ended if isinstance(t, QuicHandshake)),
        http=tuple(t for t in ended if isinstance(t, HttpTransaction)),
    )


def _compact(names: list[FlowName], flow_names: NDArray[np.uint32]) -> tuple[tuple[FlowName, ...], NDArray[np.uint32]]:
    """Equal names become one, and NAMELESS is the first."""
    number: dict[FlowName, int] = {NAMELESS: 0}
    lookup = np.array([number.setdefault(name, len(number)) for name in names], np.uint32)
    return tuple(number), lookup[flow_names] if len(names) else flow_names
