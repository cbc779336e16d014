"""Super-packets in captures: told by what the link carries, and cut into segments where a size is assumed."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from captures.build import SECOND, Record, ethernet, pcap, udp
from wiremeter.captures.replay import CaptureReplay
from wiremeter.cli.main import main
from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch

T0 = 1_700_000_000 * SECOND
SYN, ACK = 2, 16
TIMESTAMPS = b"\1\1\x08\x0a" + bytes(8)


def tcp(payload: int, flags: int = ACK, options: bytes = b"", *, v6: bool = False, source: str = "192.0.2.1") -> bytes:
    """An IP packet of TCP; its payload is zeros."""
    header = struct.pack(">HHIIBBHHH", 40000, 80, 1, 1, (20 + len(options)) // 4 << 4, flags, 64000, 0, 0) + options
    if v6:
        ends = bytes.fromhex("20010db800000000000000000000000120010db8000000000000000000000002")
        return struct.pack(">IHBB", 6 << 28, len(header) + payload & 0xFFFF, 6, 64) + ends + header + bytes(payload)
    addresses = bytes(map(int, source.split("."))) + bytes([198, 51, 100, 2])
    total = 20 + len(header) + payload
    total = total if total < 1 << 16 else 0
    return struct.pack(">BBHHHBBH", 0x45, 0, total, 1, 0, 64, 6, 0) + addresses + header + bytes(payload)


def mss(value: int) -> bytes:
    return b"\1\1\1\1" + struct.pack(">BBH", 2, 4, value)


def replay(tmp_path: Path, packets: Iterable[bytes], linktype: int = 1, **options: Any) -> FlowBatch:
    path = tmp_path / "file.pcap"
    path.write_bytes(pcap([Record(packet, T0 + n) for n, packet in enumerate(packets)], linktype))
    (batch,) = CaptureReplay([path], **options)
    return batch


def found(tmp_path: Path, packets: Iterable[bytes], **options: Any) -> tuple[int, int]:
    """The MTU, and how many packets are longer."""
    batch = replay(tmp_path, packets, **options)
    assert batch.super_packets
    return batch.super_packets.mtu, batch.super_packets.counted_once.packets


def six(packet: bytes) -> bytes:
    return ethernet(packet, 0x86DD)


def test_a_capture_of_what_was_on_the_wire_has_none(tmp_path: Path) -> None:
    assert found(tmp_path, [ethernet(tcp(1460)), ethernet(tcp(1448, options=TIMESTAMPS)), six(tcp(1440, v6=True))]) == (
        1500,
        0,
    )


def test_tcp_and_udp_longer_than_the_usual_mtu_are_told(tmp_path: Path) -> None:
    packets = [ethernet(tcp(1461)), six(tcp(28_800, v6=True)), ethernet(udp(payload=bytes(9_000))), ethernet(tcp(100))]
    batch = replay(tmp_path, [*packets, ethernet(tcp(150_000))])
    assert batch.super_packets
    assert batch.super_packets.counted_once[:2] == (4, sum(map(len, packets[:3])) + 14 + 40 + 150_000)


def test_tags_are_no_part_of_the_packet(tmp_path: Path) -> None:
    tagged = ethernet(tcp(1460), None, (0x88A8, 5), (0x8100, 6))
    assert len(tagged) == 1522
    assert found(tmp_path, [tagged]) == (1500, 0)
    assert found(tmp_path, [tcp(1460)], linktype=101) == (1500, 0)
    assert found(tmp_path, [tcp(1461)], linktype=101) == (1500, 1)


@pytest.mark.parametrize(
    ("packet", "mtu"),
    [
        (ethernet(tcp(0, SYN, mss(8960))), 9000),
        (six(tcp(0, SYN | ACK, mss(8940), v6=True)), 9000),
        (ethernet(struct.pack(">BBHHHBBH", 0x45, 0, 9000, 1, 0, 64, 1, 0) + bytes(8 + 8980)), 9000),
        (ethernet(struct.pack(">BBHHHBBH", 0x45, 0, 9000, 1, 0x2000, 64, 17, 0) + bytes(8 + 8980)), 9000),
        (ethernet(tcp(0, SYN, mss(1460))), 1500),
        (ethernet(tcp(0, SYN, mss(65_495))), 1500),  # of a loopback device in the same capture
        (ethernet(tcp(0, SYN, b"\2\0\0\0")), 1500),
    ],
)
def test_a_larger_mtu_is_shown_by_what_no_offload_makes(tmp_path: Path, packet: bytes, mtu: int) -> None:
    large = [ethernet(tcp(5_000)), ethernet(tcp(8_960)), ethernet(tcp(20_000))]
    assert found(tmp_path, [*large, packet]) == (mtu, 1 if mtu == 9000 else 3)


def test_jumbo_frames_end_where_jumbo_frames_do(tmp_path: Path) -> None:
    assert found(tmp_path, [ethernet(tcp(n)) for n in (8_960, 5_000, 8_960)]) == (9000, 0)
    assert found(tmp_path, [ethernet(tcp(n)) for n in (8_960, 5_000, 17_520)]) == (1500, 3)


def test_loopback_has_an_mtu_of_its_own(tmp_path: Path) -> None:
    long = tcp(60_000)
    assert found(tmp_path, [bytes(12) + b"\x08\0" + long]) == (1500, 0)
    assert found(tmp_path, [tcp(60_000, source="127.0.0.1")], linktype=101) == (1500, 0)


def test_what_is_damaged_or_cut_is_no_super_packet(tmp_path: Path) -> None:
    for n in range(60):
        path = tmp_path / "cut.pcap"
        path.write_bytes(pcap([Record(ethernet(tcp(20_000))[:n], T0, wire=20_054)]))
        (batch,) = CaptureReplay([path], assumed_mss=1460)
        assert batch.audit[0].balanced
        assert batch.audit[0].seen.packets in (1, 14)
    assert batch.audit[0].seen.packets == 14


@pytest.mark.parametrize("options", [b"", TIMESTAMPS], ids=["plain", "timestamps"])
@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("payload", [1, 1448, 1449, 1460, 1461, 2920, 2921, 14_600, 64_000])
def test_segments_of_the_assumed_size_are_what_was_on_the_wire(
    tmp_path: Path, payload: int, v6: bool, options: bytes
) -> None:
    size = 1460 - len(options)
    pieces = [min(size, payload - at) for at in range(0, payload, size)]
    wire = replay(tmp_path, [ethernet(tcp(n, options=options, v6=v6), 0x86DD if v6 else 0x0800) for n in pieces])
    frame = ethernet(tcp(payload, options=options, v6=v6), 0x86DD if v6 else 0x0800)
    computed = replay(tmp_path, [frame], assumed_mss=1460)
    assert computed.audit[0].seen[:2] == wire.audit[0].seen[:2]
    assert [computed.flows[name].tolist() for name in ("packets", "bytes")] == [
        wire.flows[name].tolist() for name in ("packets", "bytes")
    ]
    assert computed.super_packets
    assert computed.super_packets.computed[:2] == ((1, len(frame)) if len(pieces) > 1 else (0, 0))
    assert computed.super_packets.counted_once.packets == 0


def test_udp_is_not_cut(tmp_path: Path) -> None:
    batch = replay(tmp_path, [ethernet(udp(payload=bytes(9_500))), ethernet(tcp(9_000))], assumed_mss=1460)
    assert batch.super_packets
    assert (batch.super_packets.counted_once.packets, batch.super_packets.computed.packets) == (1, 1)
    assert batch.audit[0].seen.packets == 1 + 7


def test_each_interval_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file.pcap"
    path.write_bytes(pcap([Record(ethernet(tcp(5_000)), T0 + n * SECOND) for n in (0, 0, 1)]))
    batches = CaptureReplay([path], interval=1.0)
    assert [b.super_packets.counted_once.packets for b in batches if b.super_packets] == [2, 1]


def test_sizes_out_of_range(tmp_path: Path) -> None:
    for size in (0, 87, 65_496):
        with pytest.raises(InputError, match=f"an MSS of {size}"):
            CaptureReplay([tmp_path], assumed_mss=size)


def test_text_document_and_arrow_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = replay(tmp_path, [ethernet(tcp(14_600)), ethernet(udp(payload=bytes(5_000)))])
    path = str(tmp_path / "file.pcap")
    assert b"wiremeter.assumed_mss" not in batch.to_arrow().schema.metadata

    assert main(["replay", path]) == 0
    printed = capsys.readouterr().out
    assert (
        "2 packets longer than the link's MTU of 1,500 bytes: each was several on the wire and counts as one: "
        "--assume-mss computes TCP's" in printed
    )
    main(["replay", path, "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    (alarm,) = document["alarms"]
    assert (alarm["kind"], alarm["severity"], alarm["packets"]) == ("super_packets", "warning", 2)
    assert "assumed_mss" not in document["source"]

    main(["replay", path, "--assume-mss", "1460"])
    assert (
        "1 packets of TCP cut into segments of an assumed MSS of 1,460: packets and bytes are computed"
        in capsys.readouterr().out
    )
    main(["replay", path, "--format", "json", "--assume-mss", "1460"])
    document = json.loads(capsys.readouterr().out)
    assert document["source"]["assumed_mss"] == 1460
    assert {alarm["kind"] for alarm in document["alarms"]} == {"super_packets", "computed"}
    assert document["seen"]["packets"] == 11
    (computed,) = CaptureReplay([path], assumed_mss=1460)
    for table in (computed.to_arrow(), computed.transactions_to_arrow("dns")):
        assert isinstance(table, pa.Table)
        assert table.schema.metadata[b"wiremeter.assumed_mss"] == b"1460"


@pytest.mark.kernel
def test_the_kernel_engine_says_and_computes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replay(tmp_path, [ethernet(tcp(n)) for n in (100, 3_000, 20_000)])
    for options in ([], ["--assume-mss", "1460"]):
        printed = []
        for engine in ("host", "kernel"):
            assert main(["replay", str(tmp_path / "file.pcap"), "--engine", engine, *options]) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]
