"""A real server, asked from Python and from the command line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

import wiremeter
from wiremeter.cli.main import main
from wiremeter.flows.batch import FlowBatch

from ..server.batches import encoded, simulated
from ..server.running import RunningServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def batch() -> FlowBatch:
    return simulated()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, batch: FlowBatch) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("asked") / "data") as running:
        assert running.ask("/v1/batches", encoded(batch, "web-1")).status == 200
        yield running


def test_tables_are_what_was_metered(server: RunningServer, batch: FlowBatch) -> None:
    sent = int(batch.flows["bytes"].sum())
    with wiremeter.connect(server.url) as asked:
        top = asked.top(["agent", "domain"], start="-1h", limit=2)
        assert sum(top["bytes"].to_pylist()) == sent
        assert sum(asked.series("application", start="-1h")["bytes"].to_pylist()) == sent
        assert sum(asked.conversations(start="-1h", limit=3)["bytes"].to_pylist()) == sent
        assert asked.flows(start="-1h").num_rows == len(batch.flows)
        assert asked.flows(start="-1h", filter="udp", limit=7).num_rows == 7
        assert asked.sql("SELECT sum(bytes) AS bytes FROM flows")["bytes"].to_pylist() == [sent]
        assert sum(asked.totals(start="-1h")["bytes"].to_pylist()) == int(batch.counters["bytes"].sum())
        assert {"seen", "flows", "missing"} <= set(asked.audit(start="-1h")["kind"].to_pylist())
        assert [agent["agent"] for agent in asked.agents()] == ["web-1"]
        assert "query" in asked.transactions("dns", start="-1h").column_names


def test_rows_come_one_by_one_and_errors_as_of_all_questions(server: RunningServer, batch: FlowBatch) -> None:
    def nothing(rows: int, total: int) -> None:
        assert rows >= 0

    with wiremeter.connect(server.url) as asked:
        rows = list(asked.rows("flows", {"from": "-1h", "limit": 0}, nothing))
        assert sum(row["bytes"] for row in rows) == int(batch.flows["bytes"].sum())
        with pytest.raises(wiremeter.InputError, match="nothing"):
            list(asked.rows("sql", {"query": "SELECT nothing FROM flows"}, nothing))
        with pytest.raises(wiremeter.InputError, match="those are agent"):
            list(asked.rows("top", {"by": "nothing"}, nothing))


def test_errors_say_whose_move_it_is(server: RunningServer, tmp_path: Path) -> None:
    with wiremeter.connect(server.url) as asked:
        with pytest.raises(wiremeter.InputError, match="those are agent"):
            asked.top("nothing")
        with pytest.raises(wiremeter.InputError, match="not allowed"):
            asked.sql("SELECT file('/etc/passwd')")
    with (
        wiremeter.connect("http://127.0.0.1:1") as nowhere,
        pytest.raises(wiremeter.WiremeterError, match="is `wiremeter server` running"),
    ):
        nowhere.top()
    with pytest.raises(wiremeter.InputError, match="in clear"):
        wiremeter.connect("http://meter.example", token="secret")
    for wrong in ("http://u:secret@meter.example", "http://[::1", "http://meter.example:x"):
        with pytest.raises(wiremeter.InputError, match="URL") as caught:
            wiremeter.connect(wrong)
        assert "secret" not in str(caught.value)
    with pytest.raises(wiremeter.InputError, match="no URL"):
        wiremeter.connect("meter.example")


def test_a_token_is_needed_where_there_are_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert main(["token", "create", "reader", "--rights", "read", "--data-dir", str(data)]) == 0
    token = tmp_path / "token"
    token.write_text(capsys.readouterr().out)
    with RunningServer(data) as server:
        with wiremeter.connect(server.url) as asked, pytest.raises(wiremeter.PermissionNeeded):
            asked.top()
        with wiremeter.connect(server.url, token=token.read_text().strip()) as asked:
            assert asked.top()["flows"].to_pylist() == [0]
        assert main(["top", "--server", server.url, "--token-file", str(token)]) == 0
        assert main(["top", "--server", server.url]) != 0


def wiremeter_says(*words: str) -> bytes:
    return subprocess.run([sys.executable, "-m", "wiremeter", *words], check=True, capture_output=True).stdout


def test_the_commands_print_what_the_server_says(server: RunningServer, batch: FlowBatch) -> None:
    where = ("--server", server.url)
    lines = wiremeter_says("top", "src_addr", "--since", "1h", "--limit", "2", *where).decode().splitlines()
    assert lines[0].split() == ["src_addr", "packets", "bytes", "skbs", "flows"]
    assert lines[3].startswith("(other)")
    sizes = [int(line.split()[2]) for line in lines[1:]]
    assert sum(sizes) == int(batch.flows["bytes"].sum())
    found = json.loads(wiremeter_says("top", "domain", "--since", "1h", "--json", *where))
    assert found["total"]["flows"] == len(batch.flows)
    table = wiremeter_says("flows", "--since", "1h", "--limit", "0", "--format", "parquet", *where)
    assert parquet.read_table(io.BytesIO(table)).num_rows == len(batch.flows)
    assert wiremeter_says("flows", "--since", "1h", "-f", "agent nobody", *where) == b""
    counted = wiremeter_says("query", "SELECT count() AS n FROM flows", "--format", "csv", *where).decode()
    assert counted.split() == ['"n"', str(len(batch.flows))]


def test_an_answer_without_rows_is_no_silence(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flows", "--since", "1h", "-f", "agent nobody", "--server", server.url]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "no rows" in said.err


def test_a_mistake_in_a_command_is_told(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "nothing", "--server", server.url]) == 2
    assert "those are agent" in capsys.readouterr().err
    assert main(["query", "--server", server.url]) == 2
    assert "a query is missing" in capsys.readouterr().err
