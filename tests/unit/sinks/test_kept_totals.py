"""Totals that go on over restarts, from a file that is whole or set aside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch, Mark, Tally
from wiremeter.sinks.kept_totals import KeptTotals
from wiremeter.sinks.prometheus import PrometheusSink

from ..fabricated import fabricate_audit, fabricate_batch, fabricate_transactions
from .test_name_metrics import named_batch


def shown(sink: PrometheusSink) -> list[str]:
    """All counters and histograms of a scrape, but for times of creation."""
    registry = CollectorRegistry()
    registry.register(sink)
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if "_total" in line or "_bucket" in line or "_sum" in line)


@pytest.fixture
def batches() -> list[FlowBatch]:
    flows = [(0, 1, 10, 1000), (1, 1, 5, 500), (0, 2, 1, 60), (0, 3, 7, 700), (1, 0, 2, 120)]
    counters = [(0, 4, 6, 17, 1760, 17), (1, 4, 17, 7, 620, 7), (0, 0, 0, 1, 60, 1)]
    audit = [fabricate_audit("eth0", "rx", seen=Tally(18, 1820, 18), unattributed={"table_full": Tally(1, 1, 1)})]
    names = named_batch(flows, counters=counters, audit=audit, transactions=fabricate_transactions())
    return [names, names, names]


def test_totals_go_on_where_they_were(tmp_path: Path, batches: list[FlowBatch]) -> None:
    """In two lives, with names, transactions and histograms, as in one."""
    one = PrometheusSink("1")
    for batch in batches:
        one.write(batch)
    for batch in batches:
        sink = PrometheusSink("1", kept=KeptTotals(tmp_path / "totals.json"))
        before = shown(sink)
        sink.write(batch)
    assert before
    assert shown(sink) == shown(one)


def test_counts_since_the_meter_started_are_added_to_those_of_its_earlier_lives(tmp_path: Path) -> None:
    batch = fabricate_batch()
    batch = replace(batch, health=replace(batch.health, flips=5))
    for _ in range(3):
        sink = PrometheusSink("1", kept=KeptTotals(tmp_path / "totals.json"))
        sink.write(batch)
    assert "wiremeter_flips_total 15.0" in shown(sink)


def test_the_mark_is_kept_with_them(tmp_path: Path) -> None:
    kept = KeptTotals(tmp_path / "totals.json")
    assert kept.mark is None
    PrometheusSink("1", kept=kept).write(replace(fabricate_batch(), mark=Mark("abc", 7, 70)))
    assert KeptTotals(tmp_path / "totals.json").mark == Mark("abc", 7, 70)


DAMAGES = [
    b"",
    b"{",
    b"[]",
    b'{"version": 99, "mark": null, "totals": {}}',
    b'{"version": 1, "mark": ["abc"], "totals": {}}',
    b'{"version": 1, "mark": null, "totals": {"devices": 5}}',
    b'{"version": 1, "mark": null, "totals": {"devices": {"eth0": [[]]}, "meter": [], "names": {}}}',
]


@pytest.mark.parametrize("content", DAMAGES)
def test_a_damaged_file_is_set_aside_and_said(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "totals.json"
    path.write_bytes(content)
    sink = PrometheusSink("1", kept=KeptTotals(path))
    assert "damaged and set aside" in caplog.text
    assert path.with_suffix(".damaged").read_bytes() == content
    sink.write(fabricate_batch())
    fresh = PrometheusSink("1")
    fresh.write(fabricate_batch())
    assert shown(sink) == shown(fresh)


def test_a_full_disk_does_not_end_metering(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "totals.tmp").mkdir()
    kept = KeptTotals(tmp_path / "totals.json")
    sink = PrometheusSink("1", kept=kept)
    for flip in (1, 2):
        sink.write(replace(fabricate_batch(), mark=Mark("abc", flip, 0)))
    assert caplog.text.count("totals cannot be kept") == 1
    assert kept.mark is None


def test_totals_that_take_long_are_kept_now_and_then_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred milliseconds of work, five seconds of rest."""
    clocks = {"monotonic": 100.0, "thread_time": 0.0}
    for name in clocks:
        monkeypatch.setattr(f"wiremeter.sinks.kept_totals.time.{name}", lambda name=name: clocks[name])
    kept = KeptTotals(tmp_path / "totals.json")

    def totals() -> dict[str, int]:
        clocks["thread_time"] += 0.1
        return {}

    written = []
    for flip in range(7):
        kept.keep(totals, Mark("abc", flip, 0))
        written.append(kept.mark.flip if kept.mark else None)
        clocks["monotonic"] += 1
    assert written == [0, 0, 0, 0, 0, 5, 5]
    kept.keep(totals, Mark("abc", 7, 0), last=True)
    assert KeptTotals(tmp_path / "totals.json").mark == Mark("abc", 7, 0)


def test_two_agents_do_not_share_them(tmp_path: Path) -> None:
    one, other = (KeptTotals(tmp_path / "state" / "totals.json") for _ in range(2))
    with one.locked(), pytest.raises(InputError, match="a --state-dir of its own"), other.locked():
        pass
    with other.locked():
        pass
