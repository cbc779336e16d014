"""How many rows a store on ClickHouse servers takes: `python -m benchmarks.native clickhouse://USER:PASSWORD@HOST:PORT`.

20 simulated agents' batches go to the store as fast as it takes them. CPU is this process's alone; the servers' is to
be seen there. What is in its database `wiremeter` stays, with these rows beside.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Future

from benchmarks.store import FLOWS, INTERVAL, _Fleet, _submit
from wiremeter.server.store import Stored, open_store

_SECONDS = 30


def main(url: str) -> None:
    """Tells rows a second."""
    fleet = _Fleet(FLOWS, 3)
    with (
        tempfile.TemporaryDirectory(prefix="wiremeter-bench-") as directory,
        open_store(url, directory=directory) as store,
    ):
        began, spent, step = time.monotonic(), time.process_time(), 0
        sent: deque[Future[Stored]] = deque()
        while time.monotonic() - began < _SECONDS:
            for batch in fleet.interval(step, int(time.time()) - INTERVAL):
                _submit(store, batch, sent)
            step += 1
        for future in sent:
            future.result()
        seconds, rows = time.monotonic() - began, store.state.rows_stored
        cpu = time.process_time() - spent
    print(
        f"{rows:,} rows in {seconds:.1f} s: {rows / seconds:,.0f} a second; {cpu / rows * 1e6:.2f} µs of CPU a row here"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
