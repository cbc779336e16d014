"""`wiremeter live` as plain text and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import msgspec

from wiremeter.flows.batch import FlowBatch, Health, KernelCounters, ProgramStats, Tally
from wiremeter.flows.filter import compile_filter
from wiremeter.tui.document import document
from wiremeter.tui.selection import Selection
from wiremeter.tui.text import text_block

from .live_batches import flow, make_batch


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
        "audit ok ns/run 13",
        "device eth0 tx tcx 240 kbit/s 500 pps packets 500 bytes 30000 skbs 500 unattributed 0 audit ok",
        "alarm eth0 rx: 4 packets unattributed, table_full: raise --flow-table",
        "protocol ipv4 tcp 100.0 % 10.2 Mbit/s 1.50 kpps",
        "protocol ipv6 icmpv6 <0.1 % 1.60 kbit/s 2 pps",
        "protocol non_ip arp <0.1 % 1.44 kbit/s 3 pps",
        "flow eth0 rx tcp 192.0.2.1:443 > 10.0.0.5:50000 10.0 Mbit/s 1.00 kpps flags PA",
        "flow eth0 tx tcp 10.0.0.5:50000 > 192.0.2.1:443 240 kbit/s 500 pps",
        "flow eth0 rx icmpv6 2001:db8::1 > 2001:db8::2 1.60 kbit/s 2 pps vlan 77",
    ]


def test_selection_holds_for_text() -> None:
    chosen = Selection(filter=compile_filter("tcp"), limit=1, in_bytes=True, names=True, pairs=True)
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
    said = json.loads(msgspec.json.encode(document(sample(), Selection())))
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
    largest = said["protocols"][0]
    assert largest == {"family": "ipv4", "protocol": "tcp", "packets": 1500, "bytes": 1280000, "skbs": 1500}
    assert (said["flows_total"], said["flows_matched"], said["filter"]) == (3, 3, "")
    first, _, last = said["flows"]
    assert first == {
        "device": "eth0",
        "direction": "rx",
        "family": "ipv4",
        "vlan": None,
        "protocol": "tcp",
        "src_addr": "192.0.2.1",
        "src_port": 443,
        "dst_addr": "10.0.0.5",
        "dst_port": 50000,
        "packets": 1000,
        "bytes": 1250000,
        "skbs": 1000,
        "tcp_flags": 0x18,
        "first_time": "2025-11-22T14:31:00.000000000Z",
        "last_time": "2025-11-22T14:31:00.500000000Z",
    }
    assert (last["vlan"], last["family"], last["protocol"]) == (77, "ipv6", "icmpv6")
    assert said["alarms"][0]["kind"] == "unattributed"
    assert said["alarms"][0]["reason"] == "table_full"
    assert said["health"]["programs"] == [{"device": "eth0", "direction": "rx", "run_ns": 130, "runs": 10}]


def test_document_of_conversations_has_both_directions() -> None:
    said = document(sample(), Selection(pairs=True, filter=compile_filter("tcp")))
    assert "flows" not in said
    (pair,) = said["conversations"]
    assert pair["rx"] == {"packets": 1000, "bytes": 1250000, "skbs": 1000}
    assert pair["tx"] == {"packets": 500, "bytes": 30000, "skbs": 500}
    assert (pair["local_addr"], pair["remote_port"]) == ("10.0.0.5", 443)


def test_document_names_what_the_device_counter_differs_by() -> None:
    batch = make_batch([])
    kernel = KernelCounters(5, 500, 2, "skbs")
    audits = tuple(replace(audit, kernel=kernel, remainders={"qdisc_drops": -2}) for audit in batch.audit)
    said = document(replace(batch, audit=audits), Selection())
    assert said["devices"][0]["kernel"] == {"packets": 5, "bytes": 500, "drops": 2, "convention": "skbs"}
    assert said["devices"][0]["remainders"] == {"qdisc_drops": -2}


def test_empty_batch_is_text_and_json() -> None:
    nothing = make_batch([], devices=())
    assert lines(nothing) == [
        "interval 1.000 s flows 0 matched 0",
        "alarm no device is metered: those chosen are gone, down or not there yet",
    ]
    assert document(nothing, Selection(pairs=True))["conversations"] == []
