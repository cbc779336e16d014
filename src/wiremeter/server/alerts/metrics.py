"""The watch as Prometheus metrics: who watches the watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from wiremeter.server.alerts.watch import Watch


class AlertMetrics(Collector):
    """Counters count since the server started."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        counts, states = self._watch.counts, Counter(alert.state for alert in self._watch.book.alerts())
        alerts = GaugeMetricFamily("wiremeter_alerts", "Alerts by state.", labels=["state"])
        for state in ("pending", "firing"):
            alerts.add_metric([state], states[state])
        yield alerts
        yield CounterMetricFamily(
            "wiremeter_alert_evaluations", "Evaluations of alert rules.", value=counts.evaluations
        )
        failures = CounterMetricFamily(
            "wiremeter_alert_evaluation_failures", "Evaluations of alert rules that failed.", labels=["rule"]
        )
        for rule, count in list(counts.failures.items()):
            failures.add_metric([rule], count)
        yield failures
        messages = CounterMetricFamily(
            "wiremeter_alert_messages", "Messages about alerts, by output.", labels=["output", "result"]
        )
        for labels, count in list(counts.told.items()):
            messages.add_metric(labels, count)
        yield messages
        yield GaugeMetricFamily(
            "wiremeter_alert_last_round_timestamp_seconds",
            "When rules were evaluated last, Unix time; 0 before.",
            value=counts.round_ns / 1e9,
        )

    def describe(self) -> list[Metric]:
        """Nothing: the names are checked when they are collected."""
        return []
