"""The questions as HTTP has them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import Router, get, post
from litestar.di import Provide
from litestar.params import Parameter, QueryParameter
from litestar.response import Stream
from litestar.types import ControllerRouterHandler

from wiremeter.server.access.principal import Principal
from wiremeter.server.http.app import Parts, need
from wiremeter.server.ingest.refusal import Refusal
from wiremeter.server.query.accounts import TOTAL_DIMENSIONS, TOTAL_WORDS, audit, totals
from wiremeter.server.query.answer import Answer
from wiremeter.server.query.asking import (
    NEXT_HEADER,
    PAGE_ROWS,
    SPECS,
    Answers,
    Asked,
    By,
    Limit,
    OnceWord,
    Sort,
    answered,
    asked,
    facts_of,
    form_of,
)
from wiremeter.server.query.conditions import where
from wiremeter.server.query.dimensions import read_dimensions, read_names
from wiremeter.server.query.formats import FormatName
from wiremeter.server.query.search import WORDS, Order, Search, SearchTable, search
from wiremeter.server.query.sums import CONVERSATION, TO_SERVER_AMOUNTS, Question, series, top
from wiremeter.server.query.times import choose_step, read_step
from wiremeter.server.store import Store


class Sql(msgspec.Struct):
    """One SELECT over the store's tables, in ClickHouse's dialect."""

    query: str


@get(
    "/v1/top",
    summary="The largest by any dimensions, and the remainder",
    description="The row with `other` true is all the rest, so that the rows add up to the total exactly.",
    responses=SPECS,
    operation_class=Answers,
)
async def get_top(
    parts: Parts,
    principal: Principal,
    asked: Asked,
    by: By = None,
    sort: Sort = "bytes",
    limit: Limit = 10,
    once: OnceWord = "none",
) -> Stream:
    """Without dimensions: the total alone."""
    need(principal, "read")
    question = Question(
        span=asked.span,
        condition=where(asked.filter),
        by=read_dimensions(by or ()),
        sort=sort,
        limit=limit,
        once=once,
    )
    return await answered(lambda: top(parts.store, question), asked.form, facts_of(asked.span), page=True)


@get(
    "/v1/series",
    summary="Time series, and the remainder",
    description="Those that are the largest in all of the range, and for each step a row that is the rest.",
    responses=SPECS,
    operation_class=Answers,
)
async def get_series(
    parts: Parts,
    principal: Principal,
    asked: Asked,
    by: By = None,
    sort: Sort = "bytes",
    limit: Annotated[int, Parameter(ge=1, le=100, description="Series, without the remainder")] = 10,
    once: OnceWord = "none",
    step: Annotated[str, Parameter(description="auto, or a time such as 10s, 5m or 1h")] = "auto",
    points: Annotated[int, Parameter(ge=1, le=10_000, description="Steps, at most, where step is auto")] = 120,
) -> Stream:
    """auto: the shortest usual step that makes at most so many points, and none shorter than agents' intervals."""
    need(principal, "read")
    question = Question(
        span=asked.span, condition=where(asked.filter), by=read_dimensions(by or ()), sort=sort, limit=limit, once=once
    )
    if step == "auto":
        intervals = [agent.heartbeat.interval_seconds for agent in parts.registry.all() if agent.heartbeat]
        seconds = choose_step(asked.span, points, least=max(1, *map(round, intervals), 1))
    else:
        seconds = read_step(step)
        if asked.span.seconds / seconds > 10_000:
            raise Refusal(400, "input", f"a step of {step} makes more than 10000 points; take a longer one")
    return await answered(lambda: series(parts.store, question, seconds), asked.form, facts_of(asked.span), page=True)


@get(
    "/v1/conversations",
    summary="A flow and its reverse in one row: the largest, and the remainder",
    description="The server's side is that with the lower port; `…_to_server` is the part that went there.",
    responses=SPECS,
    operation_class=Answers,
)
async def get_conversations(
    parts: Parts,
    principal: Principal,
    asked: Asked,
    sort: Sort = "bytes",
    limit: Limit = 100,
    once: OnceWord = "none",
) -> Stream:
    """By agent and device."""
    need(principal, "read")
    question = Question(
        span=asked.span,
        condition=where(asked.filter),
        by=CONVERSATION,
        sort=sort,
        limit=limit,
        once=once,
        more=TO_SERVER_AMOUNTS,
    )
    return await answered(lambda: top(parts.store, question), asked.form, facts_of(asked.span), page=True)


def _search_route(table: SearchTable, summary: str) -> ControllerRouterHandler:
    @get(
        f"/v1/{table}",
        operation_id=f"search_{table}",
        summary=summary,
        description=f"Pages of at most {PAGE_ROWS} rows have {NEXT_HEADER}, which continues them, in JSON `next`.",
        responses=SPECS,
        operation_class=Answers,
    )
    async def get_rows(
        parts: Parts,
        principal: Principal,
        asked: Asked,
        order: Order = "newest",
        limit: Annotated[int, Parameter(ge=0, le=1 << 40, description="Rows, at most; 0: all of them")] = 1000,
        after: Annotated[str, Parameter(max_length=4000, description="`next` of the page before")] = "",
    ) -> Stream:
        need(principal, "read")
        wanted = Search(
            table=table,
            span=asked.span,
            condition=where(asked.filter, WORDS[table]),
            order=order,
            limit=limit or None,
            after=after,
        )
        is_page = 0 < limit <= PAGE_ROWS
        return await answered(lambda: search(parts.store, wanted), asked.form, facts_of(asked.span), page=is_page)

    return get_rows


@get(
    "/v1/totals",
    summary="All traffic that was counted, in flows or not",
    responses=SPECS,
    operation_class=Answers,
)
async def get_totals(parts: Parts, principal: Principal, asked: Asked, by: By = None) -> Stream:
    """By agent, device and direction, unless told otherwise."""
    need(principal, "read")
    names = read_names(by or ["agent,device,direction"], TOTAL_DIMENSIONS, "dimension of totals")
    condition = where(asked.filter, TOTAL_WORDS)
    return await answered(
        lambda: totals(parts.store, asked.span, condition, names), asked.form, facts_of(asked.span), page=True
    )


@get(
    "/v1/audit",
    summary="What was seen and where it went, by agent, device and direction",
    responses=SPECS,
    operation_class=Answers,
)
async def get_audit(parts: Parts, principal: Principal, asked: Asked) -> Stream:
    """One row for each kind and reason."""
    need(principal, "read")
    condition = where(asked.filter, TOTAL_WORDS)
    return await answered(
        lambda: audit(parts.store, asked.span, condition), asked.form, facts_of(asked.span), page=True
    )


_SQL = "One SELECT over the store's tables, within limits of time, memory and rows. Addresses are 16 bytes in Arrow."


@get(
    "/v1/sql",
    summary="SQL that only reads",
    description=_SQL,
    responses=SPECS,
    operation_class=Answers,
)
async def get_sql(
    parts: Parts,
    principal: Principal,
    form: FormatName,
    sql: Annotated[str, QueryParameter(name="query", max_length=20_000)],
) -> Stream:
    """As POST."""
    return await _sql(parts, principal, form, sql)


@post(
    "/v1/sql",
    status_code=200,
    summary="SQL that only reads",
    description=_SQL,
    responses=SPECS,
    operation_class=Answers,
)
async def post_sql(parts: Parts, principal: Principal, form: FormatName, data: Sql) -> Stream:
    """For longer ones."""
    return await _sql(parts, principal, form, data.query)


async def _sql(parts: Parts, principal: Principal, form: FormatName, query: str) -> Stream:
    need(principal, "read")
    return await answered(lambda: _rows_of(parts.store, query), form, {}, page=False)


def _rows_of(store: Store, query: str) -> Answer:
    rows = store.query_untrusted(query)
    return Answer(rows.schema, iter(rows), {}, rows.close)


def routes() -> list[ControllerRouterHandler]:
    """All of them."""
    handlers = [
        *(get_top, get_series, get_conversations, get_totals, get_audit, get_sql, post_sql),
        _search_route("flows", "Flows as they are stored"),
        *(_search_route(kind, f"{kind.upper()} transactions") for kind in _TRANSACTIONS),
    ]
    dependencies = {
        "form": Provide(form_of, sync_to_thread=False),
        "asked": Provide(asked, sync_to_thread=False),
    }
    return [Router("/", route_handlers=handlers, dependencies=dependencies)]


_TRANSACTIONS: tuple[Literal["dns"], Literal["tls"], Literal["quic"], Literal["http"]] = ("dns", "tls", "quic", "http")
