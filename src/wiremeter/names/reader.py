"""Reader: payloads in, what they tell out. Everything between is in bounds, whatever the payloads hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from wiremeter.names.block_reader import BlockReader
from wiremeter.names.datagrams import UdpConversation
from wiremeter.names.decoders.fragments import Fragments, is_fragment
from wiremeter.names.listening import Listening, canonical
from wiremeter.names.payloads import Payload, PayloadBlock
from wiremeter.names.records import QUESTIONS_MAX, DecodeError, FlowKey, QuicHandshake, RawTold

#: Of each transport.
CONVERSATIONS_MAX = 4096
#: A conversation that nothing was heard of for so long is let go; its name stays.
SILENCE_NS = 30 * 10**9
_LAST_NS = (1 << 62) - 1  # times further on, which captures can hold, are as good as this


class Audience(Protocol):
    """Who is told what payloads said, as it is read."""

    def take(self, raw: RawTold) -> None:
        """Columns: see Told.of."""


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
        self, audience: Audience, *, redact: bool = True, ja4s: bool = False, questions: int = QUESTIONS_MAX
    ) -> None:
        """redact: leave out paths of HTTP. ja4s: fingerprint servers' answers. questions: of DNS, that may wait at
        once."""
        self._blocks = BlockReader(audience.take, questions, connections=CONVERSATIONS_MAX, redact=redact, ja4s=ja4s)
        self._fragments = Fragments()
        self._listening = Listening(CONVERSATIONS_MAX)

    def feed(self, block: PayloadBlock, devices: Mapping[int, int] | None = None) -> None:
        """As PayloadReader, like the next two."""
        for device, payload in self._blocks.read(block, devices):
            if is_fragment(payload):
                for datagram in self._fragments.add(device, payload):
                    self._read_dns(*datagram)
            else:
                self._read_udp(device, payload)

    def advance(self, end_ns: int) -> None:
        end_ns = min(end_ns, _LAST_NS)
        self._let_go(self._listening.let_go(end_ns - SILENCE_NS))
        for datagram in self._fragments.expire(end_ns):
            self._read_dns(*datagram)
        self._blocks.advance(end_ns, end_ns - SILENCE_NS)

    def end(self, end_ns: int) -> None:
        self._let_go(self._listening.let_all_go())
        for datagram in self._fragments.expire(_LAST_NS):
            self._read_dns(*datagram)
        self._blocks.flush(min(end_ns, _LAST_NS))

    def _read_dns(self, device: int, payload: Payload) -> None:
        """A datagram that came in parts, as only those of DNS are sent."""
        cut = len(payload.data) < payload.length
        try:
            self._blocks.message(device, payload.time_ns, payload.flow, payload.data, cut=cut, lenient=True)
        except DecodeError:
            self._read_udp(device, payload)

    def _read_udp(self, device: int, payload: Payload) -> None:
        key = (device, canonical(payload.flow))
        conversation = self._listening.get(key) or UdpConversation(payload.flow)
        before = conversation.said
        ended = conversation.datagram(payload.time_ns, payload.flow, payload.data)
        if conversation.said != before:
            self._blocks.learn(device, payload.flow, payload.time_ns, conversation.said)
        self._tell(device, ended)
        self._listening.heard(key, conversation, payload.time_ns)
        if len(self._listening) > CONVERSATIONS_MAX:
            self._let_go(self._listening.let_go(0))

    def _let_go(self, gone: Iterable[tuple[tuple[int, FlowKey], UdpConversation]]) -> None:
        for (device, key), conversation in gone:
            self._blocks.forget(device, key)
            self._tell(device, conversation.flush())

    def _tell(self, device: int, ended: Iterable[QuicHandshake]) -> None:
        for handshake in ended:
            self._blocks.tell(device, handshake)
