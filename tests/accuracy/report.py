"""The table of outcomes: for a terminal, and for the docs."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence

from .outcome import Outcome

HEAD = ("scenario", "where", "runs", "expected packets", "measured", "expected bytes", "measured", "error")

INTRODUCTION = """# Accuracy

Each scenario sends known traffic between network namespaces and compares what the meter says, flow by flow, with a
truth that is not the meter's: the sender's own arithmetic, or, where the receiver's ring may overflow (native XDP on
veth) and for the outside of a tunnel, a capture of wire packets. `make accuracy` measures again and writes this page.

The error is the number of packets and bytes that are missing, too many, or in a flow that is not theirs; the target is
0. For what the stack never shows, the expected result is the gap that the audit reports.
"""

NOT_COVERED = """
SCTP is sent as raw frames: many kernels have no socket for it. Devices that need hardware are not in the table.
`tests/hosts` holds these scenarios and further cases as tests.
"""


def rows(outcomes: Iterable[Outcome]) -> list[tuple[str, ...]]:
    """One row of text an outcome."""
    return [
        (
            outcome.scenario,
            outcome.place,
            str(outcome.runs),
            f"{outcome.expected.packets:,}",
            f"{outcome.measured.packets:,}",
            f"{outcome.expected.bytes:,}" if outcome.expected.bytes else "–",
            f"{outcome.measured.bytes:,}" if outcome.expected.bytes else "–",
            "0" if not outcome.wrong and not outcome.wrong_bytes else f"{outcome.wrong:,} / {outcome.wrong_bytes:,} B",
        )
        for outcome in outcomes
    ]


def as_text(outcomes: Sequence[Outcome]) -> str:
    """Columns for a terminal."""
    table = [HEAD, *rows(outcomes)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


def as_markdown(outcomes: Sequence[Outcome], skipped: Sequence[str]) -> str:
    """The page docs/accuracy.md."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|" + "---:|" * (len(HEAD) - 2)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(outcomes)]
    lines += [""] + [f"Not measured, since this kernel lacks what it needs: {name}." for name in skipped]
    kernel = platform.release().split("-")[0]
    wrong = sum(bool(outcome.wrong or outcome.wrong_bytes) for outcome in outcomes)
    summary = f"\nLast run: Linux {kernel}, {platform.machine()}. {len(outcomes)} rows, {wrong} with an error.\n\n"
    return INTRODUCTION + summary + "\n".join(lines) + NOT_COVERED
