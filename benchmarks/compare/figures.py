"""From single runs to the figures of a meter under a load: medians over the rounds, with their spread."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from benchmarks.compare.meters import Meter
from benchmarks.compare.names import NamesRun
from benchmarks.compare.run import BULK, Run, Trial
from benchmarks.loads import LOADS

NOTHING = "none"


class Spread(NamedTuple):
    """The median over the rounds, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one or more values."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Figures:
    """What one meter did and cost under one load.

    rate: packets a second that were sent. slowdown: of the traffic against no meter in the same round; 0.05 is 5 %.
    metered_rate: packets a second that the meter accounts for. loss: the share of the packets that came to the
    device and it does not account for, in truth; said_loss: by its own words, None where it says nothing.
    process_ns, kernel_ns: CPU for each offered packet, of the meter's processes and of the kernel for it (sender
    and receiver with the meter less without). memory_bytes: of processes and of maps. bpf_ns: of one run of the
    program, where it was timed.
    """

    meter: str
    trial: str
    rate: Spread
    slowdown: Spread
    metered_rate: Spread | None
    loss: Spread | None
    said_loss: Spread | None
    byte_error: Spread | None
    process_ns: Spread
    kernel_ns: Spread
    memory_bytes: Spread
    process_bytes: Spread
    map_bytes: float
    bpf_ns: Spread | None

    @property
    def cpu_ns(self) -> float:
        """Process and kernel together, of medians; a kernel that took less than without a meter is noise, and 0."""
        return self.process_ns.median + max(0.0, self.kernel_ns.median)


class Expectation(NamedTuple):
    """What the first system's rebuild was expected to bring against a libpcap monitor, and what was measured."""

    what: str
    expected: str
    measured: Mapping[str, str]


class Target(NamedTuple):
    """What must hold, what was measured, and whether it does."""

    what: str
    wanted: str
    measured: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of one run of the harness."""

    machine: Mapping[str, str]
    meters: Sequence[Meter]
    trials: Sequence[Trial]
    rounds: int
    command: str
    flow_table: int
    left_out: Mapping[str, str]
    runs: Sequence[Run]
    seconds: float
    names: Sequence[NamesRun] = ()

    def figures(self) -> list[Figures]:
        """For each meter and load that was measured, in the order of the meters."""
        return list(_figures(self.runs, [meter.name for meter in self.meters], [trial.name for trial in self.trials]))

    def text_of(self, name: str) -> str:
        """A meter's name for people."""
        return next(meter.text for meter in self.meters if meter.name == name)


def _figures(runs: Sequence[Run], meters: Sequence[str], trials: Sequence[str]) -> Iterator[Figures]:
    for trial in trials:
        bases = _bases([run for run in runs if run.trial == trial and run.meter == NOTHING])
        for meter in meters:
            mine = [run for run in runs if run.trial == trial and run.meter == meter and run.round in bases]
            if mine:
                yield _figures_of(meter, trial, mine, bases)


class _Base(NamedTuple):
    """The empty device in one round: seconds and CPU of a packet."""

    seconds: float
    cpu: float


def _bases(runs: Sequence[Run]) -> dict[int, _Base]:
    by_round: dict[int, list[Run]] = {}
    for run in runs:
        by_round.setdefault(run.round, []).append(run)
    return {
        number: _Base(
            statistics.median(run.seconds / run.offered for run in those),
            statistics.median((run.sender_seconds + run.softirq_seconds) / run.offered for run in those),
        )
        for number, those in by_round.items()
    }


def _figures_of(meter: str, trial: str, runs: Sequence[Run], bases: Mapping[int, _Base]) -> Figures:
    def spread(value: Callable[[Run], float]) -> Spread:
        return Spread.of([value(run) for run in runs])

    def optional(value: Callable[[Run], float | None]) -> Spread | None:
        values = [found for run in runs if (found := value(run)) is not None]
        return Spread.of(values) if values else None

    return Figures(
        meter=meter,
        trial=trial,
        rate=spread(lambda run: run.offered / run.seconds),
        slowdown=spread(lambda run: run.seconds / run.offered / bases[run.round].seconds - 1),
        metered_rate=optional(lambda run: None if run.accounted is None else run.accounted / run.seconds),
        loss=optional(lambda run: None if run.accounted is None else 1 - run.accounted / (run.offered - run.refused)),
        said_loss=optional(lambda run: None if run.lost is None else run.lost / run.offered),
        byte_error=optional(
            lambda run: None if run.accounted_bytes is None else run.accounted_bytes / run.offered_bytes - 1
        ),
        process_ns=spread(lambda run: run.meter_seconds / run.offered * 1e9),
        kernel_ns=spread(
            lambda run: ((run.sender_seconds + run.softirq_seconds) / run.offered - bases[run.round].cpu) * 1e9
        ),
        memory_bytes=spread(lambda run: run.memory_bytes + run.map_bytes),
        process_bytes=spread(lambda run: run.memory_bytes),
        map_bytes=statistics.median(run.map_bytes for run in runs),
        bpf_ns=optional(lambda run: run.bpf_ns),
    )


# ---- what was expected, and what must hold

#: Loads that stand for the rest where one figure is asked for.
AT_MOST, AT_A_RATE, OF_MANY = "udp64-1000", "udp64-1000 at 100,000/s", "udp64-100000"
OURS, LIBPCAP = "tcx", ("capture", "dpkt", "scapy")


def expectations(figures: Sequence[Figures]) -> list[Expectation]:
    """The four rows, measured against each of the old ways; without a figure "not measured"."""
    at = {(figure.meter, figure.trial): figure for figure in figures}

    def row(what: str, expected: str, trials: Sequence[str], value: Callable[[Figures], float]) -> Expectation:
        measured = {}
        for old in LIBPCAP:
            trial = next((name for name in trials if (OURS, name) in at and (old, name) in at), None)
            if trial is None:
                continue
            ours, theirs = value(at[OURS, trial]), value(at[old, trial])
            measured[old] = f"{(ours / theirs - 1) * 100:+.0f} %" if theirs > 0 else "–"
        return Expectation(what, expected, measured)

    return [
        row(
            "packet rate (packets a second accounted for, 64-byte UDP at the highest rate)",
            "+80 %",
            (AT_MOST,),
            lambda f: f.metered_rate.median if f.metered_rate else 0.0,
        ),
        row(
            "memory (process and tables, most flows)",
            "−50 %",
            (OF_MANY, "udp64-1000000"),
            lambda f: f.memory_bytes.median,
        ),
        row("CPU (of the process, same traffic)", "−60 %", (AT_A_RATE,), lambda f: f.process_ns.median),
        row("system load (process and kernel, same traffic)", "−70 %", (AT_A_RATE,), lambda f: f.cpu_ns),
    ]


def targets(figures: Sequence[Figures]) -> list[Target]:
    """What wiremeter must show, with what was measured."""
    return list(_targets({(figure.meter, figure.trial): figure for figure in figures}))


def _targets(at: Mapping[tuple[str, str], Figures]) -> Iterator[Target]:
    trials = list(dict.fromkeys(trial for _, trial in at))
    for trial in trials:
        ours = at.get((OURS, trial))
        if ours is None:
            continue
        if ours.loss:
            most = ours.loss.most
            yield Target(f"accounts for all packets: {trial}", "100 %", f"{(1 - most) * 100:.4f} %", most == 0)
        if " at " not in trial:
            slow = ours.slowdown.median
            yield Target(f"slows the traffic little: {trial}", "< 10 %", f"{slow * 100:.1f} %", slow < 0.10)
        old = at.get(("capture", trial))
        if old and old.cpu_ns > 0:
            share = ours.cpu_ns / old.cpu_ns
            yield Target(f"CPU against capture: {trial}", "≤ 25 %", f"{share * 100:.0f} %", share <= 0.25)
        if old and old.memory_bytes.median:
            share = ours.memory_bytes.median / old.memory_bytes.median
            yield Target(f"memory against capture: {trial}", "≤ 50 %", f"{share * 100:.0f} %", share <= 0.5)
        named = at.get(("tcx-names", trial))
        if named and ours.cpu_ns > 0:
            more = named.cpu_ns / ours.cpu_ns - 1
            yield Target(f"names on cost little: {trial}", "< 10 % more", f"{more * 100:+.0f} %", more < 0.10)


# ---- for people and programs


def as_json(comparison: Comparison) -> str:
    """Everything, runs included."""
    figures = comparison.figures()
    return json.dumps(
        {
            "machine": dict(comparison.machine),
            "command": comparison.command,
            "rounds": comparison.rounds,
            "flow_table": comparison.flow_table,
            "seconds": round(comparison.seconds),
            "meters": [
                {"name": m.name, "text": m.text, "kind": m.kind, "version": m.version(), "command": list(m.command)}
                for m in comparison.meters
            ],
            "left_out": dict(comparison.left_out),
            "expectations": [row._asdict() for row in expectations(figures)],
            "targets": [target._asdict() for target in targets(figures)],
            "figures": [asdict(figure) for figure in figures],
            "names": [asdict(run) for run in comparison.names],
            "runs": [asdict(run) for run in comparison.runs],
        },
        indent=1,
    )


HEADS = ("meter", "sent/s", "slower", "loss", "says", "process", "kernel", "together", "memory")


def cells(figure: Figures, text: str) -> tuple[str, ...]:
    """A row under HEADS."""
    return (
        text,
        _rate(figure.rate.median),
        percent(figure.slowdown.median),
        "–" if figure.loss is None else percent(figure.loss.median, exact=True),
        "–" if figure.said_loss is None else percent(figure.said_loss.median, exact=True),
        f"{figure.process_ns.median:.0f} ns",
        f"{figure.kernel_ns.median:.0f} ns",
        f"{figure.cpu_ns:.0f} ns",
        f"{figure.memory_bytes.median / 1e6:.0f} MB",
    )


def as_table(comparison: Comparison) -> str:
    """Lines for a terminal."""
    figures = comparison.figures()
    lines = [f"{name}: {value}" for name, value in comparison.machine.items()]
    for trial in comparison.trials:
        rows = [cells(f, comparison.text_of(f.meter)) for f in figures if f.trial == trial.name]
        widths = [max(map(len, column)) for column in zip(HEADS, *rows, strict=True)]
        lines += ["", trial.name]
        lines += [
            "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in (HEADS, *rows)
        ]
    lines += ["", "expected and measured, wiremeter at tcx against"]
    lines += [
        f"  {e.what}: {e.expected}; " + ", ".join(f"{k} {v}" for k, v in e.measured.items())
        for e in expectations(figures)
    ]
    lines += [""] + [
        f"{'ok    ' if t.holds else 'MISSED'} {t.what}: {t.measured} ({t.wanted})" for t in targets(figures)
    ]
    lines += [f"left out: {who}: {why}" for who, why in comparison.left_out.items()]
    return "\n".join(lines)


def title(trial: str) -> str:
    """A load in words.

    >>> title("udp64-1 at 100,000/s")
    '64-byte UDP, 1 flow, at 100,000/s'
    """
    name, _, rate = trial.partition(" at ")
    text = "bulk TCP, one connection" if name == BULK else LOADS[name].text
    return text + (f", at {rate}" if rate else ", as fast as it goes" if name != BULK else "")


def file_name(trial: str) -> str:
    """A load's name as a file's.

    >>> file_name("imix at 100,000/s")
    'imix-at-100000'
    """
    return trial.replace(",", "").replace("/s", "").replace(" ", "-")


def _rate(packets: float) -> str:
    return f"{packets / 1e6:.2f} M" if packets >= 1e6 else f"{packets / 1e3:.0f} k"


def percent(share: float, *, exact: bool = False) -> str:
    """Of a loss also the least one: what is not 0 must not look so.

    >>> percent(0.05), percent(0.000001, exact=True), percent(0, exact=True)
    ('5.0 %', '< 0.1 %', '0')
    """
    if exact and share == 0:
        return "0"
    if exact and 0 < share < 0.001:
        return "< 0.1 %"
    return f"{share * 100:.1f} %"
