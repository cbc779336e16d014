"""Which batches the shipper gets where an agent was killed in between: each once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wiremeter.agent.handed_over import HandedOver
from wiremeter.flows.batch import FlowBatch, Mark

from ..fabricated import fabricate_batch


class Shipper:
    """A spool that outlives its agents. What it is given waits until it is written down."""

    def __init__(self) -> None:
        self.next_number: int | None = 0
        self.has: list[int] = []
        self.dies = ""

    def write(self, batch: FlowBatch) -> None:
        if self.dies == "before":
            raise InterruptedError
        self.has.append(batch.mark.flip if batch.mark else -1)
        if self.next_number is not None:
            self.next_number += 1
        if self.dies == "after":
            raise InterruptedError

    def wait_written(self, seconds: float) -> None:
        assert seconds > 0


def batch(flip: int, tables: str = "abc") -> FlowBatch:
    return replace(fabricate_batch(), mark=Mark(tables, flip, flip * 10))


@pytest.mark.parametrize(("dies", "has_it"), [("before", False), ("after", True)])
def test_a_batch_that_an_agent_died_over_is_handed_over_if_the_spool_has_it_not(
    dies: str, has_it: bool, tmp_path: Path
) -> None:
    shipper, path = Shipper(), tmp_path / "state" / "shipping.json"
    HandedOver(shipper, path).write(batch(3))
    shipper.dies = dies
    with pytest.raises(InterruptedError):
        HandedOver(shipper, path).write(batch(5))
    assert (5 in shipper.has) == has_it
    shipper.dies = ""
    for flip in (4, 5, 6):  # what was not told comes flip by flip
        HandedOver(shipper, path).write(batch(flip))
    assert shipper.has == ([3, 5, 6] if has_it else [3, 4, 5, 6])


def test_where_batches_wait_in_memory_none_is_handed_over_twice(tmp_path: Path) -> None:
    shipper = Shipper()
    shipper.next_number = None
    shipper.dies = "before"
    with pytest.raises(InterruptedError):
        HandedOver(shipper, tmp_path / "shipping.json").write(batch(5))
    shipper.dies = ""
    for flip in (5, 6):
        HandedOver(shipper, tmp_path / "shipping.json").write(batch(flip))
    assert shipper.has == [6]


def test_other_tables_begin_anew_and_a_batch_without_a_mark_is_always_handed_over(tmp_path: Path) -> None:
    shipper = Shipper()
    handed = HandedOver(shipper, tmp_path / "shipping.json")
    for each in (batch(5), batch(0, "def"), fabricate_batch(), fabricate_batch()):
        handed.write(each)
    assert shipper.has == [5, 0, -1, -1]


def test_a_damaged_note_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "shipping.json").write_text("{")
    HandedOver(Shipper(), tmp_path / "shipping.json").write(batch(1))
    assert "may be shipped twice" in caplog.text
