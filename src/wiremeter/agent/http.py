"""What the agent serves: /metrics, /healthz, /readyz and a small index, as a WSGI application."""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import gzip_accepted

from wiremeter.agent.vitals import Vitals
from wiremeter.sinks import protobuf

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

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


def make_app(registry: CollectorRegistry, vitals: Vitals, version: str = "") -> WSGIApplication:
    """The WSGI application. /metrics comes as text, OpenMetrics or protobuf, gzipped on request, and takes `name[]`."""
    metrics = _metrics_app(registry)
    one_scrape = threading.Lock()  # each makes all samples anew: one at a time bounds the memory they take

    def page(path: str) -> tuple[str, str, str]:
        """Status, content type and body."""
        if path in ("/healthz", "/readyz"):
            good, why = vitals.healthy() if path == "/healthz" else vitals.ready()
            return "200 OK" if good else "503 Service Unavailable", "text/plain", why + "\n"
        if path in ("", "/"):
            return "200 OK", "text/html", _INDEX.format(version=version)
        return "404 Not Found", "text/plain", "there are /metrics, /healthz and /readyz\n"

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            with one_scrape:
                return metrics(environ, start_response)
        status, kind, body = page(environ["PATH_INFO"])
        start_response(status, [("Content-Type", f"{kind}; charset=utf-8"), ("Cache-Control", "no-store")])
        return [body.encode()]

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [("Content-Type", "text/plain"), ("Allow", "GET, HEAD")])
            return [b"use GET\n"]
        try:
            body = answer({**environ, "REQUEST_METHOD": "GET"}, start_response)
        except Exception:
            log.exception("a request failed", extra={"path": environ["PATH_INFO"]})
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"failed; the agent's log says why\n"]
        return body if method == "GET" else []

    return app


def _metrics_app(registry: CollectorRegistry) -> WSGIApplication:
    text: WSGIApplication = make_wsgi_app(registry)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Who picks metrics by name reads them, and the names are those of samples in text.
        is_picking = "name[]" in parse_qs(environ.get("QUERY_STRING", ""))
        if is_picking or not protobuf.is_preferred(environ.get("HTTP_ACCEPT", "")):
            return text(environ, start_response)
        body = protobuf.generate_latest(registry)
        headers = [("Content-Type", protobuf.CONTENT_TYPE)]
        if gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            body = gzip.compress(body)
            headers.append(("Content-Encoding", "gzip"))
        start_response("200 OK", headers)
        return [body]

    return app
