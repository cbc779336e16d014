"""The kernel engine flipped without a pause: nearer to the tables than a Monitor, which has an interval to keep."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import if_nametoindex
from typing import TYPE_CHECKING

from .measure import Board, flow_of_row
from .netns import Host, wait_until
from .wire import Count, Flow, Traffic

if TYPE_CHECKING:
    from wiremeter.flows.columns import AttachMode, Direction


@contextmanager
def flipping(
    host: Host, device: str, direction: Direction = "tx", mode: AttachMode = "tcx"
) -> Iterator[Callable[[], tuple[Traffic, int]]]:
    """Count one direction of `device`, in a process on `host`, flipping again as soon as a flip is done.

    The yielded function, called after the block, returns all that was counted, and the number of flips.
    """
    import wiremeter.datapath.kernel  # noqa: F401  here, so that the forked process need not

    board = Board()
    job = host.start(_flip_until_stopped, device, direction, mode, board)
    answer: list[tuple[Traffic, int]] = []
    try:
        wait_until(lambda: bool(board["attached"]) or job.has_answered, "the program is attached")
        yield lambda: answer[0]
    except BaseException:
        job.kill()
        raise
    board["stop_ns"] = 1
    answer.append(job.result(30))


def _flip_until_stopped(device: str, direction: Direction, mode: AttachMode, board: Board) -> tuple[Traffic, int]:
    from wiremeter.datapath.engine import Hook
    from wiremeter.datapath.kernel import KernelEngine
    from wiremeter.datapath.layout import plan_tables

    flows: dict[Flow, Count] = {}
    left = 2  # flips after the end of traffic: each epoch once more
    with KernelEngine(plan_tables(cpus(), 1 << 12)) as engine:
        engine.attach(Hook(device, if_nametoindex(device), direction, mode))
        board["attached"] = 1
        while left:
            left -= board["stop_ns"]
            for part in engine.flip().flows:
                for row in part:
                    key = flow_of_row(row)
                    flows[key] = flows.get(key, Count()).plus(Count(int(row["packets"]), int(row["bytes"])))
        return Traffic(flows), engine.flips


def cpus() -> int:
    """One more than the highest number of a CPU that may run packets here."""
    return max(os.sched_getaffinity(0)) + 1
