"""What payloads told: a frozen record for each DNS question, TLS or QUIC handshake, and HTTP request. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

TCP, UDP = 6, 17

#: What a BlockReader told at once: the bytes of each column, as columns.Told.of() takes them.
RawTold = Mapping[str, bytes]


class DecodeError(ValueError):
    """Bytes that are not what they were taken for. Every decoder raises this and nothing else."""


#: Questions of DNS that wait for their answers at once, if nothing else is said.
QUESTIONS_MAX = 1 << 16


class FlowKey(NamedTuple):
    """A flow's addresses and ports as its packets bear them.

    Addresses are 16 bytes in network order, IPv4 as v4-mapped; ports in host order; `protocol` is 6 or 17, `family` 4
    or 6.
    """

    src_addr: bytes
    src_port: int
    dst_addr: bytes
    dst_port: int
    protocol: int
    family: int

    def reversed(self) -> FlowKey:
        """The flow that answers.

        >>> FlowKey(b"a" * 16, 1, b"b" * 16, 2, 6, 6).reversed().src_port
        2
        """
        return FlowKey(self.dst_addr, self.dst_port, self.src_addr, self.src_port, self.protocol, self.family)


class DnsAnswer(NamedTuple):
    """One resource record. name: the owner, without the last dot; type: "A", "CNAME", …, "TYPE65280"; ttl in seconds;
    data: as in a zone file, names in it without the last dot."""

    name: str
    type: str
    ttl: int
    data: str


class DnsTransaction(NamedTuple):
    """One question of one query, with its response if there was one. No dataclass, as DnsMessage: they are many.

    time_ns: of the query's packet, or of the response's where no query was seen. flow: from client to server (of
    multicast, as it was sent). rcode None: no response. latency_ns None: no response, or no query to measure from.
    retry: the same question with the same id was asked before on this flow. has_query: False for a response alone.
    cut: the message was not there whole, so answers may be missing. device: that carried it, "" where nothing tells.
    """

    time_ns: int
    flow: FlowKey
    query: str
    qtype: str
    rcode: int | None = None
    latency_ns: int | None = None
    answers: tuple[DnsAnswer, ...] = ()
    retry: bool = False
    has_query: bool = True
    cut: bool = False
    device: str = ""


@dataclass(frozen=True, slots=True)
class TlsHandshake:
    """A ClientHello, with what the ServerHello chose if that was seen. flow: from client to server.

    sni None: none was sent, or it is hidden (ech). version: "1.3", "1.2", …, the server's choice, or the highest that
    was offered; alpn: as offered; cipher: IANA's name of the server's choice, or hexadecimal; ja4 None: the hello was
    not there whole; ech: the hello has an encrypted_client_hello extension (its sni is the public name);
    ja4s None: not asked for, or the server's answer was not seen; device: as of a DnsTransaction, as for the others.
    """

    time_ns: int
    flow: FlowKey
    sni: str | None
    version: str | None
    alpn: tuple[str, ...] = ()
    ja4: str | None = None
    ech: bool = False
    cipher: str | None = None
    alpn_chosen: str | None = None
    ja4s: str | None = None
    device: str = ""


@dataclass(frozen=True, slots=True)
class QuicHandshake:
    """A ClientHello out of QUIC Initial packets. version: "1" or "2". flow: from client to server."""

    time_ns: int
    flow: FlowKey
    sni: str | None
    version: str
    alpn: tuple[str, ...] = ()
    ja4: str | None = None
    ech: bool = False
    device: str = ""


@dataclass(frozen=True, slots=True)
class HttpTransaction:
    """One request, with the status of its final response if that was seen.

    time_ns: of the request's first byte, or of the response's where no request was seen (method is None then).
    version: "1.0", "1.1" or "2". path: with its query string; None where redacted. latency_ns: from the request's last
    byte that was seen to the response's first.
    """

    time_ns: int
    flow: FlowKey
    version: str
    method: str | None
    host: str | None
    path: str | None = None
    status: int | None = None
    latency_ns: int | None = None
    device: str = ""


Transaction = DnsTransaction | TlsHandshake | QuicHandshake | HttpTransaction


@dataclass(frozen=True, slots=True)
class Transactions:
    """What ended in one interval, each kind in order of time: columns, of which objects are made as asked for."""

    dns: Sequence[DnsTransaction] = ()
    tls: Sequence[TlsHandshake] = ()
    quic: Sequence[QuicHandshake] = ()
    http: Sequence[HttpTransaction] = ()


class Columns(Protocol):
    """Transactions that are not objects but columns."""

    def column(self, name: str) -> Sequence[Any]: ...


def column(seen: Sequence[Transaction], name: str) -> Sequence[Any]:
    """One field of each transaction, its own or its flow's, without making an object of each where there is none."""
    if hasattr(seen, "column"):
        return cast("Columns", seen).column(name)
    if name in FlowKey._fields:
        return [getattr(one.flow, name) for one in seen]
    return [getattr(one, name) for one in seen]


class FlowName(NamedTuple):
    """What is known of a conversation: the same for both of its flows. No dataclass, as DnsTransaction.

    application: "tls", "http", "dns", "ssh", …, or "unknown". domain: lower case, without the last dot, or None.
    domain_source: the evidence, "sni", "http_host", "quic_sni", "dns_answer" or "ptr".
    """

    application: str = "unknown"
    domain: str | None = None
    domain_source: str | None = None
    tls_version: str | None = None
    tls_cipher: str | None = None
    alpn: str | None = None
    ja4: str | None = None
    ja4s: str | None = None
    http_method: str | None = None
    http_status: int | None = None
    dns_query: str | None = None
    dns_rcode: int | None = None


#: Of flows of which nothing is known.
NAMELESS = FlowName()
