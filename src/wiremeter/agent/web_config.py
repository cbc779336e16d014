"""Who may read what the agent serves: TLS and passwords, in the format of node_exporter's `--web.config.file`.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

from __future__ import annotations

import logging
import re
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wiremeter.errors import InputError

log = logging.getLogger(__name__)

_FILE_BYTES_MAX = 1 << 18
_USERS_MAX = 1000
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1[0-9]|2[0-4])\$[./A-Za-z0-9]{53}")
_HEADERS = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
)
_PARTS = ("tls_server_config", "http_server_config", "basic_auth_users")
#: What its format has besides, and why it is not taken here.
_NOT_TAKEN = {
    "cipher_suites": "the system's OpenSSL chooses",
    "curve_preferences": "the system's OpenSSL chooses",
    "prefer_server_cipher_suites": "the system's OpenSSL chooses",
    "client_allowed_sans": "whom `client_ca_file` signs may read",
    "cert": "write the certificate into a file, and its name into cert_file",
    "key": "write the key into a file, and its name into key_file",
    "client_ca": "write the certificates into a file, and its name into client_ca_file",
    "rate_limit": "the number of connections and their time are bounded already",
}
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "RequestClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class WebConfig:
    """tls: None without. users: bcrypt hashes by name; empty: no passwords. headers: of every answer."""

    tls: ssl.SSLContext | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()


class WebConfigFile:
    """The file, read again when it changes, or one that it names. From any thread."""

    def __init__(self, path: str) -> None:
        """Raises InputError for a file that cannot be used."""
        self._path = Path(path)
        self._lock = threading.Lock()
        self._files: tuple[Path, ...] = (self._path,)
        self._seen: tuple[object, ...] = ()
        self._read()

    def current(self) -> WebConfig:
        """What holds now. If the file became unusable, the log says so, and what held before still does."""
        with self._lock:
            if self._versions() != self._seen:
                try:
                    self._read()
                    log.info("the web configuration was read again", extra={"path": str(self._path)})
                except InputError as error:
                    self._seen = self._versions()
                    log.error("the web configuration is wrong: what held before still does", extra={"why": str(error)})
            return self._config

    def _read(self) -> None:
        given = _mapping(
            _parsed(self._path), str(self._path), ("tls_server_config", "http_server_config", "basic_auth_users")
        )
        tls = given.get("tls_server_config")
        files = {} if tls in (None, "") else _files(tls, self._path)
        self._files = (self._path, *files.values())
        seen = self._versions()
        self._config = WebConfig(
            tls=_context(tls, files, str(self._path)) if tls and files else None,
            users=_users(given.get("basic_auth_users") or {}, str(self._path)),
            headers=_headers(given.get("http_server_config") or {}, str(self._path)),
        )
        self._seen = seen

    def _versions(self) -> tuple[object, ...]:
        return tuple(_version(path) for path in self._files)


def _version(path: Path) -> object:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def _parsed(path: Path) -> Any:
    import yaml

    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InputError(f"cannot read the web configuration {path}: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise InputError(f"{path} is larger than {_FILE_BYTES_MAX >> 10} KiB: it is no web configuration")
    try:
        return yaml.load(data, Loader=yaml.BaseLoader) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not YAML that wiremeter can read: {error}") from error


def _mapping(given: Any, where: str, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"{where}: expected keys and values, such as those of node_exporter's web.config.file")
    for key in given:
        if key in _NOT_TAKEN:
            raise InputError(f"{where}: {key} is not taken, since {_NOT_TAKEN[key]}; leave it out")
        if key not in known:
            raise InputError(f"{where}: {key!r} is not known; those are {', '.join(known)}")
    return given


def _files(tls: Any, config: Path) -> dict[str, Path]:
    """The files that are named; without a directory they lie beside the configuration."""
    names = ("cert_file", "key_file", "client_ca_file")
    tls = _mapping(tls, f"{config}: tls_server_config", (*names, "client_auth_type", "min_version", "max_version"))
    for name in names[:2]:
        if not tls.get(name):
            raise InputError(f"{config}: tls_server_config lacks {name}")
    return {name: config.parent / tls[name] for name in names if tls.get(name)}


def _context(tls: dict[str, Any], files: dict[str, Path], where: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS["TLS12"]
    auth = _one_of(tls, "client_auth_type", _CLIENT_AUTH, where, default="NoClientCert")
    try:
        context.load_cert_chain(files["cert_file"], files["key_file"], password=lambda: "")
        if "client_ca_file" in files:
            context.load_verify_locations(files["client_ca_file"])
    except OSError as error:
        named = ", ".join(map(str, files.values()))
        raise InputError(f"{where}: cannot use {named}: {error.strerror or error}") from None
    if auth != "NoClientCert" and "client_ca_file" not in files:
        raise InputError(f"{where}: client_auth_type {auth} needs client_ca_file")
    context.verify_mode = _CLIENT_AUTH[auth]
    context.minimum_version = _VERSIONS[_one_of(tls, "min_version", _VERSIONS, where, default="TLS12")]
    context.maximum_version = _VERSIONS[_one_of(tls, "max_version", _VERSIONS, where, default="TLS13")]
    return context


def _one_of(given: dict[str, Any], key: str, known: Mapping[str, object], where: str, *, default: str) -> str:
    found = given.get(key) or default
    if not isinstance(found, str) or found not in known:
        raise InputError(f"{where}: {key} is {found!r}, expected one of {', '.join(known)}")
    return found


def _users(given: Any, where: str) -> dict[str, str]:
    if not isinstance(given, dict) or len(given) > _USERS_MAX:
        raise InputError(f"{where}: basic_auth_users are names with hashes, at most {_USERS_MAX}")
    for name, hashed in given.items():
        if not isinstance(hashed, str) or not _BCRYPT.fullmatch(hashed):
            raise InputError(f"{where}: the password of {name} is no bcrypt hash; `htpasswd -nB {name}` makes one")
    return dict(given)


def _headers(given: Any, where: str) -> tuple[tuple[str, str], ...]:
    given = _mapping(given, f"{where}: http_server_config", ("http2", "headers"))
    headers = _mapping(given.get("headers") or {}, f"{where}: headers", _HEADERS)
    if not all(isinstance(value, str) and value.isprintable() for value in headers.values()):
        raise InputError(f"{where}: a header's value is one line of text")
    return tuple(headers.items())


#: What is guarded, for a message.
Guard = Literal["TLS", "passwords"]


def lacking(config: WebConfig | None) -> tuple[Guard, ...]:
    """What one who listens for other machines should have and has not; client certificates stand for passwords."""
    if config is None:
        return ("TLS", "passwords")
    has_certificates = config.tls is not None and config.tls.verify_mode == ssl.CERT_REQUIRED
    found: list[Guard] = []
    if config.tls is None:
        found.append("TLS")
    if not config.users and not has_certificates:
        found.append("passwords")
    return tuple(found)
