"""The watch: evaluates rules, keeps what becomes of alerts, and tells the outputs.

What an output should have been told follows from what it was told, and that is on disk. So nothing that waits has to be
kept, and after a kill or an output that was away, the next round says what is missing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa

from wiremeter.errors import WiremeterError
from wiremeter.server.alerts.book import Book, Look
from wiremeter.server.alerts.outputs import NotTold, Output
from wiremeter.server.alerts.rules import Rule
from wiremeter.server.alerts.silences import Silence, is_silenced
from wiremeter.server.alerts.sql import statement
from wiremeter.server.alerts.states import Alert, advance, found_of, resolved, shown

log = logging.getLogger(__name__)

#: Rounds that may come late before time counts as missed.
_LATE = 1.5
_END_SECONDS = 5.0
_S_NS = 10**9
#: The alert that the watch raises by itself: a rule that cannot be evaluated finds nothing, and not in silence.
FAILING = Rule(
    key="wiremeter/AlertRuleFailing",
    group="wiremeter",
    name="AlertRuleFailing",
    expr="",
    hold_ns=5 * 60 * _S_NS,
    labels={"severity": "warning"},
    annotations={
        "summary": "The alert rule {{ $labels.rule }} cannot be evaluated",
        "description": "What it watches is not watched: its alerts neither fire nor end.",
        "action": "`wiremeter alert rules` says why.",
        "runbook_url": "#alertrulefailing",
    },
)


@dataclass(slots=True)
class Counts:
    """Since the server started, for metrics. rounds_ns: when the last round ended."""

    evaluations: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    round_ns: int = 0


class Watch:
    """Rules over a store.

    query: runs a statement as rules do. server: the numbers of the server's own. links: what a rule's page begins with.
    group_by: labels by which alerts are told together. Not started by itself: `start`, or `round` and `tell`.
    """

    def __init__(
        self,
        book: Book,
        rules: Sequence[Rule],
        outputs: Sequence[Output],
        *,
        query: Callable[[str], pa.Table],
        server: Callable[[], Mapping[str, float]],
        group_by: Sequence[str] = ("alertname",),
        step_seconds: float = 60.0,
        repeat_seconds: float = 4 * 3600.0,
        links: str = "",
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.book = book
        self.outputs = outputs
        self.counts = Counts()
        self._rules = list(rules)
        self._query = query
        self._server = server
        self._group_by = tuple(group_by)
        self._step_ns = round(step_seconds * _S_NS)
        self._repeat_ns = round(repeat_seconds * _S_NS)
        self._links = links
        self._clock = clock
        self._lock = threading.Lock()
        self._is_ended = threading.Event()
        self._wake = [threading.Event() for _ in outputs]
        self._threads: list[threading.Thread] = []
        self._failing_outputs: set[str] = set()

    # --- rules

    @property
    def rules(self) -> list[Rule]:
        """Those in force."""
        return self._rules

    def change(self, rules: Sequence[Rule]) -> None:
        """Takes other rules. What fired by a rule that is there no more is over."""
        with self._lock:
            self._rules = list(rules)

    def looks(self) -> dict[str, Look]:
        """By rule, how its last evaluation went."""
        return self.book.looks()

    def round(self) -> None:
        """Evaluates each rule that is due, once."""
        with self._lock:
            now_ns = self._clock()
            looks = self.book.looks()
            problems = {}
            for rule in self._rules:
                look = looks.get(rule.key, Look(0, ""))
                if look.time_ns and now_ns - look.time_ns < rule.interval_ns - self._step_ns // 2:
                    if look.problem:
                        problems[rule.key] = look.problem
                    continue
                if problem := self._evaluate(rule, look, now_ns):
                    problems[rule.key] = problem
            self._look_at_problems(problems, looks, now_ns)
            self._end_others(now_ns)
            self.counts.round_ns = now_ns
        for wake in self._wake:
            wake.set()

    def _evaluate(self, rule: Rule, look: Look, now_ns: int) -> str:
        """Why it could not be; "" if all went well."""
        self.counts.evaluations += 1
        try:
            rows = self._query(statement(rule.expr, now_ns, self._server())).to_pylist()
            found = found_of(rule, rows, self._links)
        except WiremeterError as error:
            problem = str(error)
            self.counts.failures[rule.key] += 1
            if problem != look.problem:
                log.warning("an alert rule cannot be evaluated", extra={"rule": rule.key, "reason": problem})
            self.book.missed(rule.key, problem)
            return problem
        if look.problem:
            log.info("an alert rule can be evaluated again", extra={"rule": rule.key})
        self._write(
            rule, advance(rule, self.book.of_rule(rule.key), found, now_ns, self._missed_ns(rule, look, now_ns))
        )
        return ""

    def _missed_ns(self, rule: Rule, look: Look, now_ns: int) -> int:
        """For how long nobody looked, beyond the time between two looks."""
        step_ns = max(rule.interval_ns, self._step_ns)
        late_ns = now_ns - look.time_ns - step_ns if look.time_ns else 0
        return late_ns if late_ns > (_LATE - 1) * step_ns else 0

    def _look_at_problems(self, problems: Mapping[str, str], looks: Mapping[str, Look], now_ns: int) -> None:
        rows = [{"rule": key, "value": 1} for key in problems]
        look = looks.get(FAILING.key, Look(0, ""))
        found = found_of(FAILING, rows[:100], self._links)
        missed_ns = self._missed_ns(FAILING, look, now_ns)
        self._write(FAILING, advance(FAILING, self.book.of_rule(FAILING.key), found, now_ns, missed_ns))

    def _end_others(self, now_ns: int) -> None:
        """Ends what fires by rules that are there no more."""
        keys = {FAILING.key, *(rule.key for rule in self._rules)}
        for key in {alert.rule for alert in self.book.alerts()} - keys:
            alerts = self.book.of_rule(key).values()
            ended = [resolved(each, now_ns) if each.state == "firing" else each for each in alerts]
            self._log(self.book.looked(key, now_ns, [each for each in ended if each.state == "resolved"]))
        for key in self.book.looks().keys() - keys - {alert.rule for alert in self.book.alerts()}:
            self.book.forget(key)

    def _write(self, rule: Rule, alerts: Iterable[Alert]) -> None:
        self._log(self.book.looked(rule.key, self._clock(), alerts))

    @staticmethod
    def _log(changed: Iterable[Alert]) -> None:
        for alert in changed:
            log.warning(
                "an alert %s", "fires" if alert.state == "firing" else "is over", extra={"alert": shown(alert.labels)}
            )

    # --- outputs

    def silencing(self, alert: Alert, silences: Iterable[Silence], now_ns: int) -> list[str]:
        """The silences that hold for an alert."""
        return [each.id for each in silences if each.is_active(now_ns) and is_silenced(alert.labels, each.matchers)]

    def tell(self, output: Output) -> None:
        """Tells an output all that it has not been told. Raises NotTold; what was told before that is noted."""
        now_ns = self._clock()
        alerts = {alert.identity: alert for alert in self.book.alerts() if alert.state != "pending"}
        silences = self.book.silences()
        told = self.book.told(output.name)
        firing = {identity: alert for identity, alert in alerts.items() if alert.state == "firing"}
        is_quiet = {identity: bool(self.silencing(alert, silences, now_ns)) for identity, alert in firing.items()}
        # What was told stays open until it is over, silenced or not: nobody shall take it for ended.
        open_ = {identity: alert for identity, alert in firing.items() if identity in told or not is_quiet[identity]}
        over = {
            identity: alerts.get(identity) or resolved(each.alert, now_ns)
            for identity, each in told.items()
            if identity not in firing
        }
        if output.is_refreshed:
            if open_ or over:
                self._send(output, {}, list(open_.values()), list(over.values()), now_ns)
            return
        due = {
            identity
            for identity in open_
            if identity not in told or (not is_quiet[identity] and now_ns - told[identity].time_ns >= self._repeat_ns)
        }
        problems = []
        for group, identities in self._grouped({**open_, **over}):
            if any(identity in due or identity in over for identity in identities):
                try:
                    self._send(
                        output,
                        group,
                        [open_[identity] for identity in identities if identity in open_],
                        [over[identity] for identity in identities if identity in over],
                        now_ns,
                    )
                except NotTold as error:  # one group that is refused shall not hold back the others
                    problems.append(error)
        if problems:
            raise problems[0]

    def _grouped(
        self, alerts: Mapping[tuple[str, str, int], Alert]
    ) -> Iterator[tuple[dict[str, str], list[tuple[str, str, int]]]]:
        def group_of(identity: tuple[str, str, int]) -> tuple[str, ...]:
            return tuple(alerts[identity].labels.get(name, "") for name in self._group_by)

        for values, identities in groupby(sorted(alerts, key=lambda each: (group_of(each), each)), group_of):
            yield dict(zip(self._group_by, values, strict=True)), list(identities)

    def _send(
        self, output: Output, group: Mapping[str, str], firing: list[Alert], over: list[Alert], now_ns: int
    ) -> None:
        try:
            output.send(group, firing, over, now_ns)
        except NotTold:
            self.counts.told[output.kind, "failed"] += 1
            raise
        self.book.tell(output.name, now_ns, firing, over)
        self.counts.told[output.kind, "sent"] += 1

    # --- life

    def start(self) -> None:
        """Begins rounds, in threads of its own: a query or an output that hangs holds up nobody else."""
        self._threads = [threading.Thread(target=self._rounds, name="alerts", daemon=True)]
        for output, wake in zip(self.outputs, self._wake, strict=True):
            name = f"alerts-{output.kind}"
            self._threads.append(threading.Thread(target=self._deliveries, args=(output, wake), name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends them, after what is under way."""
        self._is_ended.set()
        for wake in self._wake:
            wake.set()
        for thread in self._threads:
            thread.join(_END_SECONDS)  # daemons: one that hangs ends with the process

    def _rounds(self) -> None:
        step = self._step_ns / _S_NS
        due = time.monotonic() + step
        while not self._is_ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + step, time.monotonic())
            try:
                self.round()
            except Exception:  # it must go on, whatever it was; metrics and the log have it
                self.counts.failures["the watch"] += 1
                log.exception("a round of alert rules failed, and the next one is tried")

    def _deliveries(self, output: Output, wake: threading.Event) -> None:
        while wake.wait() and not self._is_ended.is_set():
            wake.clear()
            try:
                self.tell(output)
            except NotTold as error:
                if output.name not in self._failing_outputs:  # once, until it works again
                    log.warning("alerts are not told, and tried again", extra={"reason": str(error)})
                self._failing_outputs.add(output.name)
            except Exception:
                log.exception("telling of alerts failed, and is tried again")
            else:
                if output.name in self._failing_outputs:
                    log.warning("alerts are told again", extra={"output": output.kind})
                self._failing_outputs.discard(output.name)
