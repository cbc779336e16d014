"""What decoders in Python have read, as the library in C takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from wiremeter.names.decoders.applications import APPLICATIONS
from wiremeter.names.decoders.tls_registry import CIPHERS, VERSIONS
from wiremeter.names.library import ffi, lib
from wiremeter.names.records import HttpTransaction, QuicHandshake, TlsHandshake
from wiremeter.names.stream_readers import Learnt

_TEXTS = ("domain", "method", "alpn", "ja4", "ja4s")
_VERSION_NUMBERS = {name: number for number, name in VERSIONS.items()}
_CIPHER_NUMBERS = {name: number for number, name in CIPHERS.items()}
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
    tls_version: str | None = None
    cipher: str | None = None
    status: int | None = None

    @classmethod
    def of(cls, learnt: Learnt) -> Said:
        """What a stream told last."""
        last = learnt.ended[-1] if learnt.ended else learnt.pending
        if isinstance(last, TlsHandshake):
            return cls(
                domain=last.sni,
                source=lib.WM_NAME_SNI,
                alpn=last.alpn_chosen or (last.alpn[0] if len(last.alpn) == 1 else None),
                ja4=last.ja4,
                ja4s=last.ja4s,
                tls_version=last.version,
                cipher=last.cipher,
            )
        return cls(
            learnt.application,
            learnt.host,
            lib.WM_NAME_HTTP_HOST,
            learnt.method,
            status=last.status if isinstance(last, HttpTransaction) else None,
        )

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
        said.tls_version = _number(self.tls_version, _VERSION_NUMBERS)
        said.cipher = _number(self.cipher, _CIPHER_NUMBERS)
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


def tell_hello(told: Any, device: int, ended: TlsHandshake | QuicHandshake) -> None:
    """Adds a handshake to struct wm_told."""
    is_tls = isinstance(ended, TlsHandshake)
    alpn = b"".join(bytes([len(name)]) + name for name in (each.encode() for each in ended.alpn))
    chosen, ja4s = (ended.alpn_chosen, ended.ja4s) if isinstance(ended, TlsHandshake) else (None, None)
    texts = {
        "sni": (ended.sni or "").encode(),
        "alpn": alpn,
        "ja4": (ended.ja4 or "").encode(),
        "ja4s": (ja4s or "").encode(),
        "chosen": (chosen or "").encode(),
    }
    row = {
        "time_ns": ended.time_ns,
        "flow": ended.flow._asdict(),
        "device": device,
        "tls_version": _number(ended.version if is_tls else "1.3", _VERSION_NUMBERS),
        "cipher": _number(ended.cipher, _CIPHER_NUMBERS) if isinstance(ended, TlsHandshake) else lib.WM_NONE,
        "ech": ended.ech,
        "quic": 0 if is_tls else int(ended.version or 0),
        **{f"{name}_bytes": len(text) for name, text in texts.items()},
    }
    buffers = [ffi.from_buffer("uint8_t[]", text) for text in texts.values()]
    lib.wm_hello_tell(told, ffi.new("struct wm_hello *", row), *buffers)


def _number(name: str | None, numbers: dict[str, int]) -> int:
    if name is None:
        return int(lib.WM_NONE)
    return numbers[name] if name in numbers else int(name, 16)
