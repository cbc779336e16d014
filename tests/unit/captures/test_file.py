"""Reading capture files: formats, byte orders, times, link types, damage."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import lz4.frame
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from captures.build import SECOND, Pcapng, Record, ethernet, pcap, udp
from wiremeter.captures.file import CaptureFile
from wiremeter.datapath.host import LINK_ETHERNET
from wiremeter.errors import InputError
from wiremeter.flows.columns import ETHERTYPE_LLC, ETHERTYPE_NONE

FRAME = ethernet(udp())
T0 = 1_700_000_000 * SECOND
RECORDS = [Record(FRAME, T0 + n * 1001, wire=60 + n) for n in range(5)]


class Read(NamedTuple):
    """What a file held."""

    frames: list[tuple[bytes, int, int, int]]  # bytes from the network or Ethernet header on, wire, time, link
    problem: str | None
    linktypes: tuple[int, ...]


def read(path: Path | str) -> Read:
    frames = []
    with CaptureFile(str(path)) as file:
        for batch in file.frames():
            for at, captured, *others in zip(*(column.tolist() for column in batch[1:6]), strict=True):
                frames.append((bytes(batch.data[at : at + captured]), *others))
        return Read(frames, file.problem, file.linktypes)


@pytest.fixture
def read_bytes(tmp_path: Path) -> Callable[[bytes], Read]:
    def write_and_read(content: bytes) -> Read:
        (tmp_path / "file").write_bytes(content)
        return read(tmp_path / "file")

    return write_and_read


Reader = Callable[[bytes], Read]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_pcap_in_both_byte_orders_and_resolutions(read_bytes: Reader, order: str, nanoseconds: bool) -> None:
    found = read_bytes(pcap(RECORDS, order=order, nanoseconds=nanoseconds))
    tick = 1 if nanoseconds else 1000
    assert found.frames == [(FRAME, r.wire_bytes, r.time_ns // tick * tick, LINK_ETHERNET) for r in RECORDS]
    assert (found.problem, found.linktypes) == (None, (1,))


def test_the_modified_pcap_has_more_before_each_frame(read_bytes: Reader) -> None:
    for order in "<>":
        content = struct.pack(f"{order}IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 262144, 1)
        for r in RECORDS:
            seconds, us = r.time_ns // SECOND, r.time_ns % SECOND // 1000
            content += struct.pack(f"{order}IIIIIHBx", seconds, us, len(r.data), r.wire_bytes, 3, 0x0800, 4) + r.data
        found = read_bytes(content)
        assert found.frames == [(FRAME, r.wire_bytes, r.time_ns // 1000 * 1000, LINK_ETHERNET) for r in RECORDS]
        assert (
            read_bytes(content[: 24 + 20]).problem
            == "ends in the middle of a record, at byte 44; what came before is counted"
        )


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "nanoseconds"), [(0x1C0001AC, True), (0x1C0001AB, False)])
def test_the_pcap_of_ixia_has_a_longer_header(read_bytes: Reader, order: str, magic: int, nanoseconds: bool) -> None:
    usual = pcap(RECORDS, order=order, nanoseconds=nanoseconds)
    lcap = struct.pack(f"{order}I", magic) + usual[4:24] + struct.pack(f"{order}I", len(usual) - 24) + usual[24:]
    assert read_bytes(lcap) == read_bytes(usual)


@pytest.mark.parametrize(("major", "minor"), [(2, 0), (2, 2), (543, 0)])
def test_old_versions_have_the_lengths_the_other_way_round(read_bytes: Reader, major: int, minor: int) -> None:
    usual = pcap(RECORDS)
    old = usual[:4] + struct.pack("<HH", major, minor) + usual[8:24]
    for n in range(len(RECORDS)):
        record = usual[24 + n * (16 + len(FRAME)) :][: 16 + len(FRAME)]
        old += record[:8] + record[12:16] + record[8:12] + record[16:]
    assert read_bytes(old) == read_bytes(usual)


def test_version_2_3_has_them_in_either_order(read_bytes: Reader) -> None:
    usual = pcap(RECORDS)
    old = bytearray(usual[:4] + struct.pack("<HH", 2, 3) + usual[8:])
    at = 24 + 16 + len(FRAME)
    old[at + 8 : at + 16] = old[at + 12 : at + 16] + old[at + 8 : at + 12]
    assert read_bytes(bytes(old)) == read_bytes(usual)


def test_a_pcap_without_frames_has_its_link_type(read_bytes: Reader) -> None:
    assert read_bytes(pcap([])) == Read([], None, (1,))


def test_a_pcap_whose_frames_have_a_check_sequence(read_bytes: Reader) -> None:
    assert len(read_bytes(pcap(RECORDS, linktype=1 | 1 << 26 | 4 << 28)).frames) == 5


@pytest.mark.parametrize("order", "<>")
def test_pcapng_blocks_of_every_kind(read_bytes: Reader, order: str) -> None:
    file = Pcapng(order).interface(snaplen=40).interface(101, resolution=9)
    file.packet(FRAME, 1_000_001, wire=1500).packet(udp(), 7, interface=1)
    file.old_packet(FRAME, 2_000_002).simple_packet(FRAME[:40], wire=len(FRAME))
    file.block(4, b"names").block(5, b"statistics").block(0x80000001, bytes(999))
    assert read_bytes(file.bytes) == Read(
        [
            (FRAME, 1500, 1_000_001_000, LINK_ETHERNET),
            (udp(), len(udp()), 7, 0x0800),
            (FRAME, len(FRAME), 2_000_002_000, LINK_ETHERNET),
            (FRAME[:40], len(FRAME), 0, LINK_ETHERNET),
        ],
        None,
        (1, 101),
    )


@pytest.mark.parametrize(
    ("resolution", "ticks", "time_ns"),
    [
        (None, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
        (0, 1_700_000_000, 1_700_000_000 * SECOND),
        (3, 1_700_000_000_123, 1_700_000_000_123_000_000),
        (9, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (12, 1_700_000_123_456_789, 1_700_000_123_456),
        (19, (1 << 64) - 1, ((1 << 64) - 1) // 10**10),
        (0x80, 5, 5 * SECOND),
        (0x80 + 1, 5, 2_500_000_000),
        (0x80 + 30, (7 << 30) + 1, 7 * SECOND),  # 0.93 ns, rounded down
        (0x80 + 32, (3 << 32) + (1 << 31), 3_500_000_000),
        (0x80 + 40, (3 << 40) + (1 << 38), 3_250_000_000),
        (0x80 + 63, (1 << 63) + (1 << 62), 1_500_000_000),
        (0x80 + 64, 1 << 63, 0),
        (0x80 + 127, 1 << 63, 0),
        (0, 1 << 63, (1 << 64) - 1),  # beyond what 64 bits of nanoseconds can say
    ],
)
def test_pcapng_times_by_resolution(read_bytes: Reader, resolution: int | None, ticks: int, time_ns: int) -> None:
    (frame,) = read_bytes(Pcapng().interface(resolution=resolution).packet(FRAME, ticks).bytes).frames
    assert frame[2] == time_ns


@pytest.mark.parametrize(
    ("offset", "time_ns"), [(100, 107 * SECOND), (-3, 4 * SECOND), (-8, 0), (1 << 62, (1 << 64) - 1)]
)
@pytest.mark.parametrize("order", "<>")
def test_pcapng_time_offset(read_bytes: Reader, offset: int, time_ns: int, order: str) -> None:
    (frame,) = read_bytes(Pcapng(order).interface(offset=offset).packet(FRAME, 7_000_000).bytes).frames
    assert frame[2] == time_ns


def test_a_new_section_has_its_own_byte_order_and_interfaces(read_bytes: Reader) -> None:
    file = Pcapng("<").interface().packet(FRAME).section(">").interface(101, resolution=9).packet(udp(), 9)
    assert [frame[2:] for frame in read_bytes(file.bytes).frames] == [(0, LINK_ETHERNET), (9, 0x0800)]


def test_blocks_of_no_interest_may_be_of_any_size(read_bytes: Reader) -> None:
    file = Pcapng().block(0x0BAD, bytes(5 << 20)).interface().block(0x0BAD, bytes(3 << 20)).packet(FRAME)
    assert len(read_bytes(file.bytes).frames) == 1


# --- link types

IP4, IP6 = udp(), b"\x60" + bytes(60)


def cooked(protocol: int, payload: bytes, hardware: int = 1) -> bytes:
    return struct.pack(">HHHQH", 0, hardware, 6, 0, protocol) + payload


def cooked2(protocol: int, payload: bytes, hardware: int = 1) -> bytes:
    return struct.pack(">HHIHBBQ", protocol, 0, 3, hardware, 0, 6, 0) + payload


@pytest.mark.parametrize(
    ("linktype", "frame", "header", "link"),
    [
        *((number, IP4, 0, 0x0800) for number in (101, 12, 14, 228)),
        *((number, IP6, 0, 0x86DD) for number in (101, 12, 14, 229)),
        (101, b"\xff\x03", 0, ETHERTYPE_NONE),
        (101, b"", 0, ETHERTYPE_NONE),
        (228, IP6, 0, 0x0800),
        (0, struct.pack("<I", 2) + IP4, 4, 0x0800),
        (0, struct.pack(">I", 2) + IP4, 4, 0x0800),
        *((0, struct.pack(order + "I", family) + IP6, 4, 0x86DD) for family in (24, 28, 30) for order in "<>"),
        (0, struct.pack(">HH", 2, 0) + IP4, 4, 0x0800),
        (0, struct.pack("<HH", 0, 2) + IP4, 4, 0x0800),
        (0, struct.pack("<I", 0x86DD) + IP6, 4, 0x86DD),
        (0, struct.pack("<I", 7) + b"OSI", 4, ETHERTYPE_NONE),
        (108, struct.pack(">I", 24) + IP6, 4, 0x86DD),
        (113, cooked(0x0800, IP4), 16, 0x0800),
        (113, cooked(0x0806, bytes(28)), 16, 0x0806),
        (113, cooked(0x8100, b"\0\7\x08\0" + IP4), 16, 0x8100),
        (113, cooked(3, ethernet(IP4)), 16, LINK_ETHERNET),
        (113, cooked(4, b"\x42\x42\x03"), 16, ETHERTYPE_LLC),
        (113, cooked(1, b"\xff\xff"), 16, ETHERTYPE_NONE),
        (113, cooked(1536, b"\xff\xff"), 16, ETHERTYPE_NONE),
        (113, cooked(0x0800, IP4, hardware=824), 16, ETHERTYPE_NONE),
        (276, cooked2(0x86DD, IP6), 20, 0x86DD),
        (276, cooked2(4, b"\x42\x42\x03"), 20, ETHERTYPE_LLC),
    ],
)
def test_what_a_frame_begins_with(read_bytes: Reader, linktype: int, frame: bytes, header: int, link: int) -> None:
    (found,) = read_bytes(pcap([Record(frame, wire=1000)], linktype)).frames
    assert found == (frame[header:], 1000, T0, link)


@pytest.mark.parametrize(("linktype", "header_bytes"), [(0, 4), (108, 4), (113, 16), (276, 20)])
def test_a_frame_within_its_pseudo_header_is_no_bytes_of_ethernet(
    read_bytes: Reader, linktype: int, header_bytes: int
) -> None:
    found = read_bytes(pcap([Record(bytes(n), wire=90) for n in range(header_bytes)], linktype)).frames
    assert found == [(b"", 90, T0, LINK_ETHERNET)] * header_bytes


@pytest.mark.parametrize(
    ("linktype", "name"), [(127, "radiotap"), (105, "IEEE802_11, 105"), (9, "PPP, 9"), (3000, "3000")]
)
def test_other_link_types_are_refused_by_name(read_bytes: Reader, linktype: int, name: str) -> None:
    for content in (pcap([], linktype), Pcapng().interface(linktype).packet(FRAME).bytes):
        with pytest.raises(InputError, match=name):
            read_bytes(content)


def test_an_interface_of_another_link_type_does_not_matter_without_frames(read_bytes: Reader) -> None:
    assert len(read_bytes(Pcapng().interface(127).interface().packet(FRAME, interface=1).bytes).frames) == 1


# --- where the bytes come from


@pytest.mark.parametrize("content", [pcap(RECORDS), Pcapng().interface().packet(FRAME).packet(FRAME).bytes])
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd.compress, lz4.frame.compress])
def test_compressed_files(read_bytes: Reader, content: bytes, compress: Callable[[bytes], bytes]) -> None:
    assert read_bytes(compress(content)) == read_bytes(content)


def test_gzip_of_several_members(read_bytes: Reader) -> None:
    content = pcap(RECORDS)
    assert read_bytes(gzip.compress(content[:100]) + gzip.compress(content[100:])) == read_bytes(content)


def test_gzip_that_ends_early(read_bytes: Reader) -> None:
    content = pcap([Record(ethernet(udp(payload=os.urandom(1000)))) for _ in range(500)])
    found = read_bytes(gzip.compress(content)[:-100_000])
    inflated = zlib.decompressobj(31).decompress(gzip.compress(content)[:-100_000])
    assert len(found.frames) == (len(inflated) - 24) // (16 + len(ethernet(udp(payload=bytes(1000)))))
    assert found.problem == "the compressed data end early; what came before is counted"


def test_gzip_that_is_damaged(read_bytes: Reader) -> None:
    packed = bytearray(gzip.compress(pcap(RECORDS)))
    packed[-6] ^= 0xFF  # the checksum
    found = read_bytes(bytes(packed))
    assert len(found.frames) == len(RECORDS)
    assert "damaged" in (found.problem or "")


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_a_pipe_that_gives_few_bytes_at_a_time(tmp_path: Path, step: int) -> None:
    content = pcap(RECORDS) if step > 1 else gzip.compress(Pcapng().interface().packet(FRAME, 5).bytes)
    (tmp_path / "file").write_bytes(content)
    os.mkfifo(tmp_path / "pipe")

    def feed() -> None:
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            for at in range(0, len(content), step):
                pipe.write(content[at : at + step])

    writer = threading.Thread(target=feed)
    writer.start()
    assert read(tmp_path / "pipe") == read(tmp_path / "file")
    writer.join()


def test_more_frames_than_one_read_brings(read_bytes: Reader) -> None:
    records = [Record(ethernet(udp(sport=n % 65536)), T0 + n * 1000) for n in range(40_000)]
    found = read_bytes(pcap(records))
    assert [(frame[0], frame[2]) for frame in found.frames] == [(r.data, r.time_ns) for r in records]


def test_a_frame_of_the_greatest_length(read_bytes: Reader) -> None:
    data = ethernet(bytes(262144 - 14), 0x1234)
    records = [Record(FRAME), Record(data), Record(data), Record(FRAME)]
    assert [frame[0] for frame in read_bytes(pcap(records)).frames] == [r.data for r in records]


# --- files that end early, and damage


@given(data=st.data())
def test_every_prefix_holds_the_frames_that_are_whole(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "prefix"
    if data.draw(st.booleans()):
        whole, ends, head = pcap(RECORDS), [24 + (16 + len(FRAME)) * n for n in range(6)], 24
    else:
        file = Pcapng().interface()
        head, ends = 12, [28, len(file.bytes)]
        for _ in range(5):
            ends.append(len(file.packet(FRAME).bytes))
        whole = file.bytes
    length = data.draw(st.integers(head, len(whole)))
    path.write_bytes(whole[:length])
    found = read(path)
    assert len(found.frames) == max(0, sum(end <= length for end in ends) - (1 if head == 24 else 2))
    assert (found.problem is None) == (length in ends)
    if found.problem:
        assert found.problem == f"ends in the middle of a record, at byte {length}; what came before is counted"


@pytest.mark.parametrize("length", range(24))
def test_a_file_that_ends_within_its_header_is_refused(read_bytes: Reader, length: int) -> None:
    with pytest.raises(InputError, match="is empty" if not length else f"ends after {length} bytes"):
        read_bytes(pcap([])[:length])


def corrupt(content: bytes, at: int, value: int) -> bytes:
    return content[:at] + struct.pack("<I", value) + content[at + 4 :]


NG = Pcapng().interface().packet(FRAME).packet(FRAME).bytes
NG_SECOND = len(Pcapng().interface().packet(FRAME).bytes)


@pytest.mark.parametrize(
    ("content", "frames", "problem"),
    [
        (corrupt(pcap(RECORDS), 24 + 2 * (16 + len(FRAME)) + 8, 262145), 2, "a length of 262145 is impossible"),
        (corrupt(NG, NG_SECOND + 4, 8), 1, "a length of 8 is impossible"),
        (corrupt(NG, NG_SECOND + 4, 17), 1, "a length of 17 is impossible"),
        (corrupt(NG, NG_SECOND + 4, 28), 1, "a length of 28 is impossible"),
        (corrupt(NG, NG_SECOND + 4, (1 << 20) + 4), 1, "a length of 1048580 is impossible"),
        (corrupt(NG, len(NG) - 4, 100), 1, "is impossible"),
        (corrupt(NG, NG_SECOND + 8, 1), 1, "a frame of interface 1, which has no description"),
        (corrupt(NG, NG_SECOND + 20, 10_000), 1, "a length of 10000 is impossible"),
        (NG + Pcapng().bytes[:8] + bytes(20), 2, "a section of byte order 0x00000000"),
        (corrupt(NG + Pcapng().block(99, b"").bytes[28:], len(NG) + 8, 3), 2, "is impossible"),
        (
            corrupt(NG + Pcapng().bytes, len(NG) + 8, 0x1A2B),
            2,
            f"at byte {len(NG)}: a section of byte order 0x2b1a0000",
        ),
    ],
)
def test_damage_ends_a_file_and_what_came_before_counts(
    read_bytes: Reader, content: bytes, frames: int, problem: str
) -> None:
    found = read_bytes(content)
    assert len(found.frames) == frames
    assert problem in (found.problem or "")


def test_more_interfaces_than_are_kept(read_bytes: Reader) -> None:
    interface = Pcapng().interface().bytes[28:]
    content = Pcapng().bytes + interface * 4096
    assert read_bytes(content + Pcapng().packet(FRAME, interface=4095).bytes[28:]).problem is None
    assert "more than 4096 interfaces" in (read_bytes(content + interface).problem or "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x01\x02\x03\x04\x05", "is no capture file: it begins with 0x01020304; give a pcap or pcapng file"),
        (b"hello, this is no capture", "is no capture file but text .*; `tcpdump -w -` writes one into a pipe"),
        (b"snoop\0\0\0" + bytes(20), "is a snoop capture .RFC 1761., which is not read: convert it"),
        (b"\x7fver" + bytes(20), "is an EtherPeek or OmniPeek capture"),
        (b"RTSS" + bytes(20), "is a Network Monitor 1 capture"),
        (b"GMBU" + bytes(20), "is a Network Monitor 2 capture"),
        (b"iptrace 2.0", "is an AIX iptrace capture"),
        (b"TRSNIFF data", "is a Sniffer"),
        (b"PK\x03\x04" + bytes(20), "is a zip archive: unpack it first"),
        (b"\x1f\x9d\x90" + bytes(20), "is compressed with compress"),
        (struct.pack("<I", 0xA1B234CD) + bytes(20), "a pcap variant .Mesquita's. that libpcap does not read either"),
        (struct.pack(">I", 0xA12B3C4D) + bytes(20), "a pcap variant .Navtel's."),
        (Pcapng().bytes.replace(b"\r\n", b"\n"), "pcapng whose line ends a transfer as text has changed"),
        (Pcapng().bytes.replace(b"\n", b"\r\n"), "pcapng whose line ends a transfer as text has changed"),
        (corrupt(Pcapng().bytes, 8, 0x3C4D1A2B), "its byte-order magic is 0x2b1a4d3c, which is neither byte order"),
        (bytes.fromhex("28b52ffd") + bytes(20), "the compressed data end early, before any frame"),
        (gzip.compress(b"", mtime=0)[:-3], "the compressed data end early, before any frame"),
        (gzip.compress(pcap([]), mtime=0)[:12] + bytes(30), "the compressed data are damaged .*, before any frame"),
        (corrupt(pcap([]), 4, 0x00020001), "version 1.2 of its format"),
        (corrupt(Pcapng().bytes, 12, 0x00000002), "version 2.0 of its format"),
    ],
)
def test_what_is_no_capture_is_refused(read_bytes: Reader, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_bytes(content)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory"):
        CaptureFile(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="directory"):
        CaptureFile(str(tmp_path))
    with pytest.raises(InputError, match=r"odd\\xff: No such file"):
        CaptureFile("odd\udcff")
