"""An agent of the soak: batches whose totals are known, through the agent's own shipper, and a log of what was done.

Each line is a JSON object and is on disk before the next thing happens: `made` before a batch is handed over, `kept`
once the spool has it. A batch that was kept is stored in the end, or counted under the reason why not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from wiremeter import simulate
from wiremeter.flows.batch import FlowBatch
from wiremeter.sinks.shipping import shipper as shipping
from wiremeter.sinks.shipping.delivery import Server
from wiremeter.sinks.shipping.shipper import Options, Shipper

#: About as long as the server gathers batches for, so that now one is on its way, now several.
INTERVAL_SECONDS = 1.0
FLOWS = 200
_MS = 10**6


def run(agent: str, url: str, directory: Path, offset_ns: int = 0) -> None:
    """Ships until SIGTERM, and then until nothing waits. offset_ns: by which its clock is off."""
    shipping._LAST_TRY_SECONDS = 2.0  # else a minute of quiet ends each run
    told = signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    assert told is signal.SIG_DFL
    stopping: list[bool] = []
    (base,) = simulate("dns", seconds=1, packets_per_second=FLOWS, seed=len(agent))
    with open(directory / "done.jsonl", "ab", buffering=0) as log, Shipper(_options(agent, url, directory)) as shipper:

        def say(**what: object) -> None:
            log.write(json.dumps(what).encode() + b"\n")
            os.fsync(log.fileno())

        number, before_ms = 0, 0
        while not stopping:
            before_ms = max(before_ms + 1, (time.time_ns() + offset_ns) // _MS)
            batch, packets = _numbered(base, number, before_ms * _MS)
            identity = shipper.state.identity
            about = {"boot": identity.boot, "sequence": identity.sequence, "start_ms": before_ms, "packets": packets}
            say(what="made", **about)
            shipper.write(batch)
            while shipper.state.identity == identity and not stopping:
                time.sleep(0.005)
            say(what="kept", **about)
            number += 1
            time.sleep(INTERVAL_SECONDS)
        end = time.monotonic() + 90
        while any(waiting.batches for waiting in shipper.state.waiting.values()) and time.monotonic() < end:
            time.sleep(0.05)
        state = shipper.state
        say(what="ended", dropped=state.dropped, waiting=sum(each.batches for each in state.waiting.values()))


def _numbered(base: FlowBatch, number: int, start_ns: int) -> tuple[FlowBatch, int]:
    """The batch with another number of packets each time, and how many they are."""
    flows = base.flows.copy()
    flows["packets"][0] += number % 1000
    flows["first_ns"], flows["last_ns"] = start_ns, start_ns + _MS
    return replace(base, flows=flows, start_ns=start_ns, end_ns=start_ns + _MS), int(flows["packets"].sum())


def _options(agent: str, url: str, directory: Path) -> Options:
    return Options(
        agent=agent,
        server=Server(url),
        spool_dir=directory / "spool",
        spool_bytes=1 << 28,
        memory_bytes=1 << 24,
        rate=1 << 30,
        heartbeat=60.0,
        ignore=[],
    )


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
