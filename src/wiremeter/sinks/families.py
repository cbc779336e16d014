"""The names, types, help texts and labels of all metrics: an interface, chosen once."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Family(NamedTuple):
    """One metric. `_total` and `_info` are added to the names of counters and infos when they are written."""

    name: str
    kind: Literal["counter", "gauge", "info", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


_DEVICE = ("device", "direction")
_APPLICATION = ("device", "application", "direction")
_SERVER = ("device", "server")


def _tallies(subject: str, help: str, *more_labels: str) -> list[Family]:
    """Three counters for what a Tally holds."""
    labels = (*_DEVICE, *more_labels)
    return [
        Family(f"{subject}_packets", "counter", f"{help}: packets on the wire.", labels),
        Family(f"{subject}_bytes", "counter", f"{help}: bytes on the wire.", labels),
        Family(f"{subject}_skbs", "counter", f"{help}: kernel buffers, which may hold many packets.", labels),
    ]


#: Totals of each device. `network_seen = network_attributed + network_unattributed`, and what is missing there is
#: `network_unaccounted`.
OF_DEVICES = (
    *_tallies("network", "Traffic by family and protocol", "family", "protocol"),
    *_tallies("network_seen", "Traffic that the programs saw"),
    *_tallies("network_attributed", "Seen traffic that is in flows or counted as non-IP", "part"),
    *_tallies("network_unattributed", "Seen traffic that is in no flow, by reason", "reason"),
    *_tallies("network_unaccounted", "Seen traffic that is nowhere else; above 0 the meter has a fault"),
    Family("network_kernel_packets", "counter", "Gain of the kernel's packet counter of the device.", _DEVICE),
    Family("network_kernel_bytes", "counter", "Gain of the kernel's byte counter of the device.", _DEVICE),
    Family("network_kernel_drops", "counter", "Gain of the kernel's drop counter of the device.", _DEVICE),
    Family(
        "network_qdisc_drops",
        "counter",
        "Packets that the qdisc dropped on their way to the device; the cause is the qdisc.",
        (*_DEVICE, "cause"),
    ),
    Family(
        "network_device_drops",
        "counter",
        "Packets that the device dropped or nobody took, by the kernel's counter: dropped, missed or nohandler.",
        (*_DEVICE, "cause"),
    ),
    Family(
        "network_kernel_difference_packets",
        "gauge",
        "Packets that the device counted less those that we counted and it did not drop, since the start, by cause.",
        (*_DEVICE, "cause"),
    ),
    Family(
        "network_capture_dropped_skbs",
        "counter",
        "Kernel buffers that came past and were lost before they could be counted; only with attach=capture.",
        _DEVICE,
    ),
    Family("wiremeter_program_run_seconds", "counter", "Run time of the program, by BPF statistics.", _DEVICE),
    Family("wiremeter_program_runs", "counter", "Runs of the program, by BPF statistics.", _DEVICE),
)

#: What names tell; the values of these labels are few, whatever peers send (sinks.name_totals).
OF_NAMES = (
    *(
        Family(
            f"network_domain_{measure}",
            "counter",
            f"{subject} by domain, and by evidence, how it is known: those with most traffic, other, "
            "and former for what domains counted that left.",
            ("device", "domain", "evidence", "direction"),
        )
        for measure, subject in (
            ("packets", "Packets on the wire"),
            ("bytes", "Bytes on the wire"),
            ("connections", "TCP and QUIC connections, in the direction of their first packet,"),
        )
    ),
    Family("network_application_packets", "counter", "Packets on the wire by application.", _APPLICATION),
    Family("network_application_bytes", "counter", "Bytes on the wire by application.", _APPLICATION),
    Family("network_dns_queries", "counter", "DNS questions asked, retries included.", (*_SERVER, "qtype")),
    Family("network_dns_responses", "counter", "DNS questions answered, by response code.", (*_SERVER, "rcode")),
    Family(
        "network_dns_timeouts",
        "counter",
        "DNS questions without a response for 10 s, or until they were asked again.",
        _SERVER,
    ),
    Family("network_dns_latency_seconds", "histogram", "Time from a DNS query to its response.", _SERVER),
    Family(
        "network_http_requests",
        "counter",
        "HTTP requests; none is for a request or a response that was not seen.",
        ("device", "method", "status_class"),
    ),
    Family(
        "network_http_latency_seconds",
        "histogram",
        "Time from an HTTP request to the first byte of its response.",
        ("device",),
    ),
    Family(
        "network_tls_handshakes",
        "counter",
        "TLS handshakes, by the version chosen or else offered.",
        ("device", "version"),
    ),
    Family("network_quic_handshakes", "counter", "QUIC handshakes.", ("device", "version")),
)

#: The state of the meter, and its totals.
OF_METER = (
    Family("network_kernel", "info", "What the kernel's counters of the device count.", (*_DEVICE, "convention")),
    Family("wiremeter_build", "info", "The version that runs.", ("version",)),
    Family(
        "wiremeter_attachment",
        "info",
        "How the device is metered; counts is skb where packets cannot be told from super-packets, else wire.",
        (*_DEVICE, "mode", "counts"),
    ),
    Family("wiremeter_displaced", "gauge", "1 where another program comes before ours and may hide packets.", _DEVICE),
    Family("wiremeter_intervals", "counter", "Batches delivered."),
    Family("wiremeter_flows", "counter", "Flows in all batches; a flow counts in each interval it lasts."),
    Family(
        "wiremeter_last_batch_timestamp_seconds",
        "gauge",
        "End of the last batch in which a device was metered, Unix time; 0 before.",
    ),
    Family("wiremeter_flips", "counter", "Changes from one half of the flow table to the other."),
    Family("wiremeter_early_flips", "counter", "Flips before the interval was over, because a region filled up."),
    Family("wiremeter_drain_seconds", "counter", "Time spent reading and merging the flow table."),
    Family("wiremeter_grace_seconds", "counter", "Time spent waiting for RCU grace periods."),
    Family("wiremeter_payload_events", "counter", "Payloads that arrived to read names from, by source.", ("source",)),
    Family("wiremeter_reader_endings", "counter", "Processes that read payloads and ended without being asked."),
    Family("wiremeter_lost_events", "counter", "Payloads lost because nobody took them in time.", ("source",)),
    Family("wiremeter_table_lines", "gauge", "Lines in one CPU's flow table; an IPv4 flow takes one, IPv6 two."),
    Family("wiremeter_table_peak_lines", "gauge", "Most lines in use on any CPU in the last interval."),
    Family("wiremeter_table_bytes", "gauge", "Memory of all flow tables."),
    Family("wiremeter_table_regions", "gauge", "CPUs that have a flow table."),
)

_PLACE = ("place",)

#: Of an agent that ships to a server.
OF_SHIPPING = (
    Family(
        "wiremeter_ship_batches",
        "counter",
        "Batches that the server answered: stored, known (it had them already), or refused for ever.",
        ("result",),
    ),
    Family("wiremeter_ship_bytes", "counter", "Bytes of batches that arrived."),
    Family("wiremeter_ship_failures", "counter", "Requests to the server that failed, by cause.", ("cause",)),
    Family("wiremeter_ship_dropped_batches", "counter", "Batches that were given up, by reason.", ("reason",)),
    Family("wiremeter_ship_waiting_batches", "gauge", "Batches that wait, on disk and in memory.", _PLACE),
    Family("wiremeter_ship_waiting_bytes", "gauge", "Bytes of batches that wait.", _PLACE),
    Family(
        "wiremeter_ship_oldest_timestamp_seconds",
        "gauge",
        "Since when the oldest batch waits, Unix time; 0 where none does.",
        _PLACE,
    ),
    Family(
        "wiremeter_ship_last_success_timestamp_seconds",
        "gauge",
        "When the server last took a batch or a heartbeat, Unix time; 0 before.",
    ),
    *(
        Family(
            f"wiremeter_ship_ignored_{amount}",
            "counter",
            f"What was not shipped, by the expression that it matches: {amount}.",
            ("expression",),
        )
        for amount in ("packets", "bytes", "skbs", "transactions")
    ),
)
