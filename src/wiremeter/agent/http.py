"""What the agent serves: /metrics, /healthz, /readyz and a small index, as an ASGI application."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from wiremeter.agent.negotiation import prefers_protobuf, takes_gzip
from wiremeter.agent.vitals import Vitals
from wiremeter.sinks import protobuf

#: ASGI 3.0 (https://asgi.readthedocs.io/en/latest/specs/www.html).
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

_INDEX = """<!doctype html>
<html lang="en"><title>wiremeter</title>
<h1>wiremeter {version}</h1>
<ul>
<li><a href="/metrics">/metrics</a> for Prometheus</li>
<li><a href="/healthz">/healthz</a> 200 while the agent is alive</li>
<li><a href="/readyz">/readyz</a> 200 while it is metering</li>
</ul>
</html>
"""


class _Answer(NamedTuple):
    """One response. headers: besides Content-Length."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]


def make_app(registry: CollectorRegistry, vitals: Vitals, version: str = "") -> Application:
    """The ASGI application. /metrics comes as text, OpenMetrics or protobuf, gzipped on request, and takes `name[]`."""
    one_scrape = asyncio.Lock()  # each makes all samples anew: one at a time bounds the memory they take

    async def answer(scope: Scope) -> _Answer:
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            return _page(405, "use GET\n", ("Allow", "GET, HEAD"))
        if path == "/metrics":
            async with one_scrape:  # in a thread: /healthz answers meanwhile
                return await asyncio.to_thread(_metrics, registry, _headers(scope), scope["query_string"].decode())
        if path in ("/healthz", "/readyz"):
            good, why = vitals.healthy() if path == "/healthz" else vitals.ready()
            return _page(200 if good else 503, f"{why}\n", _NOT_STORED)
        if path in ("", "/"):
            return _page(200, _INDEX.format(version=version), _NOT_STORED, kind="text/html")
        return _page(404, "there are /metrics, /healthz and /readyz\n", _NOT_STORED)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, body, headers = await answer(scope)
        except Exception:
            log.exception("a request failed", extra={"path": scope["path"]})
            status, body, headers = _page(500, "failed; the agent's log says why\n")
        fields = [*headers, ("Content-Length", str(len(body)))]
        encoded = [(name.lower().encode(), value.encode()) for name, value in fields]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    return app


_NOT_STORED = ("Cache-Control", "no-store")


def _page(status: int, text: str, *headers: tuple[str, str], kind: str = "text/plain") -> _Answer:
    return _Answer(status, text.encode(), (("Content-Type", f"{kind}; charset=utf-8"), *headers))


def _headers(scope: Scope) -> dict[str, str]:
    """Names in lower case; of several with one name the values joined, as RFC 9110, section 5.3, has it."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _metrics(registry: Collector, headers: dict[str, str], query: str) -> _Answer:
    accept = headers.get("accept", "")
    names = parse_qs(query).get("name[]", [])
    # Who picks metrics by name reads them, and the names are those of samples in text.
    if not names and prefers_protobuf(accept):
        body, kind = protobuf.generate_latest(registry), protobuf.CONTENT_TYPE
    else:
        encode, kind = choose_encoder(accept)
        body = encode(_Picked(registry, frozenset(names)) if names else registry)
    fields = [("Content-Type", kind), ("Vary", "Accept, Accept-Encoding")]
    if takes_gzip(headers.get("accept-encoding", "")):
        body = gzip.compress(body)
        fields.append(("Content-Encoding", "gzip"))
    return _Answer(200, body, tuple(fields))


class _Picked(Collector):
    """The samples of some names only. Registry.restricted_registry knows no names of collectors that describe nothing,
    as prometheus_client's own for the process."""

    def __init__(self, registry: Collector, names: Collection[str]) -> None:
        self._registry = registry
        self._names = names

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            samples = [sample for sample in metric.samples if sample.name in self._names]
            if samples:
                picked = Metric(metric.name, metric.documentation, metric.type, metric.unit)
                picked.samples = samples
                yield picked
