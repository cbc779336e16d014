"""The watch with a clock that tests move: when alerts fire and end, what outlives a restart, and who is told what."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from wiremeter.errors import InputError
from wiremeter.server.alerts.book import Book
from wiremeter.server.alerts.outputs import Apprise, NotTold, Webhook, message
from wiremeter.server.alerts.rules import Rule
from wiremeter.server.alerts.silences import Silence, check_matchers
from wiremeter.server.alerts.states import ALERTS_MAX, Alert
from wiremeter.server.alerts.watch import FAILING, Watch
from wiremeter.server.store import Unavailable

from .receiver import Receiver

MINUTE_NS = 60 * 10**9


class Told:
    """An output that keeps what it is told."""

    kind = "told"

    def __init__(self, name: str = "told", *, is_refreshed: bool = False) -> None:
        self.name, self.is_refreshed = name, is_refreshed
        self.sent: list[tuple[str, list[str], list[str]]] = []
        self.is_away = False

    def send(self, group: Mapping[str, str], firing: Sequence[Alert], over: Sequence[Alert], now_ns: int) -> None:
        if self.is_away:
            raise NotTold("away")
        names = [sorted(alert.labels.get("agent", "") for alert in each) for each in (firing, over)]
        self.sent.append((group.get("alertname", ""), names[0], names[1]))


class Lab:
    """A watch over made rows: what the store would answer is `rows`, or raises `error`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now_ns = 1_000_000 * MINUTE_NS
        self.rows: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.output = Told()
        self.rules = [Rule(key="g/Slow", group="g", name="Slow", expr="SELECT", hold_ns=2 * MINUTE_NS)]
        self.book = Book(directory / "alerts.sqlite")
        self.watch = self.made()

    def made(self, **more: Any) -> Watch:
        return Watch(
            self.book,
            self.rules,
            [self.output],
            query=self.answer,
            server=dict,
            clock=lambda: self.now_ns,
            **more,
        )

    def answer(self, sql: str) -> pa.Table:
        if self.error:
            raise self.error
        return pa.Table.from_pylist(self.rows) if self.rows else pa.table({})

    def rounds(self, count: int = 1) -> None:
        for _ in range(count):
            self.watch.round()
            self.now_ns += MINUTE_NS

    def restart(self, away_ns: int = 0) -> None:
        """As after a kill: nothing but the file is left."""
        self.now_ns += away_ns
        self.book = Book(self.directory / "alerts.sqlite")
        self.watch = self.made()

    def states(self) -> list[str]:
        return [alert.state for alert in self.book.alerts() if alert.rule != FAILING.key]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.book.close()


# --- states


def test_it_is_pending_then_fires_then_is_over(lab: Lab) -> None:
    lab.rows = [{"agent": "web-1", "value": 3}]
    lab.rounds(2)
    assert lab.states() == ["pending"]
    lab.rounds()
    assert lab.states() == ["firing"]
    lab.rows = []
    lab.rounds()
    assert lab.states() == ["resolved"]
    assert [change.alert.state for change in lab.book.history(10)] == ["resolved", "firing"]
    lab.rounds(20)
    assert lab.states() == []


def test_what_was_only_pending_leaves_no_trace(lab: Lab) -> None:
    lab.rows = [{"agent": "web-1"}]
    lab.rounds(2)
    lab.rows = []
    lab.rounds()
    assert lab.states() == []
    assert lab.book.history(10) == []


def test_a_missed_evaluation_neither_fires_nor_ends_anything(lab: Lab) -> None:
    lab.rows = [{"agent": "web-1"}]
    lab.rounds()
    lab.error = Unavailable("the engine is away")
    lab.rounds(10)
    assert lab.states() == ["pending"]
    lab.error = None
    lab.rounds()
    assert lab.states() == ["pending"]  # time in which nobody looked counts for nothing
    lab.rounds(2)
    assert lab.states() == ["firing"]
    lab.error = Unavailable("the engine is away")
    lab.rows = []
    lab.rounds(3)
    assert lab.states() == ["firing"]
    lab.error = None
    lab.rounds()
    assert lab.states() == ["resolved"]


def test_a_rule_that_cannot_be_evaluated_is_an_alert_itself(lab: Lab) -> None:
    lab.error = InputError("no such column")
    lab.rounds(7)
    (alert,) = lab.book.alerts()
    assert (alert.state, alert.labels) == (
        "firing",
        {"alertname": "AlertRuleFailing", "rule": "g/Slow", "severity": "warning"},
    )
    assert lab.watch.looks()["g/Slow"].problem == "no such column"
    lab.error = None
    lab.rounds()
    assert [alert.state for alert in lab.book.alerts()] == ["resolved"]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"agent": "a", "value": 1}, {"agent": "a", "value": 2}], "two rows have the same labels"),
        ([{"count()": 1}], "'count()' cannot be a label"),
        ([{"value": "much"}], "is no number"),
        ([{"agent": str(number)} for number in range(ALERTS_MAX + 1)], "more than 1000 alerts"),
    ],
)
def test_rows_that_are_no_alerts_are_a_failure_of_the_rule(lab: Lab, rows: list[dict[str, Any]], problem: str) -> None:
    lab.rows = rows
    lab.rounds()
    assert problem in lab.watch.looks()["g/Slow"].problem
    assert lab.states() == []


def test_states_outlive_a_restart(lab: Lab) -> None:
    lab.rows = [{"agent": "web-1"}]
    lab.rounds(2)
    lab.restart()
    assert lab.states() == ["pending"]
    lab.rounds()
    assert lab.states() == ["firing"]
    lab.restart(away_ns=30 * MINUTE_NS)
    lab.rounds()
    assert lab.states() == ["firing"]
    lab.rows = []
    lab.restart(away_ns=30 * MINUTE_NS)
    assert lab.states() == ["firing"]
    lab.rounds()
    assert lab.states() == ["resolved"]
    assert len(lab.book.history(10)) == 2


def test_it_fires_on_for_as_long_as_the_rule_says(lab: Lab) -> None:
    lab.rules = [Rule(key="g/Slow", group="g", name="Slow", expr="SELECT", keep_ns=3 * MINUTE_NS)]
    lab.watch.change(lab.rules)
    lab.rows = [{"agent": "web-1"}]
    lab.rounds()
    lab.rows = []
    lab.rounds(2)
    assert lab.states() == ["firing"]
    lab.rounds()
    assert lab.states() == ["resolved"]


def test_a_rule_of_a_longer_interval_is_evaluated_less_often(lab: Lab) -> None:
    lab.rules = [Rule(key="g/Slow", group="g", name="Slow", expr="SELECT", interval_ns=5 * MINUTE_NS)]
    lab.watch.change(lab.rules)
    lab.rounds(11)
    assert lab.watch.counts.evaluations == 3


def test_what_fires_by_a_rule_that_is_gone_is_over(lab: Lab) -> None:
    lab.rows = [{"agent": "web-1"}]
    lab.rounds(3)
    lab.watch.tell(lab.output)
    lab.watch.change([])
    lab.rounds()
    lab.watch.tell(lab.output)
    assert lab.output.sent == [("Slow", ["web-1"], []), ("Slow", [], ["web-1"])]
    lab.rounds(20)
    assert lab.book.alerts() == []
    assert "g/Slow" not in lab.watch.looks()


# --- who is told


def test_each_firing_is_told_once_and_so_is_its_end(lab: Lab) -> None:
    lab.rows = [{"agent": "web-1"}, {"agent": "web-2"}]
    for _ in range(6):
        lab.rounds()
        lab.watch.tell(lab.output)
    lab.rows = [{"agent": "web-2"}]
    for _ in range(3):
        lab.rounds()
        lab.watch.tell(lab.output)
    assert lab.output.sent == [("Slow", ["web-1", "web-2"], []), ("Slow", ["web-2"], ["web-1"])]


def test_an_output_that_was_away_is_told_later_and_after_a_restart(lab: Lab) -> None:
    lab.rows = [{"agent": "web-1"}]
    lab.rounds(3)
    lab.output.is_away = True
    with pytest.raises(NotTold):
        lab.watch.tell(lab.output)
    lab.restart()
    lab.output.is_away = False
    lab.watch.tell(lab.output)
    lab.watch.tell(lab.output)
    lab.output.is_away = True
    lab.rows = []
    lab.rounds()
    with pytest.raises(NotTold):
        lab.watch.tell(lab.output)
    lab.rounds(30)  # it is shown no more, and still has to be told
    lab.restart()
    lab.output.is_away = False
    lab.watch.tell(lab.output)
    lab.watch.tell(lab.output)
    assert lab.output.sent == [("Slow", ["web-1"], []), ("Slow", [], ["web-1"])]
    assert lab.watch.counts.told == {("told", "sent"): 1}


def test_what_goes_on_is_repeated_after_a_while(lab: Lab) -> None:
    lab.watch = lab.made(repeat_seconds=600)
    lab.rows = [{"agent": "web-1"}]
    for _ in range(25):
        lab.rounds()
        lab.watch.tell(lab.output)
    assert lab.output.sent == [("Slow", ["web-1"], [])] * 3


def test_groups_are_told_by_themselves_and_one_that_is_refused_holds_up_no_other(lab: Lab) -> None:
    lab.watch = lab.made(group_by=["agent"])
    lab.rows = [{"agent": "web-1", "device": "eth0"}, {"agent": "web-1", "device": "eth1"}, {"agent": "web-2"}]
    lab.rounds(3)
    lab.watch.tell(lab.output)
    assert sorted(lab.output.sent) == [("", ["web-1", "web-1"], []), ("", ["web-2"], [])]


def silence(lab: Lab, *matchers: str, minutes: int = 60) -> None:
    lab.book.silence(
        Silence(
            id=str(len(lab.book.silences())),
            matchers=check_matchers(matchers),
            by="me",
            comment="",
            starts_ns=lab.now_ns,
            ends_ns=lab.now_ns + minutes * MINUTE_NS,
        )
    )


def test_of_what_is_silenced_nobody_is_told_until_the_silence_ends(lab: Lab) -> None:
    lab.rows = [{"agent": "web-1"}, {"agent": "db-1"}]
    silence(lab, "alertname=Slow", "agent=~web-.*", minutes=10)
    lab.rounds(3)
    lab.watch.tell(lab.output)
    assert lab.output.sent == [("Slow", ["db-1"], [])]
    lab.rounds(8)
    lab.watch.tell(lab.output)
    assert lab.output.sent[1:] == [("Slow", ["db-1", "web-1"], [])]


def test_the_end_of_what_was_told_is_told_though_it_is_silenced(lab: Lab) -> None:
    lab.rows = [{"agent": "web-1"}]
    lab.rounds(3)
    lab.watch.tell(lab.output)
    silence(lab, "agent!=db-1")
    lab.rounds(6)
    lab.watch.tell(lab.output)
    lab.rows = []
    lab.rounds()
    lab.watch.tell(lab.output)
    assert lab.output.sent == [("Slow", ["web-1"], []), ("Slow", [], ["web-1"])]


def test_one_that_is_refreshed_hears_each_round_of_what_fires_and_once_of_its_end(lab: Lab) -> None:
    lab.output = Told(is_refreshed=True)
    lab.rows = [{"agent": "web-1"}]
    for _ in range(5):
        lab.rounds()
        lab.watch.tell(lab.output)
    lab.rows = []
    for _ in range(3):
        lab.rounds()
        lab.watch.tell(lab.output)
    assert lab.output.sent == [("", ["web-1"], [])] * 3 + [("", [], ["web-1"])]


@pytest.mark.parametrize("text", ["agent", "=x", "agent=~(", "agent~x", ""])
def test_what_is_no_matcher_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        check_matchers([text])


# --- outputs


def fire(lab: Lab, **row: Any) -> None:
    lab.rows = [row]
    lab.rounds(3)


def test_a_webhook_gets_what_alertmanager_would_send(lab: Lab) -> None:
    with Receiver() as receiver:
        webhook = Webhook(receiver.url, "http://meter.example")
        fire(lab, agent="web-1", value=2.5)
        lab.watch.tell(webhook)
        lab.rows = []
        lab.rounds()
        lab.watch.tell(webhook)
    first, second = receiver.taken
    assert receiver.states() == [("Slow", "firing"), ("Slow", "resolved")]
    assert len(set(receiver.keys)) == 2
    assert first["version"] == "4"
    assert first["groupLabels"] == {"alertname": "Slow"}
    assert first["commonLabels"] == {"alertname": "Slow", "agent": "web-1"}
    assert first["alerts"][0]["endsAt"] == "0001-01-01T00:00:00Z"
    assert second["status"] == "resolved"
    assert second["alerts"][0]["startsAt"] == first["alerts"][0]["startsAt"] < second["alerts"][0]["endsAt"]


def test_an_output_that_does_not_answer_well_says_why_without_its_secrets(lab: Lab) -> None:
    fire(lab, agent="web-1")
    with Receiver() as receiver:
        receiver.is_away = True
        with pytest.raises(NotTold, match="answers 503") as raised:
            lab.watch.tell(Webhook(receiver.url + "/secret?token=secret", ""))
    assert "secret" not in str(raised.value)
    with socket.socket() as deaf:  # bound, and does not listen
        deaf.bind(("127.0.0.1", 0))
        with pytest.raises(NotTold, match="is not reached"):
            lab.watch.tell(Webhook(f"http://127.0.0.1:{deaf.getsockname()[1]}", ""))


def test_apprise_takes_a_message_for_people(lab: Lab, tmp_path: Path) -> None:
    with Receiver() as receiver:
        file = tmp_path / "apprise.txt"
        file.write_text(f"json://{receiver.url.removeprefix('http://')}\n")
        fire(lab, agent="web-1", domain="a\u202e.example\n<b>")
        lab.watch.tell(Apprise(str(file)))
        (taken,) = receiver.taken
    assert taken["title"] == "wiremeter: Slow (1 firing)"
    assert "\u202e" not in taken["message"]
    assert taken["type"] == "warning"


def test_an_apprise_file_of_no_use_is_told(tmp_path: Path) -> None:
    (tmp_path / "apprise.txt").write_text("nothing\n")
    with pytest.raises(InputError, match="Apprise finds nothing in it"):
        Apprise(str(tmp_path / "apprise.txt"))


def test_a_long_message_says_how_many_more_there_are(lab: Lab) -> None:
    lab.rows = [{"agent": f"web-{number}"} for number in range(30)]
    lab.rounds(3)
    title, text = message({"alertname": "Slow"}, lab.book.alerts(), [])
    assert title == "wiremeter: Slow (30 firing)"
    assert text.endswith("and 10 more")
