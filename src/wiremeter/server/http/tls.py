"""The server's certificate, which is read again when its files change: they are renewed while the server runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from wiremeter.errors import InputError

log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int], ...]


class TlsFiles:
    """A context for connections to come; those that are there keep what they have."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """client_ca: clients that show a certificate must have it from here. Raises InputError for files of no use."""
        self._files = (certificate, key, *((client_ca,) if client_ca else ()))
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.options |= ssl.OP_NO_RENEGOTIATION
        if client_ca:
            # Those with a token need no certificate, so none is demanded.
            self.context.verify_mode = ssl.CERT_OPTIONAL
        self._stamp = self._stamped()
        self._load()

    def look(self) -> None:
        """Reads the files again if they changed. What cannot be read is logged, and what was read before stays."""
        try:
            stamp = self._stamped()
            if stamp == self._stamp:
                return
            before, self._stamp = self._stamp, stamp
            if stamp[2:] != before[2:]:
                # A context forgets no CA, so one that was taken away would stay trusted in silence.
                log.warning(
                    "the clients' CA changed, which counts after a restart", extra={"file": str(self._client_ca)}
                )
            if stamp[:2] == before[:2]:
                return
            self._load_certificate()
            log.info("the certificate was read again", extra={"file": str(self._certificate)})
        except InputError as error:
            log.error("the certificate cannot be read again; the one before stays in use", extra={"reason": str(error)})

    def _load(self) -> None:
        self._load_certificate()
        try:
            if self._client_ca:
                self.context.load_verify_locations(self._client_ca)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{self._client_ca}: the clients' CA cannot be used: {error}") from error

    def _load_certificate(self) -> None:
        try:
            # First into a context that is thrown away: a key that does not fit must not spoil the one in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key, _no_password)
            self.context.load_cert_chain(self._certificate, self._key, _no_password)
        except (OSError, ssl.SSLError) as error:
            why = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else error
            files = ", ".join(map(str, self._files))
            raise InputError(f"a certificate, its key or the clients' CA cannot be used ({files}): {why}") from error

    def _stamped(self) -> _Stamp:
        try:
            found = [path.stat() for path in self._files]
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error
        return tuple((each.st_ino, each.st_mtime_ns) for each in found)


def _no_password() -> str:
    raise InputError("the key is encrypted: store it decrypted, readable for the server alone")
