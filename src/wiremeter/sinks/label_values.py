"""The values of labels that come from peers: what is in no list here is `other`, so nobody can make endless series."""

from __future__ import annotations

from collections.abc import Container

from wiremeter.flows.dns import RCODES
from wiremeter.names.records import FlowName

#: Label values, in the order of the family's labels.
Labels = tuple[str, ...]

OTHER = "other"
#: Of the half of a request and its response that was not seen.
NOT_SEEN = "none"

# fmt: off
#: IANA's registry "Resource Record (RR) TYPEs": those that are asked for today.
QTYPES = frozenset({
    "A", "AAAA", "ANY", "AXFR", "CAA", "CDNSKEY", "CDS", "CERT", "CNAME", "DNAME", "DNSKEY", "DS", "HINFO", "HTTPS",
    "IXFR", "LOC", "MX", "NAPTR", "NS", "NSEC", "NSEC3", "NSEC3PARAM", "NULL", "OPENPGPKEY", "PTR", "RRSIG", "SMIMEA",
    "SOA", "SPF", "SRV", "SSHFP", "SVCB", "TLSA", "TSIG", "TXT", "URI",
})
# fmt: on
#: RFC 9110, section 9.1, and PATCH (RFC 5789).
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
TLS_VERSIONS = frozenset({"1.3", "1.2", "1.1", "1.0", "ssl3", "ssl2"})
QUIC_VERSIONS = frozenset({"1", "2"})


#: How a flow's domain is known: its client said it itself, in a hello or a request; DNS had told the client, so that it
#: is likely; not at all.
EVIDENCE = ("said", "dns", "none")
_SAID = frozenset({"sni", "quic_sni", "http_host"})


def evidence_label(name: FlowName) -> str:
    """Of EVIDENCE.

    >>> evidence_label(FlowName("tls", "a.example", "sni")), evidence_label(FlowName("ssh", "a.example", "dns_answer"))
    ('said', 'dns')
    """
    if name.domain is None:
        return "none"
    return "said" if name.domain_source in _SAID else "dns"


def qtype_label(qtype: str) -> Labels:
    """Of a DNS question.

    >>> qtype_label("AAAA"), qtype_label("TYPE65280")
    (('AAAA',), ('other',))
    """
    return (_known_or_other(qtype, QTYPES),)


def rcode_label(rcode: int) -> Labels:
    """Of a DNS response.

    >>> rcode_label(3), rcode_label(4095)
    (('NXDOMAIN',), ('other',))
    """
    return (RCODES.get(rcode, OTHER),)


def tls_version_label(version: str | None) -> Labels:
    """Of a TLS handshake."""
    return (_known_or_other(version, TLS_VERSIONS),)


def quic_version_label(version: str) -> Labels:
    """Of a QUIC handshake."""
    return (_known_or_other(version, QUIC_VERSIONS),)


def request_labels(request: tuple[str | None, int | None]) -> Labels:
    """Method and class of the status of an HTTP request; None is what was not seen.

    >>> request_labels(("GET", 404)), request_labels(("get", None))
    (('GET', '4xx'), ('other', 'none'))
    """
    method, status = request
    return NOT_SEEN if method is None else _known_or_other(method, METHODS), _status_class(status)


def _status_class(status: int | None) -> str:
    if status is None:
        return NOT_SEEN
    return f"{status // 100}xx" if 100 <= status < 600 else OTHER


def _known_or_other(value: str | None, values: Container[str]) -> str:
    return value if value is not None and value in values else OTHER
