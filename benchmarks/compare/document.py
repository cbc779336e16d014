"""docs/performance.md, made of a comparison: tables, plots, and where wiremeter is not better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.compare import names
from benchmarks.compare.figures import (
    HEADS,
    LIBPCAP,
    OURS,
    Comparison,
    Figures,
    cells,
    expectations,
    file_name,
    percent,
    targets,
    title,
)

_INTRODUCTION = """\
# Performance: wiremeter beside what it replaces

Written by `make compare` (root; some 17 minutes, `make compare ARGS=--quick` three): several meters, each in turn
on the same device, under the same traffic, in one run, the rounds interleaved. What a packet, a drain and the agent
cost by themselves is in [design/performance.md](design/performance.md).
"""

_METHOD = """\
## How it is measured

**Traffic** crosses a veth pair into another network namespace, whose end has GRO on and so receives in NAPI, as a
network card does. UDP and DNS come from a BPF program that makes each packet in a live frame (`BPF_PROG_TEST_RUN`
with `BPF_F_TEST_XDP_LIVE_FRAMES`) and counts what it makes; bulk TCP from real sockets, counted by the kernel's TCP
(`tcpi_segs_out`). One CPU sends, and receives in the same breath, so a meter that makes receiving dearer slows the
sender, and every packet that is sent arrives. Sizes are without the frame check sequence: a "64-byte" packet has 60
here. The receiver throws UDP and DNS away right behind the meters. "At 100,000/s" the sender waits for each group's
time, and its waiting is not counted.

**sent/s** and **slower**: what the traffic itself reaches, and by how much longer a packet takes than without a
meter in the same round (the empty device is measured before, between and after the meters).
**loss**: packets that came to the device less those that the meter accounts for, in truth; **says**: what the meter
itself says it missed ("–": it does not tell). With bulk TCP, most tools count a 64 KiB super-packet as one, so they
account for few of the packets on the wire.
**process**: CPU of the meter's processes until it had caught up, from a control group of their own. **kernel**: CPU
of sending and receiving a packet with the meter less that without, work that was put off to `ksoftirqd` included;
it is what the meter's programs or packet socket cost, and the noisiest column: a few dozen ns either way mean
nothing.
**memory**: proportional resident memory of its processes at its most (mapped packet rings included), and BPF maps
in full.

Figures are medians over the rounds; the plots show the spread of the rate. Tools take part in two rounds at most.
"""


#: What stands behind figures that were missed on the 2-core machine; to be read again when they change.
WHY = Path(__file__).with_name("why.md").read_text()


def write_document(comparison: Comparison, path: Path) -> None:
    """Writes the page, and the plots into a folder beside it."""
    from benchmarks.compare.plots import draw  # matplotlib, which nothing else here needs

    draw(comparison, path.with_suffix(""))
    path.write_text("\n".join(_lines(comparison, path.stem)).rstrip() + "\n")


def _lines(comparison: Comparison, folder: str) -> Iterator[str]:
    figures = comparison.figures()
    yield _INTRODUCTION
    yield from _expectations(comparison, figures)
    yield from _targets(figures)
    yield from _not_better(comparison, figures)
    timed = {meter.name for meter in comparison.meters if meter.with_statistics}
    for trial in comparison.trials:
        rows = [figure for figure in figures if figure.trial == trial.name and figure.meter not in timed]
        if not rows:
            continue
        yield f"## {title(trial.name)}\n"
        yield f"![rate, loss, CPU and memory of each meter]({folder}/{file_name(trial.name)}.svg)\n"
        yield from _table(HEADS, [cells(row, comparison.text_of(row.meter)) for row in rows])
    yield from _timed(comparison, [figure for figure in figures if figure.meter in timed])
    yield from _names(comparison)
    yield _METHOD
    yield from _facts(comparison)


def _expectations(comparison: Comparison, figures: Sequence[Figures]) -> Iterator[str]:
    yield "## What was expected of the rebuild\n"
    yield "wiremeter's programs at tcx against three ways of doing it with libpcap or packet sockets.\n"
    libraries = [name for name in LIBPCAP if any(figure.meter == name for figure in figures)]
    heads = ("", "expected", *(f"measured against {comparison.text_of(name)}" for name in libraries))
    rows = [
        (row.what, row.expected, *(row.measured.get(name, "–") for name in libraries)) for row in expectations(figures)
    ]
    yield from _table(heads, rows)


def _targets(figures: Sequence[Figures]) -> Iterator[str]:
    yield "## What it must show\n"
    yield "At tcx, names off unless they are named; `capture` is the same datapath fed by packet sockets.\n"
    rows = [(t.what, t.wanted, t.measured, "" if t.holds else "**missed**") for t in targets(figures)]
    yield from _table(("", "wanted", "measured", ""), rows)


def _not_better(comparison: Comparison, figures: Sequence[Figures]) -> Iterator[str]:
    """By load and column, every meter that does better than ours."""
    yield WHY
    yield "## Where wiremeter is not better\n"
    ours = {figure.trial: figure for figure in figures if figure.meter == OURS}
    others = [m.name for m in comparison.meters if m.kind in ("old way", "tool")]
    lines = []
    for figure in figures:
        mine = ours.get(figure.trial)
        if mine is None or figure.meter not in others:
            continue
        better = list(_better(mine, figure))
        if better:
            lines.append(f"- {title(figure.trial)}: {comparison.text_of(figure.meter)}: {', '.join(better)}")
    yield "\n".join(lines) + "\n" if lines else "In this run, nowhere.\n"
    yield (
        "A tool that counts whole packets into no flows, or writes them away unread, does less than a flow meter; and"
        " what a meter loses costs it nothing.\n"
    )


def _better(mine: Figures, other: Figures) -> Iterator[str]:
    if other.loss and mine.loss and other.loss.median < mine.loss.median:
        yield f"loses {percent(other.loss.median)} (wiremeter {percent(mine.loss.median)})"
    if other.slowdown.median < mine.slowdown.median - 0.02:
        yield f"slows the traffic by {percent(other.slowdown.median)} ({percent(mine.slowdown.median)})"
    if other.cpu_ns < mine.cpu_ns * 0.95:
        yield f"{other.cpu_ns:.0f} ns of CPU a packet ({mine.cpu_ns:.0f})"
    if other.memory_bytes.median < mine.memory_bytes.median * 0.95:
        yield f"{other.memory_bytes.median / 1e6:.0f} MB ({mine.memory_bytes.median / 1e6:.0f})"


def _timed(comparison: Comparison, figures: Sequence[Figures]) -> Iterator[str]:
    rows = [
        (title(figure.trial), comparison.text_of(figure.meter), f"{figure.bpf_ns.median:.0f} ns")
        for figure in figures
        if figure.bpf_ns
    ]
    if not rows:
        return
    yield "## Run time of the programs\n"
    yield (
        "By the kernel's BPF statistics, in a pass of its own, since they cost some 20 ns a run themselves. One run is"
        " one kernel buffer, which in bulk TCP is many packets.\n"
    )
    yield from _table(("load", "program", "a run"), rows)


def _names(comparison: Comparison) -> Iterator[str]:
    if not comparison.names:
        return
    yield "## Names out of a capture, beside nDPI\n"
    yield (
        "One file of web traffic: of each connection the look-up, hellos or a request, and data. Each reads it alone,"
        " in turn, and writes every conversation with its name and application. nDPI names a look-up by its question;"
        " wiremeter tells questions apart from flows. The last columns count conversations of which wiremeter and the"
        " other know both.\n"
    )
    yield from _table(names.HEADS, [names.cells(run) for run in comparison.names])


def _facts(comparison: Comparison) -> Iterator[str]:
    yield "## Machine, versions, command\n"
    facts = [*comparison.machine.items(), ("flow tables", f"{comparison.flow_table:,} lines")]
    facts += [("rounds", str(comparison.rounds)), ("took", f"{comparison.seconds / 60:.0f} minutes")]
    facts += [("command", f"`{comparison.command}`")]
    yield from _table(("", ""), facts)
    rows = [
        (meter.text, meter.version(), f"`{' '.join(meter.command)}`") for meter in comparison.meters if meter.command
    ]
    yield from _table(("meter", "version", "command"), rows)
    for who, why in comparison.left_out.items():
        yield f"Left out: {who}: {why}.\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
