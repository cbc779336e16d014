"""`wiremeter alert test` and `check`: the shipped rules on made data, and what is told of rules that are wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from scripts.alerts import PAGE, page

from wiremeter.cli.main import main
from wiremeter.server.alerts.rules import read_yaml, shipped_rules

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).with_name("shipped.test.yml")


def test_the_shipped_rules_find_what_they_should(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["alert", "test", str(SHIPPED)])
    assert status == 0, capsys.readouterr().out


def test_the_example_of_the_docs_is_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules, tests = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "rules.yml").write_text(rules)
    (tmp_path / "test.yml").write_text(tests)
    status = main(["alert", "test", str(tmp_path / "test.yml")])
    assert status == 0, capsys.readouterr().out


def test_the_page_is_fresh() -> None:
    text = PAGE.read_text("utf-8")
    assert page(text) == text, "run `make docs`"


def test_each_shipped_rule_is_tried_both_ways() -> None:
    asked: dict[str, set[bool]] = {}
    document = read_yaml(SHIPPED)
    assert isinstance(document, dict)
    for test in document["tests"]:
        for question in test["alert_rule_test"]:
            asked.setdefault(question["alertname"], set()).add(bool(question.get("exp_alerts")))
    assert asked.keys() == {rule.name for rule in shipped_rules("all")}


RULES = """\
groups:
  - name: mine
    rules:
      - alert: Busy
        expr: SELECT agent, sum(bytes) AS value FROM recent_flows GROUP BY agent HAVING value > 1000
        for: 1m
"""
TESTS = """\
rule_files: [rules.yml]
tests:
  - name: it is busy
    input: [{table: flows, until: 5m, rows: [{agent: web-1, src_addr: 192.0.2.1, bytes: 600}]}]
    alert_rule_test:
      - {eval_time: 4m, alertname: Busy, exp_alerts: [{exp_labels: {agent: web-2}}]}
"""


def test_what_is_otherwise_than_expected_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "test.yml").write_text(TESTS)
    assert main(["alert", "test", str(tmp_path / "test.yml")]) == 1
    said = capsys.readouterr().out
    assert 'at 4m, Busy{agent="web-2"} should fire, and does not' in said
    assert 'at 4m, Busy{agent="web-1"} fires, and should not' in said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("table: flows", "table: flow"), "there is no table flow to fill"),
        (("bytes: 600", "octets: 600"), "the table flows has no column octets"),
        (("alertname: Busy", "alertname: Idle"), "there is no alert Idle in the rule files"),
        (("until: 5m", "until: 5000w"), "rows of flows; let them come less often"),
        (("rules.yml", "none.yml"), "none.yml: the rules cannot be read"),
    ],
)
def test_tests_that_are_wrong_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], told: str
) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "test.yml").write_text(TESTS.replace(*change, 1))
    assert main(["alert", "test", str(tmp_path / "test.yml")]) == 2
    assert told in capsys.readouterr().err


def test_who_gives_rules_for_tests_is_told_which_is_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    assert main(["alert", "test", str(tmp_path / "rules.yml")]) == 2
    assert f"alert check {tmp_path / 'rules.yml'}" in capsys.readouterr().err


def test_rules_are_checked_by_the_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text(RULES)
    bad.write_text(RULES.replace("sum(bytes)", "sum(octets)") + "      - {alert: Out, expr: SELECT url('http://a')}\n")
    assert main(["alert", "check", str(good), str(bad), "--format", "json"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"file": str(good), "problems": []}
    assert [problem.split(":")[0] for problem in second["problems"]] == ["mine/Busy", "mine/Out"]
    assert "octets" in second["problems"][0]
    assert "the function url is not allowed" in second["problems"][1]
