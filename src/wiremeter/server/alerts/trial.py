"""Rules tried on made data: `wiremeter alert test` and `check`. A store of its own is filled, and a made clock runs.

The format is that of `promtool test rules`, with rows of the store's tables where that has series.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from wiremeter.errors import InputError, WiremeterError
from wiremeter.server.alerts.book import Book
from wiremeter.server.alerts.opening import query, server_numbers
from wiremeter.server.alerts.rules import Rule, converted, duration_ns, read_rules, read_yaml
from wiremeter.server.alerts.sql import statement
from wiremeter.server.alerts.states import found_of, shown
from wiremeter.server.alerts.watch import Watch
from wiremeter.server.store import DATABASE, Store, open_store
from wiremeter.server.store.allowed import TABLES
from wiremeter.server.store.schema import STORE
from wiremeter.server.store.sql import quoted

_S_NS = 10**9
#: Rows of one test, at most.
ROWS_MAX = 1_000_000
#: What stands for the shipped rules among rule files.
SHIPPED = "shipped"


class _Input(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Rows of a table at one time, or at each `every` until before `until`."""

    table: str
    at: str = "0s"
    until: str = ""
    every: str = "5s"
    rows: list[dict[str, Any]]


class _Expected(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    exp_labels: dict[str, str] = {}
    exp_annotations: dict[str, str] | None = None


class _Question(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    eval_time: str
    alertname: str
    exp_alerts: list[_Expected] = []


class _Test(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: str = ""
    interval: str = ""
    server: dict[str, float] = {}
    input: list[_Input] = []
    alert_rule_test: list[_Question] = []


class _Tests(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    rule_files: list[str]
    evaluation_interval: str = "1m"
    tests: list[_Test] = []


@dataclass(frozen=True, slots=True)
class Outcome:
    """One test. problems: what was not as it says; none if all was."""

    name: str
    problems: tuple[str, ...]


class _Clock:
    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def run_tests(file: Path) -> Iterator[Outcome]:
    """Runs a file of tests, and gives each test's outcome. Raises InputError for what is wrong in the file."""
    found = read_yaml(file)
    if isinstance(found, dict) and "groups" in found:
        raise InputError(
            f"{file} has rules, not tests of rules: `wiremeter alert check {file}` checks them; a file of tests names "
            "it under rule_files (docs/alerts.md)"
        )
    document = converted(found, _Tests, str(file))
    rules = read_rules(
        [file.parent / name for name in document.rule_files if name != SHIPPED],
        "all" if SHIPPED in document.rule_files else "none",
    )
    # Lately, and not at a fixed time: the store drops what is older than it keeps. Whole hours, as traffic has them.
    begin_ns = (time.time_ns() // (3600 * _S_NS) - 24) * 3600 * _S_NS
    prepared = [
        _prepared(test, f"{file}: {test.name or number}", rules, document.evaluation_interval, begin_ns)
        for number, test in enumerate(document.tests, 1)
    ]
    with _store() as store:
        for number, (test, ready) in enumerate(zip(document.tests, prepared, strict=True), 1):
            yield Outcome(test.name or f"test {number}", tuple(_run(store, test, ready)))


def check_rules(files: Sequence[Path]) -> Iterator[tuple[Path, list[str]]]:
    """What is wrong with each file of rules: each rule is run once, over a store without rows. Raises InputError."""
    rules = [(file, read_rules([file])) for file in files]
    with _store() as store:
        for file, each in rules:
            yield file, [f"{rule.key}: {problem}" for rule in each if (problem := _problem(store, rule))]


def _problem(store: Store, rule: Rule) -> str:
    try:
        found_of(rule, query(store, statement(rule.expr, time.time_ns(), server_numbers(store.state))).to_pylist())
    except WiremeterError as error:
        return str(error)
    return ""


class _Ready(NamedTuple):
    """What a test needs. rows: when, of which table, and what, the latest first. questions: with their times."""

    rules: list[Rule]
    begin_ns: int
    step_ns: int
    rows: list[tuple[int, str, str]]
    questions: list[tuple[int, _Question]]


def _prepared(test: _Test, where: str, rules: Sequence[Rule], interval: str, begin_ns: int) -> _Ready:
    """Raises InputError for what is wrong in a test, so before the engine is started."""
    step_ns = duration_ns(test.interval or interval, where)
    if step_ns < _S_NS:
        raise InputError(f"{where}: the interval is shorter than a second")
    asked = {question.alertname for question in test.alert_rule_test}
    if unknown := asked - {rule.name for rule in rules}:
        raise InputError(f"{where}: there is no alert {min(unknown)} in the rule files")
    rows = [line for each in test.input for line in _lines(each, begin_ns, where)]
    if len(rows) > ROWS_MAX:
        raise InputError(f"{where}: more than {ROWS_MAX:,} rows; let them come less often")
    questions = [(begin_ns + duration_ns(each.eval_time, where), each) for each in test.alert_rule_test]
    return _Ready(
        [rule for rule in rules if rule.name in asked],
        begin_ns,
        step_ns,
        sorted(rows, reverse=True),
        sorted(questions, key=itemgetter(0)),
    )


def _run(store: Store, test: _Test, ready: _Ready) -> Iterator[str]:
    for table in sorted(TABLES):
        store.backend.execute(f"TRUNCATE TABLE {DATABASE}.{table}")
    clock = _Clock(ready.begin_ns)
    numbers = {**dict.fromkeys(server_numbers(store.state), 0.0), "disk_free_bytes": 1e12, **test.server}
    with tempfile.TemporaryDirectory(prefix="wiremeter-test-") as directory:
        book = Book(Path(directory) / "alerts.sqlite")
        watch = Watch(
            book,
            ready.rules,
            [],
            query=lambda sql: query(store, sql),
            server=lambda: numbers,
            step_seconds=ready.step_ns / _S_NS,
            clock=clock,
        )
        try:
            for until_ns, question in ready.questions:
                while clock.now_ns <= until_ns:
                    _insert_due(store, ready.rows, clock.now_ns)
                    watch.round()
                    clock.now_ns += ready.step_ns
                yield from _compare(watch, question)
        finally:
            book.close()


def _insert_due(store: Store, rows: list[tuple[int, str, str]], now_ns: int) -> None:
    """Takes the rows of before and of now: a rule must not see what is still to come."""
    due: dict[str, list[str]] = {}
    while rows and rows[-1][0] <= now_ns:
        _, table, line = rows.pop()
        due.setdefault(table, []).append(line)
    for table, lines in due.items():
        with tempfile.NamedTemporaryFile("w", prefix="wiremeter-test-") as file:
            file.writelines(lines)
            file.flush()
            store.backend.execute(
                f"INSERT INTO {DATABASE}.{table} FROM INFILE {quoted(file.name)} SETTINGS date_time_input_format = "
                "'best_effort', max_partitions_per_insert_block = 0 FORMAT JSONEachRow"
            )


def _compare(watch: Watch, question: _Question) -> Iterator[str]:
    for key, look in watch.looks().items():
        if look.problem and key.split("/")[1].split("#")[0] == question.alertname:
            yield f"{question.alertname}: {look.problem}"
            return
    firing = [a for a in watch.book.alerts() if a.state == "firing" and a.labels["alertname"] == question.alertname]
    found = {shown(alert.labels): alert for alert in firing}
    wanted = {shown({**each.exp_labels, "alertname": question.alertname}): each for each in question.exp_alerts}
    for text in sorted(wanted.keys() - found.keys()):
        yield f"at {question.eval_time}, {text} should fire, and does not"
    for text in sorted(found.keys() - wanted.keys()):
        yield f"at {question.eval_time}, {text} fires, and should not"
    for text in sorted(found.keys() & wanted.keys()):
        annotations, expected = found[text].annotations, wanted[text].exp_annotations
        if expected is not None and annotations != expected:
            yield f"at {question.eval_time}, {text} has the annotations {json.dumps(annotations, ensure_ascii=False)}"


def _lines(each: _Input, begin_ns: int, where: str) -> Iterator[tuple[int, str, str]]:
    """When, for which table, and the row as JSON."""
    if each.table not in TABLES:
        raise InputError(f"{where}: there is no table {each.table} to fill; those are {', '.join(sorted(TABLES))}")
    columns = STORE[each.table].columns
    if unknown := sorted({name for row in each.rows for name in row} - columns.keys()):
        raise InputError(f"{where}: the table {each.table} has no column {unknown[0]}; it has {', '.join(columns)}")
    times = _times(each, where)
    if len(times) * len(each.rows) > ROWS_MAX:
        raise InputError(f"{where}: more than {ROWS_MAX:,} rows of {each.table}; let them come less often")
    for offset_ns in times:
        for row in each.rows:
            now_ns = begin_ns + offset_ns
            yield now_ns, each.table, json.dumps(_row(row, columns, now_ns)) + "\n"


def _times(each: _Input, where: str) -> Sequence[int]:
    at_ns, every_ns = duration_ns(each.at, where), duration_ns(each.every, where)
    if not each.until:
        return [at_ns]
    if every_ns < 10**6:
        raise InputError(f"{where}: rows of {each.table} come every 0 s; `every` says how often")
    return range(at_ns, duration_ns(each.until, where), every_ns)


def _row(row: Mapping[str, Any], columns: Mapping[str, str], now_ns: int) -> dict[str, Any]:
    """A row for the store: of now where it has no times of its own, and of live traffic."""
    made: dict[str, Any] = {}
    for name, kind in columns.items():
        if kind.startswith("DateTime64") and name not in row:
            made[name] = _time(now_ns)
    if "batch_mode" in columns:
        made["batch_mode"] = "live"
    for name, value in row.items():
        if isinstance(value, str) and columns[name].startswith("IPv6") and ":" not in value:
            value = f"::ffff:{value}"
        elif isinstance(value, dict) and columns[name].startswith("String"):
            value = json.dumps(_heartbeat(value, now_ns))
        made[name] = value
    return made


def _heartbeat(given: Mapping[str, Any], now_ns: int) -> dict[str, Any]:
    """With the agent's clock, ahead by clock_ahead_seconds; oldest_seconds of the spool is so long before that."""
    made = dict(given)
    clock_ns = now_ns + round(made.pop("clock_ahead_seconds", 0) * _S_NS)
    spool = dict(made.pop("spool", {}))
    if (oldest := spool.pop("oldest_seconds", None)) is not None:
        spool["oldest_ns"] = clock_ns - round(oldest * _S_NS)
    return {"clock_ns": clock_ns, "interval_seconds": 5.0, **made, "spool": spool}


def _time(time_ns: int) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(time_ns // _S_NS))}.{time_ns % _S_NS:09d}"


@contextmanager
def _store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory(prefix="wiremeter-test-") as directory, open_store(directory) as store:
        yield store
