"""The figures of a comparison side by side: how fast, how much was missed, and for how much CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.compare.figures import Comparison, Figures, file_name, title

PROCESS, KERNEL, MISSED, RATE = "#2b6ca3", "#e08a1e", "#b3343a", "#4d4d4d"
COLOURS = {"none": "#9a9a9a", "wiremeter": "#2b6ca3", "old way": "#b3343a", "tool": "#8c6bb1"}


def draw(comparison: Comparison, folder: Path) -> list[str]:
    """Writes a plot of each load, and one of memory, as SVG; returns their names without ending."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = [f for f in comparison.figures() if not _is_timed(comparison, f.meter)]
    names = []
    for trial in comparison.trials:
        rows = [figure for figure in figures if figure.trial == trial.name]
        if rows:
            names.append(_save(_load_plot(comparison, title(trial.name), rows), folder, file_name(trial.name)))
    return names


def _is_timed(comparison: Comparison, meter: str) -> bool:
    return any(m.with_statistics for m in comparison.meters if m.name == meter)


def _load_plot(comparison: Comparison, heading: str, rows: Sequence[Figures]) -> Figure:
    kinds = {meter.name: meter.kind for meter in comparison.meters}
    texts = [comparison.text_of(row.meter) for row in rows]
    places = range(len(rows))
    figure = Figure(figsize=(14, 0.42 * len(rows) + 1.6), layout="constrained")
    rate, loss, cpu, memory = figure.subplots(1, 4, sharey=True)
    figure.suptitle(heading)

    rate.barh(places, [row.rate.median / 1e6 for row in rows], color=[COLOURS[kinds[row.meter]] for row in rows])
    rate.errorbar(
        [row.rate.median / 1e6 for row in rows],
        list(places),
        xerr=[
            [(row.rate.median - row.rate.least) / 1e6 for row in rows],
            [(row.rate.most - row.rate.median) / 1e6 for row in rows],
        ],
        fmt="none",
        ecolor="black",
        elinewidth=1,
        capsize=2,
    )
    rate.set_xlabel("million packets a second, sent")
    rate.set_yticks(list(places), texts)
    rate.invert_yaxis()

    loss.barh(places, [row.loss.median * 100 if row.loss else 0 for row in rows], color=MISSED)
    loss.set_xlim(0, 100)
    loss.set_xlabel("% of packets not accounted for")

    process = [row.process_ns.median for row in rows]
    cpu.barh(places, process, color=PROCESS, label="process")
    kernel = [max(0.0, row.kernel_ns.median) for row in rows]
    cpu.barh(places, kernel, left=process, color=KERNEL, label="kernel for it")
    cpu.set_xlabel("ns of CPU a packet")
    cpu.legend(loc="lower right", fontsize="small")

    own = [row.process_bytes.median / 1e6 for row in rows]
    memory.barh(places, own, color=PROCESS, label="process")
    memory.barh(places, [row.map_bytes / 1e6 for row in rows], left=own, color=KERNEL, label="maps")
    memory.set_xlabel("MB")
    memory.legend(loc="lower right", fontsize="small")
    for axes in (rate, loss, cpu, memory):
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _save(figure: Figure, folder: Path, name: str) -> str:
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return name
