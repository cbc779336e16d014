"""Who watches sees what is stored, as it is stored; who does not read is let go, and the server's end is theirs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import urllib3
from litestar import Litestar
from litestar.di import Provide

from wiremeter.cli.main import main
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.columns import address_text
from wiremeter.flows.filter import compile_filter
from wiremeter.names.records import FlowName
from wiremeter.server.access.principal import ANYONE
from wiremeter.server.http.serving import Serving
from wiremeter.server.live import hub
from wiremeter.server.live.hub import Live
from wiremeter.server.live.interval import View, event, metered_batch
from wiremeter.server.live.routes import live_routes
from wiremeter.server.store import Batch, conform

from ...live_batches import flow, make_batch
from ...shipped import tables_of
from ..batches import about, encoded, simulated
from ..query.test_conditions import make_flows
from ..running import RunningServer

SERVER = FlowName("tls", "www.example.com", "sni")
FLOWS = make_batch(
    [
        flow("10.0.0.1", "192.0.2.1", 50000, 443, direction="tx", packets=3, name=SERVER),
        flow("192.0.2.1", "10.0.0.1", 443, 50000, packets=5, size=1000, name=SERVER),
        flow("10.0.0.1", "192.0.2.2", 50001, 53, protocol=17, direction="tx", packets=2),
        flow("10.0.0.1", "192.0.2.3", 50002, 80, direction="tx", packets=1, vlan=7),
    ],
    non_ip={("eth0", "rx"): [(0x0806, 4)]},
)


def shipped(batch: FlowBatch, agent: str = "web-1", mode: str = "live") -> Batch:
    """As a server has it."""
    content = tables_of(encoded(batch, agent))
    tables: Any = {name: conform(name, table) for name, table in content.items()}  # type: ignore[arg-type]
    return Batch(about=about(agent, mode=mode), content=bytes(32), received_ns=0, tables=tables)


def seen(batch: Batch, **view: Any) -> dict[str, Any]:
    return dict(json.loads(msgspec.json.encode(event(batch, metered_batch(batch), View(**view)))))


# --- what is shown


def test_an_interval_is_the_terminals_table_and_all_traffic_by_device() -> None:
    found = seen(shipped(FLOWS))
    first = found["conversations"][0]
    assert (first["local_addr"], first["local_port"]) == ("10.0.0.1", 50000)
    assert (first["remote_addr"], first["remote_port"], first["domain"]) == ("192.0.2.1", 443, "www.example.com")
    assert (first["tx_packets"], first["rx_packets"], first["rx_bytes"]) == (3, 5, 5000)
    assert [(row["remote_addr"], row["vlan"]) for row in found["conversations"][1:]] == [
        ("192.0.2.2", None),
        ("192.0.2.3", 7),
    ]
    assert found["devices"][0] == {"device": "eth0", "direction": "rx", "packets": 9, "bytes": 5240, "skbs": 9}
    assert found["total"]["packets"] == 11
    assert (found["agent"], found["seconds"]) == ("web-1", 5.0)


@pytest.mark.parametrize("filter", ["", "tcp", "domain example.com", "dev 'v*' or agent db-1", "vlan 77 and not rx"])
@pytest.mark.parametrize("limit", [1, 20, 500])
def test_conversations_and_the_rest_add_up_to_what_fits(filter: str, limit: int) -> None:
    batch = make_flows(31)
    found = seen(shipped(batch), filter=filter, limit=limit)
    expected = batch.filter(compile_filter(filter, agent="web-1")).flows
    assert found["total"]["bytes"] == int(expected["bytes"].sum())
    rows = found["conversations"]
    assert len(rows) <= limit
    listed = sum(row["rx_bytes"] + row["tx_bytes"] for row in rows)
    assert listed + found["other"]["bytes"] == found["total"]["bytes"]
    assert limit < 500 or found["other"] == {"packets": 0, "bytes": 0, "skbs": 0}


def in_order(batch: FlowBatch) -> FlowBatch:
    order = np.argsort(batch.flows["bytes"])  # which tell them apart
    return replace(batch, flows=batch.flows[order], flow_names=batch.name_indexes[order])


def test_flows_come_back_as_they_were_metered() -> None:
    batch = make_flows(32)
    again = metered_batch(shipped(batch))
    batch, again = in_order(batch), in_order(again)
    for name in ("src_addr", "dst_addr", "src_port", "dst_port", "vlan", "protocol", "family", "packets", "bytes"):
        assert (again.flows[name] == batch.flows[name]).all()
    for mine, theirs in zip(again.flows, batch.flows, strict=True):
        assert again.attachments[mine["attachment"]].device == batch.attachments[theirs["attachment"]].device
        assert ip_address(address_text(mine["src_addr"])) == ip_address(address_text(theirs["src_addr"]))
    names = [again.names[index][:3] for index in again.name_indexes]
    assert names == [batch.names[index][:3] for index in batch.name_indexes]


def test_an_interval_without_flows_is_shown_too() -> None:
    found = seen(shipped(make_batch([])))
    assert (found["conversations"], found["total"]["packets"]) == ([], 0)


# --- how it is served


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[tuple[Live, Serving, int]]:
    """The route alone, on a real socket."""
    live = Live()
    app = Litestar(
        live_routes(live),
        dependencies={"principal": Provide(lambda: ANYONE, sync_to_thread=False)},
    )
    serving = Serving(app, None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with live:
            task = asyncio.create_task(serving.serve_on(listening))
            yield live, serving, listening.getsockname()[1]
            live.close()
            serving.stop()
            await task


@dataclass
class Watching:
    """One who watches."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter  # whose end would be the connection's

    async def event(self) -> dict[str, Any]:
        await self.reader.readuntil(b"event: interval\r\n")
        return dict(json.loads((await self.reader.readuntil(b"\r\n")).removeprefix(b"data: ")))

    def transport(self) -> Any:
        return self.writer.transport


async def connect(port: int, query: str = "") -> Watching:
    """Behind the head of the answer and the first comment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    writer.write(f"GET /v1/live?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b": wiremeter")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert b"text/event-stream" in head
    return Watching(reader, writer)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(within())


def test_each_sees_what_it_asked_for() -> None:
    async def watch() -> None:
        async with served() as (live, _, port):
            all_of_it = await connect(port)
            udp = await connect(port, "filter=udp&limit=1")
            db = await connect(port, "agent=db-1")
            live.take(shipped(FLOWS))
            live.take(shipped(FLOWS, "db-1"))
            assert [(await all_of_it.event())["agent"] for _ in range(2)] == ["web-1", "db-1"]
            assert (await udp.event())["total"]["packets"] == 2
            assert (await db.event())["agent"] == "db-1"

    run(watch())


def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HEARTBEAT_SECONDS", 0.05)

    async def watch() -> None:
        async with served() as (_, _, port):
            one = await connect(port)
            for _ in range(3):
                await one.reader.readuntil(b": wiremeter\r\n")

    run(watch())


def counted(live: Live) -> dict[str, float]:
    return {sample.name: sample.value for family in live.collect() for sample in family.samples}


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_who_does_not_read_is_cut_off_and_counted_and_others_see_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "WAITING_MAX", 4)
    big = shipped(make_batch([flow("10.0.0.1", "192.0.2.1", port, 80, direction="tx") for port in range(500)]))

    async def watch() -> None:
        async with served() as (live, _, port):
            good = await connect(port, "limit=1")
            slow = await connect(port, "limit=500")
            slow.transport().pause_reading()
            sent = 0
            while not counted(live)["wiremeter_server_live_slow_clients_total"]:
                live.take(big)
                sent += 1
                await good.event()
            await until(lambda: counted(live)["wiremeter_server_live_clients"] == 1)
            live.take(big)
            await good.event()
            slow.transport().resume_reading()
            received = b""
            with contextlib.suppress(ConnectionError):
                received = await slow.reader.read()
            assert received.count(b"event: interval") < sent
            assert not received.endswith(b"0\r\n\r\n")  # so it can tell that this was no end

    run(watch())


def test_who_leaves_is_forgotten() -> None:
    async def watch() -> None:
        async with served() as (live, _, port):
            one = await connect(port)
            assert counted(live)["wiremeter_server_live_clients"] == 1
            one.writer.close()
            await until(lambda: counted(live)["wiremeter_server_live_clients"] == 0)

    run(watch())


def test_the_servers_end_ends_what_all_see_also_for_who_does_not_read() -> None:
    big = shipped(make_batch([flow("10.0.0.1", "192.0.2.1", port, 80, direction="tx") for port in range(500)]))

    async def watch() -> None:
        async with served() as (live, _, port):
            good = await connect(port, "limit=1")
            bad = await connect(port, "limit=500")
            bad.transport().pause_reading()
            for _ in range(40):
                live.take(big)
                await good.event()
        assert b"event" not in await good.reader.read()

    run(watch())


def test_more_than_may_watch_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "CLIENTS_MAX", 1)

    async def watch() -> None:
        async with served() as (_, _, port):
            one = await connect(port)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert not (await reader.read()).startswith(b"HTTP/1.1 200")
            for each in (writer, one.writer):
                each.close()

    run(watch())


def test_too_many_batches_at_once_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "BATCHES_MAX", 2)

    async def watch() -> None:
        async with served() as (live, _, port):
            one = await connect(port)
            for number in range(5):  # without giving way to the loop between
                live.take(shipped(FLOWS, f"agent-{number}"))
            assert [(await one.event())["agent"] for _ in range(2)] == ["agent-3", "agent-4"]
            assert counted(live)["wiremeter_server_live_skipped_batches_total"] == 3

    run(watch())


# --- the server as it runs


@pytest.mark.slow
def test_what_is_sent_is_seen_once_it_is_stored(tmp_path: Path) -> None:
    batch = simulated()
    with RunningServer(tmp_path / "data") as server:
        assert server.ask("/v1/live?filter=prot+443").status == 400
        assert server.ask("/v1/live?limit=0").status == 400
        response = urllib3.PoolManager().request("GET", f"{server.url}/v1/live?limit=3", preload_content=False)
        lines = iter(response)
        assert next(lines).startswith(b": ")
        body = encoded(batch)
        for _ in range(2):  # once, though it is sent twice
            assert server.ask("/v1/batches", body).status == 200
        assert server.ask("/v1/batches", encoded(batch, sequence=1)).status == 200
        found = [json.loads(line.removeprefix(b"data: ")) for line in _data(lines, 2)]
        assert [interval["total"]["bytes"] for interval in found] == [int(batch.flows["bytes"].sum())] * 2
        assert b"wiremeter_server_live_clients 1.0" in server.ask("/metrics").body
        metrics = server.ask("/metrics").body
    assert b"data:" not in b"".join(lines)  # and the server's end was its end
    assert b"wiremeter_server_live_slow_clients_total 0.0" in metrics


def _data(lines: Any, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        if (line := next(lines)).startswith(b"data: "):
            found.append(line)
    return found


@pytest.mark.slow
def test_whoever_asks_learns_what_it_may_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    tokens = {}
    for name, more in (("reader", ["--rights", "read"]), ("agent", ["--for-agent", "web-1"])):
        assert main(["token", "create", name, *more, "--data-dir", str(data)]) == 0
        tokens[name] = capsys.readouterr().out.strip().split()[-1]
    with RunningServer(data) as server:
        nobody: dict[str, Any] = {"authentication": True, "name": None, "rights": [], "agent": None, "version": None}
        assert server.ask("/v1/whoami").json == nobody
        reader = server.ask("/v1/whoami", token=tokens["reader"]).json
        assert (reader["rights"], reader["agent"]) == (["read"], None)
        assert reader["version"]
        agent = server.ask("/v1/whoami", token=tokens["agent"]).json
        assert (agent["rights"], agent["agent"], agent["version"]) == (["write"], "web-1", None)
        assert server.ask("/v1/whoami", token="wrong").status == 401
        assert server.ask("/v1/live").status == 401
        assert server.ask("/v1/live", token=tokens["agent"]).status == 403
