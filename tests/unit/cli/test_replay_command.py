"""`wiremeter replay`: what it prints, where it says what was wrong, and that both engines print the same."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from backports import zstd

from captures.build import SECOND, Pcapng, Record, ethernet, pcap, udp, udp6
from unit.live_batches import make_batch
from wiremeter.captures.replay import CaptureReplay
from wiremeter.cli import replay
from wiremeter.cli.main import main
from wiremeter.flows.batch import Health
from wiremeter.settings import load_settings
from wiremeter.settings.catalogue import Replay

T0 = 1_700_000_000 * SECOND
FRAME = ethernet(udp())
ARP = ethernet(bytes(28), 0x0806)
MIXED = [
    Record(FRAME, T0),
    Record(ethernet(udp(2, 1, 53, 1000)), T0 + 1000),
    Record(ethernet(udp6(), None, (0x88A8, 5), (0x8100, 6)), T0 + 2000, wire=1500),
    Record(ARP, T0 + 3000),
    Record(FRAME[:20], T0 + 4000, wire=60),
    Record(b"short", T0 + 5000, wire=64),
]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.pcap"
    path.write_bytes(pcap(MIXED))
    return path


def test_the_document(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(mixed), "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    size = len(FRAME)
    flow = {"family": "ipv4", "protocol": 17, "vlan": None, "packets": 1, "bytes": size, "tcp_flags": 0}
    flow |= {"application": "unknown", "domain": None, "domain_source": None}
    document = json.loads(printed.out)
    expected = {
        "schema": 1,
        "source": {"kind": "capture", "files": [str(mixed)], "linktype": "EN10MB"},
        "seen": {"packets": 6, "bytes": 2 * size + 1500 + len(ARP) + 60 + 64},
        "families": {
            "ipv4": {"packets": 3, "bytes": 2 * size + 60},
            "ipv6": {"packets": 1, "bytes": 1500},
            "non_ip": {"packets": 1, "bytes": len(ARP)},
        },
        "protocols": {
            "ipv4": {"17": {"packets": 2, "bytes": 2 * size}, "unknown": {"packets": 1, "bytes": 60}},
            "ipv6": {"17": {"packets": 1, "bytes": 1500}},
        },
        "ethertypes": {"0x0806": {"packets": 1, "bytes": len(ARP)}},
        "unattributed": {
            "truncated_l2": {"packets": 1, "bytes": 64},
            "truncated_ip": {"packets": 1, "bytes": 60},
        },
        "flows": [
            flow
            | {"src_addr": "10.0.0.1", "src_port": 1000, "dst_addr": "10.0.0.2", "dst_port": 53}
            | {"first_ns": T0, "last_ns": T0},
            flow
            | {"src_addr": "10.0.0.2", "src_port": 53, "dst_addr": "10.0.0.1", "dst_port": 1000}
            | {"first_ns": T0 + 1000, "last_ns": T0 + 1000},
            flow
            | {"family": "ipv6", "vlan": 5, "bytes": 1500}
            | {"src_addr": "2001:db8::1", "src_port": 1000, "dst_addr": "2001:db8::2", "dst_port": 53}
            | {"first_ns": T0 + 2000, "last_ns": T0 + 2000},
        ],
        "dns": [],
        "tls": [],
        "quic": [],
        "http": [],
    }
    assert {key: document[key] for key in expected} == expected


def test_the_keys_of_the_document_are_in_the_order_of_the_reference(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["replay", str(mixed), "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    keys = ["source", "seen", "families", "protocols", "ethertypes", "unattributed", "flows"]
    kinds = ["dns", "tls", "quic", "http"]
    assert [key for key in document if key in {*keys, *kinds}] == [*keys, *kinds]
    flow = "family protocol src_addr src_port dst_addr dst_port vlan packets bytes first_ns last_ns tcp_flags"
    assert " ".join(document["flows"][0]) == f"{flow} application domain domain_source"
    main(["replay", str(mixed), "--format", "json", "--names", "none"])
    document = json.loads(capsys.readouterr().out)
    assert [key for key in document if key in {*keys, *kinds}] == keys
    assert " ".join(document["flows"][0]) == flow


def test_frames_without_a_usable_ethertype(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [(0, b""), (38, b"\x42\x42\x03"), (1500, b""), (38, b"\xff\xff"), (1501, b""), (0x600, b""), (0xFFFF, b"")]
    (tmp_path / "file").write_bytes(pcap([Record(ethernet(body, kind), T0, wire=60) for kind, body in frames]))
    assert main(["replay", str(tmp_path / "file"), "--format", "json"]) == 0
    ethertypes = json.loads(capsys.readouterr().out)["ethertypes"]
    assert {name: tally["packets"] for name, tally in ethertypes.items()} == {
        "0x0000": 1,
        "0x0600": 1,
        "0xffff": 1,
        "llc": 2,
        "none": 2,
    }


def test_a_v4_mapped_address_of_ipv6_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packet = bytearray(udp6())
    packet[8:24] = bytes(10) + b"\xff\xff\xc0\0\2\1"
    (tmp_path / "file").write_bytes(pcap([Record(ethernet(bytes(packet)), T0)]))
    main(["replay", str(tmp_path / "file"), "--format", "json"])
    (flow,) = json.loads(capsys.readouterr().out)["flows"]
    assert (flow["family"], flow["src_addr"]) == ("ipv6", "::ffff:192.0.2.1")


def test_the_text(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(mixed), "--top", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{mixed}: capture, EN10MB"
    assert lines[1] == "2023-11-14T22:13:20.000000000Z to 2023-11-14T22:13:20.000005000Z, 0.000005 s"
    assert lines[2] == "average 2.82 Gbit/s 1.20 Mpps"
    table = [line.split() for line in lines[4:-4]]
    assert table == [
        ["packets", "bytes"],
        ["seen", "6", "1764"],
        ["ipv4", "udp", "2", "98"],
        ["ipv4", "unknown", "1", "60"],
        ["ipv6", "udp", "1", "1500"],
        ["non_ip", "arp", "1", "42"],
        ["unattributed", "truncated_l2", "1", "64"],
        ["unattributed", "truncated_ip", "1", "60"],
    ]
    assert lines[-3:] == [
        "3 flows, the largest 1:",
        "  udp [2001:db8::1]:1000 > [2001:db8::2]:53 packets 1 bytes 1500 2.40 Gbit/s vlan 5",
        "",
    ]


def test_an_interval_prints_a_document_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(pcap([Record(FRAME, T0 + n * SECOND // 2) for n in range(5)]))
    assert main(["replay", str(tmp_path / "file"), "--format", "json", "--interval", "1s"]) == 0
    decoder, rest, documents = json.JSONDecoder(), capsys.readouterr().out, []
    while rest:
        document, end = decoder.raw_decode(rest)
        documents.append(document)
        rest = rest[end:].lstrip()
    assert [d["seen"]["packets"] for d in documents] == [2, 2, 1]
    assert documents[1]["source"] == {
        "kind": "capture",
        "files": [str(tmp_path / "file")],
        "linktype": "EN10MB",
        "start_ns": T0 + SECOND,
        "end_ns": T0 + 2 * SECOND,
    }


def test_a_filter_shows_its_flows_beside_the_whole(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(mixed), "--filter", "src port 53"]) == 0
    printed = capsys.readouterr().out
    assert "\nseen                                          6              1764\n" in printed
    assert (
        "filter src port 53: 1 of 3 flows\nmatched                                       1                49\n"
        in printed
    )
    assert "1 flows:\n  udp 10.0.0.2:53 > 10.0.0.1:1000 packets 1 bytes 49 " in printed
    main(["replay", str(mixed), "--format", "json", "--filter", "src port 53"])
    document = json.loads(capsys.readouterr().out)
    assert (document["seen"]["packets"], document["matched"]["packets"], len(document["flows"])) == (6, 1, 1)
    assert main(["replay", str(mixed), "--filter", "src port"]) == 2
    assert "filter" in capsys.readouterr().err


def test_conversations_join_both_directions(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(mixed), "--conversations", "--view", "flows"]) == 0
    assert "udp 10.0.0.1:1000 <> 10.0.0.2:53 there packets 1 bytes 49 " in capsys.readouterr().out
    main(["replay", str(mixed), "--conversations", "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    assert "flows" not in document
    assert [(c["local_addr"], c["tx"]["packets"], c["rx"]["packets"]) for c in document["conversations"]] == [
        ("10.0.0.1", 1, 1),
        ("2001:db8::1", 1, 0),
    ]


def test_the_order_of_flows(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key, first in (("bytes", 1500), ("source", 49)):
        main(["replay", str(mixed), "--format", "json", "--sort", key])
        assert json.loads(capsys.readouterr().out)["flows"][0]["bytes"] == first
    main(["replay", str(mixed), "--sort", "source", "--top", "1", "--services", "--bytes"])
    printed = capsys.readouterr().out
    assert "3 flows, by source the first 1:\n  udp 10.0.0.1:1000 > 10.0.0.2:domain" in printed
    assert "average 353 MB/s" in printed


DNS_QUESTION = bytes.fromhex("1234 0100 0001 0000 0000 0000 03777777 076578616d706c65 03636f6d 00 0001 0001")
DNS_ANSWER = bytes.fromhex("1234 8180 0001 0001 0000 0000 03777777 076578616d706c65 03636f6d 00 0001 0001") + (
    bytes.fromhex("c00c 0001 0001 0000003c 0004 0a000003")
)


@pytest.fixture
def named(tmp_path: Path) -> Path:
    path = tmp_path / "named.pcap"
    asked, answered = ethernet(udp(1, 2, 1000, 53, DNS_QUESTION)), ethernet(udp(2, 1, 53, 1000, DNS_ANSWER))
    then = ethernet(udp(1, 3, 2000, 9000))
    path.write_bytes(pcap([Record(asked, T0), Record(answered, T0 + 1_000_000), Record(then, T0 + SECOND)]))
    return path


@pytest.mark.parametrize(
    ("view", "line"),
    [
        ("flows", "3 flows:"),
        ("applications", "2 applications:"),
        ("domains", "2 domains:"),
        ("dns", "1 different DNS questions:"),
    ],
)
def test_a_view_is_one_list_and_without_one_there_are_all(
    named: Path, capsys: pytest.CaptureFixture[str], view: str, line: str
) -> None:
    heads = {"3 flows:", "2 applications:", "2 domains:", "1 different DNS questions:", "1 dns"}
    assert main(["replay", str(named)]) == 0
    assert heads <= set(capsys.readouterr().out.splitlines())
    assert main(["replay", str(named), "--view", view]) == 0
    assert heads & set(capsys.readouterr().out.splitlines()) == {line}


def test_sums_by_domain_and_of_dns(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["replay", str(named), "--top", "1"])
    assert "(others) packets" in capsys.readouterr().out
    main(["replay", str(named)])
    printed = capsys.readouterr().out
    assert "www.example.com packets" in printed
    assert "dns www.example.com A queries 1 retries 0 unanswered 0 NOERROR 1 median 1.00 ms max 1.00 ms" in printed


def test_intervals_end_with_a_table_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(pcap([Record(FRAME, T0 + n * SECOND // 2) for n in (0, 1, 2, 8)]))
    assert main(["replay", str(tmp_path / "file"), "--interval", "1s", "--filter", "udp"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()[-5:-1]]
    assert table == [
        ["interval", "from", "rate", "packets", "flows"],
        ["2023-11-14T22:13:20.000000000Z", "784", "bit/s", "2", "pps", "1"],
        ["2023-11-14T22:13:21.000000000Z", "392", "bit/s", "1", "pps", "1"],
        ["2023-11-14T22:13:24.000000000Z", "392", "bit/s", "1", "pps", "1"],
    ]


def test_pictures_on_a_terminal_that_can_show_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(pcap([Record(FRAME, T0 + n * SECOND // 2) for n in (0, 1, 2, 8)]))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["replay", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "\nrate ▇" in printed
    assert " peak " in printed
    assert main(["replay", str(path), "--interval", "1s"]) == 0
    assert "1 " + "█" * 40 in capsys.readouterr().out
    monkeypatch.setenv("TERM", "dumb")
    assert main(["replay", str(path)]) == 0
    assert "▇" not in capsys.readouterr().out


def test_flows_are_written_beside_what_is_printed(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = mixed.parent / "flows.jsonl"
    assert main(["replay", str(mixed), "--write", str(out), "--top", "1", "--filter", "ip"]) == 0
    assert [json.loads(line)["src_addr"] for line in out.open()] == ["10.0.0.1", "10.0.0.2"]
    assert main(["replay", str(mixed), "--write", str(out.with_suffix(".xls"))]) == 2
    assert "must end in .parquet, .csv or .jsonl" in capsys.readouterr().err


def test_a_file_that_ends_early_is_told_on_standard_error_and_in_the_document(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed.write_bytes(mixed.read_bytes()[:-1])
    assert main(["replay", str(mixed), "--format", "json"]) == 0
    printed = capsys.readouterr()
    end = mixed.stat().st_size
    problem = f"ends in the middle of a record, at byte {end}; what came before is counted"
    assert printed.err == f"wiremeter: {mixed}: {problem}\n"
    document = json.loads(printed.out)
    assert document["source"]["problems"] == [{"file": str(mixed), "problem": problem}]
    assert document["seen"]["packets"] == 5


def test_what_is_wrong_with_the_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "nothing")]) == 2
    assert "nothing: No such file or directory" in capsys.readouterr().err
    for flag, value in (("--interval", "0"), ("--interval", "1d"), ("--top", "-1"), ("--engine", "other")):
        assert main(["replay", flag, value, "file"]) == 2
        assert f"{flag} is '{value}', expected" in capsys.readouterr().err
    assert main(["replay"]) == 2
    assert capsys.readouterr().err == "wiremeter: no capture file is given: name one, or - for standard input\n"


@pytest.mark.parametrize(("text", "seconds"), [("1", 1), ("5s", 5), ("250ms", 0.25), ("2m", 120), ("1.5h", 5400)])
def test_times(text: str, seconds: float) -> None:
    assert load_settings({"interval": text}, Replay).interval == seconds


def test_standard_input(mixed: Path) -> None:
    command = [sys.executable, "-m", "wiremeter.cli.main", "replay", "-", "--format", "json"]
    with mixed.open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, check=True)
    piped = subprocess.run(command, input=mixed.read_bytes(), capture_output=True, check=True)
    assert done.stdout == piped.stdout
    assert json.loads(done.stdout)["source"]["files"] == ["-"]


def gzip_flushed() -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    deflate = zlib.compressobj(wbits=31)
    return lambda data: deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH), deflate.flush


def zstd_flushed() -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    encoder = zstd.ZstdCompressor()
    return lambda data: encoder.compress(data, encoder.FLUSH_BLOCK), encoder.flush


def next_document(stream: IO[bytes]) -> dict[str, Any]:
    """The document whose last line was printed and flushed; reading waits for no further one."""
    text = ""
    while True:
        text += stream.readline().decode()
        with contextlib.suppress(json.JSONDecodeError):
            loaded: dict[str, Any] = json.loads(text)
            return loaded


@pytest.mark.parametrize("compressor", [lambda: (bytes, bytes), gzip_flushed, zstd_flushed])
def test_intervals_come_out_of_a_live_pipe_as_they_end(
    compressor: Callable[[], tuple[Callable[[bytes], bytes], Callable[[], bytes]]],
) -> None:
    packed, end = compressor()
    content = pcap([Record(FRAME, T0 + n * SECOND) for n in range(4)])
    command = [sys.executable, "-m", "wiremeter.cli.main", "replay", "-", "--interval", "1s", "--format", "json"]
    with subprocess.Popen([*command, "--names", "none"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as replaying:
        assert replaying.stdin
        assert replaying.stdout
        replaying.stdin.write(packed(content))
        replaying.stdin.flush()
        for _ in range(3):  # the fourth may go on
            assert next_document(replaying.stdout)["seen"]["packets"] == 1
        replaying.stdin.write(end())
        replaying.stdin.close()
        assert json.loads(replaying.stdout.read())["seen"]["packets"] == 1


def test_a_progress_bar_only_on_a_terminal(
    mixed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Replay(files=(str(mixed),))
    with replay._progress(settings) as draw:
        assert draw is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with replay._progress(settings) as draw:
        assert draw is not None
    for changed in ({"no_progress": True}, {"files": ("-",)}, {"files": (str(mixed), str(mixed.parent))}):
        with replay._progress(dataclasses.replace(settings, **changed)) as draw:
            assert draw is None


def test_the_progress_bar_is_drawn_when_reading_takes_long(
    mixed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replay, "_BAR_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["replay", str(mixed), "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert "mixed.pcap" in printed.err
    json.loads(printed.out)


# --- the kernel's programs

PROTOCOLS = (0x0800, 0x86DD, 0x0806, 0x8100, 1, 3, 4)
PAYLOADS = (udp(), udp6(), FRAME, b"", b"\xff\xff")
BIG = ethernet(udp(payload=bytes(4000)))
ODD: list[tuple[str, int, list[Record]]] = [
    ("mixed", 1, MIXED),
    ("every length", 1, [Record(ethernet(p)[:n], T0, wire=90) for p in (udp(), udp6()) for n in range(70)]),
    ("long frames", 1, [Record(BIG, T0), Record(ethernet(udp(payload=bytes(60_000))), T0 + 1)]),
    ("longer than any test run", 1, [Record(ethernet(bytes(200_000), 0x1234), T0), Record(FRAME + bytes(100_000), T0)]),
    ("times that go back", 1, [Record(FRAME, T0 + n * 1000) for n in (5, 3, 9, 1)] + [Record(BIG, T0)]),
    ("a flow in both entries", 1, [Record(FRAME, T0), Record(BIG, T0 + 1000), Record(FRAME, T0 + 2000)]),
    ("no length on the wire", 1, [Record(FRAME, T0, wire=0), Record(FRAME, T0)]),
    ("less on the wire than there is", 1, [Record(FRAME, T0, wire=20)]),
    ("tags", 1, [Record(ethernet(udp(), None, *[(0x8100, n)] * n), T0) for n in range(1, 7)]),
    ("lengths", 1, [Record(ethernet(b, n), T0) for n in (0, 38, 1501) for b in (b"", b"\xff", b"\xff\xff", b"BB")]),
    ("raw", 101, [Record(udp(), T0), Record(udp6(), T0, wire=900), Record(b"\xf0", T0), Record(b"", T0)]),
    ("cooked", 113, [Record(bytes(14) + struct.pack(">H", n) + b, T0) for n in PROTOCOLS for b in PAYLOADS]),
    ("loopback", 0, [Record(struct.pack("<I", n) + b, T0) for n in (2, 24, 7) for b in (udp(), udp6(), b"")]),
    ("within the pseudo header", 113, [Record(bytes(n), T0) for n in range(17)]),
    ("many flows", 1, [Record(ethernet(udp(n % 5000)), T0 + n * 1000) for n in range(6000)]),
]


@pytest.mark.kernel
@pytest.mark.parametrize(("linktype", "records"), [row[1:] for row in ODD], ids=[row[0] for row in ODD])
@pytest.mark.parametrize("options", [["--format", "json"], []], ids=["json", "text"])
def test_both_engines_print_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], linktype: int, records: list[Record], options: list[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(pcap(records, linktype, nanoseconds=True))
    printed = []
    for engine in ("host", "kernel"):
        assert main(["replay", str(path), "--engine", engine, "--flow-table", "4096", *options]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


@pytest.mark.kernel
def test_frames_that_no_test_run_takes_are_told(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(mixed), "--engine", "kernel"]) == 0
    assert capsys.readouterr().err == "wiremeter: frames counted by the host engine, of under 14 bytes: 1\n"


@pytest.mark.kernel
def test_intervals_are_the_same_on_both_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    file = Pcapng().interface(resolution=9).interface(101, resolution=3)
    for n in range(20):
        file.packet(FRAME, T0 + n * SECOND // 3).packet(udp6(), T0 // 10**6 + n * 300, interface=1)
    path.write_bytes(file.bytes)
    printed = []
    for engine in ("host", "kernel"):
        assert main(["replay", str(path), "--engine", engine, "--interval", "1", "--format", "json"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_the_kernel_engine_says_what_it_lacks(mixed: Path) -> None:
    if os.geteuid() != 0:
        assert main(["replay", str(mixed), "--engine", "kernel"]) == 1
        return
    unprivileged = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]
    command = [sys.executable, "-m", "wiremeter.cli.main", "replay", str(mixed), "--engine", "kernel"]
    done = subprocess.run(unprivileged + command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "CAP_BPF" in done.stderr


@pytest.mark.parametrize("options", [["--format", "json"], []], ids=["json", "text"])
def test_lost_payloads_are_told_by_the_interval_that_lost_them(
    mixed: Path, options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losing = [make_batch([], mode="capture", health=Health(lost_payloads={"tls": lost})) for lost in (5, 5, 7)]
    monkeypatch.setattr(CaptureReplay, "_batches", lambda _: iter(losing))
    assert main(["replay", str(mixed), "--interval", "1", *options]) == 0
    told = re.findall(r"(\d+) payloads lost", capsys.readouterr().out)
    assert told == ["5", "2"]


def test_the_document_has_hosts_where_asked_for(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(mixed), "--view", "hosts", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert sorted(host["host"] for host in document["hosts"]) == ["10.0.0.1", "10.0.0.2", "2001:db8::1"]
    assert document["hosts_other"]["packets"] == 0
