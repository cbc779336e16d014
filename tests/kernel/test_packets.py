"""Every kind of packet through every program: tc ingress, tc egress and XDP count it alike, exactly, and pass it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from wiremeter.datapath.kernel import KernelEngine
from wiremeter.datapath.layout import plan_tables
from wiremeter.errors import KernelError
from wiremeter.flows.batch import Tally
from wiremeter.flows.columns import ETHERTYPE_NONE

from . import packets as p
from .bench import CPUS, ENTRIES, TC, Bench, is_accepted
from .cases import CASES, SEGMENT, Case, chain, flow, refused
from .packets import TCP, UDP, ethernet, ipv4, ipv6, over4, over6
from .reference import Counts, Reading, count_readings, read_frame, read_ip, wire_tally


def ids(cases: list[Case]) -> list[str]:
    """Names of cases, the same sentence in IPv4 and IPv6 told apart."""
    return [
        f"{case.name} ({at})" if [c.name for c in cases].count(case.name) > 1 else case.name
        for at, case in enumerate(cases)
    ]


def once(reading: Reading, frame: bytes) -> Counts:
    """What one packet of a frame's own length counts as."""
    return count_readings([(reading, Tally(1, len(frame), 1))])


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_the_reference_reads_it_as_the_table_says(case: Case) -> None:
    assert replace(read_frame(case.frame), head_bytes=0) == case.expected


@pytest.mark.kernel
@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_every_program_counts_it_as_the_table_says(case: Case, bench: Bench) -> None:
    entries = bench.run_all(case.frame)
    assert "XDP" in entries
    assert bench.take() == {name: once(case.expected, case.frame) if name in entries else Counts() for name in ENTRIES}


@pytest.mark.kernel
@pytest.mark.parametrize("over", [over4, over6], ids=["IPv4", "IPv6"])
def test_every_protocol_number_has_a_row_of_its_own(over: Callable[..., bytes], bench: Bench) -> None:
    frames = [over(protocol, bytes(64)) for protocol in range(256)]
    for frame in frames:
        assert bench.run_all(frame) == list(ENTRIES)
    expected = count_readings((read_frame(frame), Tally(1, len(frame), 1)) for frame in frames)
    assert len(expected.rows) >= 250
    assert bench.take() == dict.fromkeys(ENTRIES, expected)


WHOLE = {
    "TCP with options over IPv4 with options": over4(TCP, p.tcp(b"data", words=8), options=bytes(12)),
    "UDP over IPv4 in two VLANs": over4(UDP, p.udp(b"data"), (p.QINQ, 10), (p.VLAN, 20)),
    "TCP over IPv6": over6(TCP, SEGMENT),
    "UDP over IPv6 behind all extension headers": over6(
        *chain(p.HOPOPTS, p.DSTOPTS, p.ROUTING, p.FRAGMENT, p.AH, last=UDP, behind=p.udp(b"data")), (p.VLAN, 20)
    ),
    "ICMPv6 behind options": over6(p.HOPOPTS, p.options(p.ICMPV6, 2) + p.icmp()),
    "ARP in a VLAN": ethernet(p.ARP, bytes(28), (p.VLAN, 20)),
    "ten long extension headers": over6(*chain(*[p.DSTOPTS] * 10, eights=19)),
}


@pytest.mark.kernel
@pytest.mark.parametrize("frame", WHOLE.values(), ids=WHOLE)
def test_a_frame_cut_at_any_byte_is_counted_once_under_what_is_left_of_it(frame: bytes, bench: Bench) -> None:
    cut = [frame[:length] for length in range(14, len(frame) + 1)]
    check_together(bench, cut)


@pytest.mark.kernel
@pytest.mark.parametrize("packet", [ipv4(TCP, SEGMENT), ipv4(UDP, p.udp(), options=bytes(8))], ids=["TCP", "UDP"])
def test_an_ipv4_packet_that_ends_anywhere_leaves_the_padding_alone(packet: bytes, bench: Bench) -> None:
    padded = [packet[:2] + total.to_bytes(2, "big") + packet[4:] + b"\xa5" * 30 for total in range(1, len(packet) + 31)]
    check_together(bench, [ethernet(p.IPV4, bytes_) for bytes_ in padded])


@pytest.mark.kernel
def test_an_ipv6_packet_that_ends_anywhere_leaves_the_padding_alone(bench: Bench) -> None:
    packet = ipv6(*chain(p.HOPOPTS, p.ROUTING, p.FRAGMENT, p.AH, p.DSTOPTS))
    padded = [packet[:4] + n.to_bytes(2, "big") + packet[6:] + b"\xa5" * 30 for n in range(1, len(packet) - 40 + 31)]
    check_together(bench, [ethernet(p.IPV6, bytes_) for bytes_ in padded])


def check_together(bench: Bench, frames: list[bytes]) -> None:
    """All frames through all programs, then one flip: each must have counted the reference's sum of what it took."""
    for frame in frames:
        bench.run_all(frame)
    assert bench.take() == {
        name: count_readings((read_frame(f), Tally(1, len(f), 1)) for f in frames if is_accepted(name, f))
        for name in bench.programs
    }


@pytest.mark.kernel
@pytest.mark.parametrize("size", [74, 1514, 3500, 3521, 4096, 9014, 40000, 65535], ids=str)
def test_jumbo_frames_count_with_all_their_bytes(size: int, bench: Bench) -> None:
    check_together(bench, [over6(TCP, p.tcp(bytes(size - 74))), over4(UDP, p.udp(bytes(size - 42)))])


@pytest.mark.kernel
def test_repeated_packets_add_up_in_one_flow(bench: Bench) -> None:
    first, second = over4(TCP, p.tcp(flags=p.SYN)), over4(TCP, p.tcp(b"hello", flags=p.ACK))
    for entry in ENTRIES:
        bench.run(entry, first, repeat=3)
        bench.run(entry, second, repeat=20)
    expected = count_readings(
        [(read_frame(first), Tally(3, 3 * len(first), 3)), (read_frame(second), Tally(20, 20 * len(second), 20))]
    )
    (tally, flags), *others = expected.flows.values()
    assert (tally.packets, flags, others) == (23, p.SYN | p.ACK, [])
    assert bench.take() == dict.fromkeys(ENTRIES, expected)


def reverse(frame: bytes) -> bytes:
    """Another flow: the IPv4 addresses of a frame swapped."""
    return frame[:26] + frame[30:34] + frame[26:30] + frame[34:]


@pytest.mark.kernel
def test_any_difference_in_the_key_makes_another_flow(bench: Bench) -> None:
    frames = [
        over4(UDP, p.udp()),
        reverse(over4(UDP, p.udp())),
        over4(UDP, p.udp(sport=1)),
        over4(UDP, p.udp(dport=1)),
        over4(TCP, p.tcp()),
        over4(UDP, p.udp(), (p.VLAN, 0)),
        over4(UDP, p.udp(), (p.VLAN, 1)),
        over4(UDP, p.udp(), src="192.0.2.2"),
        over4(UDP, p.udp(), dst="192.0.2.2"),
        over6(UDP, p.udp()),
        over6(UDP, p.udp(), src="::ffff:192.0.2.1", dst="::ffff:198.51.100.7"),
        over6(UDP, p.udp(), src="2001:db9::1"),
        over6(UDP, p.udp(), src="2001:db8::2"),
        over6(UDP, p.udp(), dst="2001:db9:ffff::7"),
        over6(UDP, p.udp(), dst="2001:db8:ffff::8"),
    ]
    for frame in frames:
        bench.run_all(frame)
    counts = bench.take()
    assert {name: len(found.flows) for name, found in counts.items()} == dict.fromkeys(ENTRIES, len(frames))
    assert counts == dict.fromkeys(ENTRIES, count_readings((read_frame(f), Tally(1, len(f), 1)) for f in frames))


@pytest.mark.kernel
def test_a_frame_shorter_than_an_ethernet_header_is_no_packet_to_the_kernel(bench: Bench) -> None:
    for entry in ENTRIES:
        with pytest.raises(KernelError) as refusal:
            bench.programs[entry].run(bytes(13))
        assert refusal.value.errno == 22
    assert bench.take() == dict.fromkeys(ENTRIES, Counts())


# Super-packets -------------------------------------------------------------------------------------------------------

JUMBO_OPTION = bytes([TCP, 0, 0xC2, 4]) + (70000).to_bytes(4, "big")
SUPER = {
    "TCP over IPv4": over4(TCP, p.tcp(bytes(3000))),
    "TCP with options over IPv4 with options": over4(TCP, p.tcp(bytes(3000), words=8), options=bytes(8)),
    "TCP over IPv6": over6(TCP, p.tcp(bytes(3000))),
    "TCP over IPv6 behind extension headers": over6(*chain(p.HOPOPTS, p.DSTOPTS, behind=p.tcp(bytes(3000)))),
    "TCP in two VLANs": over4(TCP, p.tcp(bytes(3000)), (p.QINQ, 10), (p.VLAN, 20)),
    "UDP over IPv4": over4(UDP, p.udp(bytes(3000))),
    "UDP over IPv6": over6(UDP, p.udp(bytes(3000))),
    "TCP whose total length is left to the device": over4(TCP, p.tcp(bytes(3000)), total_bytes=0),
}


@pytest.mark.kernel
@pytest.mark.parametrize("gso_size", [1, 7, 536, 1448, 2999, 3000, 3001, 65535 - 1])
@pytest.mark.parametrize("frame", SUPER.values(), ids=SUPER)
def test_a_super_packet_counts_as_its_segments(frame: bytes, gso_size: int, bench: Bench) -> None:
    """Nobody sets gso_segs, as nobody does for what comes from a guest."""
    reading = read_frame(frame)
    assert len(frame) - reading.head_bytes == 3000
    for entry in TC:
        bench.run(entry, frame, gso_size=gso_size)
    expected = count_readings([(reading, wire_tally(len(frame), reading.head_bytes, gso_size))])
    assert bench.take() == {name: expected if name in TC else Counts() for name in ENTRIES}


@pytest.mark.kernel
@pytest.mark.parametrize("over", [over4, over6], ids=["IPv4", "IPv6"])
def test_super_packets_and_others_of_one_flow_keep_packets_and_skbs_apart(
    over: Callable[..., bytes], bench: Bench
) -> None:
    big, small = over(TCP, p.tcp(bytes(3000))), over(TCP, p.tcp(b"hello"))
    head = len(big) - 3000
    for entry in TC:
        bench.run(entry, small)
        bench.run(entry, big, gso_size=1000, repeat=5)
        bench.run(entry, small, repeat=2)
    expected = count_readings(
        [
            (read_frame(big), Tally(15, 5 * (3000 + 3 * head), 5)),
            (read_frame(small), Tally(3, 3 * len(small), 3)),
        ]
    )
    assert bench.take() == {name: expected if name in TC else Counts() for name in ENTRIES}


@pytest.mark.kernel
def test_the_header_that_linux_puts_before_big_tcp_is_not_on_the_wire(bench: Bench) -> None:
    """BIG TCP (Linux, include/net/ipv6.h: struct hop_jumbo_hdr): eight bytes that are taken away when it is cut."""
    frame = over6(p.HOPOPTS, JUMBO_OPTION + p.tcp(bytes(3000)), payload_bytes=0)
    for entry in TC:
        bench.run(entry, frame, gso_size=1000)
    expected = count_readings([(read_frame(frame), Tally(3, 3000 + 3 * 74, 1))])
    assert {name: found for name, found in bench.take().items() if name in TC} == dict.fromkeys(TC, expected)


NONSENSE = {
    "no header that is repeated": over4(UDP, bytes(600), fragment=9),
    "a TCP header longer than the frame": over4(TCP, p.tcp(bytes(4), words=15)),
    "a TCP header cut before its length": over4(TCP, p.tcp()[:13]),
    "a jumbogram's options before a later fragment": over6(
        p.HOPOPTS, p.options(p.FRAGMENT) + p.fragment(TCP, 9) + bytes(600), payload_bytes=0
    ),
    "a jumbogram's options cut": over6(
        p.HOPOPTS, p.options(p.FRAGMENT) + p.options(p.DSTOPTS, 255) + bytes(600), payload_bytes=0
    ),
    "too many extension headers": over6(*chain(*[p.HOPOPTS] * 130, behind=bytes(600)), payload_bytes=0),
    "ARP": ethernet(p.ARP, bytes(600)),
}


@pytest.mark.kernel
@pytest.mark.parametrize("gso_size", [1, 100, 1448, 65535])
@pytest.mark.parametrize("frame", NONSENSE.values(), ids=NONSENSE)
def test_a_super_packet_that_makes_no_sense_never_counts_less_than_itself_or_wildly_more(
    frame: bytes, gso_size: int, bench: Bench
) -> None:
    for entry in TC:
        bench.run(entry, frame, gso_size=gso_size)
    for name, found in bench.take().items():
        if name in TC:
            ((_, seen),) = found.rows.items()
            assert seen.skbs == 1
            assert 1 <= seen.packets <= len(frame)
            assert len(frame) <= seen.bytes + 8 <= (seen.packets + 1) * len(frame)


# Devices without Ethernet --------------------------------------------------------------------------------------------

# A test run takes the protocol from where an Ethernet header would have its type, here two bytes of the source address.
BARE = {
    "TCP over IPv4": (p.IPV4, ipv4(TCP, SEGMENT, src="8.0.1.2")),
    "a fragment over IPv4": (p.IPV4, ipv4(UDP, p.udp(b"abcdef"), src="8.0.1.2", fragment=9)),
    "UDP behind IPv4 options": (p.IPV4, ipv4(UDP, p.udp(), src="8.0.1.2", options=bytes(8))),
    "TCP over IPv6": (p.IPV6, ipv6(TCP, SEGMENT, src="2001:db8:86dd::1")),
    "UDP behind extension headers": (
        p.IPV6,
        ipv6(*chain(p.HOPOPTS, p.AH, last=UDP, behind=p.udp()), src="2001:db8:86dd::1"),
    ),
    "IPv6 that is called IPv4": (p.IPV4, ipv6(TCP, SEGMENT, src="2001:db8:800::1")),
    "bytes without a protocol": (0x0004, bytes(12) + b"\x00\x04" + b"\xff\xff" + bytes(30)),
    "ARP without Ethernet": (p.ARP, bytes(12) + b"\x08\x06" + bytes(30)),
}


@pytest.fixture(scope="module")
def bare_bench(nothing_left_by_the_module: None) -> Iterator[Bench]:
    """The tc programs as for a device without an Ethernet header; XDP is not attached to such."""
    with KernelEngine(plan_tables(CPUS, 256)) as engine:
        yield Bench(engine, l2_bytes=0, entries=TC)


@pytest.mark.kernel
@pytest.mark.parametrize(("ethertype", "packet"), BARE.values(), ids=BARE)
def test_a_device_without_ethernet_is_metered_from_the_ip_header(
    ethertype: int, packet: bytes, bare_bench: Bench
) -> None:
    assert packet[12:14] == ethertype.to_bytes(2, "big")
    for entry in TC:
        bare_bench.run(entry, packet)
    assert bare_bench.take() == dict.fromkeys(TC, once(read_ip(ethertype, packet), packet))


@pytest.mark.kernel
def test_a_super_packet_without_ethernet_has_no_bytes_of_it(bare_bench: Bench) -> None:
    packet = ipv4(TCP, p.tcp(bytes(3000)), src="8.0.1.2")
    for entry in TC:
        bare_bench.run(entry, packet, gso_size=1000)
    found = bare_bench.take()
    assert [tally for counts in found.values() for tally, _ in counts.flows.values()] == [
        Tally(3, 3000 + 3 * 40, 1)
    ] * 2


def test_the_reference_knows_no_ethertype_where_there_is_no_ethernet() -> None:
    assert read_ip(4, bytes(40)).ethertype == ETHERTYPE_NONE
    assert read_ip(p.IPV4, ipv4(UDP, p.udp())) == replace(flow(4, UDP, (p.SPORT, p.DPORT)), head_bytes=28)
    assert read_ip(p.IPV6, bytes(39)) == refused(6, 256, "truncated_ip")
