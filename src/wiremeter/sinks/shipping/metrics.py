"""How shipping goes, as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from wiremeter.sinks.families import OF_SHIPPING
from wiremeter.sinks.shipping.backlog import REASONS
from wiremeter.sinks.shipping.shipper import State

_VERDICTS = ("stored", "known", "refused")


class ShippingMetrics(Collector):
    """A collector for a prometheus_client registry."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        """Every metric, without values."""
        return [_empty(family.name, family.kind, family.help, family.labels) for family in OF_SHIPPING]

    def collect(self) -> Iterator[Metric]:
        """All of them; verdicts and reasons that did not happen yet are there with 0."""
        state = self._state()
        progress = state.progress
        values: dict[str, list[tuple[tuple[str, ...], float]]] = {
            "wiremeter_ship_batches": [((verdict,), progress.sent[verdict]) for verdict in _VERDICTS],
            "wiremeter_ship_bytes": [((), progress.sent_bytes)],
            "wiremeter_ship_failures": [((cause,), number) for cause, number in sorted(progress.failures.items())],
            "wiremeter_ship_dropped_batches": [((reason,), state.dropped.get(reason, 0)) for reason in REASONS],
            "wiremeter_ship_waiting_batches": [((place,), found.batches) for place, found in state.waiting.items()],
            "wiremeter_ship_waiting_bytes": [((place,), found.bytes) for place, found in state.waiting.items()],
            "wiremeter_ship_oldest_timestamp_seconds": [
                ((place,), (found.oldest_ns or 0) / 1e9) for place, found in state.waiting.items()
            ],
            "wiremeter_ship_last_success_timestamp_seconds": [((), progress.last_success)],
        }
        for (expression, amount), number in sorted(progress.left_out.items()):
            values.setdefault(f"wiremeter_ship_ignored_{amount}", []).append(((expression,), number))
        for family in OF_SHIPPING:
            metric = _empty(family.name, family.kind, family.help, family.labels)
            for labels, value in values.get(family.name, ()):
                metric.add_metric(labels, value)
            if metric.samples:
                yield metric


def _empty(name: str, kind: str, help: str, labels: tuple[str, ...]) -> CounterMetricFamily | GaugeMetricFamily:
    return (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, help, labels=labels)
