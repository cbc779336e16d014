"""Each query of each dashboard, asked of a real Prometheus that scrapes a real `wiremeter up`, and of its store."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import urllib3
import yaml
from scripts.dashboards import BOARDS, PLACE, PLUGINS, made

from unit.certificates import Authority
from wiremeter.server.store import open_store

from . import leaks, netns

pytestmark = pytest.mark.kernel

WIREMETER = str(Path(sys.executable).with_name("wiremeter"))
RULES = PLACE.parents[1] / "prometheus" / "wiremeter.rules.yml"
PATIENCE_SECONDS = 120.0
AGENT, SERVER, SHIPPING, PROMETHEUS = (f"127.0.0.1:{port}" for port in (10464, 10465, 10466, 9090))
CONFIGURATION = f"""\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{RULES}"]
scrape_configs:
  - {{job_name: wiremeter-agent, static_configs: [{{targets: ["{AGENT}", "{SHIPPING}"]}}]}}
  - {{job_name: wiremeter-server, static_configs: [{{targets: ["{SERVER}"]}}]}}
"""


def panels(name: str, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each query of a committed dashboard, with what it is called."""
    for panel in json.loads((PLACE / source / f"{name}.json").read_text())["panels"]:
        for target in panel.get("targets") or ():
            yield f"{name}: {panel['title']} {target['refId']}", target


def promql() -> dict[str, str]:
    """All expressions as Grafana asks them, for all hosts and devices."""
    return {
        what: target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$device", ".*")
        for name in BOARDS
        for what, target in panels(name, "prometheus")
    }


def sql(begin: int, end: int) -> dict[str, str]:
    """All statements as Grafana's ClickHouse plugin asks them."""
    found = {}
    for name in BOARDS:
        for what, target in panels(name, "clickhouse"):
            text = target["rawSql"].replace("$__interval_s", "5")
            text = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 5 second)", text)
            text = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= toDateTime({begin}) AND \1 <= toDateTime({end})", text)
            found[what] = text.replace("${agent:singlequote}", "'here'").replace("${device:singlequote}", "'lo'")
    return found


# --- something to show


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def running(serve: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()


@contextlib.contextmanager
def resolver() -> Iterator[None]:
    """A DNS server that answers, but for names that begin with broken (SERVFAIL) and silent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 53))

        def serve() -> None:
            while (received := sock.recvfrom(4096))[0] != b"end":
                query = dns.message.from_wire(received[0])
                name = query.question[0].name
                reply = dns.message.make_response(query)
                if name.to_text().startswith("broken"):
                    reply.set_rcode(dns.rcode.SERVFAIL)
                else:
                    reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "127.0.0.1"))
                if not name.to_text().startswith("silent"):
                    sock.sendto(reply.to_wire(), received[1])

        def stop() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"end", ("127.0.0.1", 53))

        with running(serve, stop):
            yield


@contextlib.contextmanager
def sites(directory: Path) -> Iterator[None]:
    """HTTP on port 80, and with TLS on 443."""
    plain = ThreadingHTTPServer(("127.0.0.1", 80), _Site)
    secret = ThreadingHTTPServer(("127.0.0.1", 443), _Site)
    secret.socket = Authority(directory).server_context().wrap_socket(secret.socket, server_side=True)
    with plain, secret, running(plain.serve_forever, plain.shutdown), running(secret.serve_forever, secret.shutdown):
        yield


def send_some() -> None:
    """A little of everything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        for name in ("silent.example", "www.example", "broken.example"):
            query = dns.message.make_query(name, "A")
            asker.sendto(query.to_wire(), ("127.0.0.1", 53))
            if name != "silent.example":
                asker.recv(4096)
    for status in (200, 404, 500):
        connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=5)
        connection.request("GET", f"/{status}", headers={"Host": "www.example"})
        connection.getresponse().read()
        connection.close()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", 443), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="secret.example") as secure,
    ):
        secure.sendall(b"GET /200 HTTP/1.0\r\n\r\n")
        secure.recv(4096)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as frames:  # an IPv4 header that is cut off
        frames.bind(("lo", 0))
        frames.send(bytes(12) + b"\x08\x00" + b"\x45" + bytes(9))


@contextlib.contextmanager
def prometheus(directory: Path) -> Iterator[None]:
    directory.mkdir()
    (directory / "prometheus.yml").write_text(CONFIGURATION)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(
                    "prometheus",
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory}/data",
                ),
                f"--web.listen-address={PROMETHEUS}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def started(log: Path, *words: str) -> Iterator[None]:
    """A command of ours; ended as Ctrl-C does."""
    with log.open("wb") as out:
        process = subprocess.Popen([WIREMETER, *words], stdout=subprocess.DEVNULL, stderr=out)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(60)
    assert status == 0, log.read_text()


def until(condition: Callable[[], bool], log: Path, what: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, (what(), log.read_text())
        time.sleep(0.2)


def is_ready(server: str) -> bool:
    try:
        return urllib3.request("GET", f"http://{server}/readyz", retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def asked(path: str, **parameters: str) -> Any:
    """What Prometheus answers; None while it does not."""
    try:
        reply = urllib3.request("GET", f"http://{PROMETHEUS}{path}?{urllib.parse.urlencode(parameters)}", retries=False)
        document = json.loads(reply.data)
    except (urllib3.exceptions.HTTPError, ValueError):
        return None
    assert document["status"] == "success", document
    return document["data"]


def test_each_query_of_each_dashboard_has_rows(tmp_path: Path) -> None:
    data, begin = tmp_path / "data", int(time.time()) - 60
    words = ["-i", "lo", "--interval", "1s", "--format", "json", "--listen", AGENT, "--state-dir", "none"]
    with (
        leaks.nothing_left(),
        netns.hosts("host") as (host,),
        host.entered(),
        contextlib.ExitStack() as stack,
    ):
        host.ip("link set lo up")
        stack.enter_context(resolver())
        stack.enter_context(sites(tmp_path))
        stack.enter_context(started(tmp_path / "up", "up", *words, "--data-dir", str(data), "--agent-id", "here"))
        until(lambda: is_ready(SERVER), tmp_path / "up")
        # What `up` ships is no metric of its own, so an agent that does is beside it.
        agent = ["--server", f"http://{SERVER}", "--agent-id", "other", "--spool-dir", str(tmp_path / "spool")]
        stack.enter_context(started(tmp_path / "agent", "agent", "-i", "lo", "--listen", SHIPPING, *agent))
        stack.enter_context(prometheus(tmp_path / "prometheus"))
        waiting = promql()

        def all_have_rows() -> bool:
            send_some()
            for what, expression in list(waiting.items()):
                if (found := asked("/api/v1/query", query=expression)) and found["result"]:
                    del waiting[what]
            return not waiting

        until(all_have_rows, tmp_path / "up", lambda: waiting)
        groups = asked("/api/v1/rules")["groups"]
        assert [group["name"] for group in groups] == ["wiremeter", "wiremeter-thresholds"]
        assert [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []
    with open_store(str(data / "store")) as store:
        statements = sql(begin, int(time.time()) + 60)
        assert [what for what, text in statements.items() if not store.query(text).records()] == []


def test_the_dashboards_are_fresh() -> None:
    for source in PLUGINS:
        for name in BOARDS:
            assert (PLACE / source / f"{name}.json").read_text("utf-8") == made(name, source), "run `make docs`"


def test_what_grafana_is_given_names_what_is_there() -> None:
    place = PLACE.parent / "provisioning"
    (provider,) = yaml.safe_load((place / "dashboards" / "wiremeter.yml").read_text())["providers"]
    assert provider["options"]["path"].endswith("/dashboards")
    sources = yaml.safe_load((place / "datasources" / "wiremeter.yml").read_text())["datasources"]
    assert {each["type"] for each in sources} == set(PLUGINS.values())
