"""The questions as HTTP has them."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from litestar import Router, get, post
from litestar.di import Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter, QueryParameter
from litestar.response import Stream
from litestar.types import ControllerRouterHandler

from wiremeter.server.access.principal import Principal
from wiremeter.server.http.app import Parts, need
from wiremeter.server.http.parameters import check_parameters
from wiremeter.server.ingest.refusal import Refusal
from wiremeter.server.query.accounts import TOTAL_DIMENSIONS, TOTAL_WORDS, audit, totals
from wiremeter.server.query.answer import Answer
from wiremeter.server.query.as_sql import as_sql
from wiremeter.server.query.asking import (
    NEXT_HEADER,
    PAGE_ROWS,
    SPECS,
    Answers,
    Asked,
    By,
    Compare,
    Form,
    From,
    Least,
    Limit,
    OnceWord,
    Points,
    QualitySortWord,
    RankWord,
    SeriesLimit,
    Sort,
    Step,
    To,
    answered,
    asked,
    compared,
    facts_of,
    form_of,
    in_pool,
    quality_of,
    question_of,
    step_of,
)
from wiremeter.server.query.conditions import where
from wiremeter.server.query.dimensions import read_names
from wiremeter.server.query.quality import KINDS, TransactionKind, quality
from wiremeter.server.query.reading import Reads
from wiremeter.server.query.search import WORDS, Order, Search, SearchTable, search
from wiremeter.server.query.story import FlowId, FlowStory, story
from wiremeter.server.query.sums import CONVERSATION, TO_SERVER_AMOUNTS, series, top, values
from wiremeter.server.query.times import read_span

Port = Annotated[int, Parameter(ge=0, le=65535)]


class Sql(msgspec.Struct):
    """One SELECT over the store's tables, in ClickHouse's dialect."""

    query: str


@get(
    "/v1/top",
    summary="The largest by any dimensions, and the remainder",
    description="The row with `other` true is all the rest, so that the rows add up to the total exactly. "
    "With `compare`, amounts with `_before` are those of the same range so much earlier.",
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
    compare: Compare = "",
    rank: RankWord = "amount",
) -> Stream:
    """Without dimensions: the total alone."""
    need(principal, "read")
    before, facts = compared(asked, compare, rank)
    question = question_of(asked, by, sort, limit, once, before=before, rank=rank)
    return await answered(parts.store, lambda store: top(store, question), asked.form, facts, page=True)


class SqlText(msgspec.Struct):
    """One SELECT, as /v1/sql takes it."""

    sql: str


@get("/v1/top/sql", summary="The question of /v1/top as SQL over flows, to be taken elsewhere or changed")
async def get_top_sql(
    principal: Principal,
    asked: Asked,
    by: By = None,
    sort: Sort = "bytes",
    limit: Limit = 10,
    once: OnceWord = "none",
) -> SqlText:
    """Of the largest alone, without the remainder."""
    need(principal, "read")
    return SqlText(as_sql(question_of(asked, by, sort, limit, once)))


@get(
    "/v1/series",
    summary="Time series, and the remainder",
    description="Those that are the largest in all of the range, and for each step a row that is the rest. "
    "With `compare`, amounts with `_before` are those so much earlier than the row's time.",
    responses=SPECS,
    operation_class=Answers,
)
async def get_series(
    parts: Parts,
    principal: Principal,
    asked: Asked,
    by: By = None,
    sort: Sort = "bytes",
    limit: SeriesLimit = 10,
    once: OnceWord = "none",
    step: Step = "auto",
    points: Points = 120,
    compare: Compare = "",
    rank: RankWord = "amount",
) -> Stream:
    """auto: the shortest usual step that makes at most so many points, and none shorter than agents' intervals."""
    need(principal, "read")
    before, facts = compared(asked, compare, rank)
    question = question_of(asked, by, sort, limit, once, before=before, rank=rank)
    seconds = step_of(asked.span, step, points, parts.registry)
    return await answered(parts.store, lambda store: series(store, question, seconds), asked.form, facts, page=True)


@get(
    "/v1/values",
    summary="The values of one dimension, those first of which there is most",
    description="To complete what is being written: `value` is as the filter would name it. Flows that have none are "
    "left out. `more` tells whether there are others.",
    responses=SPECS,
    operation_class=Answers,
)
async def get_values(
    parts: Parts,
    principal: Principal,
    asked: Asked,
    of: Annotated[str, Parameter(description="The dimension")],
    prefix: Annotated[str, Parameter(max_length=253, description="How they begin, in whatever case")] = "",
    sort: Sort = "bytes",
    limit: Annotated[int, Parameter(ge=1, le=1000, description="Values, at most")] = 20,
) -> Stream:
    """Of flows in the range that fit the filter."""
    need(principal, "read")
    question = question_of(asked, [of], sort, limit, "none")
    if len(question.by) != 1:
        raise Refusal(400, "input", "`of` names one dimension")
    facts = facts_of(asked.span)
    return await answered(parts.store, lambda store: values(store, question, prefix), asked.form, facts, page=True)


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
    question = question_of(asked, [*CONVERSATION], sort, limit, once, more=TO_SERVER_AMOUNTS)
    return await answered(parts.store, lambda store: top(store, question), asked.form, facts_of(asked.span), page=True)


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
        return await answered(
            parts.store, lambda store: search(store, wanted), asked.form, facts_of(asked.span), page=is_page
        )

    return get_rows


def _quality_routes(kind: TransactionKind) -> list[ControllerRouterHandler]:
    text = (
        f"Of {kind.upper()} transactions. By {', '.join(KINDS[kind].dimensions)}. Counts of all rows add up to "
        "`total`; the row with `other` true is all the rest. Percentiles are right within 1 %."
    )

    @get(
        f"/v1/{kind}/top",
        operation_id=f"top_{kind}",
        summary="How servers answer: counts, failures and latencies",
        description=text,
        responses=SPECS,
        operation_class=Answers,
    )
    async def get_quality(
        parts: Parts,
        principal: Principal,
        asked: Asked,
        by: By = None,
        sort: QualitySortWord = "transactions",
        limit: Limit = 10,
        least: Least = 1,
    ) -> Stream:
        need(principal, "read")
        question = quality_of(kind, asked, by, sort, limit, least)
        return await answered(
            parts.store, lambda store: quality(store, question), asked.form, facts_of(asked.span), page=True
        )

    @get(
        f"/v1/{kind}/series",
        operation_id=f"series_{kind}",
        summary="The same over time",
        description=text,
        responses=SPECS,
        operation_class=Answers,
    )
    async def get_quality_series(
        parts: Parts,
        principal: Principal,
        asked: Asked,
        by: By = None,
        sort: QualitySortWord = "transactions",
        limit: SeriesLimit = 10,
        least: Least = 1,
        step: Step = "auto",
        points: Points = 120,
    ) -> Stream:
        need(principal, "read")
        question = quality_of(kind, asked, by, sort, limit, least)
        seconds = step_of(asked.span, step, points, parts.registry)
        return await answered(
            parts.store, lambda store: quality(store, question, seconds), asked.form, facts_of(asked.span), page=True
        )

    return [get_quality, get_quality_series]


@get(
    "/v1/flow",
    summary="The story of one flow: both directions, interval by interval, its transactions, and why it has its name",
    description="As JSON alone. Without `agent` and `device`, of all that saw it.",
    responses={**SPECS, 200: ResponseSpec(FlowStory, generate_examples=False, description="The story")},
)
async def get_flow(
    parts: Parts,
    principal: Principal,
    src_addr: Annotated[str, Parameter(max_length=64)],
    dst_addr: Annotated[str, Parameter(max_length=64)],
    protocol: Annotated[int, Parameter(ge=0, le=255, description="IANA's number: 6 is TCP, 17 UDP")],
    src_port: Port = 0,
    dst_port: Port = 0,
    agent: Annotated[str, Parameter(max_length=255)] = "",
    device: Annotated[str, Parameter(max_length=255)] = "",
    from_: From = "-5m",
    to: To = "now",
    limit: Annotated[int, Parameter(ge=1, le=10_000, description="Intervals, the newest")] = 1000,
) -> FlowStory:
    """VLAN tags do not tell flows apart here: they differ along a path."""
    need(principal, "read")
    flow = FlowId(
        src_addr=src_addr,
        dst_addr=dst_addr,
        src_port=src_port,
        dst_port=dst_port,
        protocol=protocol,
        agent=agent,
        device=device,
    )
    span = read_span(from_, to, time.time_ns())
    return await in_pool(lambda: story(parts.store, flow, span, limit=limit))


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
        parts.store,
        lambda store: totals(store, asked.span, condition, names),
        asked.form,
        facts_of(asked.span),
        page=True,
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
        parts.store, lambda store: audit(store, asked.span, condition), asked.form, facts_of(asked.span), page=True
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
    form: Form,
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
async def post_sql(parts: Parts, principal: Principal, form: Form, data: Sql) -> Stream:
    """For longer ones."""
    return await _sql(parts, principal, form, data.query)


async def _sql(parts: Parts, principal: Principal, form: Form, query: str) -> Stream:
    need(principal, "read")
    return await answered(parts.store, lambda store: _rows_of(store, query), form, {}, page=False)


def _rows_of(store: Reads, query: str) -> Answer:
    rows = store.query_untrusted(query)
    return Answer(rows.schema, iter(rows), {}, rows.close)


def routes() -> list[ControllerRouterHandler]:
    """All of them."""
    handlers = [
        *(
            get_top,
            get_top_sql,
            get_series,
            get_values,
            get_conversations,
            get_flow,
            get_totals,
            get_audit,
            get_sql,
            post_sql,
        ),
        _search_route("flows", "Flows as they are stored"),
        *(_search_route(kind, f"{kind.upper()} transactions") for kind in KINDS),
        *(route for kind in KINDS for route in _quality_routes(kind)),
    ]
    dependencies = {
        "form": Provide(form_of, sync_to_thread=False),
        "asked": Provide(asked, sync_to_thread=False),
    }
    return [Router("/", route_handlers=handlers, dependencies=dependencies, before_request=check_parameters)]
