"""Who reads the streams of TCP connections that the decoders in C only put in order: HTTP/2 in clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wiremeter.names.decoders.http2 import Http2Decoder, Upgraded
from wiremeter.names.library import lib
from wiremeter.names.records import DecodeError, FlowKey, HttpTransaction


class Piece(NamedTuple):
    """What comes next in a direction of a connection; as struct wm_piece in bpf/names/names.h. missing None: nobody can
    tell how many. upgraded: of a request that became the first of HTTP/2."""

    kind: int
    time_ns: int
    serial: int
    flow: FlowKey
    from_client: bool
    data: bytes = b""
    missing: int | None = None
    upgraded: Upgraded | None = None


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a piece told. optional: how many of the next bytes of its direction nobody needs. done: nothing more is to
    be read."""

    ended: Sequence[HttpTransaction] = ()
    host: str | None = None
    method: str | None = None
    application: str | None = None
    optional: int = 0
    done: bool = False


class StreamReaders:
    """A decoder for each connection, by its serial number."""

    def __init__(self, *, redact: bool) -> None:
        """redact: leave out paths."""
        self._redact = redact
        self._decoders: dict[int, Http2Decoder] = {}

    def __len__(self) -> int:
        return len(self._decoders)

    def take(self, piece: Piece) -> Learnt:
        """Reads it; no bytes make it raise."""
        if piece.kind == lib.WM_PIECE_END:
            ending = self._decoders.pop(piece.serial, None)
            return Learnt(ending.flush() if ending else (), done=True)
        decoder = self._decoders.get(piece.serial)
        if decoder is None:
            decoder = self._decoders[piece.serial] = Http2Decoder(piece.flow, self._redact, piece.upgraded)
        ended = self._read(decoder, piece)
        if decoder.done:
            del self._decoders[piece.serial]
            ended = [*ended, *decoder.flush()]
        return Learnt(
            ended,
            decoder.host,
            decoder.method,
            "grpc" if decoder.application == "grpc" else None,
            decoder.optional_bytes(piece.from_client),
            decoder.done,
        )

    @staticmethod
    def _read(decoder: Http2Decoder, piece: Piece) -> Sequence[HttpTransaction]:
        try:
            if piece.kind == lib.WM_PIECE_DATA:
                return decoder.data(piece.from_client, piece.data, piece.time_ns)
            if piece.kind == lib.WM_PIECE_GAP:
                return decoder.gap(piece.from_client, piece.missing)
        except DecodeError:
            decoder.done = True
        return ()
