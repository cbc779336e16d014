"""One TCP conversation: its segments in, the transactions it carried and the best name for it out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Protocol

from wiremeter.names.decoders import tls
from wiremeter.names.decoders.applications import (
    looks_like_http1,
    looks_like_http2,
    looks_like_request,
    looks_like_response,
    looks_like_tls,
    prelude_bytes,
    tcp_application,
)
from wiremeter.names.decoders.dns import DnsStream
from wiremeter.names.decoders.http1 import Http1Decoder
from wiremeter.names.decoders.http2 import Http2Decoder
from wiremeter.names.decoders.streams import Chunk, Gap, StreamReader
from wiremeter.names.decoders.tls import TlsDecoder
from wiremeter.names.records import (
    NAMELESS,
    DecodeError,
    FlowKey,
    FlowName,
    HttpTransaction,
    TlsHandshake,
    Transaction,
)

TCP_SYN, TCP_ACK = 0x02, 0x10

#: Evidence is looked for in so many bytes of each direction, and in so many packets of both.
EVIDENCE_BYTES = 512
EVIDENCE_CHUNKS = 64
#: A side that goes on alone is listened to for so long.
_ALONE_BYTES = 4096
#: After so many messages that are none, a connection on port 53 is believed to carry something else.
_DNS_ERRORS = 8

#: Protocols that may go on as TLS; of a hello that comes out of order so many packets are waited for.
_MAY_START_TLS = frozenset(
    {"amqp", "ftp", "http", "imap", "ldap", "mysql", "pop3", "postgresql", "rdp", "smtp", "xmpp"}
)
_LATE_PACKETS = 4


class OnDns(Protocol):
    """What takes each DNS message: BlockReader.message for a device."""

    def __call__(
        self, time_ns: int, flow: FlowKey, data: bytes, *, cut: bool = False
    ) -> tuple[str, int | None] | None: ...


class _Decoder(Protocol):
    """What the bytes of both directions are given to once it is known what they are."""

    done: bool

    def data(self, from_client: bool, chunk: bytes, time_ns: int) -> Sequence[Transaction]: ...

    def gap(self, from_client: bool, missing: int | None) -> Sequence[Transaction]: ...

    def flush(self) -> Sequence[Transaction]: ...


class _Stage(Enum):
    LISTENING = auto()  # what it is isn't known yet
    DECODING = auto()
    OPAQUE = auto()  # nothing more to read, unless something else begins


class TcpConversation:
    """Reads one TCP conversation as far as its payload was picked, in bounded memory; no bytes make it raise.

    The client is who sent the request or ClientHello; else who sent the SYN; else the side with the higher port.
    A SYN that isn't a repetition begins a new connection on the same ports, and ends the one before.
    """

    def __init__(self, flow: FlowKey, on_dns: OnDns, *, redact: bool = True, ja4s: bool = False) -> None:
        """flow: of either direction. on_dns: takes DNS messages. redact: leave out paths of HTTP.

        ja4s: fingerprint servers' answers.
        """
        self._flow = flow
        self._on_dns = on_dns
        self._redact = redact
        self._ja4s = ja4s
        self._begin()

    def _begin(self) -> None:
        """Sides are 0, the sender of `_flow`, and 1."""
        self._stage = _Stage.LISTENING
        self._client: int | None = None
        self._name = NAMELESS
        self._decoder: _Decoder | None = None
        self._late: tuple[tuple[int, int, int, bytes, int], ...] = ()  # side, time, sequence number, data, length
        self._listen()

    def _listen(self) -> None:
        self._stage = _Stage.LISTENING
        self._readers = (StreamReader(self._may_begin), StreamReader(self._may_begin))
        self._first: list[tuple[int, Chunk | Gap]] = []

    # --- what is known

    @property
    def client_flow(self) -> FlowKey:
        """The flow from the client to the server, as far as is known."""
        return self._flow.reversed() if self._client_side() else self._flow

    @property
    def application(self) -> str:
        """The application protocol, or "unknown"."""
        return self._name.application

    @property
    def name(self) -> FlowName:
        """The best that is known of the conversation until now; the same object while nothing is learnt."""
        return self._name

    # --- packets

    def packet(
        self, time_ns: int, flow: FlowKey, seq: int, tcp_flags: int, length: int, data: bytes
    ) -> list[Transaction]:
        """One segment, and the transactions that ended with it.

        flow: as it was sent. length: bytes of its payload, of which `data` are the first.
        """
        side = int(flow != self._flow)
        out: list[Transaction] = []
        if tcp_flags & TCP_SYN:
            out += self._syn(side, seq, bool(tcp_flags & TCP_ACK))
        is_opaque = self._stage is _Stage.OPAQUE
        if is_opaque:
            if not self._wakes(data):
                self._remember(side, time_ns, seq, data, length)
                return out
            self._listen()
        reader = self._readers[side]
        out += self._take(side, reader.segment(time_ns, seq, data, length, bool(tcp_flags & TCP_SYN)))
        if is_opaque:
            out += self._take_late(side)
        if self._readers[1 - side].holds:
            out += self._take(1 - side, self._readers[1 - side].expire(time_ns))
        return out

    def advance(self, now_ns: int) -> list[Transaction]:
        """Stops waiting for segments that should have come by `now_ns`, on the clock of the packets."""
        out: list[Transaction] = []
        for side in (0, 1):
            out += self._take(side, self._readers[side].expire(now_ns))
        return out

    def flush(self) -> list[Transaction]:
        """Ends the conversation: the transactions that were still open. What is known of it stays."""
        out: list[Transaction] = []
        for side in (0, 1):
            out += self._take(side, self._readers[side].give_up())
        if self._decoder:
            out += self._note(self._decoder.flush())
        self._close()
        return out

    def _syn(self, side: int, seq: int, is_answer: bool) -> list[Transaction]:
        reader = self._readers[side]
        out: list[Transaction] = []
        if not reader.is_fresh and not reader.is_start(seq):
            out = self.flush()
            self._begin()
        if self._client is None:
            self._client = 1 - side if is_answer else side
        return out

    def _wakes(self, data: bytes) -> bool:
        """Whether a packet begins something to read, in a conversation with nothing to read so far."""
        if isinstance(self._decoder, _Tls):
            return False
        return _begins_hello(data) if self._name is NAMELESS else looks_like_tls(data)

    def _remember(self, side: int, time_ns: int, seq: int, data: bytes, length: int) -> None:
        """Keeps a packet that may be the rest of a hello whose beginning is late."""
        if data and self._name.application in _MAY_START_TLS and not isinstance(self._decoder, _Tls):
            self._late = (*self._late, (side, time_ns, seq, data, length))[-_LATE_PACKETS:]

    def _take_late(self, side: int) -> list[Transaction]:
        """Adds to a hello the packets that came before it, and belong behind it."""
        late, self._late = self._late, ()
        out: list[Transaction] = []
        for sender, time_ns, seq, data, length in late:
            if sender == side:
                out += self._take(side, self._readers[side].segment(time_ns, seq, data, length))
        return out

    def _take(self, side: int, items: list[Chunk | Gap]) -> list[Transaction]:
        """What a reader delivers goes to the decoder, or to the search for one."""
        out: list[Transaction] = []
        while items:
            out += self._before_response(side)
            for item in items:
                out += self._hear(side, item) if self._stage is _Stage.LISTENING else self._decode(side, item)
            items = []
            if isinstance(self._decoder, Http1Decoder | Http2Decoder):
                count = self._decoder.optional_bytes(side == self._client)
                items = self._readers[side].allow_missing(count)
        return out

    def _before_response(self, side: int) -> list[Transaction]:
        """A response to no request that was read answers one that waits behind a hole, which nobody will fill now."""
        decoder, client = self._decoder, self._client
        if client is None or side == client or not isinstance(decoder, Http1Decoder) or decoder.expects_response:
            return []
        return self._take(client, self._readers[client].give_up())

    # --- listening

    def _hear(self, side: int, item: Chunk | Gap) -> list[Transaction]:
        """Looks for evidence in what was said so far, with one more item."""
        if isinstance(item, Chunk) and side not in (each for each, _ in self._first):
            item = item._replace(data=item.data[prelude_bytes(item.data) :] or item.data)
        self._first.append((side, item))
        if isinstance(item, Gap):
            self._forget(side)
            return []
        said = self._said(0), self._said(1)
        before = len(said[side]) - len(item.data)
        if before < EVIDENCE_BYTES and self._find(side, said):
            return self._replay()
        if before and _begins_hello(item.data):
            self._forget(side)
            return self._hear(side, item)
        sizes = len(said[0]), len(said[1])
        if len(self._first) >= EVIDENCE_CHUNKS or min(sizes) >= EVIDENCE_BYTES or max(sizes) >= _ALONE_BYTES:
            self._close()
        return []

    def _forget(self, side: int) -> None:
        """Starts anew with one side: what it said until now was no beginning."""
        self._first = [(each, item) for each, item in self._first if each != side]

    def _said(self, side: int) -> bytes:
        return b"".join(item.data for each, item in self._first if each == side and isinstance(item, Chunk))

    def _find(self, side: int, said: tuple[bytes, bytes]) -> bool:
        """Finds out what this is, and who the client is. side: who spoke last."""
        for each in (side, 1 - side):
            is_client = _speaks_as_client(said[each])
            if is_client is not None:
                self._client = each if is_client else 1 - each
                break
        client = self._client_side()
        found = self._application_of(said, client)
        if found is None and self._client is None:
            client = 1 - client
            found = self._application_of(said, client)
        if found is None:
            return False
        self._client = client
        if self._name is NAMELESS:
            self._name = FlowName(found)
        self._decoder = self._decoder_for(found, said[client])
        return True

    def _application_of(self, said: tuple[bytes, bytes], client: int) -> str | None:
        flow = self._flow.reversed() if client else self._flow
        return tcp_application(said[client], said[1 - client], flow.src_port, flow.dst_port)

    def _decoder_for(self, application: str, client_said: bytes) -> _Decoder | None:
        flow = self.client_flow
        match application:
            case "tls":
                return _Tls(flow, self._ja4s)
            case "http" if looks_like_http2(client_said):
                return Http2Decoder(flow, self._redact)
            case "http":
                return Http1Decoder(flow, self._redact)
            case "dns":
                return _Dns(flow, self._on_dns)
        return None

    def _replay(self) -> list[Transaction]:
        """Gives the decoder that was found what was said so far."""
        first, self._first = self._first, []
        if not self._decoder or self._decoder.done:
            self._close()
            return []
        self._stage = _Stage.DECODING
        out: list[Transaction] = []
        for side, item in first:
            out += self._decode(side, item)
        return out

    def _client_side(self) -> int:
        if self._client is not None:
            return self._client
        return int(self._flow.src_port < self._flow.dst_port)

    def _may_begin(self, data: bytes) -> bool:
        """Whether a stream whose SYN was not seen may begin with these bytes."""
        flow = self._flow
        return (
            53 in (flow.src_port, flow.dst_port)
            or _begins_hello(data)
            or prelude_bytes(data) > 0
            or tcp_application(data, b"", flow.src_port, flow.dst_port) is not None
            or tcp_application(b"", data, flow.src_port, flow.dst_port) is not None
        )

    # --- decoding

    def _decode(self, side: int, item: Chunk | Gap) -> list[Transaction]:
        decoder = self._decoder
        if decoder is None or decoder.done:
            return []  # the rest of what came together with its end
        from_client = side == self._client
        try:
            if isinstance(item, Gap):
                out = self._note(decoder.gap(from_client, item.length))
            else:
                out = self._note(decoder.data(from_client, item.data, item.time_ns))
        except DecodeError:
            out = self._note(decoder.flush())
            decoder.done = True
        if isinstance(decoder, Http1Decoder | Http2Decoder):
            self._note_request(decoder)
        elif isinstance(decoder, _Tls) and from_client and (hello := decoder.pending):
            self._name = _named_by(self._name, hello)  # the server may be long in answering
        if not decoder.done:
            return out
        out += self._note(decoder.flush())
        if isinstance(decoder, Http1Decoder) and decoder.upgraded and isinstance(item, Chunk):
            self._decoder = Http2Decoder(self.client_flow, self._redact, decoder.upgraded)
            return out + self._decode(side, item._replace(data=decoder.rest))
        self._close()
        return out

    def _note_request(self, decoder: Http1Decoder | Http2Decoder) -> None:
        """Takes what a request tells before its response has come."""
        self._name = _named_by_http(self._name, decoder.method, decoder.host)
        if self._name.application != decoder.application == "grpc":
            self._name = self._name._replace(application="grpc")

    def _note(self, transactions: Sequence[Transaction]) -> list[Transaction]:
        """Takes from transactions what they tell of the conversation."""
        for transaction in transactions:
            self._name = _named_by(self._name, transaction)
        if isinstance(self._decoder, _Dns) and self._decoder.said:
            query, rcode = self._decoder.said
            if (query, rcode) != (self._name.dns_query, self._name.dns_rcode):
                self._name = self._name._replace(dns_query=query, dns_rcode=rcode)
        return list(transactions)

    def _close(self) -> None:
        self._stage = _Stage.OPAQUE
        self._first = []
        for reader in self._readers:
            reader.give_up()


class _Tls(TlsDecoder):
    """A TlsDecoder, which doesn't care how long a gap is."""

    def gap(self, from_client: bool, missing: int | None = None) -> list[TlsHandshake]:
        return super().gap(from_client)


class _Dns:
    """DNS over TCP: messages behind their lengths (RFC 1035, section 4.2.2). What they say is told elsewhere.

    said: the question and response code of the last transaction that ended.
    """

    def __init__(self, flow: FlowKey, on_dns: OnDns) -> None:
        self.done = False
        self.said: tuple[str, int | None] | None = None
        self._flows = {True: flow, False: flow.reversed()}
        self._on_dns = on_dns
        self._streams = {True: DnsStream(), False: DnsStream()}
        self._times_ns = {True: 0, False: 0}
        self._errors = 0

    def data(self, from_client: bool, chunk: bytes, time_ns: int) -> list[Transaction]:
        self._times_ns[from_client] = time_ns
        try:
            for message in self._streams[from_client].feed(chunk):
                self.said = self._on_dns(time_ns, self._flows[from_client], message) or self.said
        except DecodeError:
            self._errors += 1
            self.done = self._errors >= _DNS_ERRORS
            self._streams[from_client] = DnsStream()
        return []

    def gap(self, from_client: bool, missing: int | None) -> list[Transaction]:
        """What is there of a message is read. Packets mostly begin with one, so the next packet is tried."""
        unfinished = self._streams[from_client].unfinished()
        self._streams[from_client] = DnsStream()
        with suppress(DecodeError):
            flow, time_ns = self._flows[from_client], self._times_ns[from_client]
            self.said = self._on_dns(time_ns, flow, unfinished, cut=True) or self.said
        return []

    def flush(self) -> list[Transaction]:
        return self.gap(True, None) + self.gap(False, None)


def _begins_hello(data: bytes) -> bool:
    """Whether a packet begins what a decoder reads, as the kernel half would think."""
    return looks_like_tls(data) or looks_like_http1(data) or looks_like_http2(data)


def _speaks_as_client(data: bytes) -> bool | None:
    """Whether the sender of the first bytes of a stream is the client of its protocol; None where they don't tell."""
    if looks_like_tls(data):
        # The type of the first handshake message; a hello in the form of SSL 2.0 is a client's.
        return data[0] != 0x16 or data[5] == tls.CLIENT_HELLO
    if looks_like_http2(data) or looks_like_request(data):
        return True
    return False if looks_like_response(data) else None


def _named_by(name: FlowName, transaction: Transaction) -> FlowName:
    """What is known of a conversation after one more of its transactions."""
    match transaction:
        case TlsHandshake():
            offered = transaction.alpn[0] if len(transaction.alpn) == 1 else None
            return name._replace(
                domain=transaction.sni or name.domain,
                domain_source="sni" if transaction.sni else name.domain_source,
                tls_version=transaction.version,
                tls_cipher=transaction.cipher,
                alpn=transaction.alpn_chosen or offered,
                ja4=transaction.ja4,
                ja4s=transaction.ja4s,
            )
        case HttpTransaction():
            return _named_by_http(name, transaction.method, transaction.host, transaction.status)
        case _:
            return name


def _named_by_http(name: FlowName, method: str | None, host: str | None, status: int | None = None) -> FlowName:
    """The same for what is known of a request; most requests of a conversation are alike, and change nothing."""
    method, status = method or name.http_method, status or name.http_status
    domain, source = (host, "http_host") if host and _is_domain(host) else (name.domain, name.domain_source)
    if (method, status, domain, source) == (name.http_method, name.http_status, name.domain, name.domain_source):
        return name
    return name._replace(http_method=method, http_status=status, domain=domain, domain_source=source)


def _is_domain(host: str) -> bool:
    """Whether a host isn't an address: only of those the last label is a number (RFC 3696, section 2)."""
    return not host.startswith("[") and not host.rpartition(".")[2].isdigit()
