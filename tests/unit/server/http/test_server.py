"""A real server over real sockets: each batch once, who may what, and nothing that a client sends makes it fail."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wiremeter.cli.main import main
from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch
from wiremeter.server.run import check_exposure
from wiremeter.settings.catalogue import Server
from wiremeter.settings.values import Listen
from wiremeter.shipment.heartbeat import Heartbeat, Host, Spool, to_json
from wiremeter.shipment.identity import content_digest
from wiremeter.sinks.shipping.delivery import Server as ShipTo
from wiremeter.sinks.shipping.encode import encode
from wiremeter.sinks.shipping.shipper import Options, Shipper

from ...certificates import Authority
from ..batches import BOOT, about, encoded, simulated
from ..running import PATIENCE_SECONDS, RunningServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def batch() -> FlowBatch:
    return simulated()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One on loopback, open to all."""
    with RunningServer(tmp_path_factory.mktemp("open") / "data") as running:
        yield running


def heartbeat(agent: str = "web-1", *, ahead_ns: int = 0) -> bytes:
    return to_json(
        Heartbeat(
            agent=agent,
            boot=BOOT,
            version="1.0",
            started_ns=time.time_ns(),
            uptime_seconds=1.0,
            interval_seconds=5.0,
            settings_hash="abc",
            clock_ns=time.time_ns() + ahead_ns,
            spool=Spool(batches=3, bytes=100),
            host=Host(hostname="web-1", kernel="6.18"),
        )
    )


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- each once


def test_a_batch_that_is_sent_twice_is_stored_once_and_counted_once(server: RunningServer, batch: FlowBatch) -> None:
    content = encoded(batch, "once")
    headers = {"Content-Digest": content_digest(content)}
    answers = [server.ask("/v1/batches", content, headers=headers) for _ in range(3)]
    assert [(one.status, one.json) for one in answers] == [(200, {"stored": number == 0}) for number in range(3)]
    metrics = server.ask("/metrics").body.decode()
    counted = sum(
        float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line.startswith("network_packets_total{") and 'agent="once"' in line
    )
    assert counted == int(batch.counters["packets"].sum())
    assert 'wiremeter_server_batches_total{outcome="known"} 2.0' in metrics


def test_the_same_identity_with_other_content_is_refused_and_shown(server: RunningServer, batch: FlowBatch) -> None:
    assert server.ask("/v1/batches", encoded(batch, "twin")).status == 200
    other = encoded(simulated(seed=2), "twin")
    refused = server.ask("/v1/batches", other)
    assert (refused.status, refused.json["kind"]) == (409, "conflict")
    shown = server.ask("/v1/refused").json
    (found,) = [one for one in shown if one["reason"] == "conflict"]
    assert found["size"] == len(other)
    assert server.ask(f"/v1/refused/{found['content']}").body == other
    assert 'wiremeter_server_refused_total{reason="conflict"} 1.0' in server.ask("/metrics").body.decode()


def test_a_server_that_was_killed_knows_what_it_has_stored(tmp_path: Path, batch: FlowBatch) -> None:
    with RunningServer(tmp_path / "data") as server:
        contents = [encoded(batch, "web-1", number) for number in range(4)]
        assert all(server.ask("/v1/batches", content).json["stored"] for content in contents[:3])
        assert server.ask("/v1/heartbeats", heartbeat()).status == 200
        server.kill()
        server.start()
        assert [server.ask("/v1/batches", content).json["stored"] for content in contents] == [False] * 3 + [True]
        (agent,) = server.ask("/v1/agents").json
        assert (agent["agent"], agent["missing_batches"], agent["state"]) == ("web-1", 0, "up")


def is_stopped(pid: str) -> bool:
    stats = [path.read_text() for path in Path("/proc", pid, "task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def test_what_an_agent_gave_up_is_told_by_its_newest_batch_in_whatever_order_they_come(
    server: RunningServer, batch: FlowBatch
) -> None:
    for sequence, dropped in ((1, {"spool_full": 2}), (0, {})):
        said = replace(about("web-late", sequence), dropped=dropped, version=f"1.{sequence}")
        assert server.ask("/v1/batches", encode(batch, said)).json == {"stored": True}
    found = server.ask("/v1/agents/web-late").json
    assert (found["dropped"], found["version"], found["missing_batches"]) == ({"spool_full": 2}, "1.1", 0)


def test_a_store_that_hangs_is_told_to_probes_and_they_take_nothing_from_batches(
    server: RunningServer, batch: FlowBatch
) -> None:
    threads = Path(f"/proc/{server.pid}/task").iterdir()
    (engine,) = [child for thread in threads for child in (thread / "children").read_text().split()]
    with ThreadPoolExecutor(41) as clients:
        os.kill(int(engine), signal.SIGSTOP)
        try:
            until(lambda: is_stopped(engine))
            probes = [clients.submit(server.ask, "/readyz") for _ in range(40)]
            # What needs no store is answered meanwhile, though there are more probes than the server has threads.
            body = clients.submit(server.ask, "/v1/batches", b"no batch")
            assert body.result(PATIENCE_SECONDS).status == 422
            assert [probe.result(PATIENCE_SECONDS).status for probe in probes] == [503] * 40
        finally:
            os.kill(int(engine), signal.SIGCONT)
    until(lambda: server.ask("/readyz").status == 200)


def test_heartbeats_tell_state_and_the_clocks_skew(server: RunningServer, batch: FlowBatch) -> None:
    assert server.ask("/v1/heartbeats", heartbeat("clock", ahead_ns=90 * 10**9)).status == 200
    server.ask("/v1/batches", encoded(batch, "clock", 0))
    server.ask("/v1/batches", encoded(batch, "clock", 4))
    agent = server.ask("/v1/agents/clock").json
    assert agent["clock_skew_seconds"] == pytest.approx(90, abs=2)
    assert agent["missing_batches"] == 3
    assert agent["heartbeat"]["spool"]["batches"] == 3
    assert server.ask("/v1/agents/nobody").status == 404
    assert server.ask("/v1/heartbeats", b"{}").status == 422
    assert server.ask("/v1/heartbeats", b"x" * (5 << 20)).status == 413


def test_a_clock_that_is_years_off_is_told_and_its_batches_are_kept(server: RunningServer, batch: FlowBatch) -> None:
    content = encoded(batch, "past", end_ns=10**18)
    assert server.ask("/v1/batches", content).json == {"stored": True}
    assert server.ask("/v1/batches", content).json == {"stored": False}
    assert server.ask("/v1/agents/past").json["stored_until_ns"] > time.time_ns() - 3600 * 10**9
    assert "wiremeter_server_corrected_batches_total" in server.ask("/metrics").body.decode()


def test_an_agents_shipper_and_the_server_understand_each_other(
    server: RunningServer, batch: FlowBatch, tmp_path: Path
) -> None:
    options = Options(
        agent="shipper",
        server=ShipTo(server.url),
        spool_dir=tmp_path / "spool",
        spool_bytes=1 << 24,
        memory_bytes=1 << 24,
        rate=1 << 30,
        heartbeat=60.0,
        ignore=[],
    )
    with Shipper(options, lambda state: heartbeat("shipper")) as shipper:
        for _ in range(3):
            shipper.write(batch)
            time.sleep(0.2)
        until(lambda: not shipper.state.waiting["disk"].batches and not shipper.state.waiting["memory"].batches)
    agent = server.ask("/v1/agents/shipper").json
    assert (agent["missing_batches"], agent["heartbeat"]["agent"]) == (0, "shipper")


# --- hostile clients


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/batches", b"", {}, 422),
        ("/v1/batches", b"x" * 1000, {}, 422),
        ("/v1/batches", b"x", {"Content-Encoding": "gzip"}, 415),
        ("/v1/batches", b"x", {"Content-Encoding": "zstd"}, 400),
        ("/v1/batches", b"x", {"Content-Digest": content_digest(b"y")}, 503),
        ("/v1/heartbeats", b"[" * 100_000, {}, 422),
        ("/v1/nothing", b"x", {}, 404),
        ("/../../etc/passwd", None, {}, 404),
        ("/v1/refused/..%2f..%2ftokens.json", None, {}, 404),
        ("/v1/refused?limit=-1", None, {}, 400),
        ("/v1/refused?limit=99999999999999999999", None, {}, 400),
        ("/v1/agents/" + "a" * 5000, None, {}, 404),
    ],
)
def test_what_makes_no_sense_has_an_answer(
    server: RunningServer, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    found = server.ask(path, body, headers=headers)
    assert found.status == status
    assert set(found.json) == {"error", "kind"}


def test_bodies_may_be_as_large_as_a_busy_hosts_batch_and_no_larger(server: RunningServer, batch: FlowBatch) -> None:
    """Above 1 MiB all were refused for ever once, by a limit of the framework's own."""
    assert server.ask("/v1/batches", bytes(5 << 20)).json["kind"] == "schema"
    flows = np.concatenate([batch.flows] * 200)
    flows["src_addr"][:, 12:] = np.random.default_rng(1).integers(0, 256, (len(flows), 4), "u1")
    flows["bytes"] = np.random.default_rng(2).integers(0, 1 << 40, len(flows))
    content = encoded(replace(batch, flows=flows), "large")
    assert len(content) > 2 << 20
    assert server.ask("/v1/batches", content).json == {"stored": True}
    too_large = server.ask("/v1/batches", bytes((64 << 20) + 1))
    assert (too_large.status, too_large.json["kind"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),  # of a page in a sandbox or of a file
        ({"Host": "["}, 403),
        ({"Host": "localhost", "Origin": "http://["}, 403),
        ({"Host": "localhost:1", "Origin": "http://127.0.0.1"}, 200),
    ],
)
def test_pages_of_other_sites_are_not_answered_on_loopback(
    server: RunningServer, headers: dict[str, str], status: int
) -> None:
    assert server.ask("/v1/agents", headers=headers).status == status


def test_a_batch_of_another_schema_breaks_nobody_elses(server: RunningServer, batch: FlowBatch) -> None:
    content = encoded(batch, "broken")
    for at in range(0, len(content), len(content) // 40):
        damaged = content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]
        assert server.ask("/v1/batches", damaged).status in (200, 409, 422)
    assert server.ask("/v1/batches", encoded(batch, "sound")).json == {"stored": True}


def test_a_body_without_end_and_one_without_headers_hold_nobody_up(server: RunningServer) -> None:
    where = urllib.parse.urlsplit(server.url)
    address = (str(where.hostname), int(where.port or 0))
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(50)]
        endless = stack.enter_context(socket.create_connection(address))
        endless.sendall(b"POST /v1/batches HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            _send_without_end(endless)
        assert server.ask("/healthz").status == 200
        for one in idle[:3]:
            one.settimeout(15)
            with contextlib.suppress(ConnectionResetError):
                assert one.recv(1) == b"", "whoever says nothing is hung up on"


def _send_without_end(to: socket.socket) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        to.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")


# --- who may what


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def token(directory: Path, *words: str) -> tuple[str, str]:
    """Made by the command: id and text."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(["token", "create", *words, "--data-dir", str(directory), "--format", "json"]) == 0
    made = json.loads(out.getvalue())
    return made["id"], made["token"]


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[tuple[RunningServer, dict[str, str], dict[str, str]]]:
    """One with TLS and tokens; the tokens' texts and ids."""
    directory = tmp_path_factory.mktemp("guarded") / "data"
    words = {
        "agent": ("web-1", "--for-agent", "web-1"),
        "fleet": ("fleet",),
        "reader": ("reader", "--rights", "read"),
        "admin": ("admin", "--rights", "admin"),
        "gone": ("gone", "--rights", "admin"),
    }
    made = {name: token(directory, *words) for name, words in words.items()}
    certificate, key = authority.issue("server")
    arguments = ("--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(authority.path))
    with RunningServer(directory, *arguments) as running:
        yield running, {name: text for name, (_, text) in made.items()}, {name: id for name, (id, _) in made.items()}


def test_rights_are_apart_and_an_agent_writes_for_itself_alone(
    guarded: tuple[RunningServer, dict[str, str], dict[str, str]], batch: FlowBatch
) -> None:
    server, tokens, _ = guarded
    mine, others = encoded(batch, "web-1"), encoded(batch, "web-2")

    def may(name: str | None, path: str, body: bytes | None = None) -> int:
        return server.ask(path, body, token=tokens[name] if name else None).status

    assert may(None, "/healthz") == may(None, "/readyz") == 200
    assert [may(None, path) for path in ("/v1/agents", "/metrics", "/v1/refused", "/openapi.json")] == [
        401,
        401,
        401,
        200,
    ]
    assert may(None, "/v1/batches", mine) == 401
    assert server.ask("/v1/batches", mine, token="wm_00000000_" + "A" * 43).status == 401
    assert (may("agent", "/v1/batches", mine), may("agent", "/v1/batches", others)) == (200, 403)
    assert (may("fleet", "/v1/batches", mine), may("fleet", "/v1/batches", others)) == (200, 200)
    assert (may("agent", "/v1/heartbeats", heartbeat("web-2")), may("agent", "/v1/agents")) == (403, 403)
    assert (may("reader", "/v1/agents"), may("reader", "/metrics"), may("reader", "/v1/refused")) == (200, 200, 403)
    assert (may("reader", "/v1/batches", mine), may("admin", "/v1/batches", mine)) == (403, 403)
    assert (may("admin", "/v1/refused"), may("admin", "/v1/agents")) == (200, 200)
    # Whoever gives the agent the right token shall not have lost anything: nothing of this is set aside.
    assert server.ask("/v1/refused", token=tokens["admin"]).json == []


def test_a_revoked_token_counts_no_more(
    guarded: tuple[RunningServer, dict[str, str], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    server, tokens, ids = guarded
    assert server.ask("/v1/agents", token=tokens["gone"]).status == 200
    assert main(["token", "revoke", ids["gone"], "--data-dir", str(server.directory)]) == 0
    until(lambda: server.ask("/v1/agents", token=tokens["gone"]).status == 401)
    assert main(["token", "list", "--data-dir", str(server.directory)]) == 0
    listed = capsys.readouterr().out
    assert ids["gone"] in listed
    assert not any(text.split("_", 2)[2] in listed for text in tokens.values())


def test_as_long_as_tokens_cannot_be_read_nobody_is_let_in_and_agents_keep_their_batches(
    guarded: tuple[RunningServer, dict[str, str], dict[str, str]], batch: FlowBatch
) -> None:
    server, tokens, _ = guarded
    path = server.directory / "tokens.json"
    content = path.read_bytes()
    try:
        path.write_text("damaged")
        until(lambda: server.ask("/v1/agents", token=tokens["admin"]).status == 503)
        for _ in range(3):
            answer = server.ask("/v1/batches", encoded(batch, "web-1"), token=tokens["agent"])
            assert (answer.status, answer.json["kind"]) == (503, "tokens")
            assert str(path) not in answer.json["error"]
    finally:
        path.write_bytes(content)
    until(lambda: server.ask("/v1/agents", token=tokens["admin"]).status == 200)


def test_a_certificate_is_an_identity(
    guarded: tuple[RunningServer, dict[str, str], dict[str, str]],
    authority: Authority,
    batch: FlowBatch,
    tmp_path: Path,
) -> None:
    server, _, _ = guarded
    web3 = authority.issue("web-3", uri="urn:wiremeter:agent:web-3")
    plain = authority.issue("plain", uri="urn:something:else")
    stranger = Authority(tmp_path, "stranger").issue("web-3b", uri="urn:wiremeter:agent:web-3")
    assert server.ask("/v1/batches", encoded(batch, "web-3"), certificate=web3).status == 200
    assert server.ask("/v1/batches", encoded(batch, "web-4"), certificate=web3).status == 403
    assert server.ask("/v1/agents", certificate=web3).status == 403
    assert server.ask("/v1/batches", encoded(batch, "web-3"), certificate=plain).status == 401
    with pytest.raises(Exception, match=r"(?i)unknown ca|reset|eof|closed"):
        server.ask("/v1/batches", encoded(batch, "web-3"), certificate=stranger)


def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(
    guarded: tuple[RunningServer, dict[str, str], dict[str, str]], authority: Authority
) -> None:
    server, _, _ = guarded
    where = urllib.parse.urlsplit(server.url)

    def serial() -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(authority.path)
        address = (str(where.hostname), int(where.port or 0))
        with (
            socket.create_connection(address) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            return str((secured.getpeercert() or {})["serialNumber"])

    before = serial()
    certificate, _key = authority.issue("server")
    until(lambda: serial() != before)
    renewed = serial()
    certificate.write_text("no certificate")
    until(lambda: "cannot be read again" in server.log)
    assert serial() == renewed


def test_logs_and_answers_hold_no_secret(guarded: tuple[RunningServer, dict[str, str], dict[str, str]]) -> None:
    server, tokens, _ = guarded
    wrong = server.ask("/v1/agents", token=tokens["admin"] + "x")
    for text in tokens.values():
        assert text.split("_", 2)[2] not in server.log + wrong.body.decode()


# --- where it listens


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"server_listen": Listen("", 1)}, "without TLS"),
        ({"server_listen": Listen("192.0.2.1", 1), "plaintext": True}, "no token"),
        ({"server_listen": Listen("::", 1), "tls_cert": "a", "tls_key": "b"}, "no token"),
        ({"tls_client_ca": "a"}, "needs --tls-cert"),
        ({"tls_cert": "a"}, "go together"),
    ],
)
def test_it_does_not_listen_to_others_unprotected_unless_told_so(given: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=why):
        check_exposure(Server(**given), has_tokens=False)  # type: ignore[arg-type]


def test_it_listens_somewhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """ "off" ended it with a traceback."""
    assert main(["server", "--listen", "off", "--data-dir", str(tmp_path)]) == 2
    assert "--listen is 'off', expected host:port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "has_tokens", "is_open"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"authentication": "on"}, False, False),
        ({"authentication": "off"}, True, True),
        ({"server_listen": Listen("", 1), "plaintext": True}, True, False),
        ({"server_listen": Listen("", 1), "plaintext": True, "authentication": "off"}, False, True),
        ({"server_listen": Listen("", 1), "tls_cert": "a", "tls_key": "b", "tls_client_ca": "c"}, False, False),
    ],
)
def test_who_shows_nothing_is_let_in_only_there(given: dict[str, object], has_tokens: bool, is_open: bool) -> None:
    assert check_exposure(Server(**given), has_tokens=has_tokens) is is_open  # type: ignore[arg-type]
