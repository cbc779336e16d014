"""How many flows a server takes from a fleet: the real server, over HTTP, beside a question each second.

20 agents' batches are encoded before, as agents encode them, and lie in files as in their spools. Each agent sends its
own one after the other as fast as they are taken, so that what is measured is the server: what sending costs here is
reading files, and is told beside it. All three share the machine's CPUs.
"""

from __future__ import annotations

import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import urllib3
from numpy.typing import NDArray

from benchmarks.fleet import SECOND, Agent
from benchmarks.report import Figure, Progress, figure_of
from benchmarks.serving import Server, served
from wiremeter.flows.batch import Attachment, FlowBatch
from wiremeter.flows.columns import COUNTER, ETHERTYPE_COUNTER, FLOW, VLAN_NONE
from wiremeter.names.records import FlowName
from wiremeter.server.store import Batch
from wiremeter.shipment.identity import content_digest
from wiremeter.shipment.schema import MEDIA_TYPE
from wiremeter.sinks.shipping.encode import encode

GROUP = "server ingest over HTTP"
AGENTS, INTERVAL = 20, 5
#: Flows a second that are to be taken, and for so many seconds of them.
RATE, SECONDS = 250_000, 60
_ATTACHMENTS = (Attachment(0, "eth0", 2, "rx", "tcx"), Attachment(1, "eth0", 2, "tx", "tcx"))


def measure(say: Progress) -> Iterator[Figure]:
    """Wall and CPU time of a flow; memory at its most."""
    steps = SECONDS // INTERVAL
    flows = RATE * INTERVAL // AGENTS
    with tempfile.TemporaryDirectory(prefix="wiremeter-bench-") as directory, served(Path(directory)) as server:
        say(f"encoding {steps} batches of {AGENTS} agents, {flows:,} flows each")
        files, sent_bytes = encoded(Path(directory) / "spools", flows, steps)
        say("sending them")
        yield from _send(server, files, flows * steps * AGENTS, sent_bytes, say)


def encoded(directory: Path, flows: int, steps: int) -> tuple[list[list[Path]], int]:
    """Files of each agent's batches in order, and their bytes. Their time begins about when all of this is done."""
    sample = Agent(AGENTS, flows)
    began = time.monotonic()
    encode(as_shipped(next(sample.batches(0))), next(sample.batches(0)).about)
    start_ns = time.time_ns() + int((time.monotonic() - began) * steps * AGENTS * SECOND)
    files, size = [], 0
    for number in range(AGENTS):
        agent = Agent(number, flows, interval=INTERVAL * SECOND)
        folder = directory / agent.name
        folder.mkdir(parents=True)
        for step, batch in zip(range(steps), agent.batches(start_ns), strict=False):
            content = encode(as_shipped(batch), batch.about)
            (folder / f"{step:012d}").write_bytes(content)
            size += len(content)
        files.append(sorted(folder.iterdir()))
    return files, size


def as_shipped(batch: Batch) -> FlowBatch:
    """The batch as an agent's meter has it, with the tables that are short beside the flows."""
    table = batch.tables["flows"].combine_chunks()
    flows = np.zeros(table.num_rows, FLOW)
    for name in FLOW.names or ():
        if name in ("src_addr", "dst_addr"):
            flows[name] = np.frombuffer(table[name].chunk(0).buffers()[1], "u1").reshape(-1, 16)
        elif name in table.column_names and name != "vlan":
            flows[name] = table[name].to_numpy()
    flows["vlan"] = VLAN_NONE
    flows["attachment"] = _codes(table["direction"])
    for name in ("first", "last"):
        flows[f"{name}_ns"] = table[f"{name}_time"].cast(pa.int64()).to_numpy()
    application, domain = _codes(table["application"]), _codes(table["domain"])
    domains = table["domain"].chunk(0).dictionary.to_pylist()
    applications = table["application"].chunk(0).dictionary.to_pylist()
    pairs, names = np.unique(application.astype("i8") * len(domains) + domain, return_inverse=True)
    counters = np.zeros(2 * len(_ATTACHMENTS), COUNTER)
    counters["attachment"], counters["family"], counters["protocol"] = [0, 0, 1, 1], 4, [6, 17, 6, 17]
    for row in counters:
        is_here = (flows["attachment"] == row["attachment"]) & (flows["protocol"] == row["protocol"])
        for amount in ("packets", "bytes", "skbs"):
            row[amount] = flows[amount][is_here].sum()
    return FlowBatch(
        batch.about.start_ns,
        batch.about.end_ns,
        _ATTACHMENTS,
        flows,
        counters,
        np.zeros(0, ETHERTYPE_COUNTER),
        (),
        mode="simulated",
        names=tuple(_name(applications[pair // len(domains)], domains[pair % len(domains)]) for pair in pairs.tolist()),
        flow_names=names.astype("u4"),
    )


def _name(application: str, domain: str) -> FlowName:
    if application != "tls":
        return FlowName(application, domain or None)
    return FlowName(application, domain or None, "sni", "1.3", "TLS_AES_128_GCM_SHA256", "h2")


def _codes(column: pa.ChunkedArray) -> NDArray[np.int32]:
    codes: NDArray[np.int32] = column.chunk(0).indices.to_numpy()
    return codes


def _send(server: Server, files: list[list[Path]], flows: int, size: int, say: Progress) -> Iterator[Figure]:
    waits: list[float] = []
    residents: list[tuple[float, float]] = []
    ended = threading.Event()
    before, own = server.cpu_seconds(), time.process_time()
    began = time.monotonic()
    with ThreadPoolExecutor(AGENTS + 1) as pool:
        beside = pool.submit(_look_and_ask, server, waits, residents, ended)
        try:
            for sent in [pool.submit(_send_all, server.url, mine) for mine in files]:
                sent.result()
        finally:
            ended.set()
        beside.result()
    seconds = time.monotonic() - began
    spent = [after - earlier for earlier, after in zip(before, server.cpu_seconds(), strict=True)]
    say(f"{flows:,} flows in {seconds:.1f} s: {flows / seconds:,.0f} a second")
    yield figure_of(GROUP, "wall, beside questions", "µs/flow", [seconds / flows * 1e6], 1e6 / RATE)
    yield figure_of(GROUP, "CPU, server", "µs/flow", [spent[0] / flows * 1e6])
    yield figure_of(GROUP, "CPU, engine with merges and rollups", "µs/flow", [spent[1] / flows * 1e6])
    yield figure_of(GROUP, "CPU, senders", "µs/flow", [(time.process_time() - own) / flows * 1e6])
    yield figure_of(GROUP, "a flow as it is sent", "bytes", [size / flows])
    yield figure_of(GROUP, "a question meanwhile", "ms", [wait * 1e3 for wait in waits])
    yield figure_of(GROUP, "resident, server", "MB", [max(each[0] for each in residents)])
    yield figure_of(GROUP, "resident, engine", "MB", [max(each[1] for each in residents)])
    yield figure_of(GROUP, "resident, both", "MB", [max(map(sum, residents))], 900)


def _send_all(url: str, files: list[Path]) -> None:
    """One agent's, in order, each until it is taken."""
    where = urlsplit(url)
    with urllib3.HTTPConnectionPool(str(where.hostname), where.port, maxsize=1) as pool:
        for path in files:
            content = path.read_bytes()
            headers = {"Content-Type": MEDIA_TYPE, "Content-Digest": content_digest(content)}
            while (answer := pool.request("POST", "/v1/batches", body=content, headers=headers)).status != 200:
                if answer.status not in (429, 503):
                    raise RuntimeError(f"{answer.status}: {answer.data.decode()}")
                time.sleep(float(answer.headers.get("Retry-After", 1)))


def _look_and_ask(
    server: Server, waits: list[float], residents: list[tuple[float, float]], ended: threading.Event
) -> None:
    """Each second how much memory is taken, and a question: who sent most to one agent, of the last five minutes."""
    while not ended.wait(1):
        residents.append(server.resident_mb())
        began = time.monotonic()
        with urllib.request.urlopen(f"{server.url}/v1/top?by=src_addr&filter=agent+host-003") as answer:
            answer.read()
        waits.append(time.monotonic() - began)
