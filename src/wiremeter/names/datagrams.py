"""One UDP conversation: QUIC's handshake, or the application by what its first datagrams look like."""

from __future__ import annotations

from dataclasses import replace

from wiremeter.names.decoders.applications import udp_application
from wiremeter.names.decoders.quic import QuicDecoder, looks_like_quic_initial
from wiremeter.names.library import lib
from wiremeter.names.records import DecodeError, FlowKey, QuicHandshake
from wiremeter.names.said import TLS_OF_QUIC, Said


class UdpConversation:
    """Reads one UDP conversation as far as its payload was picked, in bounded memory; no bytes make it raise.

    The client is who sent the first Initial, or the first datagram that was seen. `said` is the best that is known
    until now.
    """

    def __init__(self, flow: FlowKey) -> None:
        """flow: of the first datagram."""
        self.said = Said()
        self._flow = flow
        self._quic: QuicDecoder | None = None

    def datagram(self, time_ns: int, flow: FlowKey, data: bytes) -> list[QuicHandshake]:
        """One datagram, and the handshake that was whole with it."""
        if self._quic is None and looks_like_quic_initial(data):
            self._flow = flow
            self._quic = QuicDecoder(flow)
            self.said = Said("quic")
        if self._quic is None:
            self._recognise(data, flow)
            return []
        if self._quic.done:
            return []
        try:
            return self._told(self._quic.datagram(flow == self._flow, data, time_ns))
        except DecodeError:
            return []

    def flush(self) -> list[QuicHandshake]:
        """Ends the conversation. What is known of it stays."""
        return self._told(self._quic.flush()) if self._quic else []

    def _recognise(self, data: bytes, flow: FlowKey) -> None:
        if self.said.application is None:
            self.said = replace(self.said, application=udp_application(data, flow.src_port, flow.dst_port))

    def _told(self, handshakes: list[QuicHandshake]) -> list[QuicHandshake]:
        for shake in handshakes:
            self.said = replace(
                self.said,
                domain=shake.sni,
                source=lib.WM_NAME_QUIC_SNI,
                tls_version=TLS_OF_QUIC,
                alpn=shake.alpn[0] if shake.alpn else None,
                ja4=shake.ja4,
            )
        return handshakes
