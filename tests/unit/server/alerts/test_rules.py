"""Rules as files have them: what is read, and what is told of what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from wiremeter.errors import InputError
from wiremeter.server.alerts.rules import read_rules, shipped_rules
from wiremeter.server.alerts.sql import statement
from wiremeter.server.alerts.templates import filled

RULES = """\
groups:
  - name: mine
    interval: 5m
    rules:
      - alert: Much
        expr: SELECT agent, sum(bytes) AS value FROM recent_flows GROUP BY agent HAVING value > 1e9
        for: 1h30m
        keep_firing_for: 2m
        labels: {severity: page}
        annotations: {summary: "{{ $labels.agent }}: {{ $value | humanize }}B"}
      - {alert: Much, expr: SELECT 1 AS value}
"""


def test_a_file_of_rules_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(RULES)
    much, other = read_rules([tmp_path / "a.yml"])
    assert (much.key, other.key) == ("mine/Much", "mine/Much#2")
    assert (much.hold_ns, much.keep_ns, much.interval_ns) == (5400 * 10**9, 120 * 10**9, 300 * 10**9)
    assert filled(much.annotations["summary"], {"agent": "web-1"}, 2_000_000_000) == "web-1: 2.00GB"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("for: 1h30m", "for: soon"), "'soon' is no length of time"),
        (("labels: {severity: page}", "labels: {severity: 1}"), "Expected `str`, got `int`"),
        (("labels: {severity: page}", "lables: {severity: page}"), "unknown field `lables`"),
        (("labels: {severity: page}", "labels: {alertname: x}"), "alertname is the alert's name"),
        (("labels: {severity: page}", "labels: {a-b: x}"), "'a-b' is no name of a label"),
        (("$value | humanize", "$value | shout"), "no filter shout"),
        (("$labels.agent", "$externalURL"), "none of those there are"),
        (("FROM recent_flows", "FROM flows WHERE time > {since}"), "braces hold a time"),
        (("alert: Much", "record: much"), "unknown field `record`"),
        (("groups:", "groups: ["), "this is no YAML"),
        (("  - name: mine\n", "  - name: mine\n  - name: mine\n"), "the group mine is there twice"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    (tmp_path / "a.yml").write_text(RULES.replace(*change, 1))
    with pytest.raises(InputError) as raised:
        read_rules([tmp_path / "a.yml"])
    assert told in str(raised.value)
    assert str(tmp_path / "a.yml") in str(raised.value)


def test_a_file_that_is_not_there_and_groups_of_one_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yml: the rules cannot be read: No such file"):
        read_rules([tmp_path / "none.yml"])
    for name in ("a.yml", "b.yml"):
        (tmp_path / name).write_text(RULES)
    with pytest.raises(InputError, match="the group mine is in two files"):
        read_rules([tmp_path / "a.yml", tmp_path / "b.yml"])


def test_the_shipped_rules_say_what_they_mean_and_what_to_do() -> None:
    sure, every = shipped_rules("sure"), shipped_rules("all")
    assert {rule.name for rule in sure} < {rule.name for rule in every}
    assert shipped_rules("none") == []
    for rule in every:
        assert rule.annotations.keys() == {"summary", "description", "action", "runbook_url"}, rule.name
        assert rule.annotations["runbook_url"] == f"#{rule.name.lower()}"
        assert rule.labels["severity"] in ("critical", "warning")


def test_times_and_helpers_are_filled_in() -> None:
    text = statement("SELECT agent FROM recent_dns WHERE time > {ago:90s}", 1_000_000 * 10**9 + 250_000_000, {})
    assert text == (
        "WITH recent_dns AS (SELECT * FROM dns WHERE time >= toDateTime64('1970-01-12 13:41:40.250', 3, 'UTC') "
        "AND time < toDateTime64('1970-01-12 13:46:40.250', 3, 'UTC') AND batch_mode = 'live') "
        "SELECT * FROM (SELECT agent FROM recent_dns WHERE time > toDateTime64('1970-01-12 13:45:10.250', 3, 'UTC'))"
    )
