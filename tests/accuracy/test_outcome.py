"""What counts as an error: a packet too few, too many, or in a flow that is not its own."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hosts.measure import Seen
from hosts.wire import ETH_P_ARP, UDP, Count, Flow, Traffic

from .outcome import Outcome, compared
from .report import as_text

FLOW = Flow(4, UDP, "192.0.2.1", 1, "192.0.2.2", 2)
SENT = Traffic({FLOW: Count(10, 600)}, {ETH_P_ARP: Count(1, 42)})
EXACT = Seen(SENT, SENT.total, SENT.protocols)


def outcome(seen: Seen) -> Outcome:
    """Of a meter that says this."""
    meter: Mapping[tuple[str, str], Seen] = {("eth0", "tx"): seen}
    return compared("some traffic", "tx", meter, ("eth0", "tx"), SENT)


def test_an_exact_meter_has_no_error() -> None:
    exact = outcome(EXACT)
    assert (exact.wrong, exact.wrong_bytes) == (0, 0)
    assert as_text([exact.plus(exact)]).splitlines()[1].split()[-6:] == ["2", "22", "22", "1,284", "1,284", "0"]


@pytest.mark.parametrize(
    ("traffic", "packets", "octets"),
    [
        (Traffic({FLOW: Count(9, 540)}, SENT.ethertypes), 1, 60),
        (Traffic({FLOW: Count(10, 601)}, SENT.ethertypes), 0, 1),
        (Traffic({FLOW.reverse(): Count(10, 600)}, SENT.ethertypes), 20, 1200),
        (Traffic(SENT.flows), 1, 42),
        (Traffic(), 11, 642),
    ],
)
def test_what_is_missing_too_much_or_elsewhere_is_the_error(traffic: Traffic, packets: int, octets: int) -> None:
    wrong = outcome(Seen(traffic, traffic.total, traffic.protocols))
    assert wrong.wrong == packets
    assert wrong.wrong_bytes == octets


def test_right_flows_under_a_wrong_total_are_an_error() -> None:
    assert outcome(Seen(SENT, Count(12, 642), SENT.protocols)).wrong == 1
