"""Reader: payloads in, what they tell out. Everything between is in bounds, whatever the payloads hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Protocol

from wiremeter.names.block_reader import BlockReader
from wiremeter.names.connections import TcpConversation
from wiremeter.names.conversations import Conversation, Listening, canonical
from wiremeter.names.datagrams import UdpConversation
from wiremeter.names.decoders.fragments import Fragments, is_fragment
from wiremeter.names.payloads import Payload, PayloadBlock
from wiremeter.names.records import (
    TCP,
    DecodeError,
    FlowKey,
    FlowName,
    HttpTransaction,
    QuicHandshake,
    RawTold,
    TlsHandshake,
    Transaction,
)
from wiremeter.settings.words import DEFAULT_NAME_KINDS, NameKind

CONVERSATIONS_MAX = 4096
#: A conversation that nothing was heard of for so long is let go; its name stays.
SILENCE_NS = 30 * 10**9
_LAST_NS = (1 << 62) - 1  # times further on, which captures can hold, are as good as this

_KIND_OF: dict[type[Transaction], NameKind] = {
    TlsHandshake: "tls",
    QuicHandshake: "quic",
    HttpTransaction: "http",
}


class Audience(Protocol):
    """Who is told what payloads said, as it is read."""

    def take_dns(self, raw: RawTold) -> None:
        """Of DNS, in columns: see DnsTold.of."""

    def take_name(self, conversation: FlowKey, name: FlowName, time_ns: int) -> None:
        """The name that a conversation has since `time_ns`, by its canonical key."""

    def take_ended(self, device: int, transaction: Transaction) -> None:
        """A transaction that has ended, and the device that carried it."""


class PayloadReader(Protocol):
    """What Reader is, here or in another process."""

    def feed(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> None:
        """Reads payloads, in order.

        devices: the device of each attachment; payloads of others are left out. None: all are of one device.
        """

    def advance(self, end_ns: int) -> None:
        """Tells all that was read before `end_ns`, and ends what has waited for too long by then."""

    def end(self, end_ns: int) -> None:
        """As advance, and ends all that is still open."""


class Reader:
    """Reads the payloads of one meter. It knows nothing of flows that payloads do not tell."""

    def __init__(
        self,
        audience: Audience,
        kinds: Collection[NameKind] = DEFAULT_NAME_KINDS,
        *,
        redact: bool = True,
        ja4s: bool = False,
    ) -> None:
        """kinds: the transactions that are told; names are told of all. redact: leave out paths of HTTP. ja4s:
        fingerprint servers' answers."""
        self._audience = audience
        self._kinds = frozenset(kinds)
        self._redact = redact
        self._ja4s = ja4s
        self._blocks = BlockReader(audience.take_dns)
        self._fragments = Fragments()
        self._listening = Listening(CONVERSATIONS_MAX)

    def feed(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> None:
        """As PayloadReader, like the next two."""
        for device, payload in self._blocks.read(block, devices):
            self._read(device, payload)

    def advance(self, end_ns: int) -> None:
        end_ns = min(end_ns, _LAST_NS)
        for (device, key), conversation in self._listening:
            if ended := conversation.advance(end_ns):
                self._tell(device, ended)
                self._audience.take_name(key, conversation.name, end_ns)
        self._let_go(self._listening.let_go(end_ns - SILENCE_NS), end_ns)
        for datagram in self._fragments.expire(end_ns):
            self._read_dns(0, datagram)
        self._blocks.expire(end_ns)
        self._blocks.hand_on()

    def end(self, end_ns: int) -> None:
        self._let_go(self._listening.let_all_go(), min(end_ns, _LAST_NS))
        for datagram in self._fragments.expire(_LAST_NS):
            self._read_dns(0, datagram)
        self._blocks.flush()
        self._blocks.hand_on()

    def _read(self, device: int, payload: Payload) -> None:
        if payload.flow.protocol == TCP:
            self._read_tcp(device, payload)
        elif is_fragment(payload):
            for datagram in self._fragments.add(device, payload):
                self._read_dns(device, datagram)
        else:
            self._read_udp(device, payload)

    def _read_dns(self, device: int, payload: Payload) -> None:
        """A datagram that came in parts, as only those of DNS are sent."""
        cut = len(payload.data) < payload.length
        try:
            self._blocks.message(device, payload.time_ns, payload.flow, payload.data, cut=cut, lenient=True)
        except DecodeError:
            self._read_udp(device, payload)

    def _read_udp(self, device: int, payload: Payload) -> None:
        key = canonical(payload.flow)
        conversation = self._listening.get((device, key))
        if not isinstance(conversation, UdpConversation):
            conversation = UdpConversation(payload.flow)
        before = conversation.name
        ended = conversation.datagram(payload.time_ns, payload.flow, payload.data)
        self._heard(device, key, conversation, payload.time_ns)
        self._learn(key, before, conversation.name, payload.time_ns)
        self._tell(device, ended)

    def _read_tcp(self, device: int, payload: Payload) -> None:
        key = canonical(payload.flow)
        conversation = self._listening.get((device, key))
        if not isinstance(conversation, TcpConversation):
            on_dns = partial(self._blocks.message, device)
            conversation = TcpConversation(payload.flow, on_dns, redact=self._redact, ja4s=self._ja4s)
        before = conversation.name
        ended = conversation.packet(
            payload.time_ns, payload.flow, payload.seq, payload.tcp_flags, payload.length, payload.data
        )
        self._heard(device, key, conversation, payload.time_ns)
        self._tell(device, ended)
        self._learn(key, before, conversation.name, payload.time_ns)

    def _heard(self, device: int, key: FlowKey, conversation: Conversation, time_ns: int) -> None:
        self._listening.heard((device, key), conversation, time_ns)
        if len(self._listening) > CONVERSATIONS_MAX:
            self._let_go(self._listening.let_go(0), time_ns)

    def _let_go(self, gone: Iterable[tuple[tuple[int, FlowKey], Conversation]], end_ns: int) -> None:
        for (device, key), conversation in gone:
            self._blocks.forget(device, key)
            before = conversation.name
            self._tell(device, conversation.flush())
            self._learn(key, before, conversation.name, end_ns)

    def _learn(self, key: FlowKey, before: FlowName, name: FlowName, time_ns: int) -> None:
        if name != before:
            self._audience.take_name(key, name, time_ns)

    def _tell(self, device: int, ended: Iterable[Transaction]) -> None:
        for transaction in ended:
            if _KIND_OF[type(transaction)] in self._kinds:
                self._audience.take_ended(device, transaction)
