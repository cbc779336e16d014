"""One document: whatever prints it, it is what the definition says, and the pages made from that are fresh."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripts import documents

from captures.build import SECOND, Record, ethernet, pcap, udp, udp6
from wiremeter.cli.main import main
from wiremeter.flows.batch import Drop, FlowBatch, Health, KernelCounters, ProgramStats, Tally
from wiremeter.flows.filter import compile_filter
from wiremeter.names.records import DnsAnswer, FlowName, HttpTransaction, QuicHandshake, TlsHandshake, Transactions
from wiremeter.reports.document import document, document_lines
from wiremeter.reports.json_rows import to_json
from wiremeter.reports.schema import SCHEMA_VERSION, Document
from wiremeter.reports.selection import EVERYTHING, Selection

from ..live_batches import asked, flow, make_batch

jsonschema = pytest.importorskip("jsonschema")  # in CI a skip for want of it fails

SITE = FlowName("tls", "www.example.com", "sni")


def closed(schema: Any) -> Any:
    """The schema without room for keys that it does not name."""
    if isinstance(schema, Mapping):
        more = {"additionalProperties": False} if "properties" in schema and "type" in schema else {}
        return {key: closed(value) for key, value in schema.items()} | more
    return [closed(value) for value in schema] if isinstance(schema, list) else schema


VALIDATOR = jsonschema.Draft202012Validator(closed(documents.schema()))


def checked(text: str) -> dict[str, Any]:
    """The document, checked against the published schema and the types it is made of."""
    loaded: dict[str, Any] = json.loads(text)
    VALIDATOR.validate(loaded)
    assert msgspec.json.decode(text, type=Document).schema == SCHEMA_VERSION
    return loaded


def rich() -> FlowBatch:
    """Something under every key."""
    dns = asked("www.example.com", answers=(DnsAnswer("www.example.com", "A", 60, "192.0.2.1"),))
    key = dns.flow
    batch = make_batch(
        [
            flow("192.0.2.1", "10.0.0.5", 443, 50000, packets=60, size=1000, name=SITE, tcp_flags=0x18),
            flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", packets=20, size=100, name=SITE),
            flow("2001:db8::1", "2001:db8::2", protocol=58, packets=2, vlan=77),
        ],
        devices={"eth0": "xdp-generic", "veth\udcff": "tcx"},
        non_ip={("eth0", "rx"): [(0x0806, 3), (0x10000, 1)]},
        unattributed={("eth0", "rx"): {"table_full": Tally(4, 400, 4)}},
        connections={SITE: 2},
        health=Health(
            programs=(ProgramStats("eth0", "rx", 130, 10),), displaced=("eth0 rx",), lost_payloads={"dns": 1}
        ),
        transactions=Transactions(
            dns=(dns, asked("slow.example", rcode=None)),
            tls=(TlsHandshake(1, key, "www.example.com", "1.3", ("h2",)),),
            quic=(QuicHandshake(2, key, None, "1"),),
            http=(HttpTransaction(3, key, "1.1", "GET", "www.example.com", None, 200, 1000),),
        ),
    )
    kernel, drops = KernelCounters(5, 500, 2, "skbs"), (Drop("qdisc", "tbf", 3), Drop("device", "missed", 0))
    first = replace(batch.audit[0], kernel=kernel, drops=drops, remainders={"unexplained": -2})
    return replace(batch, audit=(first, *batch.audit[1:]))


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(limit=1, view="hosts"),
        Selection(pairs=True),
        Selection(filter=compile_filter("tcp")),
        EVERYTHING,
    ],
    ids=["usual", "short", "pairs", "filter", "everything"],
)
def test_live_documents_are_what_the_definition_says(selection: Selection) -> None:
    said = checked(to_json(document(rich(), selection)))
    assert (said["mode"], said["source"]) == ("live", {"kind": "live"})
    assert ("dns" in said) == (selection.limit is None)


def test_lines_hold_the_same_as_the_document() -> None:
    lines = "".join(document_lines(rich(), EVERYTHING))
    assert checked(lines) == checked(to_json(document(rich(), EVERYTHING)))
    assert sum(line.startswith("  {") for line in lines.splitlines()) == 3 + 2 + 1 + 1 + 1


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "capture\udcff.pcap"
    frames = [ethernet(udp()), ethernet(udp6(), None, (0x8100, 6)), ethernet(bytes(28), 0x0806), b"short"]
    path.write_bytes(pcap([Record(frame, n * SECOND) for n, frame in enumerate(frames)])[:-1])
    return str(path)


@pytest.mark.parametrize("options", [[], ["--interval", "1s"], ["--names", "none"]], ids=["whole", "parts", "nameless"])
def test_replay_prints_such_documents(capture: str, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", capture, "--format", "json", *options]) == 0
    printed = capsys.readouterr().out
    found = [checked(part) for part in printed.replace("}\n{", "}\n\0{").split("\0")]
    assert len(found) == (3 if "--interval" in options else 1)
    assert found[-1]["source"]["problems"][0]["file"].endswith("capture\\xff.pcap")
    assert all("skbs" not in tally for said in found for tally in (said["seen"], *said["flows"]))
    assert ("dns_summary" in found[0]) == ("none" not in options)


def test_simulate_prints_such_documents(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seconds", "1", "--packets-per-second", "200", "--format", "json"]) == 0
    said = checked(capsys.readouterr().out)
    assert said["source"]["expected"] == {**said["seen"], "flows": len(said["flows"])}


def test_every_key_of_the_definition_is_somewhere() -> None:
    """`checked` finds what is not in the definition; this finds what is in it and never said."""
    everything = [document(rich(), selection) for selection in (EVERYTHING, Selection(pairs=True))]
    everything.append(document(rich(), Selection(view="hosts")))
    said = {key for one in everything for key in json.loads(to_json(one))}
    assert said == set(Document.__struct_fields__) - {"matched_protocols"}


def test_nothing_that_could_move_a_cursor_or_turn_text_around_is_printed_raw() -> None:
    hostile = "a\x1b[2J\x9b31m\u202eb\U000e0001.example"
    name = FlowName("tls", hostile, "sni")
    printed = to_json(document(make_batch([flow("10.0.0.1", "10.0.0.2", name=name)]), Selection()))
    assert printed.isprintable()
    assert checked(printed)["flows"][0]["domain"] == hostile
    assert "\\u009b31m\\u202eb\\udb40\\udc01" in printed
    assert "bücher" in to_json({"domain": "bücher"})


def test_the_pages_made_from_the_definition_are_fresh() -> None:
    assert documents.PAGE.read_text("utf-8") == documents.page(), "run `make docs`"
    assert documents.SCHEMA.read_text("utf-8") == documents.schema_text(), "run `make docs`"
