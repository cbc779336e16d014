"""One request to a server: what it said, and what is to be done then."""

from __future__ import annotations

import email.utils
import json
import ssl
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError, ProxyError, ReadTimeoutError
from urllib3.util import Timeout

from wiremeter import __version__
from wiremeter.errors import InputError
from wiremeter.shipment.identity import content_digest
from wiremeter.shipment.schema import MEDIA_TYPE

CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 30.0
#: Of an answer so much is read; those of a server of ours have some hundred bytes.
_ANSWER_BYTES = 1 << 16
#: Of what a server said so much is told.
_SAID_CHARACTERS = 200
#: A server that asks for more patience gets this much.
_PATIENCE_SECONDS = 3600.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: stored: it is there now. known: it was there already. refused: it will never be taken. unauthorized: whoever runs
#: agent or server must do something. later: try again.
Verdict = Literal["stored", "known", "refused", "unauthorized", "later"]
#: Why a request failed, in few words, for metrics.
Cause = Literal["", "connection", "tls", "timeout", "proxy", "unauthorized", "busy", "server", "not_a_server"]


class Outcome(NamedTuple):
    """What came of a request. why: for people. retry_seconds: how long the server asks to wait, None if it does not."""

    verdict: Verdict
    cause: Cause = ""
    why: str = ""
    retry_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """Where batches go, and how this agent proves who it is. Paths of files, as the settings have them."""

    url: str
    token_file: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def files(self) -> tuple[object, ...]:
        """What changes when one of its files does."""
        return tuple(_version_of(path) for path in (self.token_file, self.ca, self.cert, self.key))


class Connection:
    """Requests to one server, from any thread. Files are read again when they change."""

    _pool: urllib3.PoolManager

    def __init__(self, server: Server, at_a_time: int = 1) -> None:
        """at_a_time: connections that are kept open for the next requests.

        Raises InputError for files that cannot be read, and for a token that would be sent in clear.
        """
        self._server, self._at_a_time = server, at_a_time
        self._lock = threading.Lock()
        self._load()

    def batch(self, content: bytes) -> Outcome:
        """Sends a batch. Raises nothing: whatever happens is an outcome."""
        return self._post("/v1/batches", content, MEDIA_TYPE, {"Content-Digest": content_digest(content)})

    def heartbeat(self, content: bytes) -> Outcome:
        """Sends a heartbeat."""
        return self._post("/v1/heartbeats", content, "application/json", {})

    def close(self) -> None:
        """Closes what is open and not in use."""
        self._pool.clear()

    def _post(
        self, path: str, content: bytes, kind: str, headers: dict[str, str], *, is_second: bool = False
    ) -> Outcome:
        pool = self._pool
        try:
            with self._lock:
                if self._server.files() != self._loaded:
                    self._load()
                pool, known = self._pool, self._headers
            response = pool.request(
                "POST",
                self._server.url + path,
                body=content,
                headers={**known, **headers, "Content-Type": kind},
                timeout=Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                said = response.read(_ANSWER_BYTES, decode_content=False)
            finally:
                response.release_conn()
        except InputError as error:
            return Outcome("unauthorized", "unauthorized", str(error))
        except ProtocolError as error:
            # A server may close a connection that nothing was asked on for a while, just as something is. Whether it
            # took the batch nobody knows, but taking it twice changes nothing.
            self._begin_anew(pool)
            if not is_second:
                return self._post(path, content, kind, headers, is_second=True)
            return _failed(error)
        except (HTTPError, OSError, ValueError) as error:
            self._begin_anew(pool)
            return _failed(error)
        return judge(response.status, said, response.headers.get("Retry-After"), is_batch=path == "/v1/batches")

    def _begin_anew(self, failed: urllib3.PoolManager) -> None:
        """No request takes a connection beside one that failed. Those of other requests go on to their end: a pool that
        nobody has any more closes what is left in it."""
        with self._lock:
            if self._pool is failed:
                self._pool = self._make_pool()

    def _load(self) -> None:
        server = self._server
        found = server.files()
        scheme, host = urlsplit(server.url)[0], urlsplit(server.url).hostname or ""
        headers = {"User-Agent": f"wiremeter/{__version__}"}
        if server.token_file:
            if scheme == "http" and host not in _LOOPBACK:
                raise InputError(f"the token would go to {host} in clear: give --server an https URL")
            headers["Authorization"] = f"Bearer {_token(server.token_file)}"
        options: dict[str, Any] = {"num_pools": 1, "maxsize": self._at_a_time}
        if scheme == "https":
            options["ssl_context"] = _context(server)
        proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)

        def make_pool() -> urllib3.PoolManager:
            return _proxied(proxy, options) if proxy else urllib3.PoolManager(**options)

        self._make_pool, self._pool = make_pool, make_pool()
        self._headers, self._loaded = headers, found


def judge(status: int, said: bytes, retry_after: str | None, *, is_batch: bool = True) -> Outcome:
    """What an answer means for the batch.

    >>> judge(200, b'{"stored": true}', None).verdict, judge(503, b"", "7").retry_seconds
    ('stored', 7.0)
    """
    retry = _seconds(retry_after)
    why = f"{status} {_text(said)}".strip()
    if status in (200, 202, 204) and not is_batch:
        return Outcome("stored")
    if status == 200:
        stored = _said(said, "stored")
        if isinstance(stored, bool):
            return Outcome("stored" if stored else "known")
        return Outcome("later", "not_a_server", "it answers, but not as wiremeter server does", retry)
    if status in (400, 409, 413, 415, 422):
        # A proxy between may say 413 or 400 as well, but whoever says it to this batch says so for ever.
        return Outcome("refused", "", why)
    if status in (401, 403):
        return Outcome("unauthorized", "unauthorized", why, retry)
    if status in (408, 429, 503):
        return Outcome("later", "busy", why, retry)
    if status >= 500:
        return Outcome("later", "server", why, retry)
    return Outcome("later", "not_a_server", f"{why}: expected of /v1/batches is 200; is the URL right?", retry)


def _failed(error: Exception) -> Outcome:
    """By the innermost error, without what the outer ones add: that may be a proxy's URL with its password."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) and inner not in chain:
        chain.append(inner)
    for found in reversed(chain):
        if isinstance(found, ssl.SSLCertVerificationError):
            return Outcome("later", "tls", f"its certificate is not good: {found.verify_message}")
        if isinstance(found, ssl.SSLError):
            return Outcome("later", "tls", f"TLS: {found.reason or 'failed'}")
    if isinstance(error, ProxyError):
        return Outcome("later", "proxy", f"the proxy: {_innermost(chain)}")
    if any(isinstance(found, TimeoutError | ReadTimeoutError) for found in chain):
        return Outcome("later", "timeout", "no answer in time")
    return Outcome("later", "connection", _innermost(chain))


def _innermost(chain: list[BaseException]) -> str:
    for found in reversed(chain):
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
    return {"ProtocolError": "it hung up", "IncompleteRead": "it hung up"}.get(type(chain[0]).__name__, "no connection")


def _seconds(retry_after: str | None) -> float | None:
    """Of a Retry-After header (RFC 9110, section 10.2.3): seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return min(float(retry_after.strip()[:9]), _PATIENCE_SECONDS)
    try:
        at = email.utils.parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, at.timestamp() - time.time()), _PATIENCE_SECONDS)


def _said(content: bytes, key: str) -> object:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found.get(key) if isinstance(found, dict) else None


def _text(content: bytes) -> str:
    """What a server said, for a log: its error, on one line."""
    error = _said(content, "error")
    text = error if isinstance(error, str) else content.decode(errors="replace")
    line = " ".join(text[: 2 * _SAID_CHARACTERS].split())
    return "".join(character if character.isprintable() else "?" for character in line)[:_SAID_CHARACTERS]


def _token(path: str) -> str:
    try:
        token = Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the token in {path}: {getattr(error, 'strerror', '') or 'it is no text'}"
        ) from None
    if not token or not token.isprintable() or " " in token or len(token) > 4096:
        raise InputError(f"{path} holds no token: expected one word")
    return token


def _context(server: Server) -> ssl.SSLContext:
    """Raises InputError for files that cannot be read."""
    try:
        context = ssl.create_default_context(cafile=server.ca)
        if server.cert:
            # Without this a key with a passphrase would be asked for on the terminal.
            context.load_cert_chain(server.cert, server.key, password=lambda: "")
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(filter(None, (server.ca, server.cert, server.key)))
        raise InputError(f"cannot use the certificates or the key in {files}: {error.strerror or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _proxied(proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    where = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    headers = {}
    if where.username:
        user, password = (unquote(part or "") for part in (where.username, where.password))
        headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}")
    port = f":{where.port}" if where.port else ""
    host = f"[{where.hostname}]" if ":" in (where.hostname or "") else where.hostname
    try:
        return urllib3.ProxyManager(f"{where.scheme}://{host}{port}", proxy_headers=headers, **options)
    except ValueError:
        raise InputError(f"the proxy for {where.scheme} in the environment cannot be used") from None


def _version_of(path: str | None) -> object:
    """Changes when the file does."""
    if path is None:
        return None
    try:
        about = Path(path).stat()
    except OSError:
        return "none"
    return about.st_mtime_ns, about.st_size, about.st_ino
