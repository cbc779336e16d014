"""What batches tell by name, added up by device: domains, applications, and DNS, HTTP, TLS and QUIC transactions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.by_name import DIRECTIONS, Measure, sums_by_attachment
from wiremeter.names.records import HttpTransaction, Transactions, column
from wiremeter.sinks.dns_servers import DnsServers
from wiremeter.sinks.domains import TopDomains
from wiremeter.sinks.histograms import Histogram, HistogramState
from wiremeter.sinks.label_values import (
    EVIDENCE,
    Labels,
    evidence_label,
    quic_version_label,
    request_labels,
    tls_version_label,
)
from wiremeter.sinks.listed import OTHER

#: What is counted of each name, in each direction.
MEASURES: tuple[Measure, ...] = ("packets", "bytes", "connections")

#: Upper bounds of the classic buckets, in seconds: from a file in memory to a gateway's timeout.
HTTP_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Value = TypeVar("Value")


class NameTotals:
    """Totals since the start, by metric and device. Of what is off or has not come yet there is nothing."""

    def __init__(self, domains: int, dns_servers: int) -> None:
        """domains, dns_servers: most that are listed by name. Raises InputError if one is negative."""
        self._domains = TopDomains(domains, (len(EVIDENCE), len(MEASURES), len(DIRECTIONS)))
        self._dns = DnsServers(dns_servers)
        self._counts: defaultdict[str, Counter[tuple[str, Labels]]] = defaultdict(Counter)  # by device
        self._http_latency: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(HTTP_BOUNDS))

    def add(self, batch: FlowBatch) -> None:
        """Adds a batch; one without names changes nothing."""
        if batch.flow_names is None:
            return
        seconds = max(0.0, batch.seconds)
        for attachment in batch.attachments:
            self._domains.know(attachment.device)
            self._dns.know(attachment.device)
            self._http_latency[attachment.device]
        self._add_flows(batch, seconds)
        self._dns.add(batch.transactions.dns, seconds)
        self._add_transactions(batch.transactions)

    def forget(self, devices: Collection[str]) -> None:
        """Drops all that was counted of devices that are no more."""
        self._domains.forget(devices)
        self._dns.forget(devices)
        for device in devices:
            self._counts.pop(device, None)
            self._http_latency.pop(device, None)

    def kept(self) -> dict[str, Any]:
        """All totals, as plain values for `restore`."""
        counts = {
            device: [[metric, labels, count] for (metric, labels), count in of_device.items()]
            for device, of_device in self._counts.items()
        }
        latencies = {device: histogram.kept() for device, histogram in self._http_latency.items()}
        return {"counts": counts, "http": latencies, "domains": self._domains.kept(), "dns": self._dns.kept()}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Goes on from an earlier life. Raises ValueError, KeyError or TypeError for what does not fit."""
        for device, counts in kept["counts"].items():
            for metric, labels, count in counts:
                self._counts[device][metric, tuple(labels)] = count
        for device, latency in kept["http"].items():
            self._http_latency[device].restore(latency)
        self._domains.restore(kept["domains"])
        self._dns.restore(kept["dns"])

    def counters(self) -> Iterator[tuple[str, str, Labels, int]]:
        """Metric, device, its other labels, value."""
        for device, counts in self._counts.items():
            for (metric, labels), count in counts.items():
                yield metric, device, labels, count
        for (device, domain), values in self._domains.series():
            for evidence, by_evidence in zip(EVIDENCE, values, strict=True):
                # What has no name is there from the start; a kind of evidence, once it was seen.
                if by_evidence.any() or (domain, evidence) == (OTHER, "none"):
                    for metric, direction, value in _measured("network_domain", by_evidence):
                        yield metric, device, (domain, evidence, direction), value
        yield from self._dns.counters()

    def histograms(self) -> Iterator[tuple[str, str, Labels, HistogramState]]:
        """Metric, device, its other labels, state."""
        yield from self._dns.histograms()
        for device, histogram in self._http_latency.items():
            yield "network_http_latency_seconds", device, (), histogram.state()

    def _add_flows(self, batch: FlowBatch, seconds: float) -> None:
        at, of_name, sums = sums_by_attachment(batch, MEASURES)
        devices, of_device = _numbered(attachment.device for attachment in batch.attachments)
        direction = np.array([DIRECTIONS.index(attachment.direction) for attachment in batch.attachments], np.intp)
        device, direction = of_device[at], direction[at]

        def by(
            fact: str, *more: NDArray[np.intp], shape: tuple[int, ...]
        ) -> tuple[list[Any], NDArray[np.intp], NDArray[np.uint64]]:
            """The labels of a fact; pairs of device and label that occur, shape (k, 2); and the sums of each, shape
            (k, *shape)."""
            labels, of_label = _numbered(map(attrgetter(fact), batch.names))
            found, place = np.unique(device * len(labels) + of_label[of_name], return_inverse=True)
            added = np.zeros((len(found), *shape), np.uint64)
            for number in range(len(MEASURES)):
                np.add.at(added, (place, *more, number, direction), sums[:, number])
            return labels, np.stack(np.divmod(found, len(labels)), axis=1), added

        cells = (len(MEASURES), len(DIRECTIONS))
        applications, pairs, gains = by("application", shape=cells)
        for (where, which), gain in zip(pairs.tolist(), gains, strict=True):
            for metric, way, value in _measured("network_application", gain[:2]):  # packets and bytes
                self._counts[devices[where]][metric, (applications[which], way)] += value
        evidence = np.array([EVIDENCE.index(evidence_label(name)) for name in batch.names], np.intp)[of_name]
        domains, pairs, gains = by("domain", evidence, shape=(len(EVIDENCE), *cells))
        by_bytes = gains[:, :, MEASURES.index("bytes")].sum(axis=(1, 2))
        self._domains.add(devices, domains, pairs, gains, by_bytes, seconds)

    def _add_transactions(self, transactions: Transactions) -> None:
        http = transactions.http
        requests = zip(column(http, "device"), column(http, "method"), column(http, "status"), strict=True)
        self._count("network_http_requests", ((device, request_labels((m, s))) for device, m, s in requests))
        for kind, labels_of in (("tls", tls_version_label), ("quic", quic_version_label)):
            shakes = getattr(transactions, kind)
            versions = zip(column(shakes, "device"), column(shakes, "version"), strict=True)
            self._count(f"network_{kind}_handshakes", ((device, labels_of(version)) for device, version in versions))
        self._observe(http)

    def _count(self, metric: str, labelled: Iterable[tuple[str, Labels]]) -> None:
        for (device, labels), count in Counter(labelled).items():
            self._counts[device][metric, labels] += count

    def _observe(self, http: Sequence[HttpTransaction]) -> None:
        latencies: defaultdict[str, list[int]] = defaultdict(list)
        for device, latency_ns in zip(column(http, "device"), column(http, "latency_ns"), strict=True):
            if latency_ns is not None:
                latencies[device].append(latency_ns)
        for device, measured in latencies.items():
            self._http_latency[device].observe(measured)


def _numbered(words: Iterable[Value]) -> tuple[list[Value], NDArray[np.intp]]:
    """Each word once, in order of first sight, and the number of each that was given."""
    numbers: dict[Value, int] = {}
    of_word = [numbers.setdefault(word, len(numbers)) for word in words]
    return list(numbers), np.array(of_word, np.intp)


def _measured(subject: str, values: NDArray[np.uint64]) -> Iterator[tuple[str, str, int]]:
    """Metric, direction, value of each cell. values: shape (measures, directions)."""
    for measure, by_direction in zip(MEASURES, values.tolist(), strict=False):
        for direction, value in zip(DIRECTIONS, by_direction, strict=True):
            yield f"{subject}_{measure}", direction, value
