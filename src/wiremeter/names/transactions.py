"""Transactions of HTTP, TLS and QUIC as the decoders tell them: columns, and objects of those that are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wiremeter.names.columns import HELLO, HTTP, Told, TransactionColumns, moved
from wiremeter.names.decoders.tls import protocol_text
from wiremeter.names.decoders.tls_registry import cipher_name, version_name
from wiremeter.names.records import FlowKey, HttpTransaction, QuicHandshake, TlsHandshake


def http_version(number: int) -> str:
    """
    >>> http_version(11), http_version(20)
    ('1.1', '2')
    """
    return "2" if number == 20 else f"{number // 10}.{number % 10}"


def _joined(
    parts: Sequence[tuple[NDArray[np.void], bytes]], dtype: np.dtype[np.void]
) -> tuple[NDArray[np.void], bytes]:
    """Rows in order of time, and all their text."""
    places = [name for name in dtype.names or () if name.endswith("_at")]
    rows, text = [np.zeros(0, dtype)], bytearray()
    for part, its_text in parts:
        rows.append(moved(part, len(text), *places))
        text += its_text
    joined = np.concatenate(rows)
    return joined[np.argsort(joined["time_ns"], kind="stable")], bytes(text)


class HttpColumns(TransactionColumns[HttpTransaction]):
    """Requests of HTTP, dtype HTTP."""

    __slots__ = ()

    @classmethod
    def joined(cls, told: Sequence[Told], devices: Mapping[int, str]) -> Self:
        """All that was told, in order of time."""
        return cls(*_joined([(part.http, part.text) for part in told if len(part.http)], HTTP), devices)

    def column(self, name: str) -> Sequence[Any]:
        """One field of each, of HttpTransaction's or of its flow's."""
        match name:
            case "version":
                return self._of_numbers("version", http_version)
            case "status" | "latency_ns":
                return [None if value < 0 else value for value in self._rows[name].tolist()]
            case _:
                return super().column(name)

    def _transaction(self, row: tuple[Any, ...]) -> HttpTransaction:
        (time_ns, latency_ns, src, dst, sport, dport, protocol, family) = row[:8]
        (method_at, host_at, path_at, device, method, host, path, status, version) = row[8:]
        return HttpTransaction(
            time_ns,
            FlowKey(src, sport, dst, dport, protocol, family),
            http_version(version),
            self._said(method_at, method) or None,
            self._said(host_at, host) or None,
            self._said(path_at, path) or None,
            None if status < 0 else status,
            None if latency_ns < 0 else latency_ns,
            self._device(device),
        )


def _protocols(said: bytes) -> tuple[str, ...]:
    """Names of protocols, each behind its length."""
    found, at = [], 0
    while at < len(said):
        found.append(protocol_text(said[at + 1 : at + 1 + said[at]]))
        at += 1 + said[at]
    return tuple(found)


class _HelloColumns:
    """What TLS and QUIC have in common."""

    _rows: NDArray[np.void]
    _text: bytes

    def _protocols(self, at: int, size: int) -> tuple[str, ...]:
        return _protocols(self._text[at : at + size])

    def _offered(self) -> list[tuple[str, ...]]:
        places = zip(self._rows["alpn_at"].tolist(), self._rows["alpn_bytes"].tolist(), strict=True)
        said = [self._text[at : at + size] for at, size in places]
        offers = {one: _protocols(one) for one in set(said)}  # most clients offer the same
        return [offers[one] for one in said]


class TlsColumns(_HelloColumns, TransactionColumns[TlsHandshake]):
    """Handshakes of TLS over TCP, dtype HELLO."""

    __slots__ = ()

    @classmethod
    def joined(cls, told: Sequence[Told], devices: Mapping[int, str]) -> Self:
        """All that was told, in order of time."""
        of_tls = [(part.hellos[part.hellos["quic"] == 0], part.text) for part in told if len(part.hellos)]
        return cls(*_joined(of_tls, HELLO), devices)

    def column(self, name: str) -> Sequence[Any]:
        """One field of each, of TlsHandshake's or of its flow's."""
        match name:
            case "version":
                return self._of_numbers("tls_version", _version)
            case "cipher":
                return self._of_numbers("cipher", _cipher)
            case "alpn":
                return self._offered()
            case "alpn_chosen":
                places = zip(self._rows["chosen_at"].tolist(), self._rows["chosen_bytes"].tolist(), strict=True)
                return [self._chosen(*place) for place in places]
            case "ech":
                return (self._rows["ech"] > 0).tolist()  # type: ignore[no-any-return]
            case _:
                return super().column(name)

    def _chosen(self, at: int, size: int) -> str | None:
        return protocol_text(self._text[at : at + size]) or None

    def _transaction(self, row: tuple[Any, ...]) -> TlsHandshake:
        (time_ns, src, dst, sport, dport, protocol, family) = row[:7]
        (sni_at, alpn_at, ja4_at, ja4s_at, chosen_at, device, version, cipher) = row[7:15]
        (sni, alpn, ja4, ja4s, chosen, ech, _) = row[15:]
        return TlsHandshake(
            time_ns,
            FlowKey(src, sport, dst, dport, protocol, family),
            self._said(sni_at, sni) or None,
            _version(version),
            self._protocols(alpn_at, alpn),
            self._said(ja4_at, ja4) or None,
            bool(ech),
            _cipher(cipher),
            self._chosen(chosen_at, chosen),
            self._said(ja4s_at, ja4s) or None,
            self._device(device),
        )


class QuicColumns(_HelloColumns, TransactionColumns[QuicHandshake]):
    """Handshakes of QUIC, dtype HELLO."""

    __slots__ = ()

    @classmethod
    def joined(cls, told: Sequence[Told], devices: Mapping[int, str]) -> Self:
        """All that was told, in order of time."""
        of_quic = [(part.hellos[part.hellos["quic"] > 0], part.text) for part in told if len(part.hellos)]
        return cls(*_joined(of_quic, HELLO), devices)

    def column(self, name: str) -> Sequence[Any]:
        """One field of each, of QuicHandshake's or of its flow's."""
        match name:
            case "version":
                return self._of_numbers("quic", str)
            case "alpn":
                return self._offered()
            case "ech":
                return (self._rows["ech"] > 0).tolist()  # type: ignore[no-any-return]
            case _:
                return super().column(name)

    def _transaction(self, row: tuple[Any, ...]) -> QuicHandshake:
        (time_ns, src, dst, sport, dport, protocol, family) = row[:7]
        (sni_at, alpn_at, ja4_at, _, _, device, _, _) = row[7:15]
        (sni, alpn, ja4, _, _, ech, quic) = row[15:]
        return QuicHandshake(
            time_ns,
            FlowKey(src, sport, dst, dport, protocol, family),
            self._said(sni_at, sni) or None,
            str(quic),
            self._protocols(alpn_at, alpn),
            self._said(ja4_at, ja4) or None,
            bool(ech),
            self._device(device),
        )


def _version(number: int) -> str | None:
    return None if number < 0 else version_name(number)


def _cipher(number: int) -> str | None:
    return None if number < 0 else cipher_name(number)
