"""The questions over HTTP, of a real server: every form of every answer, who may ask, and what a mistake is told."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import polars
import pyarrow as pa
import pytest
from pyarrow import parquet

from wiremeter.cli.main import main
from wiremeter.flows.batch import FlowBatch

from ..batches import encoded, simulated
from ..running import Reply, RunningServer

pytestmark = pytest.mark.slow

QUESTIONS = (
    *("/v1/top?by=agent,domain", "/v1/top", "/v1/top?by=src_addr&by=vlan&once=observer", "/v1/series?by=application"),
    *("/v1/series?once=observer&points=3", "/v1/conversations?limit=5", "/v1/flows", "/v1/flows?limit=0&order=oldest"),
    *("/v1/flows?limit=3&filter=udp+port+53", "/v1/dns", "/v1/tls", "/v1/quic", "/v1/http", "/v1/totals", "/v1/audit"),
    *("/v1/totals?by=family,protocol,ethertype,mode", "/v1/sql?query=SELECT+*+FROM+flows"),
    *("/v1/values?of=src_addr&limit=3", "/v1/top?by=agent&compare=1d&rank=change", "/v1/series?by=agent&compare=1w"),
    *("/v1/dns/top?by=server_addr,rcode", "/v1/http/series?by=status", "/v1/tls/top?by=version", "/v1/quic/series"),
    "/v1/sql?query=SELECT+agent,+dropped,+content,+start+FROM+batches",
)


@pytest.fixture(scope="module")
def batch() -> FlowBatch:
    return simulated()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, batch: FlowBatch) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("asked") / "data") as running:
        for agent in ("web-1", "db-1"):
            assert running.ask("/v1/batches", encoded(batch, agent)).status == 200
        yield running


def with_(path: str, more: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{more}"


def read(form: str, reply: Reply) -> pa.Table:
    match form:
        case "json":
            return pa.Table.from_pylist(reply.json["rows"])
        case "jsonl":
            return pa.Table.from_pylist([json.loads(line) for line in reply.body.splitlines()])
        case "csv":
            return polars.read_csv(io.BytesIO(reply.body), infer_schema=False).to_arrow()
        case "arrow":
            return pa.ipc.open_stream(reply.body).read_all()
        case _:
            return parquet.read_table(io.BytesIO(reply.body))


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_form_of_an_answer_holds_the_same_rows(server: RunningServer, question: str) -> None:
    now = int(time.time()) + 60
    path = question if "/sql" in question else with_(question, f"from={now - 900}&to={now}")
    sizes = {}
    for form in ("json", "jsonl", "csv", "arrow", "parquet"):
        reply = server.ask(with_(path, f"format={form}"))
        assert reply.status == 200, reply.body
        sizes[form] = read(form, reply).num_rows
    assert len(set(sizes.values())) == 1, sizes
    if "/sql?query=SELECT+*" not in question:
        names = {form: read(form, server.ask(with_(path, f"format={form}"))).column_names for form in ("csv", "arrow")}
        assert names["csv"] == names["arrow"]


def test_the_form_is_what_is_accepted(server: RunningServer) -> None:
    for accept, kind in {
        "text/csv": "text/csv; charset=utf-8",
        "*/*": "application/json",
        "text/html, application/vnd.apache.parquet;q=0.5": "application/vnd.apache.parquet",
    }.items():
        assert server.ask("/v1/top", headers={"Accept": accept}).headers["content-type"] == kind
    assert server.ask("/v1/top", headers={"Accept": "image/png"}).status == 406


def test_a_total_is_what_the_agents_counted(server: RunningServer, batch: FlowBatch) -> None:
    sent = 2 * int(batch.flows["bytes"].sum())
    top = server.ask("/v1/top?by=domain&limit=2&from=-1h").json
    assert (top["total"]["bytes"], top["once"]) == (sent, "none")
    assert sum(row["bytes"] for row in top["rows"]) == sent
    totals = server.ask("/v1/totals?from=-1h&by=agent").json["rows"]
    assert [(row["agent"], row["bytes"]) for row in totals] == [
        (agent, int(batch.counters["bytes"].sum())) for agent in ("db-1", "web-1")
    ]
    once = server.ask("/v1/top?once=observer&from=-1h")
    assert once.headers["wiremeter-once"] == "observer"
    assert once.json["total"]["bytes"] <= sent


@pytest.mark.parametrize("form", ["json", "csv"])
def test_pages_are_continued_by_the_word_they_give(server: RunningServer, batch: FlowBatch, form: str) -> None:
    rows, after = 0, ""
    while True:
        reply = server.ask(f"/v1/flows?from=-1h&limit=100&format={form}&after={after}")
        rows += read(form, reply).num_rows
        if form == "json":
            assert reply.json["next"] == reply.headers.get("wiremeter-next")
        if not (after := reply.headers.get("wiremeter-next", "")):
            break
    assert rows == 2 * len(batch.flows)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/top?by=nothing", 400, "those are agent"),
        ("/v1/top?filter=prot+443", 400, "did you mean"),
        ("/v1/top?from=yesterday", 400, "no time"),
        ("/v1/top?limit=0", 400, "limit"),
        ("/v1/top?once=twice", 400, "once"),
        ("/v1/flows?after=x", 400, "after"),
        ("/v1/series?step=1s&from=-30d", 400, "10000 points"),
        ("/v1/dns?filter=vlan+5", 400, "asks for vlan"),
        ("/v1/totals?filter=port+53", 400, "does not tell"),
        ("/v1/top?limits=5", 400, "did you mean 'limit'?"),
        ("/v1/conversations?by=agent", 400, "no parameter 'by'"),
        ("/v1/sql?query=SELECT+1&from=-5m", 400, "no parameter 'from'"),
        ("/v1/top?format=xml", 400, "none of json, jsonl, csv, arrow, parquet"),
        ("/v1/top?sort=bits", 400, "none of packets, bytes, skbs, flows"),
        ("/v1/live?agents=web-1", 400, "did you mean 'agent'?"),
        ("/v1/top?progress=true", 400, "format=jsonl"),
        ("/v1/top?progress=x&format=jsonl", 400, "progress"),
        ("/v1/values?of=nothing", 400, "those are agent"),
        ("/v1/values?of=agent,device", 400, "one dimension"),
        ("/v1/values", 400, "of"),
        ("/v1/top?rank=change", 400, "compare=1d"),
        ("/v1/top?compare=yesterday", 400, "length of time"),
        ("/v1/top?compare=0d", 400, "length of time"),
        ("/v1/series?compare=1d&from=60&to=120", 400, "beyond 1970"),
        ("/v1/dns/top?by=status", 400, "those are agent"),
        ("/v1/tls/series?sort=latency", 400, "cannot be sorted"),
        ("/v1/http/series?step=x", 400, "no step"),
        ("/v1/dns/top?filter=vlan+5", 400, "asks for vlan"),
        ("/v1/flow?src_addr=x&dst_addr=192.0.2.1&protocol=6", 400, "src_addr: 'x' is no address"),
        ("/v1/flow?src_addr=192.0.2.2&dst_addr=192.0.2.1&protocol=tcp", 400, "protocol"),
        ("/v1/flow?src_addr=192.0.2.2&dst_addr=192.0.2.1&protocol=6&src_port=65536", 400, "src_port"),
        ("/v1/sql?query=+", 422, "the query is empty"),
        ("/v1/sql?query=SELECT+1;SELECT+2", 422, "Syntax error (Multi-statements"),
        ("/v1/sql?query=DROP+TABLE+flows", 422, ""),
        ("/v1/sql?query=SELECT+file('/etc/passwd')", 422, "not allowed"),
        ("/v1/sql?query=SELECT+nothing+FROM+flows", 422, "nothing"),
    ],
)
def test_a_mistake_is_told(server: RunningServer, path: str, status: int, text: str) -> None:
    reply = server.ask(path)
    assert (reply.status, text in reply.json["error"]) == (status, True), reply.body
    assert "formatQuery" not in reply.json["error"]
    assert "Exception" not in reply.json["error"]


@pytest.mark.parametrize("path", ["/v1/top?by=domain&limit=2", "/v1/flows?limit=3", "/v1/sql?query=SELECT+1+AS+n"])
def test_lines_may_be_tagged_and_tell_of_progress(server: RunningServer, path: str) -> None:
    plain = server.ask(path).json
    reply = server.ask(with_(path, "format=jsonl&progress=true"))
    assert reply.headers["content-type"] == "application/x-ndjson"
    lines = [line for line in map(json.loads, reply.body.splitlines()) if "progress" not in line]
    assert [line["row"] for line in lines[1:-1]] == plain["rows"]
    assert lines[-1] == {"next": plain["next"]}
    assert lines[0]["facts"].keys() == plain.keys() - {"rows", "next"}


def test_tagged_lines_end_with_what_went_wrong(server: RunningServer) -> None:
    reply = server.ask("/v1/sql?query=SELECT+nothing+FROM+flows&format=jsonl&progress=true")
    (line,) = map(json.loads, reply.body.splitlines())
    assert (reply.status, line["error"]["status"], line["error"]["kind"]) == (200, 422, "sql")


def test_sql_may_be_posted(server: RunningServer, batch: FlowBatch) -> None:
    body = json.dumps({"query": "SELECT count() AS n FROM flows"}).encode()
    reply = server.ask("/v1/sql", body, headers={"Content-Type": "application/json"})
    assert reply.json["rows"] == [{"n": 2 * len(batch.flows)}]


def test_only_who_may_read_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    tokens = {}
    for name, right in (("reader", "read"), ("agent", "write")):
        assert main(["token", "create", name, "--rights", right, "--data-dir", str(data)]) == 0
        tokens[right] = capsys.readouterr().out.strip().split()[-1]
    with RunningServer(data) as server:
        for path in QUESTIONS:
            assert server.ask(path).status == 401
            assert server.ask(path, token=tokens["write"]).status == 403
            assert server.ask(path, token=tokens["read"]).status == 200


def test_the_description_has_all_questions(server: RunningServer) -> None:
    paths = server.ask("/openapi.json").json["paths"]
    for question in QUESTIONS:
        operation = paths[question.partition("?")[0]]["get"]
        assert operation["summary"]
        assert {"application/json", "text/csv"} <= set(operation["responses"]["200"]["content"])
    names = {parameter["name"] for parameter in paths["/v1/top"]["get"]["parameters"]}
    assert {"from", "to", "filter", "format", "by", "sort", "limit", "once"} <= names


@pytest.mark.parametrize(
    "question",
    [
        "by=application&limit=5000",
        "by=src_addr,vlan,dst_port&sort=packets&limit=5000&filter=udp and not host 192.0.2.1",
        "by=client_addr,dns_rcode&filter=domain com or app \"it's\" or agent 'a{b:c}'",
        "",
    ],
)
def test_a_question_as_sql_has_the_same_answer(server: RunningServer, question: str) -> None:
    now = int(time.time()) + 60
    question = f"{question.replace(' ', '+')}&from={now - 900}&to={now}"
    sql = server.ask(f"/v1/top/sql?{question}").json["sql"]
    found = server.ask("/v1/sql", json.dumps({"query": sql}).encode(), headers={"Content-Type": "application/json"})
    assert found.status == 200, (sql, found.body)
    rows = server.ask(f"/v1/top?{question}").json["rows"]
    names = [name for name in rows[0] if name != "other"] if rows else []

    def told(answer: list[dict[str, object]]) -> list[str]:
        return sorted(str([row[name] for name in names]) for row in answer if not row.get("other"))

    assert told(found.json["rows"]) == told(rows)


def test_each_flow_once_has_no_short_sql(server: RunningServer) -> None:
    assert server.ask("/v1/top/sql?once=observer").status == 400
