"""A server that is asked from Python: `wiremeter.connect(url)`."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util import Timeout

from wiremeter import __version__
from wiremeter.errors import InputError, PermissionNeeded, WiremeterError

if TYPE_CHECKING:
    import pyarrow

DEFAULT_URL = "http://127.0.0.1:10465"
Form = Literal["json", "jsonl", "csv", "arrow", "parquet"]
Amount = Literal["packets", "bytes", "skbs", "flows"]
Once = Literal["none", "observer"]
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 120.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CHUNK_BYTES = 1 << 16


def connect(
    url: str = DEFAULT_URL,
    *,
    token: str | None = None,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
) -> Connection:
    """A connection to a `wiremeter server`; nothing is sent before the first question.

    token: what `wiremeter token create NAME --rights read` printed. ca: a file with the certificates that the server's
    is checked with, the system's by default. cert, key: files with a certificate to show. Raises InputError for files
    that cannot be read, and for a token that would be sent in clear to another host.

        with wiremeter.connect("https://meter.example:10465", token=token) as server:
            server.top(by=["agent", "domain"], start="-1h").to_pandas()
    """
    return Connection(url, token=token, ca=ca, cert=cert, key=key)


class Connection:
    """A server. Tables are pyarrow's; times in them are UTC, addresses text (16 bytes in answers of `sql`).

    start, end: RFC 3339, Unix seconds, "-5m" before now, or "now". filter: as in the live view, with `agent NAME`.
    All questions raise InputError for what the server finds wrong with them, PermissionNeeded where the token is not
    enough, and WiremeterError where the server cannot be reached or does not answer.
    """

    def __init__(self, url: str, *, token: str | None, ca: str | None, cert: str | None, key: str | None) -> None:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise InputError(
                f"the URL of the server cannot be read: {error}; expected one such as {DEFAULT_URL}"
            ) from error
        if parts.username or parts.password:
            raise InputError(
                f"the URL holds a user or a password, which it must not: expected one such as {DEFAULT_URL}"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url!r} is no URL of a server; expected one such as {DEFAULT_URL}")
        if token and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise InputError(f"the token would go to {parts.hostname} in clear: give an https URL")
        self.url = url.rstrip("/")
        self._headers = {"User-Agent": f"wiremeter/{__version__}"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        options: dict[str, Any] = {}
        if parts.scheme == "https":
            options["ssl_context"] = _context(ca, cert, key)
        self._pool = urllib3.PoolManager(**options)

    # --- questions

    def top(
        self,
        by: Sequence[str] | str = (),
        *,
        start: str = "-5m",
        end: str = "now",
        filter: str = "",
        sort: Amount = "bytes",
        limit: int = 10,
        once: Once = "none",
    ) -> pyarrow.Table:
        """The largest by any dimensions; the row with `other` true is the rest, so that rows add up to the total."""
        return self._table("top", start, end, filter, by=_words(by), sort=sort, limit=limit, once=once)

    def series(
        self,
        by: Sequence[str] | str = (),
        *,
        start: str = "-1h",
        end: str = "now",
        filter: str = "",
        sort: Amount = "bytes",
        limit: int = 10,
        once: Once = "none",
        step: str = "auto",
        points: int = 120,
    ) -> pyarrow.Table:
        """The same over time."""
        more = {"by": _words(by), "sort": sort, "limit": limit, "once": once, "step": step, "points": points}
        return self._table("series", start, end, filter, **more)

    def conversations(
        self,
        *,
        start: str = "-5m",
        end: str = "now",
        filter: str = "",
        sort: Amount = "bytes",
        limit: int = 100,
        once: Once = "none",
    ) -> pyarrow.Table:
        """Flows and their reverse in one row: the largest, and the rest."""
        return self._table("conversations", start, end, filter, sort=sort, limit=limit, once=once)

    def flows(
        self, *, start: str = "-5m", end: str = "now", filter: str = "", limit: int = 0, order: str = "oldest"
    ) -> pyarrow.Table:
        """Flows as they are stored; limit 0: all of them."""
        return self._table("flows", start, end, filter, limit=limit, order=order)

    def transactions(
        self,
        kind: Literal["dns", "tls", "quic", "http"],
        *,
        start: str = "-5m",
        end: str = "now",
        filter: str = "",
        limit: int = 0,
        order: str = "oldest",
    ) -> pyarrow.Table:
        """Transactions of one kind."""
        return self._table(kind, start, end, filter, limit=limit, order=order)

    def totals(
        self,
        by: Sequence[str] | str = ("agent", "device", "direction"),
        *,
        start: str = "-5m",
        end: str = "now",
        filter: str = "",
    ) -> pyarrow.Table:
        """All traffic that was counted, in flows or not."""
        return self._table("totals", start, end, filter, by=_words(by))

    def audit(self, *, start: str = "-5m", end: str = "now", filter: str = "") -> pyarrow.Table:
        """What was seen and where it went, by agent, device, direction, kind and reason."""
        return self._table("audit", start, end, filter)

    def sql(self, query: str) -> pyarrow.Table:
        """One SELECT over the store's tables, within limits."""
        return _read(b"".join(self.stream("sql", {"query": query}, "arrow")))

    def agents(self) -> list[dict[str, Any]]:
        """The agents and their state."""
        found: list[dict[str, Any]] = json.loads(b"".join(self.stream("agents", {}, None)))
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """What is pending, firing, or over since a short while."""
        found: list[dict[str, Any]] = self.call("GET", "alerts")
        return found

    # --- how they are asked

    def call(self, method: Literal["GET", "POST", "DELETE"], path: str, document: object = None) -> Any:
        """What is no table: the answer's JSON. Raises as all questions."""
        try:
            response = self._pool.request(
                method,
                f"{self.url}/v1/{path}",
                body=None if document is None else json.dumps(document).encode(),
                headers={**self._headers, **({"Content-Type": "application/json"} if document is not None else {})},
                timeout=Timeout(connect=_CONNECT_SECONDS, read=_ANSWER_SECONDS),
                retries=False,
                redirect=False,
            )
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from error
        if not 200 <= response.status < 300:
            raise _problem(response.status, response.data)
        try:
            return json.loads(response.data) if response.data else None
        except ValueError as error:
            raise WiremeterError(f"{self.url} does not answer as wiremeter server does; is the URL right?") from error

    def _unreachable(self, error: Exception) -> WiremeterError:
        hint = "; is `wiremeter server` running there?" if isinstance(error, NewConnectionError) else ""
        return WiremeterError(f"{self.url} cannot be asked: {error}{hint}")

    def stream(
        self, question: str, parameters: Mapping[str, object], form: Form | None, *, progress: bool = False
    ) -> Iterator[bytes]:
        """An answer's bytes as they come; `question` as in /v1/top. Raises as all questions, also amid the answer.

        progress: of jsonl, lines are tagged, and tell how far the answer is; `rows` reads them.
        """
        if question == "sql":  # longer than a URL may be
            fields, body = {}, json.dumps(parameters).encode()
        else:
            fields, body = dict(parameters), None
        if form:
            fields["format"] = form
        if progress:
            fields["progress"] = "true"
        try:
            response = self._pool.request(
                "POST" if body else "GET",
                f"{self.url}/v1/{question}?{urlencode(fields)}",
                body=body,
                headers={**self._headers, **({"Content-Type": "application/json"} if body else {})},
                timeout=Timeout(connect=_CONNECT_SECONDS, read=_ANSWER_SECONDS),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                if response.status != 200:
                    raise _problem(response.status, response.read(_CHUNK_BYTES))
                yield from response.stream(_CHUNK_BYTES)
            finally:
                response.close()
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    def rows(
        self, question: str, parameters: Mapping[str, object], on_progress: Callable[[int, int], None]
    ) -> Iterator[dict[str, Any]]:
        """An answer's rows as JSON has them. on_progress: called now and then until there are rows, with how many rows
        the server has read for them, and how many there are to read, 0 where that is not known. Raises as `stream`."""
        is_whole = False
        for line in _lines(self.stream(question, parameters, "jsonl", progress=True)):
            ((kind, told),) = json.loads(line).items()
            match kind:
                case "row":
                    yield told
                case "progress":
                    on_progress(told["rows"], told["total"])
                case "error":
                    raise _error(told["status"], told["error"])
                case "next":
                    is_whole = True
        if not is_whole:
            raise WiremeterError(f"{self.url}: the answer was cut off; the server's log says why")

    def close(self) -> None:
        """Closes what is open."""
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _table(self, question: str, start: str, end: str, filter: str, **more: object) -> pyarrow.Table:
        fields = {"from": start, "to": end, "filter": filter, **more}
        return _read(b"".join(self.stream(question, fields, "arrow")))


def _words(by: Sequence[str] | str) -> str:
    return by if isinstance(by, str) else ",".join(by)


def _read(content: bytes) -> pyarrow.Table:
    try:
        import pyarrow
    except ImportError as error:
        raise InputError("tables need pyarrow: pip install 'wiremeter[arrow]'") from error
    return pyarrow.ipc.open_stream(content).read_all()


def _problem(status: int, said: bytes) -> WiremeterError:
    try:
        text = str(json.loads(said)["error"])
    except (ValueError, TypeError, KeyError):
        text = f"it answers {status}, and not as wiremeter server does; is the URL right?"
    return _error(status, text)


def _error(status: int, text: str) -> WiremeterError:
    if status in (401, 403):
        return PermissionNeeded(f"the server: {text}")
    return InputError(text) if status in (400, 406, 422) else WiremeterError(f"the server: {text}")


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, lines)
    if rest:
        yield rest


def _context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert:
            context.load_cert_chain(
                cert, key, lambda: ""
            )  # an encrypted key is an error, and no question at a terminal
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"the certificates {ca or ''} {cert or ''} {key or ''} cannot be read: {error}") from error
    return context


def read_token(path: str) -> str:
    """The token that a file holds, and nothing else. Raises InputError."""
    try:
        text = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the token cannot be read: {error}") from error
    if not text or len(text.split()) != 1 or not text.isascii():
        raise InputError(f"{path}: expected a token and nothing else")
    return text
