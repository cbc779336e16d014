"""What all questions over HTTP share: their parameters, and how an answer becomes a response.

Each is asked in a thread of a pool of their own, so that ingest waits for none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIFormat, OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Schema
from litestar.params import Parameter, QueryParameter
from litestar.response import Stream

from wiremeter.server.http.app import Problem
from wiremeter.server.ingest.refusal import Refusal
from wiremeter.server.query.answer import Answer
from wiremeter.server.query.formats import MEDIA_TYPES, FormatName, accepted, encode
from wiremeter.server.query.sums import Amount, Once
from wiremeter.server.query.times import Span, read_span

#: Questions that are answered at a time; others wait.
_AT_A_TIME = 6
_pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="query")
#: Up to so many rows a page waits until all of it is there, so that its `next` can be a header, whatever the format.
PAGE_ROWS = 10_000
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
class Answers(Operation):
    """An operation with all forms of its answer, of which Litestar describes one."""

    def __post_init__(self) -> None:
        answer = (self.responses or {}).get("200")
        if isinstance(answer, OpenAPIResponse) and answer.content is not None:
            for kind in MEDIA_TYPES.values():
                answer.content.setdefault(
                    kind, OpenAPIMediaType(Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY))
                )


SPECS = {
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


def facts_of(span: Span) -> dict[str, str]:
    return {"from": time_text(span.start_ns), "to": time_text(span.end_ns)}


def time_text(time_ns: int) -> str:
    whole = datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{time_ns % 10**9 // 10**6:03d}Z"


async def in_pool(function: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(_pool, function)


async def answered(ask: Callable[[], Answer], form: FormatName, facts: Mapping[str, Any], *, page: bool) -> Stream:
    """The response. page: whether all of it is read before its head is sent."""
    answer = await in_pool(ask)
    answer.about = {**facts, **answer.about}
    pieces = encode(answer, form)
    headers = {"Wiremeter-Once": answer.about["once"]} if "once" in answer.about else {}
    if page:
        try:
            whole = await in_pool(lambda: b"".join(pieces))
        finally:
            answer.close()
        if answer.next_page and (following := answer.next_page()):
            headers[NEXT_HEADER] = following
        return Stream(iter([whole]), media_type=MEDIA_TYPES[form], headers=headers)
    return Stream(_stream(answer, pieces), media_type=MEDIA_TYPES[form], headers=headers)


async def _stream(answer: Answer, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """If the rows end with an error, so does the response: without its end, which clients tell from a whole one."""
    try:
        while (piece := await in_pool(lambda: next(pieces, None))) is not None:
            if piece:
                yield piece
    finally:
        answer.close()
