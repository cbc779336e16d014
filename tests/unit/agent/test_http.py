"""What is served, to whom, and what a client that misbehaves can do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import http.client
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry, Counter, Metric, ProcessCollector
from prometheus_client.registry import Collector

from wiremeter.agent import http_server
from wiremeter.agent.http import Receive, Scope, Send, make_app
from wiremeter.agent.http_server import serve
from wiremeter.agent.vitals import Vitals
from wiremeter.errors import InputError, PermissionNeeded
from wiremeter.linux.holders import port_holder
from wiremeter.linux.listening import refusal_of
from wiremeter.settings import Listen
from wiremeter.sinks import protobuf

from ..clocks import Clock

ANY_PORT = Listen("127.0.0.1", 0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vitals(clock: Clock) -> Vitals:
    return Vitals(interval=2.0, clock=clock)


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("spam", "Spam.", registry=registry).inc(3)
    return registry


@pytest.fixture
def address(registry: CollectorRegistry, vitals: Vitals) -> Iterator[Listen]:
    """Where an agent serves."""
    with serve(ANY_PORT, make_app(registry, vitals, "1.2.3")) as taken:
        yield taken


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: http.client.HTTPMessage
    text: bytes


def ask(address: tuple[str, int], path: str, method: str = "GET", timeout: float = 5, **headers: str) -> Answer:
    """The answer of a server."""
    host, port = address
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


def test_metrics_are_served_as_plain_text(address: Listen) -> None:
    answer = ask(address, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"spam_total 3.0" in answer.text


def test_metrics_are_served_as_openmetrics_and_compressed_on_request(address: Listen) -> None:
    answer = ask(address, "/metrics", Accept="application/openmetrics-text; version=1.0.0", Accept_Encoding="gzip")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.text).endswith(b"# EOF\n")


PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


def test_metrics_are_served_as_protobuf_to_who_likes_it_best(address: Listen) -> None:
    answer = ask(address, "/metrics", Accept=f"{PROTOBUF},text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert answer.headers["Content-Type"] == protobuf.CONTENT_TYPE
    assert b"\x0a\x0aspam_total" in answer.text
    zipped = ask(address, "/metrics", Accept=PROTOBUF, Accept_Encoding="gzip")
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(zipped.text) == answer.text
    assert ask(address, "/metrics", Accept=f"text/plain;version=0.0.4,{PROTOBUF};q=0.9").text.startswith(b"# HELP")


def test_metrics_picked_by_name_are_text(address: Listen) -> None:
    answer = ask(address, "/metrics?name[]=spam_total", Accept=PROTOBUF)
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert b"spam_total 3.0" in answer.text


def test_the_index_links_to_what_there_is(address: Listen) -> None:
    answer = ask(address, "/")
    assert answer.status == 200
    assert b"wiremeter 1.2.3" in answer.text
    for path in (b"/metrics", b"/healthz", b"/readyz"):
        assert b'href="' + path in answer.text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/etc/passwd", 404), ("POST", "/metrics", 405)])
def test_all_else_isrefusal_of(address: Listen, method: str, path: str, status: int) -> None:
    assert ask(address, path, method).status == status


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/", "/nothing"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_head_has_the_head_of_the_whole_and_no_body(address: Listen, path: str, encoding: str) -> None:
    whole, head = (ask(address, path, method, Accept_Encoding=encoding) for method in ("GET", "HEAD"))
    assert head.status == whole.status
    assert head.text == b""
    assert int(head.headers["Content-Length"]) == len(whole.text) > 0
    for answer in (whole, head):
        del answer.headers["Date"]
    assert head.headers.items() == whole.headers.items()


@pytest.mark.parametrize(
    ("accepted", "is_zipped"),
    [("gzip", True), ("gzip;q=0", False), ("gzip;q=0.0, identity", False), ("*", True), ("br, *;q=0", False)],
)
@pytest.mark.parametrize("kind", ["text", "protobuf"])
def test_gzip_comes_to_those_who_take_it_only(address: Listen, kind: str, accepted: str, is_zipped: bool) -> None:
    answer = ask(address, "/metrics", Accept=PROTOBUF if kind == "protobuf" else "*/*", Accept_Encoding=accepted)
    assert (answer.headers["Content-Encoding"] == "gzip") == is_zipped
    assert b"spam_total" in (gzip.decompress(answer.text) if is_zipped else answer.text)


def test_the_metrics_of_the_process_can_be_picked_too(address: Listen, registry: CollectorRegistry) -> None:
    ProcessCollector(registry=registry)
    answer = ask(address, "/metrics?name[]=process_resident_memory_bytes&name[]=spam_total")
    lines = [line.split()[0] for line in answer.text.decode().splitlines() if not line.startswith("#")]
    assert sorted(lines) == ["process_resident_memory_bytes", "spam_total"]
    assert ask(address, "/metrics?name[]=nothing").text == b""


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/nothing"])
def test_no_header_tells_versions(address: Listen, path: str) -> None:
    headers = ask(address, path).headers
    assert "Server" not in headers
    assert headers["Date"]


def test_a_failing_collector_is_an_error_of_its_own_request_only(
    address: Listen, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Collector):
        def collect(self) -> Iterator[Metric]:
            raise RuntimeError("spoilt")

    registry.register(Broken())
    assert ask(address, "/metrics").status == 500
    assert "spoilt" in caplog.text
    assert ask(address, "/healthz").status == 200


def states(address: Listen) -> list[tuple[int, str]]:
    """Status and reason of /healthz and /readyz."""
    answers = [ask(address, path) for path in ("/healthz", "/readyz")]
    return [(answer.status, answer.text.decode().strip()) for answer in answers]


def test_health_and_readiness_through_an_agents_life(address: Listen, vitals: Vitals, clock: Clock) -> None:
    clock.now += 60
    assert states(address) == [(200, "starting: not attached yet"), (503, "starting: not attached yet")]
    vitals.attached(2)
    assert states(address) == [(200, "ok"), (503, "attached, waiting for the first batch")]
    vitals.batch_arrived(2)
    assert states(address) == [(200, "ok"), (200, "ok")]
    clock.now += 6
    assert states(address) == [(200, "ok"), (200, "ok")]
    clock.now += 0.1
    late = (503, "no batch for 6.1 s, at most 6 s are allowed")
    assert states(address) == [late, late]
    vitals.batch_arrived(0)
    assert states(address) == [(200, "ok"), (503, "not attached to any device at the moment")]
    vitals.batch_arrived(2)
    vitals.stopping()
    assert states(address) == [(200, "ok"), (503, "stopping")]


def test_a_short_interval_still_leaves_a_second(clock: Clock) -> None:
    vitals = Vitals(0.1, clock)
    vitals.attached(1)
    clock.now += 0.9
    assert vitals.healthy().good
    clock.now += 0.2
    assert not vitals.healthy().good


def send_slowly(connection: socket.socket, stop: threading.Event) -> None:
    """A byte of header now and then, for as long as the server allows."""
    with contextlib.suppress(OSError):
        connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        while not stop.wait(0.05):
            connection.sendall(b"x")


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended the connection, whatever it sent before."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


def still_open(connections: Sequence[socket.socket]) -> int:
    return sum(not is_closed(each) for each in connections)


@contextlib.contextmanager
def connected(address: Listen, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, each of which has said so much."""
    with contextlib.ExitStack() as opened:
        connections = []
        for _ in range(count):
            connections.append(opened.enter_context(socket.create_connection(address)))
            if first:
                connections[-1].sendall(first)
        yield connections


@pytest.mark.parametrize("first", [b"", b"GET /metrics HTTP/1.1\r\nX: "], ids=["silent", "half a request"])
def test_clients_that_only_hold_connections_do_not_keep_others_out(address: Listen, first: bytes) -> None:
    with connected(address, 5 * http_server.MAX_CONNECTIONS, first) as idle:
        for _ in range(20):
            assert ask(address, "/metrics").status == 200
        wait_for(lambda: still_open(idle) <= http_server.MAX_CONNECTIONS)
        assert not any(map(is_closed, idle[-10:]))  # the oldest go


def test_many_clients_at_once_are_all_served(address: Listen) -> None:
    statuses: list[int] = []
    clients = [
        threading.Thread(target=lambda: statuses.append(ask(address, "/metrics", timeout=20).status)) for _ in range(80)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert statuses == [200] * len(clients)


async def answer_at_length(scope: Scope, receive: Receive, send: Send) -> None:
    """More than a connection holds for /big, else next to nothing."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * (10_000_000 if scope["path"] == "/big" else 1)})


def test_clients_that_never_take_their_answers_do_not_keep_others_out() -> None:
    with (
        serve(ANY_PORT, answer_at_length) as address,
        connected(address, 3 * http_server.MAX_UNSENT, b"GET /big HTTP/1.0\r\n\r\n") as greedy,
    ):
        wait_for(lambda: still_open(greedy) <= http_server.MAX_UNSENT)
        assert ask(address, "/").text == b"x"
        assert not is_closed(greedy[-1])


def test_a_client_that_sends_byte_by_byte_is_cut_off(
    registry: CollectorRegistry, vitals: Vitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CLIENT_SECONDS", 0.5)
    stop = threading.Event()
    with serve(ANY_PORT, make_app(registry, vitals)) as address, socket.create_connection(address) as connection:
        slow = threading.Thread(target=send_slowly, args=(connection, stop))
        slow.start()
        began = time.monotonic()
        connection.settimeout(5)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b""
        assert 0.4 < time.monotonic() - began < 2
        stop.set()
        slow.join()


def test_a_client_that_never_takes_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CLIENT_SECONDS", 0.5)
    with serve(ANY_PORT, answer_at_length) as address, connected(address, 1, b"GET /big HTTP/1.0\r\n\r\n") as greedy:
        began = time.monotonic()
        wait_for(lambda: is_closed(greedy[0]))
        assert 0.4 < time.monotonic() - began < 2


def test_a_request_that_takes_long_to_answer_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def think(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await answer_at_length(scope, receive, send)

    monkeypatch.setattr(http_server, "CLIENT_SECONDS", 0.1)
    with serve(ANY_PORT, think) as address:
        assert ask(address, "/").text == b"x"


def test_a_stop_does_not_wait_for_clients() -> None:
    with contextlib.ExitStack() as clients:
        with serve(ANY_PORT, answer_at_length) as address:
            clients.enter_context(connected(address, 10))
            clients.enter_context(connected(address, 10, b"GET /big HTTP/1.0\r\n\r\n"))
            began = time.monotonic()
        assert time.monotonic() - began < 3


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits until `condition()` holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("request_head", [b"GET /" + b"a" * 1_000_000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000])
def test_an_oversized_request_is_cut_off(address: Listen, request_head: bytes) -> None:
    answer = b""
    with socket.create_connection(address, timeout=5) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(request_head)
        answer = connection.recv(1000)
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert ask(address, "/healthz").status == 200


@pytest.mark.parametrize(
    "junk", [b"\0" * 100 + b"\r\n\r\n", b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"", b"\xff\n"]
)
def test_junk_ends_only_its_own_connection(address: Listen, junk: bytes) -> None:
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(junk)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while connection.recv(1000):
                pass
    assert ask(address, "/healthz").status == 200


async def never_asked(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("asked")


def test_a_port_in_use_names_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError) as caught, serve(Listen("127.0.0.1", port), never_asked):
            pass
    text = str(caught.value)
    assert f"cannot listen on 127.0.0.1:{port}: " in text
    assert f"(pid {os.getpid()}) has that port already" in text
    assert "--listen" in text


def test_nobody_holds_a_free_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert port_holder(port) is None


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        (Listen("192.0.2.1", 0), "no device of this machine has that address"),
        (Listen("no-such-host.invalid", 0), "does not resolve"),
    ],
)
def test_an_address_that_is_not_ours_isrefusal_of(listen: Listen, why: str) -> None:
    with pytest.raises(InputError, match=why), serve(listen, never_asked):
        pass


def test_a_low_port_without_the_capability_says_which_is_missing() -> None:
    error = refusal_of(Listen("", 80), PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(error, PermissionNeeded)
    assert "CAP_NET_BIND_SERVICE" in str(error)


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")
def test_without_a_host_both_ip_versions_are_served(registry: CollectorRegistry, vitals: Vitals) -> None:
    with serve(Listen("", 0), make_app(registry, vitals)) as taken:
        for host in ("127.0.0.1", "::1"):
            assert ask((host, taken.port), "/healthz").status == 200


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")
def test_an_ipv6_address_is_served(registry: CollectorRegistry, vitals: Vitals) -> None:
    with serve(Listen("::1", 0), make_app(registry, vitals)) as taken:
        assert str(taken).startswith("[::1]:")
        assert ask(taken, "/healthz").status == 200


def test_the_port_is_free_again_afterwards(registry: CollectorRegistry, vitals: Vitals) -> None:
    with serve(ANY_PORT, make_app(registry, vitals)) as taken:
        ask(taken, "/healthz")
    with serve(taken, make_app(registry, vitals)):
        assert ask(taken, "/healthz").status == 200
