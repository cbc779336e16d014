"""`wiremeter live` as plain text and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wiremeter.flows.batch import FlowBatch, Health, KernelCounters, ProgramStats, Tally
from wiremeter.flows.filter import compile_filter
from wiremeter.names.records import FlowName, Transactions
from wiremeter.reports.document import document
from wiremeter.reports.json_rows import to_json
from wiremeter.reports.selection import Selection
from wiremeter.reports.text import text_block

from ..live_batches import SECOND_NS, START_NS, asked, flow, make_batch


def sample() -> FlowBatch:
    return make_batch(
        [
            flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=1000, size=1250, tcp_flags=0x18),
            flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", packets=500, size=60),
            flow("2001:db8::1", "2001:db8::2", protocol=58, packets=2, vlan=77),
        ],
        non_ip={("eth0", "rx"): [(0x0806, 3)]},
        unattributed={("eth0", "rx"): {"table_full": Tally(4, 400, 4)}},
        health=Health(programs=(ProgramStats("eth0", "rx", 130, 10),)),
    )


def said_of(batch: FlowBatch, selection: Selection | None = None) -> dict[str, Any]:
    """The document as its readers get it."""
    loaded: dict[str, Any] = json.loads(to_json(document(batch, selection or Selection())))
    return loaded


def lines(batch: FlowBatch, selection: Selection | None = None) -> list[str]:
    """The block without the times, which depend on where this runs."""
    block = text_block(batch, selection or Selection())
    assert block.endswith("\n\n")
    timed = block.rstrip("\n").split("\n")
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in timed)
    return [line[9:] for line in timed]


def test_every_line_says_what_it_is() -> None:
    assert lines(sample()) == [
        "interval 1.000 s flows 3 matched 3",
        "device eth0 rx tcx 10.0 Mbit/s 1.01 kpps packets 1009 bytes 1250780 skbs 1009 unattributed 4 "
        "dropped 0 audit ok ns/run 13",
        "device eth0 tx tcx 240 kbit/s 500 pps packets 500 bytes 30000 skbs 500 unattributed 0 dropped 0 audit ok",
        "alarm eth0 rx: 4 packets unattributed, table_full: raise --flow-table, or shorten --interval",
        "protocol ipv4 tcp 100.0 % 10.2 Mbit/s 1.50 kpps",
        "protocol ipv6 icmpv6 <0.1 % 1.60 kbit/s 2 pps",
        "protocol non_ip arp <0.1 % 1.44 kbit/s 3 pps",
        "flow eth0 rx tcp 192.0.2.1:443 > 10.0.0.5:50000 10.0 Mbit/s 1.00 kpps flags PA",
        "flow eth0 tx tcp 10.0.0.5:50000 > 192.0.2.1:443 240 kbit/s 500 pps",
        "flow eth0 rx icmpv6 2001:db8::1 > 2001:db8::2 1.60 kbit/s 2 pps vlan 77",
    ]


def test_selection_holds_for_text() -> None:
    chosen = Selection(filter=compile_filter("tcp"), limit=1, in_bytes=True, services=True, pairs=True)
    shown = lines(sample(), chosen)
    assert shown[0] == "interval 1.000 s flows 3 matched 2"
    assert shown[-1] == (
        "conversation eth0 tcp 10.0.0.5:50000 <> 192.0.2.1:https rx 1.25 MB/s 1.00 kpps tx 30.0 kB/s 500 pps flags PA"
    )
    assert [line for line in shown if line.startswith("protocol")] == ["protocol ipv4 tcp 100.0 % 1.28 MB/s 1.50 kpps"]


def test_simulated_traffic_says_so_on_every_line() -> None:
    shown = lines(make_batch([flow("10.0.0.1", "10.0.0.2")], mode="simulated"))
    assert all(line.startswith("simulated ") for line in shown)


def test_document_holds_the_interval() -> None:
    said = said_of(sample())
    assert said["start_time"] == "2025-11-22T14:31:00.000000000Z"
    assert (said["seconds"], said["mode"], said["balanced"]) == (1.0, "live", True)
    rx, tx = said["devices"]
    assert (rx["device"], rx["direction"], rx["attach_mode"]) == ("eth0", "rx", "tcx")
    assert rx["seen"] == {"packets": 1009, "bytes": 1250780, "skbs": 1009}
    assert rx["unattributed"] == {"table_full": {"packets": 4, "bytes": 400, "skbs": 4}}
    assert rx["bits_per_second"] == 1250780 * 8
    parts = [rx["flows"], rx["non_ip"], *rx["unattributed"].values(), rx["missing"]]
    assert {name: sum(part[name] for part in parts) for name in rx["seen"]} == rx["seen"]
    assert (tx["kernel"], tx["remainders"]) == (None, {})
    assert said["protocols"]["ipv4"] == {"6": {"packets": 1500, "bytes": 1280000, "skbs": 1500}}
    assert said["ethertypes"] == {"0x0806": {"packets": 3, "bytes": 180, "skbs": 3}}
    assert said["unattributed"] == rx["unattributed"]
    assert (said["flows_total"], said["flows_matched"], said["filter"]) == (3, 3, "")
    first, _, last = said["flows"]
    assert first == {
        "device": "eth0",
        "direction": "rx",
        "family": "ipv4",
        "protocol": 6,
        "src_addr": "192.0.2.1",
        "src_port": 443,
        "dst_addr": "10.0.0.5",
        "dst_port": 50000,
        "vlan": None,
        "packets": 1000,
        "bytes": 1250000,
        "skbs": 1000,
        "first_ns": START_NS,
        "last_ns": START_NS + SECOND_NS // 2,
        "tcp_flags": 0x18,
    }
    assert (last["vlan"], last["family"], last["protocol"]) == (77, "ipv6", 58)
    assert said["alarms"][0]["kind"] == "unattributed"
    assert said["alarms"][0]["reason"] == "table_full"
    assert said["health"]["programs"] == [{"device": "eth0", "direction": "rx", "run_ns": 130, "runs": 10}]


def test_document_of_conversations_has_both_directions() -> None:
    said = said_of(sample(), Selection(pairs=True, filter=compile_filter("tcp")))
    assert "flows" not in said
    (pair,) = said["conversations"]
    assert pair["rx"] == {"packets": 1000, "bytes": 1250000, "skbs": 1000}
    assert pair["tx"] == {"packets": 500, "bytes": 30000, "skbs": 500}
    assert (pair["local_addr"], pair["remote_port"]) == ("10.0.0.5", 443)


def test_document_names_what_the_device_counter_differs_by() -> None:
    batch = make_batch([])
    kernel = KernelCounters(5, 500, 2, "skbs")
    audits = tuple(replace(audit, kernel=kernel, remainders={"qdisc_drops": -2}) for audit in batch.audit)
    said = said_of(replace(batch, audit=audits), Selection())
    assert said["devices"][0]["kernel"] == {"packets": 5, "bytes": 500, "drops": 2, "convention": "skbs"}
    assert said["devices"][0]["remainders"] == {"qdisc_drops": -2}


def test_empty_batch_is_text_and_json() -> None:
    nothing = make_batch([], devices=())
    assert lines(nothing) == [
        "interval 1.000 s flows 0 matched 0",
        "alarm no device is metered: those chosen are gone, down or not there yet",
    ]
    assert said_of(nothing, Selection(pairs=True))["conversations"] == []


SITE = FlowName("tls", "www.example.com", "sni")
SHOP = FlowName("tls", "shop.example", "dns_answer")


def named(**more: object) -> FlowBatch:
    """Three sites' worth of flows, the largest of which has no name, and some DNS."""
    return make_batch(
        [
            flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=60, size=1000, name=SITE),
            flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", packets=20, size=100, name=SITE),
            flow("192.0.2.2", "10.0.0.5", 443, 50001, packets=10, size=800, name=SHOP),
            flow("10.0.0.9", "10.0.0.5", 9, 9, packets=100, size=900),
        ],
        connections={SITE: 2},
        transactions=Transactions(
            dns=(
                asked("www.example.com", milliseconds=1.24),
                asked("www.example.com", milliseconds=9.8),
                asked("nosuch.example", "AAAA", 3, 5),
                asked("slow.example", rcode=None),
            )
        ),
        **more,  # type: ignore[arg-type]
    )


def test_lines_tell_domains_applications_and_dns() -> None:
    shown = [line for line in lines(named()) if not line.startswith(("interval", "device", "protocol"))]
    assert shown == [
        "application unknown 56.2 % 720 kbit/s 100 pps flows 1 connections 0",
        "application tls 43.8 % 560 kbit/s 90 pps flows 3 connections 2",
        "domain (no name) 56.2 % 720 kbit/s 100 pps flows 1 connections 0",
        "domain www.example.com 38.8 % 496 kbit/s 80 pps flows 2 connections 2",
        "domain shop.example 5.0 % 64.0 kbit/s 10 pps flows 1 connections 0",
        "dns www.example.com A queries 2 retries 0 unanswered 0 NOERROR 2 median 5.52 ms max 9.80 ms",
        "dns nosuch.example AAAA queries 1 retries 0 unanswered 0 NXDOMAIN 1 median 5.00 ms max 5.00 ms",
        "dns slow.example A queries 1 retries 0 unanswered 1",
        "flow eth0 rx tcp 10.0.0.9:9 > 10.0.0.5:9 720 kbit/s 100 pps",
        "flow eth0 rx tcp 192.0.2.1:443 > 10.0.0.5:50000 480 kbit/s 60 pps application tls domain www.example.com sni",
        "flow eth0 rx tcp 192.0.2.2:443 > 10.0.0.5:50001 64.0 kbit/s 10 pps application tls domain shop.example "
        "dns_answer",
        "flow eth0 tx tcp 10.0.0.5:50000 > 192.0.2.1:443 16.0 kbit/s 20 pps application tls domain www.example.com sni",
    ]


def test_what_is_not_shown_is_summed_up() -> None:
    shown = lines(named(), Selection(limit=1))
    assert "domain (others) 43.8 % 560 kbit/s 90 pps flows 3 connections 2" in shown
    assert "dns (others) queries 2 retries 0 unanswered 1 NXDOMAIN 1 median 5.00 ms max 5.00 ms" in shown


def test_names_that_are_on_and_found_nothing_add_no_line() -> None:
    batch = make_batch([flow("10.0.0.1", "10.0.0.2")])
    nameless = replace(batch, flow_names=np.zeros(1, "u4"))
    assert lines(nameless) == lines(batch)


def test_name_from_the_wire_cannot_end_a_line_or_move_the_cursor() -> None:
    hostile = FlowName("tls", "a\x1b[2J\nb", "sni")
    batch = make_batch(
        [flow("10.0.0.1", "10.0.0.2", name=hostile)], transactions=Transactions(dns=(asked("a\x1b[2J\nb"),))
    )
    shown = text_block(batch, Selection())
    assert "\x1b" not in shown
    assert shown.count("a�[2J�b") == 3
    assert len(lines(batch)) == shown.count("\n") - 1


def test_filter_on_names_holds_for_text() -> None:
    shown = lines(named(), Selection(filter=compile_filter("domain example.com")))
    assert [line for line in shown if line.startswith("domain")] == [
        "domain www.example.com 100.0 % 496 kbit/s 80 pps flows 2"
    ]


def test_lost_payloads_are_an_alarm_of_the_interval_that_lost_them() -> None:
    batch = make_batch([], health=Health(lost_payloads={"dns": 5}))
    assert "alarm 5 payloads lost, dns: names may be missing, all counts hold" in text_block(batch, Selection())
    assert "alarm" not in text_block(batch, Selection(), before=batch.health)
    said = said_of(batch, Selection())
    assert said["alarms"][0]["packets"] == 5
    assert said["health"]["lost_payloads"] == {"dns": 5}


def test_document_has_the_name_of_each_flow_and_its_evidence() -> None:
    said = said_of(named())
    names = [(flow["application"], flow["domain"], flow["domain_source"]) for flow in said["flows"]]
    assert names[:2] == [("unknown", None, None), ("tls", "www.example.com", "sni")]
    pairs = said_of(named(), Selection(pairs=True))["conversations"]
    assert [pair["domain"] for pair in pairs] == [None, "www.example.com", "shop.example"]


def test_document_accounts_for_all_traffic_by_domain_and_application() -> None:
    for limit in (1, 10):
        said = said_of(named(), Selection(limit=limit))
        for kind in ("domains", "applications"):
            parts = [*said[kind], said[f"{kind}_other"]]
            assert {name: sum(part[name] for part in parts) for name in said["matched"]} == said["matched"]
            assert sum(part["connections"] for part in parts) == 2
    assert said["domains"][0]["domain"] is None
    site = said["domains"][1]
    assert (site["domain"], site["flows"], site["connections"]) == ("www.example.com", 2, 2)
    assert site["rx"] == {"packets": 60, "bytes": 60_000, "skbs": 60}


@pytest.mark.parametrize("limit", [1, 10])
def test_document_does_not_claim_to_know_the_connections_of_a_filter(limit: int) -> None:
    said = said_of(named(), Selection(limit=limit, filter=compile_filter("tcp")))
    for kind in ("domains", "applications"):
        assert {part["connections"] for part in [*said[kind], said[f"{kind}_other"]]} == {None}


def test_document_sums_up_dns() -> None:
    said = said_of(named(), Selection(limit=1))["dns_summary"]
    assert (said["queries"], said["unanswered"], said["rcodes"]) == (4, 1, {"NOERROR": 2, "NXDOMAIN": 1})
    assert said["latency_max_ns"] == 9_800_000
    (most,) = said["questions"]
    assert (most["query"], most["qtype"], most["queries"]) == ("www.example.com", "A", 2)


def test_document_without_names_has_no_keys_about_them() -> None:
    said = said_of(sample(), Selection())
    assert not {"domains", "applications", "dns_summary", "dns"} & set(said)
    assert "domain" not in said["flows"][0]
