"""The handshake of a TCP connection as bpf/names/tls.c reads it, alone: bytes in, a record out."""

from __future__ import annotations

from typing import Any

from wiremeter.names.decoders.tls import LONGEST_HELLO, offered, protocol_text
from wiremeter.names.decoders.tls_registry import cipher_name, version_name
from wiremeter.names.library import ffi, lib
from wiremeter.names.records import DecodeError, FlowKey, TlsHandshake

#: Cells for both hellos of a connection and what they say, whatever their length.
_CELLS = 3 * (LONGEST_HELLO // (lib.WM_CELL_BYTES - 8) + 1) + 2
#: Memory that nobody writes to takes no room.
_untouched = ffi.new_allocator(should_clear_after_alloc=False)


class TlsDecoder:
    """The handshake of one TCP conversation.

    flow: from client to server. ja4s: fingerprint the server's answer, too (bpf/names/ja4.h says why not always).
    done: nothing more is to be learnt.
    The two directions may be given in any order; within one, bytes from the first on, each once and in order.
    """

    def __init__(self, flow: FlowKey, ja4s: bool = False) -> None:
        self.done = False
        self._flow = flow
        self._tls = ffi.new("struct wm_tls *")
        self._memory = _untouched(f"struct wm_cell[{_CELLS}]")
        self._cells = ffi.new("struct wm_cells *", {"cells": self._memory, "capacity": _CELLS})
        self._room = _untouched(f"uint8_t[{lib.WM_TLS_ROOM}]")
        self._to = ffi.new("struct wm_tls_to *", {"cells": self._cells, "room": self._room, "with_ja4s": ja4s})

    @property
    def cells(self) -> int:
        """How many pieces of memory hold what waits."""
        return int(self._cells.count)

    @property
    def pending(self) -> TlsHandshake | None:
        """What the client asked for, while the server has not answered."""
        return None if self.done else self._handshake(with_choice=False)

    def data(self, from_client: bool, chunk: bytes, time_ns: int) -> list[TlsHandshake]:
        """Take the next bytes of a direction. Returns the handshake once the server has answered, or cannot any more.

        Raises DecodeError, once, if what the client sends is not TLS. If what the server sends is not, the handshake
        comes without its choice.
        """
        if self.done:
            return []
        took = lib.wm_tls_data(self._tls, self._to, from_client, ffi.from_buffer(chunk), len(chunk), time_ns)
        if took == lib.WM_TLS_NONE:
            self.done = True
            raise DecodeError(f"no TLS: {chunk[:11].hex()}…")
        return self._settle(took)

    def gap(self, from_client: bool, missing: int | None = None) -> list[TlsHandshake]:
        """Bytes of a direction are missing, so that nothing further can be read of it; make use of what is there."""
        return [] if self.done else self._settle(lib.wm_tls_gap(self._tls, self._to, from_client))

    def flush(self) -> list[TlsHandshake]:
        """Nothing more will come: the handshake that still waits for its other half, if there is one."""
        return [] if self.done else self._settle(lib.wm_tls_end(self._tls, self._to))

    def _settle(self, took: int) -> list[TlsHandshake]:
        self.done = took != lib.WM_TLS_WAITS
        told = self._handshake(with_choice=True) if took == lib.WM_TLS_TOLD else None
        return [told] if told else []

    def _handshake(self, with_choice: bool) -> TlsHandshake | None:
        known = lib.wm_tls_handshake(self._tls, self._to)
        if not known.offer:
            return None
        offer, choice = offered(known.offer), known.choice if with_choice else None
        chosen = _bytes(choice, "alpn") if choice else b""
        return TlsHandshake(
            self._tls.time_ns,
            self._flow,
            sni=offer.sni,
            version=version_name(choice.version if choice else offer.version),
            alpn=tuple(map(protocol_text, offer.alpn)),
            ja4=offer.ja4,
            ech=offer.ech,
            cipher=cipher_name(choice.cipher) if choice else None,
            alpn_chosen=protocol_text(chosen) if chosen else None,
            ja4s=_text(choice, "ja4s") if choice else None,
        )


def _bytes(hello: Any, name: str) -> bytes:
    return bytes(ffi.buffer(getattr(hello, name), getattr(hello, f"{name}_bytes")))


def _text(hello: Any, name: str) -> str | None:
    return _bytes(hello, name).decode("ascii") or None
