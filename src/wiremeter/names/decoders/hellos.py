"""What the two hellos of TLS say, whoever read them."""

from __future__ import annotations

from dataclasses import dataclass

from wiremeter.names.decoders.tls_registry import newest_version


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client offers (RFC 8446, section 4.1.2), in its order, GREASE included.

    sni: the host name in lower case without a last dot; None if there is none or it is not printable ASCII.
    alpn: protocol names as sent. ech: has an encrypted_client_hello extension; clients without a key for the site
    send one filled with noise (GREASE), and from outside the two look the same.
    is_complete: False for the beginning of a hello, of which the rest is missing.
    """

    legacy_version: int
    ciphers: tuple[int, ...]
    extensions: tuple[int, ...]
    sni: str | None = None
    alpn: tuple[bytes, ...] = ()
    supported_versions: tuple[int, ...] = ()
    signature_algorithms: tuple[int, ...] = ()
    ech: bool = False
    is_complete: bool = True

    @property
    def version(self) -> int:
        """The newest version that is offered; a draft of 1.3 counts as 1.3."""
        return newest_version(self.supported_versions, self.legacy_version)


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What a server chose (RFC 8446, section 4.1.3).

    version: with regard to the supported_versions extension. alpn: None in TLS 1.3, where it is encrypted.
    is_retry: a HelloRetryRequest, which a second ClientHello and ServerHello follow.
    """

    version: int
    cipher: int
    extensions: tuple[int, ...]
    alpn: bytes | None = None
    is_retry: bool = False
