"""What all questions over HTTP share: their parameters, and how an answer becomes a response.

Each is asked in a thread of a pool of their own, so that ingest waits for none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIFormat, OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Schema
from litestar.params import Parameter, QueryParameter
from litestar.response import Stream

from wiremeter.errors import InputError, WiremeterError
from wiremeter.server.fleet.registry import Registry
from wiremeter.server.http.app import Problem, status_of
from wiremeter.server.ingest.refusal import Refusal
from wiremeter.server.query.answer import Answer
from wiremeter.server.query.conditions import where
from wiremeter.server.query.dimensions import read_dimensions
from wiremeter.server.query.formats import MEDIA_TYPES, FormatName, accepted, encode, tagged_lines
from wiremeter.server.query.quality import QualityQuestion, QualitySort, TransactionKind, read_quality_dimensions
from wiremeter.server.query.reading import Reads, Watched
from wiremeter.server.query.search import WORDS
from wiremeter.server.query.sums import Amount, Once, Question, Rank
from wiremeter.server.query.times import Span, choose_step, read_span, read_step, time_text
from wiremeter.server.store import Store

#: Questions that are answered at a time; others wait.
_AT_A_TIME = 6
_pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="query")
#: Up to so many rows a page waits until all of it is there, so that its `next` can be a header, whatever the format.
PAGE_ROWS = 10_000
#: Most steps of a time series.
STEPS_MAX = 10_000
#: Seconds between two lines that tell how far an answer is.
PROGRESS_SECONDS = 0.25
_T = TypeVar("_T")
NEXT_HEADER = "Wiremeter-Next"


class Rows(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An answer in JSON. `rows` are objects of the columns that the question has; `from` and `to` as they were taken.

    total: of all flows that fit, so of all rows. next: the word that continues a search, null at its end. before: the
    range that it is compared with. more: whether there are values beyond those that are listed.
    """

    rows: list[dict[str, Any]]
    next: str | None
    from_: str | msgspec.UnsetType = msgspec.field(name="from", default=msgspec.UNSET)
    to: str | msgspec.UnsetType = msgspec.UNSET
    once: str | msgspec.UnsetType = msgspec.UNSET
    order: str | msgspec.UnsetType = msgspec.UNSET
    step_seconds: int | msgspec.UnsetType = msgspec.UNSET
    total: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    total_before: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    before: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    more: bool | msgspec.UnsetType = msgspec.UNSET


class Form(NamedTuple):
    """An answer's form. has_progress: of JSON lines, whether they are tagged and tell how far it is."""

    name: FormatName
    has_progress: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What all questions have."""

    span: Span
    filter: str
    form: Form


From = Annotated[
    str,
    QueryParameter(name="from", description="Its beginning: RFC 3339, Unix seconds, or -5m before now"),
]
To = Annotated[str, Parameter(description="Its end, which is not in it: the same, or now")]
Filter = Annotated[str, Parameter(max_length=20_000, description="Only what matches, as in the live view")]
Format = Annotated[
    FormatName | None, QueryParameter(name="format", description="The answer's form; else what Accept names, else json")
]
ProgressWord = Annotated[
    bool, Parameter(description="Of jsonl: an object with one of progress, facts, row, next or error in each line")
]
By = Annotated[list[str] | None, Parameter(description="Dimensions, with commas between them or repeated")]
OnceWord = Annotated[
    Once, Parameter(description="observer: each flow as one point saw it; none: as often as it was seen")
]
Sort = Annotated[Amount, Parameter(description="The amount that is largest")]
Compare = Annotated[
    str, Parameter(description="How much earlier the range lies that it is compared with, such as 1d or 1w")
]
RankWord = Annotated[Rank, Parameter(description="change: those first that changed most, where it is compared")]
QualitySortWord = Annotated[
    QualitySort, Parameter(description="What is largest; latency: the 95th percentile. Not all kinds have all of these")
]
Least = Annotated[int, Parameter(ge=1, le=1 << 40, description="Transactions that one must have to be listed")]
SeriesLimit = Annotated[int, Parameter(ge=1, le=100, description="Series, without the remainder")]
Step = Annotated[str, Parameter(description="auto, or a time such as 10s, 5m or 1h")]
Points = Annotated[int, Parameter(ge=1, le=STEPS_MAX, description="Steps, at most, where step is auto")]
Limit = Annotated[int, Parameter(ge=1, le=10_000, description="Rows, without the remainder")]


def form_of(request: Request[Any, Any, State], format: Format = None, progress: ProgressWord = False) -> Form:
    """Raises Refusal where a client takes nothing that can be had."""
    form = format or accepted(request.headers.get("accept", ""))
    if form is None:
        raise Refusal(406, "format", f"none of {', '.join(MEDIA_TYPES.values())} is accepted")
    if progress and form != "jsonl":
        raise Refusal(400, "input", f"progress is told in JSON lines alone: ask for format=jsonl, not {form}")
    return Form(form, progress)


def asked(form: Form, from_: From = "-5m", to: To = "now", filter: Filter = "") -> Asked:
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


def question_of(asked: Asked, by: list[str] | None, sort: Amount, limit: int, once: Once, **more: Any) -> Question:
    """A question about flows. more: as Question has it. Raises InputError."""
    condition, names = where(asked.filter), read_dimensions(by or ())
    return Question(span=asked.span, condition=condition, by=names, sort=sort, limit=limit, once=once, **more)


def quality_of(
    kind: TransactionKind, asked: Asked, by: list[str] | None, sort: QualitySort, limit: int, least: int
) -> QualityQuestion:
    """A question about transactions. Raises InputError."""
    condition, names = where(asked.filter, WORDS[kind]), read_quality_dimensions(kind, by or ())
    return QualityQuestion(
        kind=kind, span=asked.span, condition=condition, by=names, sort=sort, limit=limit, least=least
    )


def compared(asked: Asked, compare: str, rank: Rank) -> tuple[int, dict[str, Any]]:
    """The seconds by which a range lies earlier, and the facts of that. Raises InputError."""
    if not compare:
        if rank != "amount":
            raise InputError("rank=change needs compare, such as compare=1d: it is the change since then")
        return 0, facts_of(asked.span)
    try:
        before = read_step(compare)
    except InputError:
        raise InputError(f"compare={compare} is no length of time; expected one such as 1h, 1d or 1w") from None
    start_ns, end_ns = (each - before * 10**9 for each in asked.span)
    if start_ns < 0:
        raise InputError(f"compare={compare} reaches back beyond 1970")
    return before, {**facts_of(asked.span), "before": facts_of(Span(start_ns, end_ns))}


def step_of(span: Span, step: str, points: int, registry: Registry) -> int:
    """The step of a time series, in seconds. Raises InputError."""
    if step == "auto":
        intervals = [agent.heartbeat.interval_seconds for agent in registry.all() if agent.heartbeat]
        return choose_step(span, points, least=max(1, *map(round, intervals), 1))
    seconds = read_step(step)
    if span.seconds / seconds > STEPS_MAX:
        raise InputError(f"a step of {step} makes more than {STEPS_MAX} points; take a longer one")
    return seconds


def facts_of(span: Span) -> dict[str, str]:
    """The range as it was taken."""
    return {"from": time_text(span.start_ns), "to": time_text(span.end_ns)}


async def in_pool(function: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(_pool, function)


async def answered(
    store: Store, ask: Callable[[Reads], Answer], form: Form, facts: Mapping[str, Any], *, page: bool
) -> Stream:
    """The response. page: whether all of it is read before its head is sent."""
    if form.has_progress:
        return Stream(told(store, ask, facts), media_type=MEDIA_TYPES[form.name], headers={"Cache-Control": "no-store"})
    answer = await in_pool(lambda: ask(store))
    answer.about = {**facts, **answer.about}
    pieces = encode(answer, form.name)
    headers = {"Wiremeter-Once": answer.about["once"]} if "once" in answer.about else {}
    if page:
        try:
            whole = await in_pool(lambda: b"".join(pieces))
        finally:
            answer.close()
        if answer.next_page and (following := answer.next_page()):
            headers[NEXT_HEADER] = following
        return Stream(iter([whole]), media_type=MEDIA_TYPES[form.name], headers=headers)
    return Stream(_stream(answer, pieces), media_type=MEDIA_TYPES[form.name], headers=headers)


async def _stream(answer: Answer, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """If the rows end with an error, so does the response: without its end, which clients tell from a whole one."""
    try:
        while (piece := await in_pool(lambda: next(pieces, None))) is not None:
            if piece:
                yield piece
    finally:
        answer.close()


async def told(store: Store, ask: Callable[[Reads], Answer], facts: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
    """JSON lines with how far it is while the answer is made, and between its rows. An error is the last of them."""
    watched = Watched(store)

    def start() -> Iterator[bytes]:
        answer = ask(watched)
        answer.about = {**facts, **answer.about}
        return tagged_lines(answer)

    try:
        step: Callable[[], Any] = start
        pieces: Iterator[bytes] | None = None
        shown = None
        while True:
            waiting = asyncio.ensure_future(in_pool(step))
            while not (await asyncio.wait([waiting], timeout=PROGRESS_SECONDS))[0]:
                if watched.progress not in (None, shown):
                    shown = watched.progress
                    yield _line({"progress": shown._asdict()})
            if pieces is None:
                pieces = waiting.result()
                step = partial(next, pieces, None)
            elif (piece := waiting.result()) is not None:
                yield piece
            else:
                return
    except WiremeterError as error:
        status, kind = status_of(error)
        if status == 500:
            raise
        yield _line({"error": {"error": str(error), "kind": kind, "status": status}})
    finally:
        watched.abandon()


def _line(told: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(told) + b"\n"
