"""Batches as Prometheus metrics: totals that only grow, with labels that stay few."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from wiremeter.errors import InputError
from wiremeter.flows.batch import Attachment, Audit, FlowBatch, Tally
from wiremeter.flows.columns import FAMILY_NAMES, Mode
from wiremeter.flows.protocols import ethertype_name, protocol_name
from wiremeter.sinks.families import OF_DEVICES, OF_METER, OF_NAMES, Family
from wiremeter.sinks.histograms import HistogramFamily
from wiremeter.sinks.kept_totals import KeptTotals
from wiremeter.sinks.name_totals import NameTotals

#: A device that is gone is shown for this long yet, so that its last packets are scraped.
GONE_SECONDS = 300.0
#: Devices whose totals are kept; past that those gone longest are forgotten, since containers' devices never end.
MAX_DEVICES = 1024
#: Domains, and DNS servers, that get series of their own, unless the sink is told otherwise.
DOMAINS, DNS_SERVERS = 100, 20

_NON_IP = FAMILY_NAMES[0]
#: Of the audit's remainders, those that are counters of their own.
_COUNTED_AS_DROPS = frozenset({"qdisc_drops", "device_drops"})
_AnyFamily = CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily | HistogramFamily
#: Values by metric and label values.
_Values = dict[tuple[str, tuple[str, ...]], float]


@dataclass(slots=True)
class _Device:
    """Totals of one device, by metric and the labels after `device`; `last_seen` by the sink's clock."""

    totals: _Values = field(default_factory=dict)
    last_seen: float = 0.0

    def add(self, name: str, labels: tuple[str, ...], amount: float) -> None:
        self.totals[name, labels] = self.totals.get((name, labels), 0) + amount

    def add_tally(self, subject: str, labels: tuple[str, ...], tally: Tally) -> None:
        self.add(f"{subject}_packets", labels, tally.packets)
        self.add(f"{subject}_bytes", labels, tally.bytes)
        self.add(f"{subject}_skbs", labels, tally.skbs)


class PrometheusSink(Collector):
    """A collector for a prometheus_client registry, fed with batches. `write` and `collect` may run in two threads.

    Counters never go backwards: a device that vanishes goes on from its totals when it returns (unless MAX_DEVICES
    others came in between).
    """

    def __init__(
        self,
        version: str = "",
        mode: Mode = "live",
        clock: Callable[[], float] = time.monotonic,
        domains: int = DOMAINS,
        dns_servers: int = DNS_SERVERS,
        kept: KeptTotals | None = None,
    ) -> None:
        """version: for wiremeter_build_info. mode: of all batches to come; not "live", it is a label of all traffic.

        domains, dns_servers: most that get series of their own. kept: the file that totals go on from, and are kept in
        before anybody sees them, unless they are so many that this would take too long; then now and then, and by
        `close`.
        Raises InputError if a number is negative.
        """
        self._mode = mode
        self._clock = clock
        self._now = clock()  # of the last batch
        self._lock = threading.Lock()
        self._devices: dict[str, _Device] = {}
        self._names = NameTotals(domains, dns_servers)
        self._totals: _Values = {}
        self._build: _Values = {("wiremeter_build", (version,)): 1}
        self._state = self._build
        #: Of those that the meter counts from its own start: what it had counted in earlier lives.
        self._carried: _Values = {}
        self._kept = kept
        self._last_mark = kept.mark if kept else None
        self._last_end_ns = 0  # of the last batch of any device
        self._program_marks: dict[int, tuple[int, int]] = {}
        if kept and kept.found:
            try:
                self._restore(kept.found)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                kept.set_aside(f"it is of another version: {error}")
                self._devices, self._totals, self._carried = {}, {}, {}
                self._names = NameTotals(domains, dns_servers)

    def write(self, batch: FlowBatch) -> None:
        """Adds a batch to the totals. Raises InputError if its mode is not this sink's."""
        if batch.mode != self._mode:
            raise InputError(
                f"these metrics are of {self._mode} traffic, and this batch is {batch.mode}: use two sinks"
            )
        with self._lock:
            self._now = self._clock()
            for attachment in batch.attachments:
                device = self._device(attachment.device)
                if attachment.mode == "capture":
                    device.add("network_capture_dropped_skbs", (attachment.direction,), 0)
            for attachment, family, protocol, tally in _traffic(batch):
                labels = (attachment.direction, family, protocol)
                self._device(attachment.device).add_tally("network", labels, tally)
            for audit in batch.audit:
                _add_audit(self._device(audit.device), audit)
            self._names.add(batch)
            self._add_programs(batch)
            self._add_meter(batch)
            if batch.attachments:
                self._last_end_ns = batch.end_ns
            self._state = self._build | _state(batch, self._last_end_ns)
            self._forget()
            if self._kept:
                self._last_mark = batch.mark
                self._kept.keep(self._plain, batch.mark)

    def close(self) -> None:
        """Keeps the totals as they are at the end."""
        if self._kept:
            with self._lock:
                self._kept.keep(self._plain, self._last_mark, last=True)

    def _plain(self) -> dict[str, Any]:
        devices = {name: _plain_values(device.totals) for name, device in self._devices.items()}
        return {"devices": devices, "meter": _plain_values(self._totals), "names": self._names.kept()}

    def _restore(self, plain: Mapping[str, Any]) -> None:
        now = self._clock()
        self._devices = {name: _Device(_values_of(each), now) for name, each in plain["devices"].items()}
        self._totals = _values_of(plain["meter"])
        self._carried = self._totals.copy()
        self._names.restore(plain["names"])

    def collect(self) -> Iterator[Metric]:
        """The metrics that have a value."""
        with self._lock:
            shown_since = self._clock() - GONE_SECONDS
            shown = {name: device for name, device in self._devices.items() if device.last_seen >= shown_since}
            devices = {name: device.totals.copy() for name, device in shown.items()}
            hidden = self._devices.keys() - shown.keys()
            names = [sample for sample in self._names.counters() if sample[1] not in hidden]
            histograms = [sample for sample in self._names.histograms() if sample[1] not in hidden]
            meter = self._totals | self._state
        families = {family.name: family for family in self.describe()}
        constant = () if self._mode == "live" else (self._mode,)
        of_devices = (
            (name, device, labels, value)
            for device, totals in devices.items()
            for (name, labels), value in totals.items()
        )
        for name, device, labels, value in (*of_devices, *names):
            _add_sample(families[name], (*constant, device, *labels), value)
        for name, device, labels, state in histograms:
            family = families[name]
            assert isinstance(family, HistogramFamily)
            family.add_state((*constant, device, *labels), state)
        for (name, labels), value in meter.items():
            _add_sample(families[name], labels, value)
        return (family for family in families.values() if family.samples)

    def describe(self) -> list[_AnyFamily]:
        """Every metric, without values."""
        constant = () if self._mode == "live" else ("mode",)
        of_traffic = (*OF_DEVICES, *OF_NAMES)
        return [_empty(family, constant) for family in of_traffic] + [_empty(family) for family in OF_METER]

    def _device(self, name: str) -> _Device:
        device = self._devices.setdefault(name, _Device())
        device.last_seen = self._now
        return device

    def _forget(self) -> None:
        gone = [name for name, device in self._devices.items() if device.last_seen < self._now]
        gone.sort(key=lambda name: self._devices[name].last_seen)
        forgotten = gone[: max(0, len(self._devices) - MAX_DEVICES)]
        for name in forgotten:
            del self._devices[name]
        if forgotten:
            self._names.forget(forgotten)

    def _add_programs(self, batch: FlowBatch) -> None:
        """The kernel counts since a program was loaded; a device that returns gets another program, from 0 again."""
        ids = {(attachment.device, attachment.direction): attachment.id for attachment in batch.attachments}
        marks = {id: self._program_marks.get(id, (0, 0)) for id in ids.values()}
        for program in batch.health.programs:
            id = ids.get((program.device, program.direction))
            if id is None:
                continue
            run_ns, runs = marks[id]
            marks[id] = (program.run_ns, program.runs)
            device = self._device(program.device)
            device.add("wiremeter_program_run_seconds", (program.direction,), max(0, program.run_ns - run_ns) / 1e9)
            device.add("wiremeter_program_runs", (program.direction,), max(0, program.runs - runs))
        self._program_marks = marks

    def _add_meter(self, batch: FlowBatch) -> None:
        health = batch.health
        gains = {
            "wiremeter_intervals": 1,
            "wiremeter_flows": len(batch.flows),
            "wiremeter_drain_seconds": health.drain_seconds,
            "wiremeter_grace_seconds": health.grace_seconds,
        }
        since_start: _Values = {
            ("wiremeter_flips", ()): health.flips,
            ("wiremeter_early_flips", ()): health.early_flips,
            ("wiremeter_reader_endings", ()): health.reader_endings,
            **{("wiremeter_payload_events", (source,)): count for source, count in health.payloads.items()},
            **{("wiremeter_lost_events", (source,)): count for source, count in health.lost_payloads.items()},
        }
        for name, gain in gains.items():
            self._totals[name, ()] = self._totals.get((name, ()), 0) + gain
        for series, total in since_start.items():
            total += self._carried.get(series, 0)
            self._totals[series] = max(self._totals.get(series, 0), total)


def _plain_values(values: _Values) -> list[Any]:
    return [[name, labels, value] for (name, labels), value in values.items()]


def _values_of(plain: list[Any]) -> _Values:
    """Those of metrics that there are: a later version may have others."""
    known = {family.name for family in (*OF_DEVICES, *OF_METER)}
    return {(name, tuple(labels)): value for name, labels, value in plain if name in known}


def _traffic(batch: FlowBatch) -> Iterator[tuple[Attachment, str, str, Tally]]:
    """Attachment, family, protocol, tally. Non-IP traffic goes by ethertype, those without a name together as other."""
    rest: dict[int, Tally] = {}
    for index, family, protocol, *tally in batch.counters.tolist():
        if family == 0:
            rest[index] = rest.get(index, Tally()).plus(Tally(*tally))
        else:
            yield batch.attachments[index], FAMILY_NAMES[family], protocol_name(protocol), Tally(*tally)
    for index, ethertype, *tally in batch.ethertypes.tolist():
        name = ethertype_name(ethertype)
        rest[index] = rest.get(index, Tally()).plus(Tally(*(-amount for amount in tally)))
        yield batch.attachments[index], _NON_IP, "other" if name.startswith("0x") else name, Tally(*tally)
    for index, tally in rest.items():
        if tally.packets > 0:
            yield batch.attachments[index], _NON_IP, "other", tally


def _add_audit(device: _Device, audit: Audit) -> None:
    labels = (audit.direction,)
    device.add_tally("network_seen", labels, audit.seen)
    device.add_tally("network_attributed", (*labels, "flows"), audit.flows)
    device.add_tally("network_attributed", (*labels, "non_ip"), audit.non_ip)
    for reason, tally in audit.unattributed.items():
        device.add_tally("network_unattributed", (*labels, reason), tally)
    device.add_tally("network_unaccounted", labels, Tally(*map(abs, audit.missing)))
    if audit.capture_dropped:
        device.add("network_capture_dropped_skbs", labels, audit.capture_dropped)
    if audit.kernel:
        # A driver that is loaded again starts its counters at 0.
        device.add("network_kernel_packets", labels, max(0, audit.kernel.packets))
        device.add("network_kernel_bytes", labels, max(0, audit.kernel.bytes))
        device.add("network_kernel_drops", labels, max(0, audit.kernel.drops))
    for drop in audit.drops:
        device.add(f"network_{drop.place}_drops", (*labels, drop.cause), drop.packets)
    for cause, packets in audit.remainders.items():
        if cause not in _COUNTED_AS_DROPS:
            device.add("network_kernel_difference_packets", (*labels, cause), packets)


def _state(batch: FlowBatch, last_end_ns: int) -> _Values:
    """What is so at the end of the batch. last_end_ns: when the last one with a device ended; 0 if none had one yet."""
    health = batch.health
    state: _Values = {
        ("wiremeter_last_batch_timestamp_seconds", ()): last_end_ns / 1e9,
        ("wiremeter_table_lines", ()): health.table_lines,
        ("wiremeter_table_peak_lines", ()): health.table_peak_lines,
        ("wiremeter_table_bytes", ()): health.table_bytes,
        ("wiremeter_table_regions", ()): health.regions,
    }
    for attachment in batch.attachments:
        where = (attachment.device, attachment.direction)
        counts = "skb" if attachment.mode == "xdp-generic" else "wire"
        state["wiremeter_attachment", (*where, attachment.mode, counts)] = 1
        state["wiremeter_displaced", where] = " ".join(where) in health.displaced
    for audit in batch.audit:
        if audit.kernel:
            state["network_kernel", (audit.device, audit.direction, audit.kernel.convention)] = 1
    return state


def _empty(family: Family, constant: tuple[str, ...] = ()) -> _AnyFamily:
    labels = (*constant, *family.labels)
    if family.kind == "counter":
        return CounterMetricFamily(family.name, family.help, labels=labels)
    if family.kind == "gauge":
        return GaugeMetricFamily(family.name, family.help, labels=labels)
    if family.kind == "histogram":
        return HistogramFamily(family.name, family.help, labels)
    return InfoMetricFamily(family.name, family.help, labels=labels)


def _add_sample(family: _AnyFamily, labels: tuple[str, ...], value: float) -> None:
    if isinstance(family, InfoMetricFamily):
        family.add_metric(labels, {})
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        family.add_metric(labels, value)
