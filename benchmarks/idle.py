"""What a fleet costs its server that has next to no traffic: 200 agents, a batch each 5 s, a heartbeat each 30 s."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from benchmarks.fleet import SECOND, Agent
from benchmarks.ingest import as_shipped
from benchmarks.report import Figure, Progress, figure_of
from benchmarks.serving import served
from wiremeter.shipment.heartbeat import Device, Heartbeat, Host, Spool, to_json
from wiremeter.shipment.identity import content_digest
from wiremeter.shipment.schema import MEDIA_TYPE
from wiremeter.sinks.shipping.encode import encode

GROUP = "200 idle agents"
AGENTS, INTERVAL, HEARTBEAT = 200, 5, 30
#: Flows of a batch: something always talks.
FLOWS = 10
WARM_SECONDS, SECONDS = 20, 60
TARGET = 5.0


def measure(say: Progress) -> Iterator[Figure]:
    """CPU of one core."""
    agents = [Agent(number, FLOWS, interval=INTERVAL * SECOND) for number in range(AGENTS)]
    batches = [agent.batches(time.time_ns()) for agent in agents]
    with (
        tempfile.TemporaryDirectory(prefix="wiremeter-bench-") as directory,
        served(Path(directory)) as server,
        ThreadPoolExecutor(AGENTS) as pool,
    ):
        where = urlsplit(server.url)
        http = urllib3.HTTPConnectionPool(str(where.hostname), where.port, maxsize=AGENTS)

        def post(path: str, content: bytes, kind: str) -> None:
            headers = {"Content-Type": kind, "Content-Digest": content_digest(content)}
            answer = http.request("POST", path, body=content, headers=headers)
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {answer.data.decode()}")

        say(f"{AGENTS} agents send next to nothing for {SECONDS} s")
        began, before, counted = time.monotonic(), (0.0, 0.0), 0.0
        sent = []
        for turn in range(AGENTS * (WARM_SECONDS + SECONDS) // INTERVAL):
            time.sleep(max(0.0, began + turn * INTERVAL / AGENTS - time.monotonic()))
            if not counted and time.monotonic() - began > WARM_SECONDS:
                before, counted = server.cpu_seconds(), time.monotonic()
            number = turn % AGENTS
            batch = next(batches[number])
            end_ns = time.time_ns()
            about = replace(batch.about, start_ns=end_ns - INTERVAL * SECOND, end_ns=end_ns)
            sent.append(pool.submit(post, "/v1/batches", encode(as_shipped(batch), about), MEDIA_TYPE))
            if turn // AGENTS % (HEARTBEAT // INTERVAL) == number % (HEARTBEAT // INTERVAL):
                body = to_json(_heartbeat(agents[number].name, about.identity.boot))
                sent.append(pool.submit(post, "/v1/heartbeats", body, "application/json"))
        for each in sent:
            each.result()
        seconds = time.monotonic() - counted
        own, engine = (after - earlier for earlier, after in zip(before, server.cpu_seconds(), strict=True))
    yield figure_of(GROUP, "CPU of one core, server and engine", "%", [100 * (own + engine) / seconds], TARGET)
    yield figure_of(GROUP, "CPU of one core, server", "%", [100 * own / seconds])
    yield figure_of(GROUP, "CPU of one core, engine", "%", [100 * engine / seconds])


def _heartbeat(agent: str, boot: str) -> Heartbeat:
    now_ns = time.time_ns()
    device = Device(name="eth0", ifindex=2, attach={"rx": "tcx", "tx": "tcx"}, addresses=["10.0.0.1/24"])
    return Heartbeat(
        agent=agent,
        boot=boot,
        version="1.0",
        started_ns=now_ns,
        uptime_seconds=1.0,
        interval_seconds=INTERVAL,
        settings_hash="0",
        clock_ns=now_ns,
        spool=Spool(batches=0, bytes=0),
        host=Host(hostname=agent, kernel="6.18"),
        devices=[device],
    )
