"""Traffic by host: each flow once, at its other end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wiremeter.flows.batch import Tally
from wiremeter.flows.by_host import host_totals
from wiremeter.flows.by_name import sum_of

from ..live_batches import flow, make_batch

FLOWS = st.tuples(
    st.integers(1, 6), st.sampled_from(["rx", "tx"]), st.sampled_from(["eth0", "wg0"]), st.integers(1, 50)
)


def made(rows: list[tuple[int, str, str, int]]) -> list[dict[str, object]]:
    return [
        flow(
            *((f"192.0.2.{host}", "10.0.0.5") if direction == "rx" else ("10.0.0.5", f"192.0.2.{host}")),
            port,
            direction=direction,
            device=device,
            packets=host,
        )
        for port, (host, direction, device, _) in enumerate(rows)
    ]


@given(st.lists(FLOWS, max_size=30), st.integers(0, 4), st.sampled_from(["bytes", "packets", "name"]))
def test_hosts_and_the_rest_are_all_traffic(rows: list[tuple[int, str, str, int]], limit: int, by: str) -> None:
    batch = make_batch(made(rows), devices=("eth0", "wg0"))
    hosts, others, found = host_totals(batch, limit, by)  # type: ignore[arg-type]
    assert found == len({row[0] for row in rows})
    assert len(hosts) == min(limit, found)
    total = sum_of([*hosts, others])
    whole = Tally()
    for audit in batch.audit:
        whole = whole.plus(audit.flows)
    assert (total.tally, total.flows) == (whole, len(rows))
    for host in hosts:
        mine = [row for row in rows if host.name == f"192.0.2.{row[0]}"]
        assert (host.flows, host.tally.packets) == (len(mine), sum(row[0] for row in mine))
        assert host.tx.packets == sum(row[0] for row in mine if row[1] == "tx")


def test_order_device_and_reverse() -> None:
    rows = made([(1, "rx", "eth0", 1), (3, "rx", "wg0", 1), (2, "tx", "eth0", 1)])
    batch = make_batch(rows, devices=("eth0", "wg0"))

    def names(**choice: object) -> list[str | None]:
        return [host.name for host in host_totals(batch, 9, **choice)[0]]  # type: ignore[arg-type]

    assert names() == ["192.0.2.3", "192.0.2.2", "192.0.2.1"]
    assert names(by="name") == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert names(by="name", reverse=True)[0] == "192.0.2.3"
    assert names(device="eth0") == ["192.0.2.2", "192.0.2.1"]


def test_nothing_has_no_hosts() -> None:
    assert host_totals(make_batch([]), 5)[0] == []
