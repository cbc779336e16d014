"""Alerts over HTTP: what fires, what did, the rules, and silences."""

from __future__ import annotations

import asyncio
import html
import secrets
import time
from typing import Annotated, Literal

import msgspec
from litestar import MediaType, Response, delete, get, post
from litestar.di import Provide
from litestar.params import Parameter
from litestar.router import Router
from litestar.types import ControllerRouterHandler

from wiremeter.server.access.principal import Principal
from wiremeter.server.alerts.outputs import rfc3339
from wiremeter.server.alerts.rules import Rule, duration_ns, shipped_rules
from wiremeter.server.alerts.silences import Silence, check_matchers
from wiremeter.server.alerts.states import Alert
from wiremeter.server.alerts.watch import FAILING, Watch
from wiremeter.server.http.app import need
from wiremeter.server.ingest.refusal import Refusal

_S_NS = 10**9
#: Longest that a silence may hold: what is silenced for ever should be no rule.
_LONGEST_NS = 366 * 86400 * _S_NS


class AlertState(msgspec.Struct, kw_only=True):
    """One alert. active_since: since when it is so. silenced_by: silences that hold for it."""

    alert: str
    rule: str
    state: Literal["pending", "firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str]
    value: float | None
    active_since: str
    fired: str | None
    resolved: str | None
    silenced_by: list[str]
    fingerprint: str


class AlertChange(msgspec.Struct, kw_only=True):
    """An alert that fired, or was over."""

    time: str
    state: str
    alert: str
    labels: dict[str, str]
    annotations: dict[str, str]
    value: float | None
    fired: str | None
    fingerprint: str


class RuleState(msgspec.Struct, kw_only=True):
    """One rule. problem: why it could not be evaluated the last time. evaluated: when it last could."""

    rule: str
    alert: str
    expr: str
    for_seconds: float
    labels: dict[str, str]
    annotations: dict[str, str]
    evaluated: str | None
    problem: str
    pending: int
    firing: int


class SilenceState(msgspec.Struct, kw_only=True):
    """One silence."""

    id: str
    matchers: list[str]
    by: str
    comment: str
    starts: str
    ends: str
    active: bool


class NewSilence(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """matchers: as Alertmanager writes them; all must fit. for_: how long, such as 2h."""

    matchers: Annotated[list[str], msgspec.Meta(min_length=1, max_length=50)]
    for_: Annotated[str, msgspec.Meta(max_length=40)] = msgspec.field(name="for", default="2h")
    comment: Annotated[str, msgspec.Meta(max_length=1000)] = ""


@get("/v1/alerts", summary="Alerts: what is pending, firing, or over since a short while")
async def get_alerts(
    watch: Watch,
    principal: Principal,
    fingerprint: Annotated[str, Parameter(max_length=64, description="Only this one")] = "",
) -> list[AlertState]:
    """What fires first."""
    need(principal, "read")
    now_ns = time.time_ns()
    alerts, silences = await asyncio.to_thread(lambda: (watch.book.alerts(), watch.book.silences()))
    order = {"firing": 0, "pending": 1, "resolved": 2}
    return [
        AlertState(
            alert=alert.labels["alertname"],
            rule=alert.rule,
            state=alert.state,
            labels=alert.labels,
            annotations=alert.annotations,
            value=alert.value,
            active_since=rfc3339(alert.active_ns),
            fired=_time(alert.fired_ns),
            resolved=_time(alert.resolved_ns),
            silenced_by=watch.silencing(alert, silences, now_ns),
            fingerprint=alert.fingerprint,
        )
        for alert in sorted(alerts, key=lambda alert: (order[alert.state], -alert.active_ns, alert.identity))
        if fingerprint in ("", alert.fingerprint)
    ]


@get("/v1/alerts/history", summary="What fired and was over, the newest first")
async def get_history(
    watch: Watch, principal: Principal, limit: Annotated[int, Parameter(ge=1, le=10_000)] = 100
) -> list[AlertChange]:
    """Both ends of each firing."""
    need(principal, "read")
    return [
        AlertChange(
            time=rfc3339(time_ns),
            state=alert.state,
            alert=alert.labels["alertname"],
            labels=alert.labels,
            annotations=alert.annotations,
            value=alert.value,
            fired=_time(alert.fired_ns),
            fingerprint=alert.fingerprint,
        )
        for time_ns, alert in await asyncio.to_thread(watch.book.history, limit)
    ]


@get("/v1/alerts/rules", summary="The rules in force, and how they were evaluated")
async def get_rules(watch: Watch, principal: Principal) -> list[RuleState]:
    """In the order of their files."""
    need(principal, "read")
    looks, alerts = await asyncio.to_thread(lambda: (watch.looks(), watch.book.alerts()))
    return [_rule_state(rule, looks.get(rule.key, (0, "")), alerts) for rule in [*watch.rules, FAILING]]


def _rule_state(rule: Rule, look: tuple[int, str], alerts: list[Alert]) -> RuleState:
    states = [alert.state for alert in alerts if alert.rule == rule.key]
    return RuleState(
        rule=rule.key,
        alert=rule.name,
        expr=rule.expr,
        for_seconds=rule.hold_ns / _S_NS,
        labels=dict(rule.labels),
        annotations=dict(rule.annotations),
        evaluated=_time(look[0]),
        problem=look[1],
        pending=states.count("pending"),
        firing=states.count("firing"),
    )


@get("/v1/alerts/silences", summary="Silences, those too that ended lately")
async def get_silences(watch: Watch, principal: Principal) -> list[SilenceState]:
    """The oldest first."""
    need(principal, "read")
    return [_silence_state(each) for each in await asyncio.to_thread(watch.book.silences)]


@post("/v1/alerts/silences", status_code=201, summary="Silence alerts for a while")
async def add_silence(watch: Watch, principal: Principal, data: NewSilence) -> SilenceState:
    """What was told already stays told; nothing new is, and nothing is repeated."""
    need(principal, "admin")
    now_ns = time.time_ns()
    ends_ns = now_ns + duration_ns(data.for_, "the silence")
    if not now_ns < ends_ns <= now_ns + _LONGEST_NS:
        raise Refusal(400, "input", f"a silence holds for a time up to a year, and not for {data.for_}")
    silence = Silence(
        id=secrets.token_hex(8),
        matchers=check_matchers(data.matchers),
        by=principal.name,
        comment=data.comment,
        starts_ns=now_ns,
        ends_ns=ends_ns,
    )
    await asyncio.to_thread(watch.book.silence, silence)
    return _silence_state(silence)


@delete("/v1/alerts/silences/{silence_id:str}", status_code=200, summary="End a silence")
async def end_silence(watch: Watch, principal: Principal, silence_id: str) -> SilenceState:
    """Now."""
    need(principal, "admin")
    for silence in await asyncio.to_thread(watch.book.silences):
        if silence.id == silence_id:
            ended = msgspec.structs.replace(silence, ends_ns=min(silence.ends_ns, time.time_ns()))
            await asyncio.to_thread(watch.book.silence, ended)
            return _silence_state(ended)
    raise Refusal(404, "silence", "there is no silence of that id; `wiremeter alert silences` lists them")


def _silence_state(silence: Silence) -> SilenceState:
    return SilenceState(
        id=silence.id,
        matchers=silence.matchers,
        by=silence.by,
        comment=silence.comment,
        starts=rfc3339(silence.starts_ns),
        ends=rfc3339(silence.ends_ns),
        active=silence.is_active(time.time_ns()),
    )


@get("/docs/alerts", summary="What the shipped alerts mean, and what to do", media_type=MediaType.HTML, security=[])
async def get_page() -> Response[str]:
    """For whoever follows a link out of an alert, who has no token there: it says what docs/alerts.md says."""
    headers = {"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"}
    return Response(page(), media_type=MediaType.HTML, headers=headers)


def page() -> str:
    """The page, of the shipped rules alone: rules of users may be secret."""
    parts = ['<!doctype html><html lang="en"><meta charset="utf-8"><title>wiremeter: alerts</title><h1>Alerts</h1>']
    for rule in [*shipped_rules("all"), FAILING]:
        about = {name: html.escape(rule.annotations[name]) for name in ("description", "action")}
        parts.append(f'<h2 id="{rule.name.lower()}">{rule.name}</h2>')
        parts.append(f"<p>{about['description']}</p><p><b>What to do:</b> {about['action']}</p>")
        if rule.expr:
            parts.append(f"<pre>{html.escape(rule.expr)}</pre>")
    return "\n".join(parts)


def _time(time_ns: int) -> str | None:
    return rfc3339(time_ns) if time_ns else None


def routes(watch: Watch) -> list[ControllerRouterHandler]:
    """All of them."""
    handlers = [get_alerts, get_history, get_rules, get_silences, add_silence, end_silence, get_page]
    return [Router("/", route_handlers=handlers, dependencies={"watch": Provide(lambda: watch, sync_to_thread=False)})]
