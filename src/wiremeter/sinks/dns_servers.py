"""DNS by device and server for a bounded number of them: which resolver is slow, which does not answer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from wiremeter.flows.columns import address_text
from wiremeter.names.records import DnsTransaction, column
from wiremeter.sinks.histograms import Histogram, HistogramState
from wiremeter.sinks.label_values import Labels, qtype_label, rcode_label
from wiremeter.sinks.listed import FORMER, OTHER, Listed

#: Upper bounds of the classic buckets, in seconds: from a cache on this host to a resolver's last retry.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_PORT_MDNS = 5353

#: A device, and a server on it.
Place = tuple[str, str]


@dataclass(slots=True)
class _Totals:
    """Of one server on one device."""

    queries: Counter[Labels] = field(default_factory=Counter)
    responses: Counter[Labels] = field(default_factory=Counter)
    timeouts: int = 0
    latency: Histogram = field(default_factory=lambda: Histogram(BOUNDS))

    def absorb(self, other: _Totals) -> None:
        self.queries.update(other.queries)
        self.responses.update(other.responses)
        self.timeouts += other.timeouts
        self.latency.absorb(other.latency)


class DnsServers:
    """Totals of the servers that were asked most lately, and of each device's `other` and `former`, as TopDomains."""

    def __init__(self, places: int) -> None:
        """places: most that are listed, of all devices together. Raises InputError if that is negative."""
        self._listed = Listed[Place](places)
        self._totals: defaultdict[Place, _Totals] = defaultdict(_Totals)

    def add(self, dns: Sequence[DnsTransaction], seconds: float) -> None:
        """Counts the transactions of an interval of that length."""
        places = self._places(dns)
        for device, server in self._listed.elect(Counter(places).items(), seconds):
            self._totals[device, FORMER].absorb(self._totals.pop((device, server)))
        listed = [place if place in self._listed else (place[0], OTHER) for place in places]
        self._count(listed, dns)

    def know(self, device: str) -> None:
        """Has `other` of a device begin at 0, if it has not begun yet."""
        self._totals[device, OTHER]

    def forget(self, devices: Collection[str]) -> None:
        """Drops all that was counted of devices that are no more."""
        gone = [place for place in self._totals if place[0] in devices]
        self._listed.remove(gone)
        for place in gone:
            del self._totals[place]

    def kept(self) -> list[Any]:
        """All totals, as plain values for `restore`."""
        return [
            [*place, list(each.queries.items()), list(each.responses.items()), each.timeouts, each.latency.kept()]
            for place, each in self._totals.items()
        ]

    def restore(self, kept: list[Any]) -> None:
        """Goes on from an earlier life. Raises ValueError or TypeError for what does not fit."""
        for device, server, queries, responses, timeouts, latency in kept:
            totals = self._totals[device, server]
            totals.queries.update({tuple(labels): count for labels, count in queries})
            totals.responses.update({tuple(labels): count for labels, count in responses})
            totals.timeouts = timeouts
            totals.latency.restore(latency)
        for device, server in self._listed.restore(place for place in self._totals if place[1] not in (OTHER, FORMER)):
            self._totals[device, FORMER].absorb(self._totals.pop((device, server)))

    def counters(self) -> Iterator[tuple[str, str, Labels, int]]:
        """Metric, device, its other labels, value."""
        for (device, server), totals in self._totals.items():
            for labels, count in totals.queries.items():
                yield "network_dns_queries", device, (server, *labels), count
            for labels, count in totals.responses.items():
                yield "network_dns_responses", device, (server, *labels), count
            yield "network_dns_timeouts", device, (server,), totals.timeouts

    def histograms(self) -> Iterator[tuple[str, str, Labels, HistogramState]]:
        """Metric, device, its other labels, state."""
        for (device, server), totals in self._totals.items():
            yield "network_dns_latency_seconds", device, (server,), totals.latency.state()

    @staticmethod
    def _places(dns: Sequence[DnsTransaction]) -> list[Place]:
        servers = column(dns, "dst_addr")
        texts = {server: address_text(server) for server in set(servers)}
        return [(device, texts[server]) for device, server in zip(column(dns, "device"), servers, strict=True)]

    def _count(self, places: list[Place], dns: Sequence[DnsTransaction]) -> None:
        """places: of each transaction. Each kind of value finds its labels once, since they are few and it is not."""
        has_query, rcodes = column(dns, "has_query"), column(dns, "rcode")
        asked = zip(places, column(dns, "qtype"), has_query, strict=True)
        for (place, qtype), count in Counter((place, qtype) for place, qtype, is_asked in asked if is_asked).items():
            self._totals[place].queries[qtype_label(qtype)] += count
        answered = zip(places, rcodes, strict=True)
        for (place, rcode), count in Counter(pair for pair in answered if pair[1] is not None).items():
            self._totals[place].responses[rcode_label(rcode)] += count
        ports = zip(column(dns, "src_port"), column(dns, "dst_port"), strict=True)
        # A host asks all others by mDNS, and none has to answer (RFC 6762, section 6).
        waited = (src != _PORT_MDNS or dst != _PORT_MDNS for src, dst in ports)
        ended = zip(places, has_query, rcodes, waited, strict=True)
        for place, count in Counter(
            place for place, is_asked, rcode, to_wait in ended if is_asked and rcode is None and to_wait
        ).items():
            self._totals[place].timeouts += count
        latencies: defaultdict[Place, list[int]] = defaultdict(list)
        for place, latency_ns in zip(places, column(dns, "latency_ns"), strict=True):
            if latency_ns is not None:
                latencies[place].append(latency_ns)
        for place, measured in latencies.items():
            self._totals[place].latency.observe(measured)
