"""What decoders in Python have read, as the library in C takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from wiremeter.names.decoders.applications import APPLICATIONS
from wiremeter.names.library import ffi, lib
from wiremeter.names.records import HttpTransaction, QuicHandshake
from wiremeter.names.stream_readers import Learnt

_TEXTS = ("domain", "method", "alpn", "ja4", "ja4s")
#: RFC 9001, section 4.2: no other.
TLS_OF_QUIC = 0x0304
#: What structs point at, as long as they are there.
_kept: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Said:
    """What a conversation says of itself. None: nothing is known of it. source: WM_NAME_SNI, … of `domain`."""

    application: str | None = None
    domain: str | None = None
    source: int = lib.WM_NAME_NO_DOMAIN
    method: str | None = None
    alpn: str | None = None
    ja4: str | None = None
    ja4s: str | None = None
    tls_version: int | None = None
    status: int | None = None

    @classmethod
    def of(cls, learnt: Learnt) -> Said:
        """What a stream told last."""
        status = learnt.ended[-1].status if learnt.ended else None
        return cls(learnt.application, learnt.host, lib.WM_NAME_HTTP_HOST, learnt.method, status=status)

    def struct(self) -> Any:
        """struct wm_known_said."""
        said = ffi.new("struct wm_known_said *")
        texts = [(getattr(self, name) or "").encode("utf-8") for name in _TEXTS]
        _kept[said] = buffers = [ffi.from_buffer("uint8_t[]", text) for text in texts]
        for name, buffer in zip(_TEXTS, buffers, strict=True):
            setattr(said, name, buffer)
            setattr(said, f"{name}_bytes", len(buffer))
        said.source = self.source
        said.application = APPLICATIONS[self.application] if self.application else lib.WM_APP_UNKNOWN
        said.status = lib.WM_NONE if self.status is None else self.status
        said.tls_version = lib.WM_NONE if self.tls_version is None else self.tls_version
        said.cipher = lib.WM_NONE
        return said


def tell_http(told: Any, device: int, ended: HttpTransaction) -> None:
    """Adds a request of HTTP/2 to struct wm_told."""
    texts = [(text or "").encode("utf-8") for text in (ended.method, ended.host, ended.path)]
    row = {
        "time_ns": ended.time_ns,
        "latency_ns": lib.WM_NONE if ended.latency_ns is None else ended.latency_ns,
        "flow": ended.flow._asdict(),
        "device": device,
        "status": lib.WM_NONE if ended.status is None else ended.status,
        "version": 20,
        **{f"{name}_bytes": len(text) for name, text in zip(("method", "host", "path"), texts, strict=True)},
    }
    buffers = [ffi.from_buffer("uint8_t[]", text) for text in texts]
    lib.wm_http_tell(told, ffi.new("struct wm_http_transaction *", row), *buffers)


def tell_hello(told: Any, device: int, ended: QuicHandshake) -> None:
    """Adds a handshake of QUIC to struct wm_told."""
    texts = {
        "sni": (ended.sni or "").encode(),
        "alpn": b"".join(bytes([len(name)]) + name for name in (each.encode() for each in ended.alpn)),
        "ja4": (ended.ja4 or "").encode(),
        "ja4s": b"",
        "chosen": b"",
    }
    row = {
        "time_ns": ended.time_ns,
        "flow": ended.flow._asdict(),
        "device": device,
        "tls_version": TLS_OF_QUIC,
        "cipher": lib.WM_NONE,
        "ech": ended.ech,
        "quic": int(ended.version),
        **{f"{name}_bytes": len(text) for name, text in texts.items()},
    }
    buffers = [ffi.from_buffer("uint8_t[]", text) for text in texts.values()]
    lib.wm_hello_tell(told, ffi.new("struct wm_hello *", row), *buffers)
