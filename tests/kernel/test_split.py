"""Headers that do not lie in one piece: every program reads across the edge of a buffer's linear part and behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from socket import if_nametoindex

import pytest

from hosts import devices
from hosts.devices import Port
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.flows.batch import Tally

from . import packets as p
from .bench import CPUS, Bench
from .cases import CASES, SEGMENT, chain
from .packets import TCP, UDP, ethernet, over4, over6
from .reference import count_drain, count_readings, read_frame
from .split import XDP_SPLITS, run_xdp_split, send_ring

pytestmark = pytest.mark.kernel

#: Frames from the n-th of many sources, each a flow of its own: what one misses another cannot make good.
WHOLE: dict[str, Callable[[int], bytes]] = {
    "TCP over IPv4": lambda n: over4(TCP, p.tcp(b"data", flags=0x112), src=f"192.0.2.{n}"),
    "TCP with options over IPv4 with options": lambda n: over4(
        TCP, p.tcp(b"data", words=8), options=bytes(12), src=f"192.0.2.{n}"
    ),
    "UDP over IPv4 in two VLANs": lambda n: over4(UDP, p.udp(b"data"), (p.QINQ, 10), (p.VLAN, 20), src=f"192.0.2.{n}"),
    "TCP over IPv6": lambda n: over6(TCP, SEGMENT, src=f"2001:db8::{n}"),
    "UDP over IPv6 behind all extension headers": lambda n: over6(
        *chain(p.HOPOPTS, p.DSTOPTS, p.ROUTING, p.FRAGMENT, p.AH, last=UDP, behind=p.udp(b"data")),
        (p.VLAN, 20),
        src=f"2001:db8::{n}",
    ),
    "ICMPv6 behind options": lambda n: over6(p.HOPOPTS, p.options(p.ICMPV6, 2) + p.icmp(), src=f"2001:db8::{n}"),
    "a later fragment": lambda n: over6(p.FRAGMENT, p.fragment(UDP, 9) + p.udp(), src=f"2001:db8::{n}"),
    "an ethertype in a VLAN": lambda n: ethernet(0x7700 + n, bytes(28), (p.VLAN, 20)),
}

if XDP_SPLITS:  # not a skip: an older kernel has nothing here that could be tested

    @pytest.mark.parametrize("build", WHOLE.values(), ids=WHOLE)
    def test_xdp_reads_headers_wherever_the_linear_part_ends(build: Callable[[int], bytes], bench: Bench) -> None:
        frames = {linear_bytes: build(linear_bytes) for linear_bytes in range(14, len(build(14)) + 1)}
        for linear_bytes, frame in frames.items():
            assert run_xdp_split(bench.programs["XDP"].program_fd, frame, linear_bytes) == 2
        expected = count_readings((read_frame(frame), Tally(1, len(frame), 1)) for frame in frames.values())
        assert bench.take()["XDP"] == expected

    @pytest.mark.parametrize("linear_bytes", [14, 18, 34, 54, 60])
    def test_xdp_reads_every_case_behind_a_short_linear_part(linear_bytes: int, bench: Bench) -> None:
        frames = [case.frame for case in CASES]
        for frame in frames:
            run_xdp_split(bench.programs["XDP"].program_fd, frame, min(linear_bytes, len(frame)))
        expected = count_readings((read_frame(frame), Tally(1, len(frame), 1)) for frame in frames)
        assert bench.take()["XDP"] == expected


@pytest.fixture(scope="module")
def client(nothing_left_by_the_module: None) -> Iterator[Port]:
    """One end of a veth pair that takes large frames."""
    with devices.pair(mtu=9000) as (client, _):
        devices.settle(client)
        yield client


@pytest.mark.parametrize("at", range(4))
def test_tc_reads_every_case_of_which_only_the_ethernet_header_is_linear(at: int, client: Port) -> None:
    """The best-known agent attributes none of these. All cases that fit the device, a quarter at a time."""
    frames = [case.frame for case in CASES if len(case.frame) <= 9014][at::4]
    with client.host.entered(), KernelEngine(plan_tables(CPUS, 1024)) as engine:
        hook = Hook(client.device, if_nametoindex(client.device), "tx", "tcx")
        program = engine.attach(hook)
        send_ring(client, frames)
        drain = engine.flip()
        program.detach()
    expected = count_readings((read_frame(frame), Tally(1, len(frame), 1)) for frame in frames)
    assert count_drain(drain, program.slot) == expected
