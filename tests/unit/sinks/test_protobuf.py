"""The protobuf exposition, read back by the protobuf library, and the choice between it and text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Metric, Summary
from prometheus_client.core import GaugeMetricFamily

from wiremeter.sinks import protobuf
from wiremeter.sinks.histograms import SCHEMA, ZERO_THRESHOLD, HistogramFamily
from wiremeter.sinks.histograms import Histogram as LatencyHistogram
from wiremeter.sinks.prometheus import PrometheusSink

from .test_prometheus import full_batch

#: io/prometheus/client/metrics.proto of github.com/prometheus/client_model: message, fields as "type name = number".
MESSAGES = {
    "LabelPair": "string name = 1; string value = 2",
    "Gauge": "double value = 1",
    "Counter": "double value = 1",
    "Untyped": "double value = 1",
    "Bucket": "uint64 cumulative_count = 1; double upper_bound = 2",
    "BucketSpan": "sint32 offset = 1; uint32 length = 2",
    "Histogram": "uint64 sample_count = 1; double sample_sum = 2; Bucket* bucket = 3; sint32 schema = 5; "
    "double zero_threshold = 6; uint64 zero_count = 7; BucketSpan* positive_span = 12; sint64* positive_delta = 13",
    "Metric": "LabelPair* label = 1; Gauge gauge = 2; Counter counter = 3; Untyped untyped = 5; "
    "Histogram histogram = 7",
    "MetricFamily": "string name = 1; string help = 2; int32 type = 3; Metric* metric = 4",
}
COUNTER, GAUGE, UNTYPED, HISTOGRAM = 0, 1, 3, 4


def make_family_class() -> Any:
    """The library's class for MetricFamily."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package="test", syntax="proto2")
    for message, fields in MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for field in fields.split("; "):
            kind, name, _, number = field.split()
            label = field_type.LABEL_REPEATED if kind.endswith("*") else field_type.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            added = descriptor.field.add(name=name, number=int(number), label=label)
            if kind in MESSAGES:
                added.type, added.type_name = field_type.TYPE_MESSAGE, f".test.{kind}"
            else:
                added.type = getattr(field_type, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.MetricFamily"))


MetricFamily = make_family_class()


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def families(*collectors: Any) -> dict[str, Any]:
    """What a scraper reads, by name."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    data = protobuf.generate_latest(registry)
    read, at = {}, 0
    while at < len(data):
        length, at = read_varint(data, at)
        family = MetricFamily.FromString(data[at : at + length])
        family.DiscardUnknownFields()
        assert family.ByteSize() == length, "a field that the definition does not know"
        assert family.name not in read, "a family that comes twice"
        read[family.name] = family
        at += length
    return read


def labels(metric: Any) -> dict[str, str]:
    return {pair.name: pair.value for pair in metric.label}


class Fixed:
    """A collector of the metrics it is given."""

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def latency_family(*durations_ns: int, bounds: tuple[float, ...] = (0.001, 0.1)) -> HistogramFamily:
    family = HistogramFamily("latency_seconds", "How long.", ["kind"])
    histogram = LatencyHistogram(bounds)
    histogram.observe(durations_ns)
    family.add_state(["slow"], histogram.state())
    return family


def latencies(*durations_ns: int, bounds: tuple[float, ...] = (0.001, 0.1)) -> Fixed:
    return Fixed(latency_family(*durations_ns, bounds=bounds))


def test_counters_gauges_and_infos_come_with_their_names_in_text() -> None:
    registry = CollectorRegistry()
    counter = Counter("spam", "Spam.", ["kind"], registry=registry)
    counter.labels('ä"\n').inc(3)
    gauge = Gauge("depth", "Depth.", registry=registry)
    gauge.set(-1.5)
    info = Info("build", "Build.", registry=registry)
    info.info({"version": "1"})
    read = families(counter, gauge, info)
    spam = read["spam_total"]
    assert (spam.type, spam.help) == (COUNTER, "Spam.")
    assert (labels(spam.metric[0]), spam.metric[0].counter.value) == ({"kind": 'ä"\n'}, 3.0)
    assert (read["depth"].type, read["depth"].metric[0].gauge.value) == (GAUGE, -1.5)
    assert (read["build_info"].type, read["build_info"].metric[0].gauge.value) == (GAUGE, 1)
    assert read["spam_created"].type == GAUGE


def test_other_kinds_of_metrics_come_as_the_samples_of_text() -> None:
    registry = CollectorRegistry()
    summary = Summary("size", "Size.", registry=registry)
    summary.observe(5)
    state = Enum("state", "State.", states=["on", "off"], registry=registry)
    read = families(summary, state)
    assert (read["size_sum"].type, read["size_sum"].metric[0].untyped.value) == (UNTYPED, 5)
    assert read["size_count"].metric[0].untyped.value == 1
    assert [(labels(metric), metric.gauge.value) for metric in read["state"].metric] == [
        ({"state": "on"}, 1),
        ({"state": "off"}, 0),
    ]


def test_a_classic_histogram_has_no_native_fields() -> None:
    registry = CollectorRegistry()
    classic = Histogram("plain_seconds", "Plain.", ["kind"], buckets=(1, 2), registry=registry)
    classic.labels("a").observe(1.5)
    classic.labels("b").observe(9)
    metrics = families(classic)["plain_seconds"].metric
    assert [labels(metric) for metric in metrics] == [{"kind": "a"}, {"kind": "b"}]
    first = metrics[0].histogram
    assert (first.sample_count, first.sample_sum) == (1, 1.5)
    assert [(bucket.upper_bound, bucket.cumulative_count) for bucket in first.bucket] == [
        (1, 0),
        (2, 1),
        (float("inf"), 1),
    ]
    assert not first.HasField("schema")


def test_a_latency_histogram_is_classic_and_native_in_one() -> None:
    family = families(latencies(0, 50_000_000, 50_000_000, 1_000_000_000))["latency_seconds"]
    assert family.type == HISTOGRAM
    histogram = family.metric[0].histogram
    assert labels(family.metric[0]) == {"kind": "slow"}
    assert (histogram.sample_count, histogram.sample_sum) == (4, 1.1)
    assert [bucket.cumulative_count for bucket in histogram.bucket] == [1, 3, 4]
    assert (histogram.schema, histogram.zero_threshold, histogram.zero_count) == (SCHEMA, ZERO_THRESHOLD, 1)
    assert [(span.offset, span.length) for span in histogram.positive_span] == [(-34, 1), (33, 1)]
    assert list(histogram.positive_delta) == [2, -1]


def test_a_histogram_without_observations_is_native_already() -> None:
    histogram = families(latencies())["latency_seconds"].metric[0].histogram
    assert histogram.zero_threshold > 0
    assert not histogram.positive_span


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30))
def test_any_native_histogram_reads_back(durations: list[int]) -> None:
    family = latency_family(*durations)
    (native,) = family.natives.values()
    histogram = families(Fixed(family))["latency_seconds"].metric[0].histogram
    assert histogram.zero_count == native.zero_count
    assert tuple((span.offset, span.length) for span in histogram.positive_span) == native.spans
    assert tuple(histogram.positive_delta) == native.deltas


@given(st.floats(), st.text(st.characters(codec="utf-8")), st.integers(0, 10))
def test_any_value_and_label_reads_back(value: float, text: str, count: int) -> None:
    gauge = GaugeMetricFamily("g", text, labels=["l"])
    for n in range(count):
        gauge.add_metric([text + str(n)], value)
    metrics = families(Fixed(gauge)).get("g", MetricFamily()).metric
    assert [labels(metric)["l"] for metric in metrics] == [text + str(n) for n in range(count)]
    assert all(metric.gauge.value == value or value != value for metric in metrics)


def test_all_that_a_sink_has_in_text_is_in_protobuf() -> None:
    sink = PrometheusSink("1")
    sink.write(full_batch())
    series = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for m in sink.collect()
        for sample in m.samples
    }
    read = {}
    for family in families(sink).values():
        for metric in family.metric:
            key = tuple(sorted(labels(metric).items()))
            if family.type == HISTOGRAM:
                histogram = metric.histogram
                read[family.name + "_count", key] = histogram.sample_count
                read[family.name + "_sum", key] = histogram.sample_sum
                for bucket in histogram.bucket:
                    bound = "+Inf" if bucket.upper_bound == float("inf") else str(bucket.upper_bound)
                    read[family.name + "_bucket", tuple(sorted((*key, ("le", bound))))] = bucket.cumulative_count
            else:
                read[family.name, key] = (metric.counter if family.type == COUNTER else metric.gauge).value
    assert read == series
