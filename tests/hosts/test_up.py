"""`wiremeter up`: what the live table shows is what its server has stored, and nothing is left behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from wiremeter.server.store import open_store

from . import leaks, netns

pytestmark = pytest.mark.kernel

WIREMETER = str(Path(sys.executable).with_name("wiremeter"))
TIMES, SIZE = 300, 500


def test_what_it_shows_is_what_its_server_has(tmp_path: Path) -> None:
    data = tmp_path / "data"
    words = ["up", "-i", "lo", "--data-dir", str(data), "--interval", "500ms", "--format", "json", "--names", "none"]
    with leaks.nothing_left(), netns.hosts("host") as (host,), host.entered():
        host.ip("link set lo up")
        argv = [WIREMETER, *words, "--agent-id", "here", "--state-dir", "none"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
            assert up.stdout
            assert up.stderr
            documents = [json.loads(up.stdout.readline())]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(TIMES):
                    sender.sendto(bytes(SIZE), ("127.0.0.1", 9))
            counted = 0
            while counted < 2 * TIMES:  # sent and received
                documents.append(json.loads(up.stdout.readline()))
                counted += sum(flow["packets"] for flow in documents[-1]["flows"] if flow["dst_port"] == 9)
            up.send_signal(signal.SIGINT)
            said, told = up.communicate(timeout=120)
            assert up.returncode == 0, told
    documents += map(json.loads, said.splitlines())
    assert "the server is at http://127.0.0.1:10465" in told
    with open_store(str(data / "store")) as store:
        rows = store.query(
            "SELECT direction, sum(packets) AS packets, sum(bytes) AS bytes FROM wiremeter.flows"
            " WHERE agent = 'here' AND dst_port = 9 GROUP BY direction"
        ).records()
        batches = store.query("SELECT uniqExact(sequence) AS count FROM wiremeter.batches").records()
        stored = store.query("SELECT direction, sum(packets) AS packets FROM wiremeter.counters GROUP BY direction")
        counters = {row["direction"]: row["packets"] for row in stored.records()}
    assert {row["direction"]: (row["packets"], row["bytes"]) for row in rows} == dict.fromkeys(
        ("rx", "tx"), (TIMES, TIMES * (SIZE + 42))
    )
    assert batches[0]["count"] == len(documents)
    for way in ("rx", "tx"):
        shown = sum(each["seen"]["packets"] for one in documents for each in one["devices"] if each["direction"] == way)
        assert shown == counters[way]


def test_without_the_server_it_says_why_and_attaches_nothing(tmp_path: Path) -> None:
    with leaks.nothing_left(), netns.hosts("host") as (host,), host.entered():
        host.ip("link set lo up")
        with socket.create_server(("127.0.0.1", 10465)):
            argv = [WIREMETER, "up", "-i", "lo", "--data-dir", str(tmp_path / "data"), "--once"]
            ended = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 2
        said = ended.stderr.splitlines()[-1]
        assert "10465" in said
        assert "--server-listen (or WIREMETER_SERVER_LISTEN, or server_listen in the file)" in said
