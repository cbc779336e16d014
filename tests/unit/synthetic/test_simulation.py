"""Synthetic traffic: its frames are what they claim to be, and the meter finds all of them."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import wiremeter
from wiremeter.captures.file import Frames
from wiremeter.captures.meter import HostMeter
from wiremeter.captures.replay import CaptureReplay
from wiremeter.cli.main import main
from wiremeter.errors import InputError, WiremeterError
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.columns import VLAN_NONE, address_text
from wiremeter.synthetic.profiles import PROFILES
from wiremeter.synthetic.simulation import START_NS, Simulation, simulate

SMALL: dict[str, Any] = {"seconds": 1.0, "packets_per_second": 1500.0}


class Frame(NamedTuple):
    """What an independent reading of a frame says."""

    time_ns: int
    length: int
    vlan: int
    flow: tuple[object, ...] | None  # protocol, addresses, ports
    tcp_flags: int = 0
    sequence: tuple[int, int] = (0, 0)  # number, and how many it takes


def ones_complement(data: bytes) -> int:
    """0xFFFF for what has the right checksum in it (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def read_frame(time_ns: int, frame: bytes) -> Frame:
    """Reads a frame, and asserts that every length and checksum in it is right."""
    at, vlan = 14, VLAN_NONE
    (ethertype,) = struct.unpack_from(">H", frame, 12)
    if ethertype == 0x8100:
        vlan, ethertype = struct.unpack_from(">HH", frame, 14)
        at = 18
    if ethertype == 0x0806:
        assert frame[at : at + 6] == bytes.fromhex("000108000604")
        assert len(frame) == at + 28
        return Frame(time_ns, len(frame), vlan, None)
    if ethertype == 0x0800:
        assert frame[at] == 0x45
        assert struct.unpack_from(">H", frame, at + 2)[0] == len(frame) - at
        assert ones_complement(frame[at : at + 20]) == 0xFFFF
        protocol, addresses, l4 = frame[at + 9], frame[at + 12 : at + 20], frame[at + 20 :]
        ends = [socket.inet_ntop(socket.AF_INET, addresses[i : i + 4]) for i in (0, 4)]
    else:
        assert ethertype == 0x86DD
        assert frame[at] >> 4 == 6
        assert struct.unpack_from(">H", frame, at + 4)[0] == len(frame) - at - 40
        protocol, addresses, l4 = frame[at + 6], frame[at + 8 : at + 40], frame[at + 40 :]
        ends = [socket.inet_ntop(socket.AF_INET6, addresses[i : i + 16]) for i in (0, 16)]
    pseudo = b"" if protocol == 1 else addresses + struct.pack(">II", len(l4), protocol)
    assert ones_complement(pseudo + l4) == 0xFFFF
    if protocol in (1, 58):
        assert l4[0] in ((8, 0) if protocol == 1 else (128, 129))
        return Frame(time_ns, len(frame), vlan, (protocol, *ends, 0, 0))
    ports = struct.unpack_from(">HH", l4)
    if protocol == 17:
        assert struct.unpack_from(">H", l4, 4)[0] == len(l4)
        return Frame(time_ns, len(frame), vlan, (17, *ends, *ports))
    assert protocol == 6
    assert l4[12] == 0x50
    flags = l4[13]
    takes = len(l4) - 20 + (flags & 1) + (flags >> 1 & 1)
    return Frame(time_ns, len(frame), vlan, (6, *ends, *ports), flags, (struct.unpack_from(">I", l4, 4)[0], takes))


def read_pcap(path: Path) -> list[Frame]:
    """All frames of a file as simulate writes it."""
    data = path.read_bytes()
    assert data[:24] == struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, 1)
    frames, at = [], 24
    while at < len(data):
        seconds, nanoseconds, captured, wire = struct.unpack_from("<IIII", data, at)
        assert captured == wire
        frames.append(read_frame(seconds * 10**9 + nanoseconds, data[at + 16 : at + 16 + captured]))
        at += 16 + captured
    assert at == len(data)
    return frames


def flows_of_frames(frames: list[Frame]) -> dict[tuple[object, ...], tuple[int, ...]]:
    """Packets, bytes, first, last, flags by flow."""
    found: dict[tuple[object, ...], tuple[int, ...]] = {}
    for frame in frames:
        if frame.flow:
            key = (*frame.flow, frame.vlan)
            n, size, first, _, flags = found.get(key, (0, 0, frame.time_ns, 0, 0))
            found[key] = (n + 1, size + frame.length, first, frame.time_ns, flags | frame.tcp_flags)
    return found


def flows_of_batch(batch: FlowBatch) -> dict[tuple[object, ...], tuple[int, ...]]:
    """The same out of a batch."""
    names = ("packets", "bytes", "first_ns", "last_ns", "tcp_flags")
    return {
        (
            int(row["protocol"]),
            address_text(row["src_addr"]),
            address_text(row["dst_addr"]),
            *(int(row[name]) for name in ("src_port", "dst_port", "vlan")),
        ): tuple(int(row[name]) for name in names)
        for row in batch.flows
    }


@pytest.mark.parametrize("vlan", [None, 77])
@pytest.mark.parametrize("profile", PROFILES)
def test_frames_are_valid_and_every_flow_is_metered_as_an_independent_reading_counts_it(
    profile: str, vlan: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "simulated.pcap"
    simulation = Simulation(profile, 3, **SMALL, vlan=vlan, ipv6=0.4, interval=None, write=path)
    (batch,) = simulation
    frames = read_pcap(path)
    assert len(frames) == simulation.packets == 1500
    assert {frame.vlan for frame in frames} == {VLAN_NONE if vlan is None else vlan}
    assert flows_of_batch(batch) == flows_of_frames(frames)
    (audit,) = batch.audit
    assert audit.balanced
    assert audit.non_ip.packets == sum(frame.flow is None for frame in frames)
    found = (audit.seen.packets, audit.seen.bytes, len(batch.flows))
    assert found == (simulation.expected.packets, simulation.expected.bytes, simulation.expected.flows)
    assert found[:2] == (len(frames), sum(frame.length for frame in frames))
    times = [frame.time_ns for frame in frames]
    assert times == sorted(times)
    assert times[0] == START_NS
    assert times[-1] < START_NS + 10**9


@pytest.mark.parametrize("profile", PROFILES)
def test_replay_of_the_written_file_gives_the_same(profile: str, tmp_path: Path) -> None:
    path = tmp_path / "simulated.pcap"
    simulated = list(simulate(profile, 4, **SMALL, interval=0.25, write=path))
    replayed = list(CaptureReplay([path], interval=0.25))
    assert len(simulated) == len(replayed) == 4
    for one, other in zip(simulated, replayed, strict=True):
        assert (one.mode, other.mode) == ("simulated", "capture")
        assert (one.start_ns, one.end_ns, one.audit[0].seen) == (other.start_ns, other.end_ns, other.audit[0].seen)
        assert flows_of_batch(one) == flows_of_batch(other)
        assert one.counters.tolist() == other.counters.tolist()
        assert one.ethertypes.tolist() == other.ethertypes.tolist()


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    files: list[Path] = []
    for seed in (1, 1, 2):
        files.append(tmp_path / f"{len(files)}.pcap")
        list(simulate("iot", seed, **SMALL, write=files[-1]))
    one, again, other = (file.read_bytes() for file in files)
    assert one == again != other


def test_batches_of_the_same_seed_are_equal_row_by_row() -> None:
    one, again = (next(simulate("web", 5, **SMALL)) for _ in range(2))
    assert (one.flows == again.flows).all()


def test_sequence_numbers_follow_each_other_in_every_flow(tmp_path: Path) -> None:
    """Over more than one slice, for those that last."""
    path = tmp_path / "simulated.pcap"
    list(simulate("elephant-and-mice", seconds=1, packets_per_second=70_000, mtu=576, write=path, hosts=1 << 16))
    following: dict[tuple[object, ...], int] = {}
    breaks: Counter[tuple[object, ...]] = Counter()
    for frame in read_pcap(path):
        if frame.flow and frame.flow[0] == 6:
            number, takes = frame.sequence
            breaks[frame.flow] += following.get(frame.flow, number) != number
            following[frame.flow] = (number + takes) & 0xFFFFFFFF
    assert sum(breaks.values()) == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_flow_numbers_and_flow_keys_are_one_to_one(profile: str) -> None:
    numbers: dict[int, tuple[object, ...]] = {}
    for packets in Simulation(profile, **SMALL, hosts=3, ipv6=0.5).traffic():
        ip = packets.part(packets.flow >= 0)
        icmp = ip.protocol == 1
        keys = zip(
            ip.flow.tolist(),
            *(c.tolist() for c in (ip.protocol, ip.is_ipv6, ip.is_from_server, ip.client_addr, ip.server_addr)),
            *(np.where(icmp, 0, c).tolist() for c in (ip.client_port, ip.server_port)),
            strict=True,
        )
        for number, *key in keys:
            assert numbers.setdefault(number, tuple(key)) == tuple(key)
    assert len(set(numbers.values())) == len(numbers)


def test_exchanges_of_a_profile_never_share_a_flow() -> None:
    for profile in PROFILES.values():
        ends = [(e.protocol, e.port, e.sources) for e in profile.exchanges]
        assert len(set(ends)) == len(ends) <= 32


def test_a_small_table_is_flipped_early_and_changes_nothing() -> None:
    (small,) = Simulation("many-small-flows", **SMALL, interval=None, table_lines=256)
    (large,) = Simulation("many-small-flows", **SMALL, interval=None)
    assert small.health.early_flips > 3
    assert flows_of_batch(small) == flows_of_batch(large)


def test_flows_beyond_the_bound_are_unattributed_and_not_a_mismatch() -> None:
    (batch,) = Simulation("syn-flood", **SMALL, interval=None, max_flows=100)
    assert len(batch.flows) == 100
    assert batch.audit[0].unattributed["batch_full"].packets == 1500 - batch.audit[0].flows.packets


def test_intervals_add_up_to_the_whole() -> None:
    batches = list(simulate("web", seconds=1, packets_per_second=999, interval=0.1))
    assert len(batches) == 10
    assert [batch.start_ns for batch in batches] == [START_NS + i * 10**8 for i in range(10)]
    assert sum(batch.audit[0].seen.packets for batch in batches) == 999


def test_intervals_without_packets_are_left_out() -> None:
    batches = list(simulate("dns", seconds=5, packets_per_second=1, interval=0.01))
    assert [batch.audit[0].seen.packets for batch in batches] == [1] * 5


@pytest.mark.parametrize(("protocols", "numbers"), [(["tcp"], {6}), (["udp", "icmp"], {17, 1, 58}), (["arp"], set())])
def test_only_the_protocols_asked_for_are_made(protocols: list[str], numbers: set[int]) -> None:
    (batch,) = simulate("iot", **SMALL, protocols=protocols, interval=None)
    assert set(batch.flows["protocol"].tolist()) == numbers
    assert bool(len(batch.ethertypes)) == ("arp" in protocols)


def test_rates_hosts_sizes_and_families_are_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "simulated.pcap"
    (batch,) = simulate("web", **SMALL, hosts=5, mtu=9000, ipv6=1.0, protocols=["tcp"], interval=None, write=path)
    assert set(batch.flows["family"].tolist()) == {6}
    clients = {bytes(row["dst_addr"]) for row in batch.flows if row["src_port"] in (80, 443)}
    assert len(clients) == 5
    assert max(frame.length for frame in read_pcap(path)) == 9014


class Losing(HostMeter):
    """A meter that counts one frame in a group without looking at it."""

    def count(self, frames: Frames) -> int:
        return super().count(frames.part(1)) + 1


def test_a_meter_that_loses_packets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wiremeter.synthetic.simulation.HostMeter", Losing)
    with pytest.raises(WiremeterError, match=r"packets seen: 1500 made, 1499 metered.*please report") as caught:
        list(simulate("web", **SMALL))
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "webb"}, "no profile 'webb': it must be one of web, dns"),
        ({"seed": -1}, "seed is -1: it must be from 0"),
        ({"seconds": 0}, "seconds is 0: it must be a number above 0"),
        ({"packets_per_second": float("nan")}, "packets_per_second is nan"),
        ({"seconds": 1e-9}, "are 0 packets"),
        ({"hosts": 0}, "hosts is 0: it must be from 1 to 65536"),
        ({"mtu": 500}, "mtu is 500"),
        ({"vlan": 4095}, "vlan is 4095"),
        ({"ipv6": 1.5}, "ipv6 is 1.5"),
        ({"interval": 0}, "interval of 0 s"),
        ({"protocols": ["sctp"]}, "protocol 'sctp' cannot be simulated: those that can are tcp, udp, icmp, arp"),
        ({"protocols": ["icmp"]}, "profile web has no icmp, only tcp, udp, arp"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(**arguments)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file"):
        list(simulate(write=tmp_path / "missing" / "simulated.pcap"))


def test_it_is_public_and_needs_nothing_of_linux() -> None:
    assert wiremeter.simulate is simulate
    code = """if True:
        import sys
        sys.modules["wiremeter.libbpf"] = sys.modules["wiremeter.datapath.kernel"] = None
        import wiremeter
        assert {batch.mode for batch in wiremeter.simulate(seconds=1, packets_per_second=100)} == {"simulated"}
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_frames_longer_than_the_usual_mtu_are_what_was_made(capsys: pytest.CaptureFixture[str]) -> None:
    (batch,) = simulate("web", **SMALL, mtu=9000)
    assert batch.flows["bytes"].max() > 9000
    assert batch.super_packets is None
    assert main(["simulate", "--mtu", "9000", "--seconds", "1", "--packets-per-second", "1500"]) == 0
    assert "MTU" not in capsys.readouterr().out
