"""Rates, top flows, conversations and protocols of a batch."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from captures.build import SECOND, Record, ethernet, pcap, udp
from wiremeter.captures.replay import CaptureReplay
from wiremeter.errors import InputError
from wiremeter.flows import top
from wiremeter.flows.batch import FlowBatch, Health, ProgramStats, Tally
from wiremeter.flows.columns import address_text
from wiremeter.flows.top import (
    History,
    device_rates,
    protocols_of_flows,
    tally_of,
    top_conversations,
    top_flow_indexes,
    top_protocols,
)
from wiremeter.names.records import FlowName
from wiremeter.settings.words import SORT_KEYS, SortKey

from ..live_batches import conversations, flow, make_batch

ADDRESSES = ("10.0.0.1", "10.0.0.2", "192.0.2.9")


def flows_strategy() -> st.SearchStrategy[FlowBatch]:
    """Batches of unique flows with many ties."""
    row = st.tuples(
        st.sampled_from(ADDRESSES),
        st.sampled_from(ADDRESSES),
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from([6, 17]),
        st.sampled_from(["eth0", "lo"]),
        st.sampled_from(["rx", "tx"]),
    )
    amounts = st.integers(1, 4)
    return st.dictionaries(row, amounts, max_size=30).map(
        lambda rows: make_batch(
            [
                flow(a, b, p, q, protocol=proto, device=device, direction=direction, packets=n)
                for (a, b, p, q, proto, device, direction), n in rows.items()
            ],
            devices=("eth0", "lo"),
        )
    )


# --- devices


def test_rates_are_per_second_and_in_bits() -> None:
    batch = make_batch([flow("10.0.0.1", "10.0.0.2", packets=100, size=1000)], seconds=2.0)
    rx, tx = device_rates(batch)
    assert (rx.device, rx.direction, rx.mode) == ("eth0", "rx", "tcx")
    assert rx.packets_per_second == 50
    assert rx.bits_per_second == 100 * 1000 * 8 / 2
    assert (tx.direction, tx.packets_per_second) == ("tx", 0)


def test_devices_keep_their_order_and_rx_comes_before_tx() -> None:
    batch = make_batch([], devices=("wg0", "eth0"))
    batch = replace(batch, attachments=batch.attachments[::-1], audit=batch.audit[::-1])
    assert [(r.device, r.direction) for r in device_rates(batch)] == [
        ("eth0", "rx"),
        ("eth0", "tx"),
        ("wg0", "rx"),
        ("wg0", "tx"),
    ]


def test_device_without_an_audit_yet_has_rate_zero_and_one_without_attachment_has_mode_none() -> None:
    batch = make_batch([], devices=("eth0",))
    assert [r.packets_per_second for r in device_rates(replace(batch, audit=()))] == [0, 0]
    assert [r.mode for r in device_rates(replace(batch, attachments=()))] == ["none", "none"]


def test_program_cost_is_the_mean_of_its_runs() -> None:
    health = Health(programs=(ProgramStats("eth0", "rx", run_ns=1300, runs=10), ProgramStats("eth0", "tx", 0, 0)))
    rx, tx = device_rates(make_batch([], health=health))
    assert (rx.ns_per_run, tx.ns_per_run) == (130, None)


def test_history_keeps_the_last_intervals_and_forgets_a_device_that_is_long_gone() -> None:
    history = History(length=3)
    for packets in (1, 2, 3, 4):
        history.add(device_rates(make_batch([flow("10.0.0.1", "10.0.0.2", packets=packets, size=125)])))
    assert history.of("eth0", "rx").tolist() == [2000, 3000, 4000]
    history.add([])
    assert history.of("eth0", "rx").tolist() == [3000, 4000, 0]
    for _ in range(2):
        history.add([])
    assert history.of("eth0", "rx").tolist() == []
    assert history.of("nosuch", "tx").shape == (0,)


# --- flows


def top_flows(batch: FlowBatch, n: int, by: SortKey = "bytes", **options: Any) -> NDArray[np.void]:
    return batch.flows[top_flow_indexes(batch, n, by, **options)]


def test_top_flows_are_the_largest_in_order() -> None:
    batch = make_batch([flow("10.0.0.1", "10.0.0.2", port, 80, packets=port, size=60) for port in (5, 9, 1, 7)])
    assert top_flows(batch, 3)["src_port"].tolist() == [9, 7, 5]
    assert top_flows(batch, 2, reverse=True)["src_port"].tolist() == [1, 5]
    assert top_flows(batch, 99)["src_port"].tolist() == [9, 7, 5, 1]
    assert top_flows(batch, 0).shape == (0,)


def test_packets_and_bytes_order_differently() -> None:
    batch = make_batch(
        [
            flow("10.0.0.1", "10.0.0.2", 1, packets=10, size=60),
            flow("10.0.0.1", "10.0.0.2", 2, packets=2, size=1500),
        ]
    )
    assert top_flows(batch, 1, "packets")["src_port"].tolist() == [1]
    assert top_flows(batch, 1, "bytes")["src_port"].tolist() == [2]


def test_addresses_order_as_numbers_with_the_smallest_first() -> None:
    sources = ["10.0.0.10", "9.255.0.1", "2001:db8::1", "10.0.0.9"]
    batch = make_batch([flow(src, "2001:db8::2" if ":" in src else "10.0.0.2") for src in sources])
    shown = [address_text(row["src_addr"]) for row in top_flows(batch, 9, "source")]
    assert shown == ["9.255.0.1", "10.0.0.9", "10.0.0.10", "2001:db8::1"]
    shown = [address_text(row["src_addr"]) for row in top_flows(batch, 9, "source", reverse=True)]
    assert shown == ["2001:db8::1", "10.0.0.10", "10.0.0.9", "9.255.0.1"]


def test_domains_order_by_alphabet_and_flows_without_one_come_last() -> None:
    names = [None, FlowName("tls", "b.example", "sni"), FlowName("dns"), FlowName("tls", "a.example", "sni")]
    batch = make_batch([flow("10.0.0.1", "10.0.0.2", at, name=name) for at, name in enumerate(names)])
    assert top_flows(batch, 9, "domain")["src_port"].tolist() == [3, 1, 0, 2]
    assert top_flows(batch, 2, "domain", reverse=True)["src_port"].tolist() == [0, 2]
    assert top_conversations(batch, 2, "domain")["local_port"].tolist() == [0, 0]
    assert top_conversations(batch, 2, "domain")["remote_port"].tolist() == [3, 1]


def test_unknown_sort_key_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="bytes, packets"):
        top_flows(make_batch([]), 1, "size")  # type: ignore[arg-type]


@given(flows_strategy(), st.integers(0, 35), st.sampled_from(SORT_KEYS), st.booleans(), st.randoms())
def test_top_flows_are_the_head_of_the_full_order_however_the_rows_lie(
    batch: FlowBatch, n: int, by: SortKey, reverse: bool, random: object
) -> None:
    whole = top_flows(batch, len(batch.flows), by, reverse=reverse)
    shuffled = batch.flows.copy()
    np.random.default_rng(n).shuffle(shuffled)
    np.testing.assert_array_equal(top_flows(replace(batch, flows=shuffled), n, by, reverse=reverse), whole[:n])
    assert len(whole) == len(batch.flows)
    mask = batch.flows["protocol"] == 17
    np.testing.assert_array_equal(
        top_flows(batch, n, by, mask=mask, reverse=reverse), whole[whole["protocol"] == 17][:n]
    )


# --- conversations


def test_flow_and_its_reverse_are_one_conversation_seen_from_the_device() -> None:
    batch = make_batch(
        [
            flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=10, size=1500, tcp_flags=0x12),
            flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", packets=5, size=60, tcp_flags=0x10),
        ]
    )
    (pair,) = conversations(batch)
    assert (address_text(pair["local_addr"]), pair["local_port"]) == ("10.0.0.5", 50000)
    assert (address_text(pair["remote_addr"]), pair["remote_port"]) == ("192.0.2.1", 443)
    assert (pair["rx_packets"], pair["rx_bytes"], pair["tx_packets"], pair["tx_bytes"]) == (10, 15000, 5, 300)
    assert pair["tcp_flags"] == 0x12


@pytest.mark.parametrize(
    "other",
    [
        flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", device="wg0"),
        flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", vlan=77),
        flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", protocol=17),
        flow("10.0.0.5", "192.0.2.1", 50001, 443, direction="tx"),
        flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="rx"),
    ],
    ids=["device", "vlan", "protocol", "port", "direction"],
)
def test_flows_that_differ_are_two_conversations(other: dict[str, object]) -> None:
    batch = make_batch([flow("192.0.2.1", "10.0.0.5", 443, 50000), other], devices=("eth0", "wg0"))
    assert len(conversations(batch)) == 2


def test_conversation_has_the_name_of_either_flow() -> None:
    name = FlowName("tls", "www.example.com", "sni")
    for of_one, of_other in ((name, None), (None, name), (name, name)):
        there = flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", name=of_one)
        batch = make_batch([there, flow("192.0.2.1", "10.0.0.5", 443, 50000, name=of_other)])
        (pair,) = conversations(batch)
        assert batch.names[pair["name"]] == name


def test_conversation_without_names_has_the_first_which_says_nothing() -> None:
    batch = make_batch([flow("192.0.2.1", "10.0.0.5", 443, 50000)])
    assert conversations(batch)["name"].tolist() == [0]


def test_loopback_traffic_keeps_its_two_sides() -> None:
    there, back = ("127.0.0.1", "127.0.0.2", 4000, 80), ("127.0.0.2", "127.0.0.1", 80, 4000)
    batch = make_batch(
        [flow(*ends, device="lo", direction=d) for ends in (there, back) for d in ("rx", "tx")], devices=("lo",)
    )
    assert sorted(address_text(pair["local_addr"]) for pair in conversations(batch)) == ["127.0.0.1", "127.0.0.2"]


@given(flows_strategy())
def test_conversations_lose_and_add_nothing(batch: FlowBatch) -> None:
    pairs = conversations(batch)
    for name in ("packets", "bytes", "skbs"):
        for direction in ("rx", "tx"):
            here = np.array([batch.attachments[a].direction == direction for a in batch.flows["attachment"]], bool)
            assert pairs[f"{direction}_{name}"].sum() == batch.flows[name][here].sum()
    assert len(pairs) >= (len(batch.flows) + 1) // 2


@given(flows_strategy(), st.integers(1, 20), st.sampled_from(SORT_KEYS), st.booleans())
def test_top_conversations_are_the_head_of_the_full_order(batch: FlowBatch, n: int, by: SortKey, reverse: bool) -> None:
    whole = top_conversations(batch, 100, by, reverse=reverse)
    np.testing.assert_array_equal(top_conversations(batch, n, by, reverse=reverse), whole[:n])
    if by in ("bytes", "packets"):
        sums = (whole[f"rx_{by}"] + whole[f"tx_{by}"]).tolist()
        assert sums == sorted(sums, reverse=not reverse)


def test_keys_that_share_a_hash_are_still_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = np.array([1, 2, 1, 2], "u8"), np.array([7, 7, 7, 7], "u8")
    monkeypatch.setattr(top, "_MULTIPLIER", np.uint64(0))
    order, starts = top.group_rows([first, second])
    assert first[order].tolist() == [1, 1, 2, 2]
    assert starts.tolist() == [0, 2]


def test_no_flows_are_no_conversations() -> None:
    assert conversations(make_batch([])).shape == (0,)
    assert top_conversations(make_batch([]), 5).shape == (0,)


# --- protocols


def mixed_batch() -> FlowBatch:
    return make_batch(
        [
            flow("10.0.0.1", "10.0.0.2", 1, packets=10, size=1000),
            flow("10.0.0.1", "10.0.0.2", 2, packets=10, size=100, direction="tx"),
            flow("10.0.0.1", "10.0.0.2", 53, protocol=17, packets=30, size=60),
            flow("2001:db8::1", "2001:db8::2", 1, packets=1, size=500, device="wg0"),
        ],
        devices=("eth0", "wg0"),
        non_ip={("eth0", "rx"): [(0x0806, 3), (0x88CC, 1)]},
    )


def test_protocols_are_summed_over_devices_and_frames_that_are_not_ip_are_named() -> None:
    totals = top_protocols(mixed_batch())
    assert [(t.family, t.protocol, t.tally.packets) for t in totals] == [
        ("ipv4", "tcp", 20),
        ("ipv4", "udp", 30),
        ("ipv6", "tcp", 1),
        ("non_ip", "arp", 3),
        ("non_ip", "lldp", 1),
    ]
    assert top_protocols(mixed_batch(), "packets")[0].protocol == "udp"
    assert [t.family for t in top_protocols(mixed_batch(), device="wg0")] == ["ipv6"]


def test_protocols_account_for_everything_seen() -> None:
    batch = mixed_batch()
    whole = Tally()
    for total in top_protocols(batch):
        whole = whole.plus(total.tally)
    seen = Tally()
    for audit in batch.audit:
        seen = seen.plus(audit.seen)
    assert whole == seen


def test_protocols_of_chosen_flows_sum_to_those_flows() -> None:
    batch = mixed_batch()
    mask = batch.flows["packets"] <= 10
    totals = protocols_of_flows(batch, mask)
    assert [(t.family, t.protocol) for t in totals] == [("ipv4", "tcp"), ("ipv6", "tcp")]
    assert totals[0].tally.plus(totals[1].tally) == tally_of(batch.flows, mask)


def test_million_flows_take_milliseconds() -> None:
    """A guard against doing per-flow work in Python, with room for a slow machine; it takes about 10 ms."""
    import time

    batch = make_batch([flow("10.0.0.1", "10.0.0.2", 1)])
    flows = np.repeat(batch.flows, 1_000_000)
    flows["bytes"] = np.random.default_rng(1).integers(1, 1 << 40, len(flows))
    started = time.perf_counter()
    assert len(top_flows(replace(batch, flows=flows), 20)) == 20
    assert time.perf_counter() - started < 1.0


def test_addresses_in_fabricated_batches_are_in_network_order() -> None:
    (row,) = make_batch([flow("192.0.2.1", "10.0.0.5")]).flows
    assert bytes(row["src_addr"])[12:] == ipaddress.ip_address("192.0.2.1").packed


def test_in_captures_the_end_that_sent_first_is_the_local_one(tmp_path: Path) -> None:
    begins = 1_700_000_000 * SECOND
    for number, (first, second) in enumerate(((1, 2), (2, 1))):
        question, answer = udp(first, second, 1000, 53), udp(second, first, 53, 1000, b"a longer answer")
        path = tmp_path / f"{number}.pcap"
        path.write_bytes(pcap([Record(ethernet(question), begins), Record(ethernet(answer), begins + SECOND)] * 2))
        (batch,) = CaptureReplay([path])
        (pair,) = top_conversations(batch, 10)
        assert (pair["local_addr"][-1], pair["local_port"]) == (first, 1000)
        assert (pair["remote_addr"][-1], pair["remote_port"]) == (second, 53)
        assert (pair["tx_packets"], pair["rx_packets"]) == (2, 2)
        assert (pair["tx_bytes"], pair["rx_bytes"]) == (2 * (14 + len(question)), 2 * (14 + len(answer)))
