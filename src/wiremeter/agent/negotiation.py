"""What a client likes best, from its Accept headers (RFC 9110, section 12.5)."""

from __future__ import annotations

from typing import NamedTuple


class Liking(NamedTuple):
    """One element of such a header. quality: from 0, which means never, to 1."""

    quality: float
    value: str
    parameters: dict[str, str]


def likings(header: str) -> list[Liking]:
    """The elements of an Accept or Accept-Encoding header, in its order; values in lower case.

    >>> likings("gzip;q=0, br")
    [Liking(quality=0.0, value='gzip', parameters={'q': '0'}), Liking(quality=1.0, value='br', parameters={})]
    """
    return [_liking(element) for element in header.split(",") if element.strip()]


def _liking(element: str) -> Liking:
    value, *pairs = (part.strip() for part in element.split(";"))
    named = (pair.partition("=") for pair in pairs)
    parameters = {name.strip().lower(): text.strip().strip('"') for name, _, text in named}
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        quality = 0.0
    return Liking(quality, value.lower(), parameters)


def prefers_protobuf(accept: str) -> bool:
    """Whether an Accept header likes Prometheus's protobuf format best.

    >>> prefers_protobuf("text/plain;q=0.5, application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
    ...                  "encoding=delimited;q=0.6")
    True
    >>> prefers_protobuf("application/openmetrics-text, */*;q=0.1")
    False
    """
    # Of equals the first: Prometheus names what it likes best first.
    best = max(likings(accept), key=lambda liking: liking.quality, default=Liking(0.0, "", {}))
    wanted = {"proto": "io.prometheus.client.MetricFamily", "encoding": "delimited"}
    is_protobuf = best.value == "application/vnd.google.protobuf" and wanted.items() <= best.parameters.items()
    return is_protobuf and best.quality > 0


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip. Without the header it is not sent, though it may be.

    >>> takes_gzip("deflate, gzip;q=0.5"), takes_gzip("*"), takes_gzip("gzip;q=0, *"), takes_gzip("")
    (True, True, False, False)
    """
    qualities = {liking.value: liking.quality for liking in likings(accept_encoding)}
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0))) > 0
