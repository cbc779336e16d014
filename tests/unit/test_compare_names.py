"""The comparison of names: its traffic, what others' output says, and the arithmetic of agreement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.compare import names
from benchmarks.compare.document import write_document
from benchmarks.compare.figures import as_json
from benchmarks.compare.web import FRAMES, HTTP_EVERY, name_of, write_web_traffic

from wiremeter.cli.main import main

from .test_compare import comparison, run

CONVERSATION = names.key_of(6, "10.0.0.1", 4000, "10.0.0.2", 443)
OTHER = names.key_of(17, "10.0.0.1", 4000, "10.0.0.3", 53)


def test_each_connection_of_the_traffic_has_its_site_and_its_look_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_web_traffic(tmp_path / "web.pcap", 8)
    assert main(["replay", "--format", "json", str(tmp_path / "web.pcap")]) == 0
    text = capsys.readouterr().out
    (tmp_path / "told").write_text(text)
    told = dict(names.wiremeter_flows(tmp_path / "told"))
    assert len(told) == 16
    sites = {name: application for name, application in told.values() if name}
    assert sites == {name_of(i): "tls" if i % HTTP_EVERY else "http" for i in range(8)}
    assert json.loads(text)["seen"]["packets"] == 8 * FRAMES


def test_flows_of_ndpi_are_conversations_with_a_name_and_an_application(tmp_path: Path) -> None:
    head = "protocol,src_ip,src_port,dst_ip,dst_port,ndpi_proto,server_name_sni\n"
    (tmp_path / "told").write_text(head + "6,10.0.0.2,443,10.0.0.1,4000,TLS.Google,a.example\n")
    assert dict(names.ndpi_flows(tmp_path / "told")) == {CONVERSATION: ("a.example", "tls")}


def test_flows_of_nfstream_are_conversations_with_a_name_and_an_application(tmp_path: Path) -> None:
    (tmp_path / "told").write_text(
        "17,10.0.0.1,4000,10.0.0.3,53,a.example,DNS\n6,10.0.0.1,4000,10.0.0.2,443,,Unknown\n"
    )
    assert dict(names.nfstream_flows(tmp_path / "told")) == {OTHER: ("a.example", "dns"), CONVERSATION: ("", "")}


def test_only_what_both_know_can_agree() -> None:
    ours = {CONVERSATION: ("a.example", "tls"), OTHER: ("", "dns")}
    theirs = {CONVERSATION: ("A.example", "http"), OTHER: ("b.example", "dns")}
    assert names.agreement(ours, theirs, 0) == (1, 1)
    assert names.agreement(ours, theirs, 1) == (1, 2)


def test_the_page_and_the_figures_have_those_that_ran(tmp_path: Path) -> None:
    made = comparison(run("none"), run("tcx"))
    ran = names.NamesRun("nDPI", "4", 1e6, 1.5, 20_000_000, 10, 9, (8, 9), (10, 10))
    made = replace(made, names=[ran])
    assert json.loads(as_json(made))["names"][0]["named"] == 9
    write_document(made, tmp_path / "page.md")
    assert "| nDPI | 4 | 1,000,000 | 1.5 s | 20 MB | 10 | 9 | 8 of 9 | 10 of 10 |" in (tmp_path / "page.md").read_text()
