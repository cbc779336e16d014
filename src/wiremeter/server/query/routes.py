"""The questions as HTTP has them. Each is asked in a thread of a pool of their own, so that ingest waits for none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from litestar import Request, Router, get, post
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIFormat, OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Schema
from litestar.params import Parameter, QueryParameter
from litestar.response import Stream
from litestar.types import ControllerRouterHandler

from wiremeter.server.access.principal import Principal
from wiremeter.server.http.app import Parts, Problem, need
from wiremeter.server.ingest.refusal import Refusal
from wiremeter.server.query.accounts import TOTAL_DIMENSIONS, TOTAL_WORDS, audit, totals
from wiremeter.server.query.answer import Answer
from wiremeter.server.query.conditions import where
from wiremeter.server.query.dimensions import read_dimensions, read_names
from wiremeter.server.query.formats import MEDIA_TYPES, FormatName, accepted, encode
from wiremeter.server.query.search import WORDS, Order, Search, SearchTable, search
from wiremeter.server.query.sums import CONVERSATION, TO_SERVER_AMOUNTS, Amount, Once, Question, series, top
from wiremeter.server.query.times import Span, choose_step, read_span, read_step
from wiremeter.server.store import Store

#: Questions that are answered at a time; others wait.
_AT_A_TIME = 6
_pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="query")
#: Up to so many rows a page waits until all of it is there, so that its `next` can be a header, whatever the format.
_PAGE_ROWS = 10_000
_T = TypeVar("_T")
NEXT_HEADER = "Wiremeter-Next"


class Rows(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An answer in JSON. `rows` are objects of the columns that the question has; `from` and `to` as they were taken.

    total: of all flows that fit, so of all rows. next: the word that continues a search, null at its end.
    """

    rows: list[dict[str, Any]]
    next: str | None
    from_: str | msgspec.UnsetType = msgspec.field(name="from", default=msgspec.UNSET)
    to: str | msgspec.UnsetType = msgspec.UNSET
    once: str | msgspec.UnsetType = msgspec.UNSET
    order: str | msgspec.UnsetType = msgspec.UNSET
    step_seconds: int | msgspec.UnsetType = msgspec.UNSET
    total: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


class Sql(msgspec.Struct):
    """One SELECT over the store's tables, in ClickHouse's dialect."""

    query: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What all questions have."""

    span: Span
    filter: str
    form: FormatName


From = Annotated[
    str,
    QueryParameter(name="from", description="Its beginning: RFC 3339, Unix seconds, or -5m before now"),
]
To = Annotated[str, Parameter(description="Its end, which is not in it: the same, or now")]
Filter = Annotated[str, Parameter(max_length=20_000, description="Only what matches, as in the live view")]
Format = Annotated[
    FormatName | None, QueryParameter(name="format", description="The answer's form; else what Accept names, else json")
]
By = Annotated[list[str] | None, Parameter(description="Dimensions, with commas between them or repeated")]
OnceWord = Annotated[
    Once, Parameter(description="observer: each flow as one point saw it; none: as often as it was seen")
]
Sort = Annotated[Amount, Parameter(description="The amount that is largest")]
Limit = Annotated[int, Parameter(ge=1, le=10_000, description="Rows, without the remainder")]


def form_of(request: Request[Any, Any, State], format: Format = None) -> FormatName:
    """Raises Refusal where a client takes nothing that can be had."""
    form = format or accepted(request.headers.get("accept", ""))
    if form is None:
        raise Refusal(406, "format", f"none of {', '.join(MEDIA_TYPES.values())} is accepted")
    return form


def asked(form: FormatName, from_: From = "-5m", to: To = "now", filter: Filter = "") -> Asked:
    """Raises InputError."""
    return Asked(read_span(from_, to, time.time_ns()), filter, form)


@dataclass
class _Answers(Operation):
    """An operation with all forms of its answer, of which Litestar describes one."""

    def __post_init__(self) -> None:
        answer = (self.responses or {}).get("200")
        if isinstance(answer, OpenAPIResponse) and answer.content is not None:
            for kind in MEDIA_TYPES.values():
                answer.content.setdefault(
                    kind, OpenAPIMediaType(Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY))
                )


_SPECS = {
    200: ResponseSpec(Rows, generate_examples=False, description="Rows; in JSON with what is to be known of them"),
    **{
        status: ResponseSpec(Problem, generate_examples=False, description=text)
        for status, text in {
            400: "The question is wrong",
            401: "Who asks is not known",
            403: "Who asks has not the right to read",
            406: "None of the forms is accepted",
            422: "The store refuses it, or it takes too much",
            503: "The store does not answer now",
        }.items()
    },
}


def _facts(span: Span) -> dict[str, str]:
    return {"from": _text(span.start_ns), "to": _text(span.end_ns)}


def _text(time_ns: int) -> str:
    whole = datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{time_ns % 10**9 // 10**6:03d}Z"


async def _in_pool(function: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(_pool, function)


async def _answered(ask: Callable[[], Answer], form: FormatName, facts: Mapping[str, Any], *, page: bool) -> Stream:
    """The response. page: whether all of it is read before its head is sent."""
    answer = await _in_pool(ask)
    answer.about = {**facts, **answer.about}
    pieces = encode(answer, form)
    headers = {"Wiremeter-Once": answer.about["once"]} if "once" in answer.about else {}
    if page:
        try:
            whole = await _in_pool(lambda: b"".join(pieces))
        finally:
            answer.close()
        if answer.next_page and (following := answer.next_page()):
            headers[NEXT_HEADER] = following
        return Stream(iter([whole]), media_type=MEDIA_TYPES[form], headers=headers)
    return Stream(_stream(answer, pieces), media_type=MEDIA_TYPES[form], headers=headers)


async def _stream(answer: Answer, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """If the rows end with an error, so does the response: without its end, which clients tell from a whole one."""
    try:
        while (piece := await _in_pool(lambda: next(pieces, None))) is not None:
            if piece:
                yield piece
    finally:
        answer.close()


@get(
    "/v1/top",
    summary="The largest by any dimensions, and the remainder",
    description="The row with `other` true is all the rest, so that the rows add up to the total exactly.",
    responses=_SPECS,
    operation_class=_Answers,
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
    return await _answered(lambda: top(parts.store, question), asked.form, _facts(asked.span), page=True)


@get(
    "/v1/series",
    summary="Time series, and the remainder",
    description="Those that are the largest in all of the range, and for each step a row that is the rest.",
    responses=_SPECS,
    operation_class=_Answers,
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
    return await _answered(lambda: series(parts.store, question, seconds), asked.form, _facts(asked.span), page=True)


@get(
    "/v1/conversations",
    summary="A flow and its reverse in one row: the largest, and the remainder",
    description="The server's side is that with the lower port; `…_to_server` is the part that went there.",
    responses=_SPECS,
    operation_class=_Answers,
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
    return await _answered(lambda: top(parts.store, question), asked.form, _facts(asked.span), page=True)


def _search_route(table: SearchTable, summary: str) -> ControllerRouterHandler:
    @get(
        f"/v1/{table}",
        operation_id=f"search_{table}",
        summary=summary,
        description=f"Pages of at most {_PAGE_ROWS} rows have {NEXT_HEADER}, which continues them, in JSON `next`.",
        responses=_SPECS,
        operation_class=_Answers,
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
        is_page = 0 < limit <= _PAGE_ROWS
        return await _answered(lambda: search(parts.store, wanted), asked.form, _facts(asked.span), page=is_page)

    return get_rows


@get(
    "/v1/totals",
    summary="All traffic that was counted, in flows or not",
    responses=_SPECS,
    operation_class=_Answers,
)
async def get_totals(parts: Parts, principal: Principal, asked: Asked, by: By = None) -> Stream:
    """By agent, device and direction, unless told otherwise."""
    need(principal, "read")
    names = read_names(by or ["agent,device,direction"], TOTAL_DIMENSIONS, "dimension of totals")
    condition = where(asked.filter, TOTAL_WORDS)
    return await _answered(
        lambda: totals(parts.store, asked.span, condition, names), asked.form, _facts(asked.span), page=True
    )


@get(
    "/v1/audit",
    summary="What was seen and where it went, by agent, device and direction",
    responses=_SPECS,
    operation_class=_Answers,
)
async def get_audit(parts: Parts, principal: Principal, asked: Asked) -> Stream:
    """One row for each kind and reason."""
    need(principal, "read")
    condition = where(asked.filter, TOTAL_WORDS)
    return await _answered(lambda: audit(parts.store, asked.span, condition), asked.form, _facts(asked.span), page=True)


_SQL = "One SELECT over the store's tables, within limits of time, memory and rows. Addresses are 16 bytes in Arrow."


@get(
    "/v1/sql",
    summary="SQL that only reads",
    description=_SQL,
    responses=_SPECS,
    operation_class=_Answers,
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
    responses=_SPECS,
    operation_class=_Answers,
)
async def post_sql(parts: Parts, principal: Principal, form: FormatName, data: Sql) -> Stream:
    """For longer ones."""
    return await _sql(parts, principal, form, data.query)


async def _sql(parts: Parts, principal: Principal, form: FormatName, query: str) -> Stream:
    need(principal, "read")
    return await _answered(lambda: _rows_of(parts.store, query), form, {}, page=False)


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
