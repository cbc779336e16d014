"""`wiremeter simulate`: what it prints, and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from wiremeter.cli.main import main
from wiremeter.errors import WiremeterError
from wiremeter.synthetic.profiles import PROFILES
from wiremeter.synthetic.simulation import Simulation

SMALL = ("--seconds", "1", "--packets-per-second", "500")


def test_json_is_a_document_marked_simulated_with_what_was_expected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *SMALL, "--profile", "iot", "--seed", "7", "--vlan", "5", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    source = document["source"]
    assert (source["kind"], source["mode"], source["profile"], source["seed"]) == ("simulated", "simulated", "iot", 7)
    assert source["expected"] == {**document["seen"], "flows": len(document["flows"])}
    assert {flow["vlan"] for flow in document["flows"]} == {5}


def test_text_says_simulated_and_that_all_was_metered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *SMALL, "--interval", "500ms", "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("profile web, seed 0: simulated, EN10MB") == 2
    assert out.count("; all metered") == 2


def test_replay_of_what_was_written_prints_the_same_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "simulated.pcap")
    documents = []
    for command in (["simulate", *SMALL, "--write", path], ["replay", path, "--names", "none"]):
        assert main([*command, "--format", "json"]) == 0
        documents.append(json.loads(capsys.readouterr().out))
        for about in ("source", "mode", "devices", "alarms"):
            del documents[-1][about]
    assert documents[0] == documents[1]


def test_a_mismatch_ends_with_status_1_and_both_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def differ(self: object, batch: object, expected: object) -> None:
        raise WiremeterError("packets seen: 5 made, 4 metered")

    monkeypatch.setattr(Simulation, "_checked", differ)
    assert main(["simulate", *SMALL]) == 1
    assert "5 made, 4 metered" in capsys.readouterr().err


def test_a_value_out_of_range_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *SMALL, "--hosts", "0"]) == 2
    assert "--hosts is '0', expected a whole number from 1 to 65536" in capsys.readouterr().err


def test_help_names_every_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PROFILES)


def test_metrics_and_log_are_marked_simulated() -> None:
    command = [sys.executable, "-m", "wiremeter.cli.main", "simulate", "--seconds", "60", "--interval", "100ms"]
    with subprocess.Popen(
        [*command, "--packets-per-second", "1000", "--top", "0", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            assert process.stderr
            log = [process.stderr.readline(), process.stderr.readline()]
            assert "profile web, seed 0: simulated" in process.stdout.readline()
            address = re.search(r"http://\S+/metrics", "".join(log))
            assert address
            with urllib.request.urlopen(address[0], timeout=10) as answer:
                metrics = answer.read().decode()
        finally:
            process.kill()
    assert any("simulating traffic mode=simulated" in line for line in log)
    traffic = [line for line in metrics.splitlines() if line.startswith("network_")]
    assert traffic
    assert all('mode="simulated"' in line for line in traffic)
