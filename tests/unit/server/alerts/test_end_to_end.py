"""A real server, a real Alertmanager and real webhooks: fired once, over once, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wiremeter.cli.main import main
from wiremeter.shipment.heartbeat import Heartbeat, Host, Spool, to_json

from ..batches import BOOT
from ..running import RunningServer
from .alertmanager import Alertmanager
from .receiver import Receiver

pytestmark = pytest.mark.slow

RULES = """\
groups:
  - name: mine
    rules:
      - alert: SpoolLarge
        expr: SELECT agent, JSONExtractUInt(heartbeat, 'spool', 'batches') AS value FROM heartbeats WHERE value > 100
        labels: {severity: page}
        annotations: {summary: "{{ $labels.agent }} has {{ $value }} batches"}
"""


def heartbeat(agent: str = "web-1", *, waiting: int = 0) -> bytes:
    return to_json(
        Heartbeat(
            agent=agent,
            boot=BOOT,
            version="1.0",
            started_ns=time.time_ns(),
            uptime_seconds=1.0,
            interval_seconds=5.0,
            settings_hash="abc",
            clock_ns=time.time_ns(),
            spool=Spool(batches=waiting, bytes=100),
            host=Host(hostname="web-1", kernel="6.18"),
        )
    )


def until(condition: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def metric(server: RunningServer, name: str) -> float:
    """Of the server's life; 0 where it is not there yet."""
    lines = server.ask("/metrics").body.decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def was_told(server: RunningServer) -> bool:
    """Whether the webhook took a message, and the server has noted that."""
    return metric(server, 'wiremeter_alert_messages_total{output="webhook",result="sent"}') > 0


def some_rounds(server: RunningServer) -> None:
    """Waits until rules were evaluated some more times."""
    before = metric(server, "wiremeter_alert_evaluations_total")
    until(lambda: metric(server, "wiremeter_alert_evaluations_total") >= before + 3)


def states(server: RunningServer) -> dict[str, str]:
    return {one["labels"].get("agent", ""): one["state"] for one in server.ask("/v1/alerts").json}


def test_it_fires_once_and_ends_once_though_the_server_is_killed(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    with Receiver() as direct, Receiver() as behind, Alertmanager(tmp_path / "am", behind.url) as manager:
        arguments = [
            *("--alert-rules", str(tmp_path / "rules.yml"), "--alert-shipped", "none", "--alert-interval", "1"),
            *("--alert-webhooks", direct.url, "--alertmanagers", manager.url),
        ]
        with RunningServer(tmp_path / "data", *arguments) as server:
            assert server.ask("/v1/heartbeats", heartbeat(waiting=900)).status == 200
            until(lambda: was_told(server) and behind.taken, lambda: server.log)
            server.kill()
            server.start()
            some_rounds(server)
            assert states(server) == {"web-1": "firing"}
            assert [alert["labels"]["alertname"] for alert in manager.alerts()] == ["SpoolLarge"]
            assert direct.states() == behind.states() == [("SpoolLarge", "firing")]
            direct.is_away = True
            assert server.ask("/v1/heartbeats", heartbeat(waiting=0)).status == 200
            until(lambda: direct.refused, lambda: server.log)
            server.kill()  # it is over, and the webhook has not heard of that
            direct.is_away = False
            server.start()
            until(lambda: len(direct.taken) > 1 and len(behind.taken) > 1, lambda: server.log)
            some_rounds(server)
            history = [(one["state"], one["labels"]["agent"]) for one in server.ask("/v1/alerts/history").json]
        assert history == [("resolved", "web-1"), ("firing", "web-1")]
        assert direct.states() == behind.states() == [("SpoolLarge", "firing"), ("SpoolLarge", "resolved")]
        assert direct.taken[0]["alerts"][0]["annotations"] == {"summary": "web-1 has 900 batches"}
        assert manager.alerts() == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    directory = tmp_path_factory.mktemp("alerts")
    (directory / "rules.yml").write_text(RULES)
    data = directory / "data"
    arguments = ["--alert-rules", str(directory / "rules.yml"), "--alert-interval", "1", "--authentication", "on"]
    with RunningServer(data, *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from wiremeter.server.access.tokens import TokenFile
    from wiremeter.server.directory import TOKENS_FILE

    directory = tmp_path_factory.mktemp("tokens")
    made = {}
    for right in ("write", "read", "admin"):
        _, text = TokenFile(server.directory / TOKENS_FILE).create(right, (right,), None)
        made[right] = directory / right
        made[right].write_text(text)
    until(lambda: server.ask("/v1/alerts", token=made["read"].read_text()).status == 200)
    return made


def test_readers_see_alerts_and_only_admins_silence_them(
    server: RunningServer, tokens: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write, read, admin = (tokens[right].read_text() for right in ("write", "read", "admin"))
    assert server.ask("/v1/heartbeats", heartbeat("web-7", waiting=200), token=write).status == 200
    until(lambda: any(one["alert"] == "SpoolLarge" for one in server.ask("/v1/alerts", token=read).json))
    body = json.dumps({"matchers": ["alertname=SpoolLarge", "agent=~web-.*"], "for": "1h", "comment": "new disk"})
    kind = {"Content-Type": "application/json"}
    for path in ("/v1/alerts", "/v1/alerts/history", "/v1/alerts/rules", "/v1/alerts/silences"):
        asked = [server.ask(path, token=token).status for token in (write, read, admin)]
        assert asked == [403, 200, 200], path
        assert server.ask(path).status == 401
    made = [
        server.ask("/v1/alerts/silences", body.encode(), token=token, headers=kind) for token in (write, read, admin)
    ]
    assert [one.status for one in made] == [403, 403, 201]
    (alert,) = [one for one in server.ask("/v1/alerts", token=read).json if one["alert"] == "SpoolLarge"]
    assert (alert["state"], alert["silenced_by"]) == ("firing", [made[2].json["id"]])

    def says(*words: str, right: str = "read", status: int = 0) -> str:
        argv = ["alert", *words, "--server", server.url, "--token-file", str(tokens[right])]
        assert main(argv) == status
        captured = capsys.readouterr()
        return captured.out + captured.err

    assert "SpoolLarge: web-7 has 200 batches  silenced by" in says("list")
    assert "firing" in says("history")
    assert "mine/SpoolLarge: 1 firing" in says("rules")
    assert "wiremeter/AgentAway: " in says("rules")
    assert "new disk" in says("silences")
    assert "has not the right to admin" in says("unsilence", made[2].json["id"], status=1)
    assert "(over)" in says("unsilence", made[2].json["id"], right="admin")
    assert "there is no silence of that id" in says("unsilence", "nothing", right="admin", status=1)
    assert "(admin)" in says("silence", "agent=web-7", "--for", "5m", right="admin")
    assert "is no matcher" in says("silence", "web-7", right="admin", status=2)
    assert "for a time up to a year" in says("silence", "agent=web-7", "--for", "9999d", right="admin", status=2)
    assert json.loads(says("list", "--format", "json"))[0]["alert"] == "SpoolLarge"


def test_a_link_in_an_alert_leads_to_a_page_that_needs_no_token(server: RunningServer) -> None:
    page = server.ask("/docs/alerts")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert b'<h2 id="agentaway">AgentAway</h2>' in page.body
    assert b"SpoolLarge" not in page.body


def test_rules_are_read_again_on_sighup_and_wrong_ones_are_not_taken(
    server: RunningServer, tokens: dict[str, Path]
) -> None:
    read = tokens["read"].read_text()
    file = server.directory.parent / "rules.yml"

    def names() -> list[str]:
        return [one["alert"] for one in server.ask("/v1/alerts/rules", token=read).json]

    assert "SpoolLarge" in names()
    file.write_text("groups: [")
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: "the alert rules cannot be read again" in server.log)
    assert "SpoolLarge" in names()
    file.write_text(RULES.replace("SpoolLarge", "SpoolHuge"))
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: "SpoolHuge" in names())
    assert "SpoolLarge" not in names()


def test_a_server_does_not_start_with_rules_that_are_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.yml").write_text("groups: 1")
    words = ["--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--alert-rules"]
    assert main(["server", *words, str(tmp_path / "rules.yml")]) == 2
    assert "rules.yml: Expected `array`, got `int`" in capsys.readouterr().err
