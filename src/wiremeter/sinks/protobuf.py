"""The protobuf exposition format, which is how Prometheus scrapes native histograms.

prometheus_client writes text only. Written by hand, since all that is needed of Protocol Buffers is to put fields one
after the other (https://protobuf.dev/programming-guides/encoding). Messages and field numbers are those of
io/prometheus/client/metrics.proto in github.com/prometheus/client_model.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import groupby

from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from wiremeter.sinks.histograms import SCHEMA, ZERO_THRESHOLD, HistogramFamily, LabelsKey, NativeBuckets, labels_key

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

#: MetricType, and the field of Metric that holds such a value.
_COUNTER, _GAUGE, _UNTYPED, _HISTOGRAM = (0, 3), (1, 2), (3, 5), (4, 7)
#: By prometheus_client's type. Summaries come as the samples they consist of, as in text.
_KINDS = {"counter": _COUNTER, "gauge": _GAUGE, "info": _GAUGE, "stateset": _GAUGE, "histogram": _HISTOGRAM}

_VARINT, _FIXED64, _LENGTH = 0, 1, 2


def generate_latest(registry: Collector) -> bytes:
    """Every metric of the registry as MetricFamily messages, each after its length."""
    messages = (message for metric in registry.collect() for message in _families(metric))
    return b"".join(_varint(len(message)) + message for message in messages)


def _families(metric: Metric) -> Iterator[bytes]:
    """The MetricFamily messages of a metric: one, or of a metric with odd samples one for each of their names."""
    kind = _KINDS.get(metric.type, _UNTYPED)
    if kind == _HISTOGRAM:
        yield _family(metric.name, metric.documentation, kind, _histograms(metric))
        return
    for name, samples in groupby(sorted(metric.samples, key=_name), key=_name):
        kind_of_samples = _GAUGE if name.endswith("_created") else kind
        yield _family(
            name, metric.documentation, kind_of_samples, ((s.labels.items(), _double(1, s.value)) for s in samples)
        )


def _family(
    name: str, help: str, kind: tuple[int, int], values: Iterable[tuple[Iterable[tuple[str, str]], bytes]]
) -> bytes:
    type, field = kind
    metrics = (_message(4, *_labels(labels), _message(field, value)) for labels, value in values)
    return b"".join((_text(1, name), _text(2, help), _unsigned(3, type), *metrics))


def _labels(labels: Iterable[tuple[str, str]]) -> Iterator[bytes]:
    return (_message(1, _text(1, name), _text(2, value)) for name, value in labels)


def _histograms(metric: Metric) -> Iterator[tuple[LabelsKey, bytes]]:
    """Labels and Histogram message of each histogram of a family."""
    natives = metric.natives if isinstance(metric, HistogramFamily) else {}
    parts: dict[LabelsKey, list[Sample]] = {}
    for sample in metric.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        parts.setdefault(labels_key(labels), []).append(sample)
    for key, samples in parts.items():
        yield key, b"".join(_classic(sample) for sample in samples) + (_native(natives[key]) if key in natives else b"")


def _classic(sample: Sample) -> bytes:
    """The field of Histogram that a sample is."""
    if "le" in sample.labels:
        return _message(3, _unsigned(1, int(sample.value)), _double(2, float(sample.labels["le"])))
    if sample.name.endswith("_count"):
        return _unsigned(1, int(sample.value))
    return _double(2, sample.value) if sample.name.endswith("_sum") else b""


def _native(buckets: NativeBuckets) -> bytes:
    """The fields of Histogram for native buckets."""
    spans = (_message(12, _signed(1, offset), _unsigned(2, length)) for offset, length in buckets.spans)
    deltas = (_signed(13, delta) for delta in buckets.deltas)
    zero = (_double(6, ZERO_THRESHOLD), _unsigned(7, buckets.zero_count))
    return b"".join((_signed(5, SCHEMA), *zero, *spans, *deltas))


def _name(sample: Sample) -> str:
    return sample.name


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; all but the last have the eighth bit."""
    low = []
    while number > 0x7F:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*low, number))


def _field(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _unsigned(field: int, value: int) -> bytes:
    return _field(field, _VARINT) + _varint(value)


def _signed(field: int, value: int) -> bytes:
    """sint32 and sint64: 0, -1, 1, -2, … as 0, 1, 2, 3, …"""
    return _unsigned(field, value << 1 if value >= 0 else ~(value << 1))


def _double(field: int, value: float) -> bytes:
    return _field(field, _FIXED64) + struct.pack("<d", value)


def _message(field: int, *fields: bytes) -> bytes:
    content = b"".join(fields)
    return _field(field, _LENGTH) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())
