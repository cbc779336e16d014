"""One UDP conversation: QUIC's handshake, or the application by what its first datagrams look like."""

from __future__ import annotations

from wiremeter.names.decoders.applications import udp_application
from wiremeter.names.decoders.quic import QuicDecoder, looks_like_quic_initial
from wiremeter.names.records import NAMELESS, DecodeError, FlowKey, FlowName, QuicHandshake, Transaction


class UdpConversation:
    """Reads one UDP conversation as far as its payload was picked, in bounded memory; no bytes make it raise.

    The client is who sent the first Initial, or the first datagram that was seen.
    """

    def __init__(self, flow: FlowKey) -> None:
        """flow: of the first datagram."""
        self._flow = flow
        self._quic: QuicDecoder | None = None
        self._name = NAMELESS

    @property
    def name(self) -> FlowName:
        """The best that is known of the conversation until now."""
        return self._name

    def datagram(self, time_ns: int, flow: FlowKey, data: bytes) -> list[Transaction]:
        """One datagram, and the handshake that was whole with it."""
        if self._quic is None and looks_like_quic_initial(data):
            self._flow = flow
            self._quic = QuicDecoder(flow)
            self._name = FlowName("quic")
        if self._quic is None:
            self._recognise(data, flow)
            return []
        if self._quic.done:
            return []
        try:
            return self._told(self._quic.datagram(flow == self._flow, data, time_ns))
        except DecodeError:
            return []

    def advance(self, now_ns: int) -> list[Transaction]:
        """Nothing is waited for."""
        return []

    def flush(self) -> list[Transaction]:
        """Ends the conversation. What is known of it stays."""
        return self._told(self._quic.flush()) if self._quic else []

    def _recognise(self, data: bytes, flow: FlowKey) -> None:
        if self._name is NAMELESS and (application := udp_application(data, flow.src_port, flow.dst_port)):
            self._name = FlowName(application)

    def _told(self, handshakes: list[QuicHandshake]) -> list[Transaction]:
        for shake in handshakes:
            self._name = self._name._replace(
                domain=shake.sni,
                domain_source="quic_sni" if shake.sni else None,
                tls_version="1.3",  # RFC 9001, section 4.2: no other
                alpn=shake.alpn[0] if shake.alpn else None,
                ja4=shake.ja4,
            )
        return list(handshakes)
