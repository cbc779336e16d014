"""Any bytes at all, cut anywhere: no program fails on them, and each counts them once, as the reference does."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wiremeter.flows.batch import Tally

from . import packets as p
from .bench import TC, Bench, is_accepted
from .cases import CASES
from .packets import ethernet, ipv4, ipv6
from .reference import count_readings, read_frame

pytestmark = pytest.mark.kernel

#: A flip takes some 10 ms, a run some 5 µs: so many frames share a flip.
together = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

small = st.integers(0, 40)
protocols = st.one_of(
    st.sampled_from([p.TCP, p.UDP, p.SCTP, p.DCCP, p.UDPLITE, p.ICMP, p.ICMPV6, p.ESP, p.NO_NEXT]), st.integers(0, 255)
)
extensions = st.sampled_from([p.HOPOPTS, p.ROUTING, p.FRAGMENT, p.AH, p.DSTOPTS])
behind = st.binary(max_size=60)


@st.composite
def ipv4_packets(draw: st.DrawFn) -> bytes:
    """Nearly right ones: now and then a field says what is not so."""
    return ipv4(
        draw(protocols),
        draw(behind),
        options=bytes(4 * draw(st.sampled_from([0, 0, 0, 1, 3, 10]))),
        words=draw(st.one_of(st.none(), st.none(), st.integers(0, 15))),
        total_bytes=draw(st.one_of(st.none(), st.integers(0, 100), st.integers(0, 65535))),
        fragment=draw(st.sampled_from([0, 0, 0, 1, 9, 0x1FFF])),
        more=draw(st.booleans()),
        version=draw(st.sampled_from([4] * 9 + [6])),
    )


@st.composite
def ipv6_packets(draw: st.DrawFn) -> bytes:
    """Chains of up to a dozen extension headers whose lengths and numbers need not be right."""
    kinds = draw(st.lists(extensions, max_size=draw(st.sampled_from([0, 1, 3, 12]))))
    numbers = [*kinds, draw(protocols)]
    chain = b""
    for kind, following in zip(kinds, numbers[1:], strict=True):
        length = draw(st.sampled_from([0, 0, 1, 2, 5]))
        header = p.options(following, length)
        if kind == p.AH:
            header = p.authentication(following, draw(st.sampled_from([0, 1, 4, 5])))
        elif kind == p.FRAGMENT:
            header = p.fragment(following, draw(st.sampled_from([0, 0, 0, 1])), more=draw(st.booleans()))
        chain += header[: draw(st.sampled_from([1000] * 20 + [7, 12]))]
    return ipv6(
        numbers[0],
        chain + draw(behind),
        payload_bytes=draw(st.one_of(st.none(), st.none(), st.integers(0, 150), st.integers(0, 65535))),
        version=draw(st.sampled_from([6] * 9 + [4])),
    )


tag_types = st.sampled_from([p.VLAN, p.QINQ, p.QINQ_OLD])
no_tags: list[tuple[int, int]] = []
tags = st.lists(st.tuples(tag_types, st.integers(0, 65535)), max_size=6) | st.just(no_tags)
shaped = st.one_of(
    st.builds(lambda data, tag: ethernet(p.IPV4, data, *tag), ipv4_packets(), tags),
    st.builds(lambda data, tag: ethernet(p.IPV6, data, *tag), ipv6_packets(), tags),
    st.builds(lambda kind, data, tag: ethernet(kind, data, *tag), st.integers(0, 65535), behind, tags),
)
noise = st.binary(min_size=14, max_size=200)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A frame of the table or a shaped one with some bytes changed, cut or padded."""
    frame = bytearray(
        draw(st.one_of(st.sampled_from([case.frame for case in CASES if len(case.frame) < 4000]), shaped))
    )
    for at in draw(st.lists(st.integers(0, len(frame) - 1), max_size=3)):
        frame[at] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del frame[draw(st.integers(14, max(14, len(frame)))) :]
    frame += bytes(draw(st.sampled_from([0, 0, 0, 1, 30, 1500, 3600, 9000])))
    return bytes(frame.ljust(14, b"\0"))


frames = st.one_of(shaped, damaged(), noise)


@given(st.lists(frames, min_size=10, max_size=60))
@together
def test_every_program_counts_any_bytes_once_and_as_the_reference_does(bench: Bench, drawn: list[bytes]) -> None:
    for frame in drawn:
        bench.run_all(frame)
    assert bench.take() == {
        name: count_readings((read_frame(f), Tally(1, len(f), 1)) for f in drawn if is_accepted(name, f))
        for name in bench.programs
    }


@given(
    st.lists(st.tuples(frames, st.sampled_from([1, 8, 100, 536, 1448, 9000, 65534, 65535])), min_size=10, max_size=60)
)
@together
def test_any_bytes_that_claim_to_be_a_super_packet_are_counted_once(
    bench: Bench, drawn: list[tuple[bytes, int]]
) -> None:
    taken = [(frame, gso_size) for frame, gso_size in drawn if is_accepted(TC[0], frame)]
    for frame, gso_size in taken:
        for entry in TC:
            bench.run(entry, frame, gso_size=gso_size)
    found = bench.take()
    ingress, egress = found[TC[0]], found[TC[1]]
    assert ingress == egress
    read = count_readings((read_frame(frame), Tally(1, len(frame), 1)) for frame, _ in taken)
    assert {row: tally.skbs for row, tally in ingress.rows.items()} == {
        row: tally.skbs for row, tally in read.rows.items()
    }
    assert {reason: t.skbs for reason, t in ingress.reasons.items()} == {r: t.skbs for r, t in read.reasons.items()}
    assert ingress.flows.keys() == read.flows.keys()
    assert ingress.ethertypes.keys() == read.ethertypes.keys()
    for row, tally in ingress.rows.items():
        least = read.rows[row]
        assert least.packets <= tally.packets <= sum(len(frame) for frame, _ in taken)
        assert (
            least.bytes - 8 * least.skbs <= tally.bytes <= least.bytes + tally.packets * max(len(f) for f, _ in taken)
        )
