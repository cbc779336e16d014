"""The fleet as Prometheus metrics: what agents metered, how they are, and what the server does."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from wiremeter.flows.columns import FAMILY_NAMES
from wiremeter.flows.protocols import protocol_name
from wiremeter.server.fleet.registry import Registry
from wiremeter.server.store import Batch, State

#: Series of traffic that are kept; of more, all together count as agent="other".
TRAFFIC_SERIES_MAX = 50_000
_OTHER = ("other", "other", "other", "other", "other")
_TRAFFIC = ("agent", "device", "direction", "family", "protocol")


class FleetMetrics(Collector):
    """Counts since the server started. Totals have each batch once, however often it was sent."""

    def __init__(
        self,
        version: str,
        registry: Registry,
        store: Callable[[], State],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._version = version
        self._registry = registry
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._traffic: dict[tuple[str, ...], list[int]] = {}
        self._batches: Counter[str] = Counter(stored=0, known=0)
        self._refused: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()

    def stored(self, batch: Batch, size: int, *, is_new: bool) -> None:
        """A batch that is in the store now, or was before."""
        with self._lock:
            self._batches["stored" if is_new else "known"] += 1
            if not is_new:
                return
            self._totals["bytes"] += size
            self._totals["rows"] += batch.rows
            self._totals["flows"] += batch.tables["flows"].num_rows
            if "counters" in batch.tables:
                for row in batch.tables["counters"].to_pylist():
                    self._add(batch.about.identity.agent, row)

    def refused(self, reason: str) -> None:
        """One that was not taken."""
        with self._lock:
            self._refused[reason] += 1

    def heartbeat(self) -> None:
        """A heartbeat came."""
        with self._lock:
            self._totals["heartbeats"] += 1

    def clock_corrected(self) -> None:
        """A batch's times were moved."""
        with self._lock:
            self._totals["corrected"] += 1

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        with self._lock:
            traffic = {labels: tuple(values) for labels, values in self._traffic.items()}
            batches, refused, totals = self._batches.copy(), self._refused.copy(), self._totals.copy()
        build = InfoMetricFamily("wiremeter_build", "The version that runs.", labels=["version"])
        build.add_metric([self._version], {})
        yield build
        yield from _counters_of_traffic(traffic)
        outcomes = CounterMetricFamily(
            "wiremeter_server_batches", "Batches taken: stored, or known before.", labels=["outcome"]
        )
        for outcome, count in batches.items():
            outcomes.add_metric([outcome], count)
        yield outcomes
        reasons = CounterMetricFamily(
            "wiremeter_server_refused", "Requests of agents that were not taken, by reason.", labels=["reason"]
        )
        for reason, count in refused.items():
            reasons.add_metric([reason], count)
        yield reasons
        for name, key, about in (
            ("wiremeter_server_received_bytes", "bytes", "Bytes of stored batches, as agents sent them."),
            ("wiremeter_server_stored_rows", "rows", "Rows stored, of all tables."),
            ("wiremeter_server_stored_flows", "flows", "Flows stored."),
            ("wiremeter_server_heartbeats", "heartbeats", "Heartbeats taken."),
            (
                "wiremeter_server_corrected_batches",
                "corrected",
                "Batches whose agent's clock was so far off that their times were moved.",
            ),
        ):
            yield CounterMetricFamily(name, about, value=totals[key])
        yield from _of_store(self._store())
        yield from self._of_agents()

    def describe(self) -> list[Metric]:
        """Nothing: the names are checked when they are collected."""
        return []

    def _add(self, agent: str, row: dict[str, object]) -> None:
        family = int(str(row["family"]))
        protocol = protocol_name(int(str(row["protocol"]))) if family else "non_ip"
        labels = (agent, str(row["device"]), str(row["direction"]), FAMILY_NAMES.get(family, "other"), protocol)
        if labels not in self._traffic and len(self._traffic) >= TRAFFIC_SERIES_MAX:
            labels = _OTHER
        values = self._traffic.setdefault(labels, [0, 0, 0])
        for place, amount in enumerate(("packets", "bytes", "skbs")):
            values[place] += int(str(row[amount]))

    def _of_agents(self) -> Iterator[Metric]:
        now_ns = self._clock()
        agents = self._registry.all()
        states = Counter(agent.state(now_ns) for agent in agents)
        known = GaugeMetricFamily("wiremeter_server_agents", "Agents by state.", labels=["state"])
        for state in ("up", "away"):
            known.add_metric([state], states[state])
        yield known
        gauges = {
            "wiremeter_agent_up": "1 where the agent sent anything lately.",
            "wiremeter_agent_stored_timestamp_seconds": "Up to when the agent's traffic is stored, Unix time.",
            "wiremeter_agent_clock_skew_seconds": "How far the agent's clock is ahead of the server's.",
            "wiremeter_agent_spool_batches": "Batches that wait at the agent.",
            "wiremeter_agent_missing_batches": "Batches of the last boots that are not stored, though later ones are.",
        }
        families = {name: GaugeMetricFamily(name, about, labels=["agent"]) for name, about in gauges.items()}
        dropped = CounterMetricFamily(
            "wiremeter_agent_dropped_batches", "Batches that the agent gave up, by reason.", labels=["agent", "reason"]
        )
        for agent in agents:
            values = {
                "wiremeter_agent_up": float(agent.state(now_ns) == "up"),
                "wiremeter_agent_stored_timestamp_seconds": agent.batch_end_ns / 1e9 if agent.batch_end_ns else None,
                "wiremeter_agent_clock_skew_seconds": None if agent.skew_ns is None else agent.skew_ns / 1e9,
                "wiremeter_agent_spool_batches": agent.heartbeat.spool.batches if agent.heartbeat else None,
                "wiremeter_agent_missing_batches": agent.missing,
            }
            for name, value in values.items():
                if value is not None:
                    families[name].add_metric([agent.agent], value)
            for reason, count in agent.dropped.items():
                dropped.add_metric([agent.agent, reason], count)
        yield from families.values()
        yield dropped


def _of_store(state: State) -> Iterator[Metric]:
    for name, about, value in (
        ("batches_waiting", "Batches that wait to be stored.", state.batches_waiting),
        ("bytes_waiting", "Bytes of batches that wait to be stored.", state.bytes_waiting),
        ("full", "1 while nothing is stored, since there is no room.", state.full is not None),
        ("disk_free_bytes", "Bytes that are free on the store's disk.", state.disk_free_bytes),
        ("disk_reserve_bytes", "Bytes to keep free there; below, the oldest data goes.", state.disk_reserve_bytes),
    ):
        yield GaugeMetricFamily(f"wiremeter_store_{name}", about, value=value)
    for name, about, value in (
        ("engine_restarts", "Times that the engine had to be started again.", state.engine_restarts),
        ("dropped_rows", "Rows dropped for want of room, the oldest first.", state.dropped_rows),
        ("dropped_bytes", "Bytes on disk of rows dropped for want of room.", state.dropped_bytes),
    ):
        yield CounterMetricFamily(f"wiremeter_store_{name}", about, value=value)


def _counters_of_traffic(traffic: dict[tuple[str, ...], tuple[int, ...]]) -> Iterator[Metric]:
    for place, (amount, about) in enumerate(
        (("packets", "packets on the wire"), ("bytes", "bytes on the wire"), ("skbs", "kernel buffers"))
    ):
        family = CounterMetricFamily(f"network_{amount}", f"Traffic of stored batches: {about}.", labels=_TRAFFIC)
        for labels, values in traffic.items():
            family.add_metric(labels, values[place])
        yield family
