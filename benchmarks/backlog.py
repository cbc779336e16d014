"""How long what waited for an hour takes to arrive: an agent's spool, a round trip of 50 ms, and the real server.

One batch at a time, as an agent sends the first after a failure, is measured beside it, in the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.report import Figure, Progress, figure_of
from benchmarks.serving import served
from wiremeter import simulate
from wiremeter.shipment.identity import About
from wiremeter.sinks.shipping import shipper
from wiremeter.sinks.shipping.delivery import Server
from wiremeter.sinks.shipping.encode import encode
from wiremeter.sinks.shipping.shipper import Options, Shipper
from wiremeter.sinks.shipping.spool import Spool

GROUP = "a backlog behind a round trip of 50 ms"
_ONE_WAY_SECONDS = 0.025
_INTERVAL = 5
BATCHES, BATCHES_ALONE = 3600 // _INTERVAL, 40
FLOWS = 1000


def measure(say: Progress) -> Iterator[Figure]:
    """Seconds until all of it has arrived, and for a batch."""
    with (
        tempfile.TemporaryDirectory(prefix="wiremeter-bench-") as directory,
        served(Path(directory)) as server,
        _far_away(server.url) as far,
    ):
        say(f"a backlog of {BATCHES_ALONE} batches, one at a time")
        alone = _drain(Path(directory) / "alone", far, BATCHES_ALONE, at_a_time=1) / BATCHES_ALONE
        say(f"a backlog of {BATCHES} batches, as agents send it")
        seconds = _drain(Path(directory) / "together", far, BATCHES, at_a_time=shipper._AT_A_TIME)
    yield figure_of(GROUP, "a batch, one at a time", "ms", [alone * 1e3])
    yield figure_of(GROUP, "a batch, up to 16 at a time", "ms", [seconds / BATCHES * 1e3])
    yield figure_of(GROUP, f"an hour of intervals of {_INTERVAL} s", "s", [seconds])


def _drain(spool_dir: Path, url: str, batches: int, *, at_a_time: int) -> float:
    """Fills a spool, and ships it; seconds until all is stored."""
    (batch,) = simulate("dns", seconds=1, packets_per_second=FLOWS)
    end_ns = time.time_ns()
    with Spool(spool_dir, "bench", 1 << 30) as spool:
        for number in range(batches):
            start_ns = end_ns - (batches - number) * _INTERVAL * 10**9
            about = About(
                identity=spool.next_identity(),
                mode="simulated",
                start_ns=start_ns,
                end_ns=start_ns + _INTERVAL * 10**9,
                version="1.0",
            )
            spool.put(encode(batch, about))
    options = Options(
        agent="bench",
        server=Server(url),
        spool_dir=spool_dir,
        spool_bytes=1 << 30,
        memory_bytes=1 << 24,
        rate=8 << 20,
        heartbeat=3600.0,
    )
    usual, shipper._AT_A_TIME = shipper._AT_A_TIME, at_a_time
    try:
        began = time.monotonic()
        with Shipper(options) as sending:
            while sending.state.progress.sent["stored"] < batches:
                time.sleep(0.01)
            return time.monotonic() - began
    finally:
        shipper._AT_A_TIME = usual


@contextlib.contextmanager
def _far_away(url: str) -> Iterator[str]:
    """The same server, with what goes to it and comes from it held up on its way."""
    loop = asyncio.new_event_loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        listening = runner.run(asyncio.start_server(partial(_forward, url), "127.0.0.1", 0))
        ended = asyncio.Event()
        thread = threading.Thread(target=runner.run, args=(ended.wait(),))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()


async def _forward(url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    where = urlsplit(url)
    far_reader, far_writer = await asyncio.open_connection(where.hostname, where.port)
    with contextlib.suppress(asyncio.CancelledError):  # at the end; streams would tell of it
        await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while piece := await reader.read(1 << 16):
        loop.call_later(_ONE_WAY_SECONDS, writer.write, piece)
    loop.call_later(_ONE_WAY_SECONDS, writer.close)
