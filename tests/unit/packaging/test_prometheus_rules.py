"""The alert rules for Prometheus, as promtool sees them, beside the shipped ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from wiremeter.server.alerts.routes import page
from wiremeter.server.alerts.rules import shipped_rules

RULES = Path(__file__).parents[3] / "packaging/prometheus/wiremeter.rules.yml"
TESTS = RULES.with_name("wiremeter.rules.test.yml")
LINK = "https://meter.example:10465/docs/alerts"


def promtool(*words: str) -> None:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, dict[str, str]]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_promtool_takes_them_and_they_find_what_they_should() -> None:
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", str(TESTS))


def test_each_is_tried_and_each_leads_to_what_it_means() -> None:
    tried = {
        question["alertname"]
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for question in test["alert_rule_test"]
        if question.get("exp_alerts")
    }
    assert tried == {str(rule["alert"]) for rule in rules()}
    for rule in rules():
        link, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert link == LINK
        assert not anchor or f'<h2 id="{anchor}">' in page(), rule["alert"]


def test_all_that_the_server_looks_for_is_there() -> None:
    assert {rule.name for rule in shipped_rules("all")} <= {str(rule["alert"]) for rule in rules()}
