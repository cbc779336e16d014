"""Who reads the streams of TCP connections that the decoders in C only put in order: TLS, and HTTP/2 in clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from wiremeter.names.decoders.http2 import Http2Decoder, Upgraded
from wiremeter.names.decoders.tls import TlsDecoder
from wiremeter.names.library import lib
from wiremeter.names.records import DecodeError, FlowKey, HttpTransaction, TlsHandshake


class Piece(NamedTuple):
    """What comes next in a direction of a connection; as struct wm_piece in bpf/names/names.h. missing None: nobody can
    tell how many. upgraded: of a request that became the first of HTTP/2."""

    kind: int
    time_ns: int
    serial: int
    flow: FlowKey
    from_client: bool
    reader: int
    data: bytes = b""
    missing: int | None = None
    upgraded: Upgraded | None = None


class _Decoder(Protocol):
    done: bool

    def data(self, from_client: bool, chunk: bytes, time_ns: int) -> Sequence[TlsHandshake | HttpTransaction]: ...

    def gap(self, from_client: bool, missing: int | None) -> Sequence[TlsHandshake | HttpTransaction]: ...

    def flush(self) -> Sequence[TlsHandshake | HttpTransaction]: ...


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a piece told. pending: what a client asked for whom the server has not answered. optional: how many of the
    next bytes of its direction nobody needs. done: nothing more is to be read."""

    ended: Sequence[TlsHandshake | HttpTransaction] = ()
    pending: TlsHandshake | None = None
    host: str | None = None
    method: str | None = None
    application: str | None = None
    optional: int = 0
    done: bool = False


class StreamReaders:
    """A decoder for each connection, by its serial number."""

    def __init__(self, *, redact: bool, ja4s: bool) -> None:
        """redact: leave out paths of HTTP. ja4s: fingerprint servers' answers."""
        self._redact = redact
        self._ja4s = ja4s
        self._decoders: dict[int, _Decoder] = {}

    def __len__(self) -> int:
        return len(self._decoders)

    def take(self, piece: Piece) -> Learnt:
        """Reads it; no bytes make it raise."""
        if piece.kind == lib.WM_PIECE_END:
            decoder = self._decoders.pop(piece.serial, None)
            return Learnt(decoder.flush() if decoder else (), done=True)
        decoder = self._decoders.get(piece.serial)
        if decoder is None:
            decoder = self._decoders[piece.serial] = self._begin(piece)
        ended = list(self._read(decoder, piece))
        if decoder.done:
            del self._decoders[piece.serial]
            return _learnt(decoder, piece, [*ended, *decoder.flush()])
        return _learnt(decoder, piece, ended)

    def _begin(self, piece: Piece) -> _Decoder:
        if piece.reader == lib.WM_READER_TLS:
            return TlsDecoder(piece.flow, self._ja4s)
        return Http2Decoder(piece.flow, self._redact, piece.upgraded)

    @staticmethod
    def _read(decoder: _Decoder, piece: Piece) -> Sequence[TlsHandshake | HttpTransaction]:
        try:
            if piece.kind == lib.WM_PIECE_DATA:
                return decoder.data(piece.from_client, piece.data, piece.time_ns)
            if piece.kind == lib.WM_PIECE_GAP:
                return decoder.gap(piece.from_client, piece.missing)
        except DecodeError:
            decoder.done = True
            return decoder.flush()
        return ()


def _learnt(decoder: _Decoder, piece: Piece, ended: Sequence[TlsHandshake | HttpTransaction]) -> Learnt:
    if isinstance(decoder, Http2Decoder):
        return Learnt(
            ended,
            host=decoder.host,
            method=decoder.method,
            application="grpc" if decoder.application == "grpc" else None,
            optional=decoder.optional_bytes(piece.from_client),
            done=decoder.done,
        )
    assert isinstance(decoder, TlsDecoder)
    return Learnt(ended, pending=decoder.pending if piece.from_client else None, done=decoder.done)
