"""A process that stores batches, for tests that kill it: `python -m unit.server.store.sender DIRECTORY AGENTS COUNT`.

It sends each agent's batches 0 to COUNT in order, prints a line for each that is acknowledged, and begins at 0 again
when it is started again, as an agent would that never heard. Its clock is fast, so minutes end while it runs.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from unit.server.store.batches import make_batch
from wiremeter.server.store import Limits, Store, Unavailable, open_store, upkeep

SECOND = 10**9
#: Seconds of flows in a batch, and how much faster the clock runs.
STEP = 5
SPEED = 120


def send(store: Store, agent: str, count: int, start_ns: int) -> None:
    """Sends all batches of one agent until each is acknowledged."""
    for sequence in range(count):
        while True:
            try:
                stored = store.insert(
                    make_batch(agent, sequence, rows=40, start_ns=start_ns + sequence * STEP * SECOND)
                )
            except Unavailable as error:
                time.sleep(min(error.retry_after, 0.05))
            else:
                sys.stdout.write(f"{agent} {sequence} {stored.is_new}\n")
                sys.stdout.flush()
                break


def main() -> None:
    directory, agents, count, start_ns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    upkeep.EVERY_SECONDS = 0.05
    began = time.monotonic()

    def now() -> float:
        return start_ns / SECOND + (time.monotonic() - began) * SPEED

    with (
        open_store(directory, limits=Limits(group_seconds=0.01), now=now) as store,
        ThreadPoolExecutor(agents) as threads,
    ):
        for number in range(agents):
            threads.submit(send, store, f"agent-{number}", count, start_ns)


if __name__ == "__main__":
    main()
