"""Traffic by domain and by application."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.flows.batch import FlowBatch, Tally
from wiremeter.flows.by_name import TOTAL_SORTS, TotalSort, application_totals, domain_totals, sum_of
from wiremeter.flows.top import tally_of
from wiremeter.names.records import FlowName

from ..live_batches import flow, make_batch

SITE = FlowName("tls", "www.example.com", "sni")
SAME_SITE = FlowName("http", "www.example.com", "http_host")
OTHER = FlowName("quic", "cdn.example.net", "quic_sni")
RESOLVER = FlowName("dns")


def sample() -> FlowBatch:
    return make_batch(
        [
            flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=10, size=1000, name=SITE),
            flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", packets=4, size=100, name=SITE),
            flow("192.0.2.1", "10.0.0.5", 80, 50001, packets=2, size=500, name=SAME_SITE),
            flow("192.0.2.2", "10.0.0.5", 443, 50002, protocol=17, packets=30, size=50, name=OTHER, device="wg0"),
            flow("198.51.100.7", "10.0.0.5", 53, 40000, protocol=17, packets=1, size=80, name=RESOLVER),
            flow("10.0.0.9", "10.0.0.5", protocol=1, packets=1, size=20),
        ],
        devices=("eth0", "wg0"),
        connections={SITE: 3, SAME_SITE: 1, RESOLVER: 2},
    )


def test_domain_is_the_sum_of_its_flows_in_both_directions_whatever_the_application() -> None:
    first = domain_totals(sample())[0]
    assert (first.name, first.rx, first.tx) == ("www.example.com", Tally(12, 11_000, 12), Tally(4, 400, 4))
    assert (first.flows, first.connections) == (3, 4)


def test_flows_without_a_domain_are_one_row_so_that_nothing_is_missing() -> None:
    batch = sample()
    totals = domain_totals(batch)
    assert [total.name for total in totals] == ["www.example.com", "cdn.example.net", None]
    assert sum_of(totals).tally == tally_of(batch.flows)
    assert sum_of(totals).connections == 6


def test_applications_that_are_not_known_are_called_so() -> None:
    assert [total.name for total in application_totals(sample())] == ["tls", "quic", "http", "dns", "unknown"]


def test_without_names_all_is_one_row() -> None:
    batch = make_batch([flow("10.0.0.1", "10.0.0.2", packets=3)])
    assert [(total.name, total.tally.packets) for total in domain_totals(batch)] == [(None, 3)]
    assert [total.name for total in application_totals(batch)] == ["unknown"]
    assert [total.connections for total in domain_totals(batch)] == [None]


def test_one_device_has_its_own_flows_and_connections() -> None:
    (only,) = domain_totals(sample(), device="wg0")
    assert (only.name, only.flows, only.connections) == ("cdn.example.net", 1, 0)


def test_chosen_flows_say_nothing_of_connections() -> None:
    batch = sample()
    totals = domain_totals(batch, mask=batch.flows["protocol"] == 17)
    assert [(total.name, total.connections) for total in totals] == [("cdn.example.net", None), (None, None)]
    assert sum_of(totals).connections is None


def test_order_is_as_asked_for_and_can_be_reversed() -> None:
    def names(by: TotalSort, *, reverse: bool = False) -> list[str | None]:
        return [total.name for total in application_totals(sample(), by, reverse=reverse)]

    assert names("packets")[:2] == ["quic", "tls"]
    assert names("name") == ["dns", "http", "quic", "tls", "unknown"]
    assert names("name", reverse=True)[0] == "unknown"
    assert names("connections")[:3] == ["tls", "dns", "http"]
    assert names("bytes", reverse=True)[0] == "unknown"


def test_connections_without_a_flow_are_counted_too() -> None:
    (only,) = domain_totals(make_batch([], connections={SITE: 2}))
    assert (only.name, only.flows, only.connections, only.tally) == ("www.example.com", 0, 2, Tally())


FLOWS = st.lists(
    st.tuples(
        st.sampled_from([None, SITE, SAME_SITE, OTHER, RESOLVER]),
        st.sampled_from(["rx", "tx"]),
        st.integers(1, 1 << 40),
    ),
    max_size=20,
)


@given(FLOWS, st.sampled_from(TOTAL_SORTS), st.booleans())
def test_totals_lose_and_add_nothing(
    flows: list[tuple[FlowName | None, str, int]], by: TotalSort, reverse: bool
) -> None:
    rows = [
        flow("10.0.0.1", "10.0.0.2", at, direction=direction, packets=packets, size=1400, name=name)
        for at, (name, direction, packets) in enumerate(flows)
    ]
    batch = make_batch(rows)
    is_rx = np.array([batch.attachments[at].direction == "rx" for at in batch.flows["attachment"]], np.bool_)
    for totals in (domain_totals, application_totals):
        whole = sum_of(totals(batch, by, reverse=reverse))
        assert (whole.rx, whole.tx) == (tally_of(batch.flows, is_rx), tally_of(batch.flows, ~is_rx))
        assert whole.flows == len(flows)
