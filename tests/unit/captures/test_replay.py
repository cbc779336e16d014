"""Capture files as batches: intervals of capture time, bounds, and that parts add up to the whole."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures.build import ETHERNET, SECOND, Pcapng, Record, ethernet, pcap, udp, udp6
from captures.expectation import differences, our_holdings
from wiremeter.captures.file import CaptureFile
from wiremeter.captures.replay import CaptureReplay
from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch, Tally
from wiremeter.reports.document import document_lines
from wiremeter.reports.selection import EVERYTHING

T0 = 1_700_000_000 * SECOND
FRAME = ethernet(udp())


def replay(tmp_path: Path, records: Sequence[Record], **options: Any) -> list[FlowBatch]:
    path = tmp_path / "file.pcap"
    path.write_bytes(pcap(records, nanoseconds=True))
    return list(CaptureReplay([path], **options))


def test_one_batch_of_all_without_an_interval(tmp_path: Path) -> None:
    (batch,) = replay(tmp_path, [Record(FRAME, T0 + n * SECOND) for n in (3, 1, 2)])
    assert (batch.start_ns, batch.end_ns, batch.mode) == (T0 + SECOND, T0 + 3 * SECOND, "capture")
    assert [(a.device, a.direction, a.mode) for a in batch.attachments] == [("file.pcap", "rx", "none")]
    (audit,) = batch.audit
    assert audit.balanced
    assert audit.seen == audit.flows == Tally(3, 3 * len(FRAME), 3)
    assert (batch.flows["first_ns"].tolist(), batch.flows["last_ns"].tolist()) == ([T0 + SECOND], [T0 + 3 * SECOND])


def test_a_capture_without_frames_is_an_empty_batch(tmp_path: Path) -> None:
    (batch,) = replay(tmp_path, [])
    assert (batch.start_ns, batch.end_ns, len(batch.flows), len(batch.counters)) == (0, 0, 0, 0)
    assert replay(tmp_path, [], interval=1.0) == []


def test_capture_time_drives_intervals(tmp_path: Path) -> None:
    times = [0, 999_999_999, 1_000_000_000, 2_500_000_000, 2_600_000_000]
    batches = replay(tmp_path, [Record(FRAME, T0 + at) for at in times], interval=1.0)
    assert [(b.start_ns - T0, b.end_ns - T0, b.audit[0].seen.packets) for b in batches] == [
        (0, SECOND, 2),
        (SECOND, 2 * SECOND, 1),
        (2 * SECOND, 3 * SECOND, 2),
    ]


def test_intervals_without_a_frame_make_no_batch(tmp_path: Path) -> None:
    records = [Record(FRAME, T0), Record(FRAME, T0 + 10**6 * SECOND + 1), Record(FRAME, 4_000_000_000 * SECOND)]
    batches = replay(tmp_path, records, interval=0.5)
    assert [(b.start_ns, b.end_ns - b.start_ns) for b in batches] == [
        (T0, SECOND // 2),
        (T0 + 10**6 * SECOND, SECOND // 2),
        (4_000_000_000 * SECOND, SECOND // 2),
    ]


def test_a_frame_from_before_its_interval_counts_in_it(tmp_path: Path) -> None:
    records = [Record(FRAME, T0 + at * SECOND) for at in (0, 5, 2, 5, 6)]
    batches = replay(tmp_path, records, interval=1.0)
    assert [b.audit[0].seen.packets for b in batches] == [1, 3, 1]
    assert batches[1].flows["first_ns"].tolist() == [T0 + 2 * SECOND]


def test_times_at_the_end_of_what_64_bits_can_say(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    file = Pcapng().interface(resolution=0).packet(FRAME, 5)
    path.write_bytes(file.packet(FRAME, 1 << 63).packet(FRAME, 1 << 63).packet(FRAME, 7).bytes)
    batches = list(CaptureReplay([path], interval=1.0))
    assert [b.audit[0].seen.packets for b in batches] == [1, 3]


def test_several_files_are_one_capture(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pcap([Record(FRAME, T0 + 1)], nanoseconds=True))
    (tmp_path / "b").write_bytes(pcap([Record(udp(), T0)], 101, nanoseconds=True))
    reader = CaptureReplay([tmp_path / "a", tmp_path / "b"])
    (batch,) = reader
    (flow,) = batch.flows
    assert (flow["packets"], flow["first_ns"], flow["last_ns"]) == (2, T0, T0 + 1)
    assert reader.linktypes == ["EN10MB", "RAW"]
    assert batch.attachments[0].device == "capture"


def test_a_file_that_ends_early_is_told_and_the_next_one_read(tmp_path: Path) -> None:
    whole = pcap([Record(FRAME, T0)] * 3)
    (tmp_path / "cut").write_bytes(whole[:-1])
    (tmp_path / "whole").write_bytes(whole)
    reader = CaptureReplay([tmp_path / "cut", tmp_path / "whole"])
    (batch,) = reader
    assert batch.audit[0].seen.packets == 5
    ((file, problem),) = [(found.file, found.problem) for found in reader.problems]
    assert file == str(tmp_path / "cut")
    assert problem.startswith("ends in the middle of a record")
    list(reader)
    assert len(reader.problems) == 1


def test_a_replay_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pcap([Record(FRAME, T0)] * 3))
    reader = CaptureReplay([path])
    assert [b.audit[0].seen for b in reader] == [b.audit[0].seen for b in reader]


def test_a_small_table_changes_no_count(tmp_path: Path) -> None:
    random.seed(1)
    records = [Record(ethernet(random.choice((udp, udp6))(n % 700)), T0 + n) for n in range(5000)]
    (small,) = replay(tmp_path, records, table_lines=256)
    (grown,) = replay(tmp_path, records)
    assert small.health.early_flips > 10
    assert grown.health.early_flips <= 1
    assert "".join(document_lines(small, EVERYTHING)) == "".join(document_lines(grown, EVERYTHING))


def test_flips_come_early_while_flows_are_more_than_of_late(tmp_path: Path) -> None:
    records = [Record(ethernet(udp(n % 60_000, n // 60_000)), T0 + n) for n in range(120_000)]
    (batch,) = replay(tmp_path, records)
    assert 1 < batch.health.early_flips < 10
    assert len(batch.flows) == 120_000
    assert batch.audit[0].balanced


def test_more_flows_than_a_batch_may_hold_are_unattributed(tmp_path: Path) -> None:
    records = [Record(ethernet(udp(n)), T0 + n) for n in range(3000)]
    (batch,) = replay(tmp_path, records, table_lines=256, max_flows=1000)
    (audit,) = batch.audit
    assert audit.balanced
    assert len(batch.flows) < 1200
    assert audit.unattributed["batch_full"].packets == 3000 - len(batch.flows)


def test_progress_is_told_with_the_file(tmp_path: Path) -> None:
    seen: list[int] = []

    def note(file: CaptureFile) -> None:
        seen.append(file.position)

    replay(tmp_path, [Record(ethernet(udp(payload=bytes(1000))), T0)] * 1000, on_progress=note)
    assert seen == sorted(seen)
    assert seen[-1] == (tmp_path / "file.pcap").stat().st_size


def test_arguments_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="interval of 0"):
        CaptureReplay([tmp_path], interval=0)
    with pytest.raises(InputError, match="interval of nan"):
        CaptureReplay([tmp_path], interval=float("nan"))
    with pytest.raises(InputError, match="it must be host or kernel"):
        CaptureReplay([tmp_path], engine="other")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="power of two"):
        list(CaptureReplay([tmp_path], table_lines=1000))


packets = st.one_of(
    st.builds(udp, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), payload=st.binary(max_size=8)).map(
        ethernet
    ),
    st.builds(udp6, st.integers(1, 3), st.integers(1, 3), payload=st.binary(max_size=8)).map(ethernet),
    st.builds(ethernet, st.binary(max_size=60), st.sampled_from([0x0800, 0x86DD, 0x0806, 0x8100, 38, 0, 1501])),
    st.binary(max_size=20),
)
SMALL_TABLE = 4096  # takes less time to make
captured = st.lists(
    st.builds(Record, packets, st.integers(0, 10).map(lambda n: T0 + n * SECOND), st.integers(0, 70_000)), max_size=40
)


@given(records=captured, data=st.data())
def test_the_parts_of_a_capture_add_up_to_the_whole(
    records: list[Record], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.getbasetemp()
    cut = data.draw(st.integers(0, len(records)))
    for name, part in (("whole", records), ("first", records[:cut]), ("second", records[cut:])):
        (base / name).write_bytes(pcap(part, ETHERNET))
    documents = {name: document(base / name) for name in ("whole", "first", "second")}
    whole = our_holdings([documents["whole"]])
    assert differences(whole, our_holdings([documents["first"], documents["second"]])) == []
    intervals = [
        json.loads("".join(document_lines(b, EVERYTHING)))
        for b in CaptureReplay([base / "whole"], interval=2.0, table_lines=SMALL_TABLE)
    ]
    assert differences(whole, our_holdings(intervals)) == []


def document(path: Path) -> dict[str, Any]:
    (batch,) = CaptureReplay([path], table_lines=SMALL_TABLE)
    loaded: dict[str, Any] = json.loads("".join(document_lines(batch, EVERYTHING)))
    return loaded
