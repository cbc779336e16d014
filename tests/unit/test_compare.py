"""From runs to figures, and from figures to what is claimed: the arithmetic of the comparison, on made-up runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.compare.document import write_document
from benchmarks.compare.figures import Comparison, Figures, as_json, as_table, expectations, percent, targets, title
from benchmarks.compare.meters import NOTHING, Meter
from benchmarks.compare.run import FULL, QUICK, Run, Trial, sessions
from benchmarks.loads import LOADS

TRIAL = Trial("udp64-1000", 1_000_000)
AT_A_RATE = Trial("udp64-1000", 200_000, 100_000)


def meter(name: str, kind: str = "wiremeter") -> Meter:
    return Meter(name, name.upper(), kind, NOTHING.start, lambda: "1.0", command=(name,))


def run(name: str, number: int = 1, *, trial: Trial = TRIAL, **changed: object) -> Run:
    """A run in which 1,000,000 packets took a second, of which the sender's CPU was busy all the time."""
    values: dict[str, object] = {
        "meter": name,
        "trial": trial.name,
        "round": number,
        "offered": 1_000_000,
        "offered_bytes": 60_000_000,
        "refused": 0,
        "taken": 1_000_000,
        "seconds": 1.0,
        "sender_seconds": 1.0,
        "softirq_seconds": 0.0,
        "meter_seconds": 0.0,
        "accounted": None if name == "none" else 1_000_000,
        "accounted_bytes": None if name == "none" else 60_000_000,
        "lost": None if name == "none" else 0,
        "memory_bytes": 50_000_000,
        "map_bytes": 0,
        "bpf_ns": None,
        "load_average": 0.1,
    }
    return Run(**values | changed)  # type: ignore[arg-type]


def comparison(*runs: Run, trials: tuple[Trial, ...] = (TRIAL,)) -> Comparison:
    names = [name for name in dict.fromkeys(one.meter for one in runs) if name != "none"]
    meters = [NOTHING, *(meter(name, "old way" if name == "capture" else "wiremeter") for name in names)]
    return Comparison({"cpu": "one"}, meters, trials, 3, "command", 1 << 17, {}, runs, 60.0)


def figures_of(*runs: Run, name: str = "tcx") -> Figures:
    (found,) = (figure for figure in comparison(*runs).figures() if figure.meter == name)
    return found


def test_a_meter_is_held_against_the_empty_device_of_its_own_round() -> None:
    runs = [run("none", 1), run("none", 2, seconds=2.0, sender_seconds=2.0)]
    runs += [run("tcx", 1, seconds=1.1, sender_seconds=1.1), run("tcx", 2, seconds=2.2, sender_seconds=2.1)]
    found = figures_of(*runs)
    assert found.slowdown == pytest.approx((0.1, 0.1, 0.1))
    assert found.kernel_ns == pytest.approx((100, 100, 100))


def test_the_empty_device_is_the_median_of_its_times_in_a_round() -> None:
    runs = [run("none", seconds=seconds) for seconds in (1.0, 1.2, 9.0)]
    assert figures_of(*runs, run("tcx", seconds=1.2)).slowdown.median == pytest.approx(0)


def test_a_round_without_the_empty_device_counts_for_nothing() -> None:
    runs = [run("none", 1), run("tcx", 1), run("tcx", 2, seconds=5.0)]
    assert figures_of(*runs).slowdown == (0, 0, 0)


def test_what_was_put_off_to_a_kernel_thread_is_the_kernels_cost_too() -> None:
    found = figures_of(run("none"), run("tcx", softirq_seconds=0.2, meter_seconds=0.05))
    assert found.kernel_ns.median == pytest.approx(200)
    assert found.process_ns.median == pytest.approx(50)
    assert found.cpu_ns == pytest.approx(250)


def test_loss_in_truth_is_apart_from_what_a_meter_says() -> None:
    found = figures_of(run("none"), run("tcx", accounted=900_000, lost=10_000))
    assert found.loss
    assert found.said_loss
    assert (found.loss.median, found.said_loss.median) == pytest.approx((0.1, 0.01))
    silent = figures_of(run("none"), run("tcx", lost=None))
    assert silent.said_loss is None


def test_what_never_came_to_the_device_is_no_loss_of_the_meters() -> None:
    found = figures_of(run("none"), run("tcx", refused=100_000, accounted=900_000))
    assert found.loss == (0, 0, 0)


def test_expectations_are_ratios_to_each_old_way_that_took_part() -> None:
    runs = [run("none"), run("tcx", meter_seconds=0.1), run("capture", meter_seconds=0.4, accounted=500_000)]
    at_a_rate = [
        run("none", trial=AT_A_RATE),
        run("tcx", trial=AT_A_RATE, meter_seconds=0.1),
        run("capture", trial=AT_A_RATE, meter_seconds=0.3, sender_seconds=1.1),
    ]
    rows = expectations(comparison(*runs, *at_a_rate, trials=(TRIAL, AT_A_RATE)).figures())
    assert [dict(row.measured) for row in rows] == [
        {"capture": "+100 %"},
        {},
        {"capture": "-67 %"},
        {"capture": "-75 %"},
    ]


def test_targets_hold_or_are_missed_by_what_was_measured() -> None:
    runs = [run("none"), run("tcx", meter_seconds=0.1, seconds=1.2, accounted=999_999)]
    runs += [run("capture", meter_seconds=0.5, memory_bytes=90_000_000), run("tcx-names", meter_seconds=0.105)]
    verdicts = {target.what: target.holds for target in targets(comparison(*runs).figures())}
    assert verdicts == {
        "accounts for all packets: udp64-1000": False,
        "slows the traffic little: udp64-1000": False,
        "CPU against capture: udp64-1000": True,
        "memory against capture: udp64-1000": False,
        "names on cost little: udp64-1000": True,
    }


def test_table_and_json_hold_every_meter() -> None:
    made = comparison(run("none"), run("tcx"), run("capture"))
    assert all(text in as_table(made) for text in ("no meter", "TCX", "CAPTURE"))
    data = json.loads(as_json(made))
    assert [figure["meter"] for figure in data["figures"]] == ["none", "tcx", "capture"]
    assert len(data["runs"]) == 3


def test_a_loss_that_is_not_nothing_does_not_look_like_nothing() -> None:
    assert percent(1e-9, exact=True) != percent(0, exact=True)


def test_the_empty_device_comes_first_last_and_between() -> None:
    order = [one.name for one in sessions([meter(str(number)) for number in range(9)])]
    assert order[0] == order[-1] == "none"
    assert order.count("none") == 4


@pytest.mark.parametrize("trial", [*FULL, *QUICK], ids=lambda trial: trial.name)
def test_every_trial_has_a_load_and_a_title(trial: Trial) -> None:
    assert trial.load == "bulk" or trial.load in LOADS
    assert title(trial.name)


def test_the_document_names_what_is_missed_and_what_was_left_out(tmp_path: Path) -> None:
    made = comparison(run("none"), run("tcx", seconds=1.5), run("capture", memory_bytes=1_000_000))
    write_document(made, tmp_path / "performance.md")
    text = (tmp_path / "performance.md").read_text()
    assert "**missed**" in text
    assert "CAPTURE: " in text
    assert {path.suffix for path in (tmp_path / "performance").iterdir()} == {".svg"}
