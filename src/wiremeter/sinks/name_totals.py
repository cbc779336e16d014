"""What batches tell by name, added up: domains, applications, and DNS, HTTP, TLS and QUIC transactions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import compress
from operator import attrgetter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.by_name import DIRECTIONS, Measure, sums_by_label, sums_by_name
from wiremeter.names.records import Transactions, column
from wiremeter.sinks.domains import TopDomains
from wiremeter.sinks.histograms import Histogram, HistogramState
from wiremeter.sinks.label_values import (
    Labels,
    qtype_label,
    quic_version_label,
    rcode_label,
    request_labels,
    tls_version_label,
)

#: What is counted of each name, in each direction.
MEASURES: tuple[Measure, ...] = ("packets", "bytes", "connections")

#: Upper bounds of the classic buckets, in seconds: of DNS from a cache on this host to a resolver's last retry, of
#: HTTP from a file in memory to a gateway's timeout.
DNS_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
HTTP_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_DOMAIN, _APPLICATION = attrgetter("domain"), attrgetter("application")

Value = TypeVar("Value", bound=Hashable)


class NameTotals:
    """Totals since the start, by metric. Of what is off or has not come yet there is nothing."""

    def __init__(self, domains: int) -> None:
        """domains: most that are listed by name. Raises InputError if that is negative."""
        self._domains = TopDomains(domains, (len(MEASURES), len(DIRECTIONS)))
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self._dns_latency = Histogram(DNS_BOUNDS)
        self._http_latency = Histogram(HTTP_BOUNDS)
        self._is_on = False

    def add(self, batch: FlowBatch) -> None:
        """Adds a batch; one without names changes nothing."""
        if batch.flow_names is None:
            return
        self._is_on = True
        gains = sums_by_name(batch, MEASURES)
        domains, domain_gains = sums_by_label(map(_DOMAIN, batch.names), gains)
        domain_bytes = domain_gains[:, MEASURES.index("bytes")].sum(axis=1)
        self._domains.add(domains, domain_gains, domain_bytes, max(0.0, batch.seconds))
        for application, gain in zip(*sums_by_label(map(_APPLICATION, batch.names), gains), strict=True):
            for metric, labels, value in _measured("network_application", application, gain[:2]):  # packets and bytes
                self._counts[metric, labels] += value
        self._add_transactions(batch.transactions)

    def counters(self) -> Iterator[tuple[str, Labels, int]]:
        """Metric, label values, value."""
        for (metric, labels), count in self._counts.items():
            yield metric, labels, count
        if self._is_on:
            for domain, values in self._domains.series():
                yield from _measured("network_domain", domain, values)

    def histograms(self) -> Iterator[tuple[str, HistogramState]]:
        """Metric, state."""
        if self._is_on:
            yield "network_dns_latency_seconds", self._dns_latency.state()
            yield "network_http_latency_seconds", self._http_latency.state()

    def _add_transactions(self, transactions: Transactions) -> None:
        dns, http = transactions.dns, transactions.http
        self._count("network_dns_queries", compress(column(dns, "qtype"), column(dns, "has_query")), qtype_label)
        self._count("network_dns_responses", _known(column(dns, "rcode")), rcode_label)
        self._count(
            "network_http_requests", zip(column(http, "method"), column(http, "status"), strict=True), request_labels
        )
        self._count("network_tls_handshakes", column(transactions.tls, "version"), tls_version_label)
        self._count("network_quic_handshakes", column(transactions.quic, "version"), quic_version_label)
        self._dns_latency.observe(list(_known(column(dns, "latency_ns"))))
        self._http_latency.observe(list(_known(column(http, "latency_ns"))))

    def _count(self, metric: str, values: Iterable[Value], labels_of: Callable[[Value], Labels]) -> None:
        # Counted as they are, so that there are labels to find for each kind of value only.
        for value, count in Counter(values).items():
            self._counts[metric, labels_of(value)] += count


def _known(values: Iterable[Value | None]) -> Iterator[Value]:
    return (value for value in values if value is not None)


def _measured(subject: str, name: str, values: NDArray[np.uint64]) -> Iterator[tuple[str, Labels, int]]:
    """Metric, label values, value of each cell. values: shape (measures, directions)."""
    for measure, by_direction in zip(MEASURES, values.tolist(), strict=False):
        for direction, value in zip(DIRECTIONS, by_direction, strict=True):
            yield f"{subject}_{measure}", (name, direction), value
