"""Flows as files: the same rows in Parquet, CSV and JSON lines."""

from __future__ import annotations

import csv
import ipaddress
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from captures.build import SECOND, Record, ethernet, pcap, udp, udp6
from wiremeter.captures.replay import CaptureReplay
from wiremeter.errors import InputError
from wiremeter.flows.filter import compile_filter
from wiremeter.reports.selection import EVERYTHING, Selection
from wiremeter.sinks.flow_files import FlowFile

T0 = 1_700_000_000 * SECOND


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "file.pcap"
    frames = [ethernet(udp(1)), ethernet(udp(1)), ethernet(udp6(), None, (0x8100, 7)), ethernet(udp(2))]
    path.write_bytes(pcap([Record(frame, T0 + n * SECOND // 2) for n, frame in enumerate(frames)], nanoseconds=True))
    return path


def written(path: Path, capture: Path, selection: Selection = EVERYTHING, **options: Any) -> Path:
    with FlowFile(str(path), selection) as file:
        for batch in CaptureReplay([capture], interval=1.0, **options):
            file.write(batch)
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The columns that all formats have, as text."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        rows = parquet.read_table(path).to_pylist()
        for row in rows:
            for side in ("src_addr", "dst_addr"):
                address = ipaddress.IPv6Address(row[side])
                row[side] = address.ipv4_mapped or address
            row["family"] = f"ipv{row['family']}"
    names = ("family", "protocol", "src_addr", "src_port", "dst_addr", "dst_port", "vlan", "packets", "bytes")
    return [{name: "" if row[name] is None else str(row[name]) for name in names} for row in rows]


def test_all_formats_hold_the_same(tmp_path: Path, capture: Path) -> None:
    found = [rows_of(written(tmp_path / f"out{e}", capture)) for e in (".parquet", ".csv", ".jsonl")]
    assert found[0] == found[1] == found[2]
    assert [row["packets"] for row in found[0]] == ["2", "1", "1"]
    assert {row["vlan"] for row in found[0]} == {"", "7"}


def test_rows_have_their_interval(tmp_path: Path, capture: Path) -> None:
    rows = [json.loads(line) for line in written(tmp_path / "out.jsonl", capture).read_text().splitlines()]
    assert [(row["start_ns"] - T0, row["end_ns"] - T0) for row in rows] == [(0, SECOND)] + [(SECOND, 2 * SECOND)] * 2
    assert list(rows[0])[:3] == ["start_ns", "end_ns", "family"]
    table = parquet.read_table(written(tmp_path / "out.parquet", capture))
    assert [time.value - T0 for time in table["start_time"]] == [0, SECOND, SECOND]
    assert table.schema.metadata == {b"wiremeter.mode": b"capture"}


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_only_what_the_filter_lets_through(tmp_path: Path, capture: Path, ending: str) -> None:
    selection = Selection(sort="key", limit=None, filter=compile_filter("ip6"))
    assert [row["family"] for row in rows_of(written(tmp_path / f"out{ending}", capture, selection))] == ["ipv6"]


def test_computed_amounts_say_so(tmp_path: Path, capture: Path) -> None:
    for ending in (".csv", ".jsonl"):
        assert "assumed_mss" not in written(tmp_path / f"out{ending}", capture).read_text()
    rows = [json.loads(line) for line in written(tmp_path / "out.jsonl", capture, assumed_mss=1460).open()]
    assert {row["assumed_mss"] for row in rows} == {1460}
    with written(tmp_path / "out.csv", capture, assumed_mss=1460).open(newline="") as file:
        assert {row["assumed_mss"] for row in csv.DictReader(file)} == {"1460"}
    table = parquet.read_table(written(tmp_path / "out.parquet", capture, assumed_mss=1460))
    assert table.schema.metadata[b"wiremeter.assumed_mss"] == b"1460"


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_a_full_disk_is_told(tmp_path: Path, capture: Path, ending: str) -> None:
    (tmp_path / f"out{ending}").symlink_to("/dev/full")
    with pytest.raises(InputError, match=f"out{ending}: No space left on device"):
        written(tmp_path / f"out{ending}", capture)


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"must end in .parquet, .csv or .jsonl"):
        FlowFile(str(tmp_path / "out.txt"), EVERYTHING)
    with pytest.raises(InputError, match="No such file or directory"):
        FlowFile(str(tmp_path / "nowhere" / "out.csv"), EVERYTHING)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "out.parquet").write_text("of yesterday")
    with pytest.raises(InputError, match="Parquet needs pyarrow, which is not installed: pip install"):
        FlowFile(str(tmp_path / "out.parquet"), EVERYTHING)
    assert (tmp_path / "out.parquet").read_text() == "of yesterday"


@pytest.mark.parametrize(("reverse", "last"), [(False, ["ipv4", "ipv6"]), (True, ["ipv6", "ipv4"])])
def test_all_formats_have_the_order_that_is_asked_for(
    tmp_path: Path, capture: Path, reverse: bool, last: list[str]
) -> None:
    selection = Selection(sort="source", limit=None, reverse=reverse)
    found = [rows_of(written(tmp_path / f"out{e}", capture, selection)) for e in (".parquet", ".csv", ".jsonl")]
    assert found[0] == found[1] == found[2]
    assert [row["family"] for row in found[0]] == ["ipv4", *last]


def test_a_capture_without_frames_is_a_file_without_rows(tmp_path: Path) -> None:
    empty = tmp_path / "file.pcap"
    empty.write_bytes(pcap([]))
    table = parquet.read_table(written(tmp_path / "out.parquet", empty))
    assert (table.num_rows, table.column_names[:2]) == (0, ["start_time", "end_time"])
    assert table.schema.metadata == {b"wiremeter.mode": b"capture"}
    assert written(tmp_path / "out.csv", empty).read_text().startswith("start_ns,end_ns,family,")
    assert written(tmp_path / "out.jsonl", empty).read_text() == ""
