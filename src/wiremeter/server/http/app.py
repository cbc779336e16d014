"""The server's HTTP interface, as a Litestar application: what agents send, and how the fleet is."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import Parameter
from litestar.types import ControllerRouterHandler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from wiremeter import __version__
from wiremeter.errors import InputError, WiremeterError
from wiremeter.server.access.gate import Gate, NotKnown
from wiremeter.server.access.hosts import is_loopback
from wiremeter.server.access.principal import ANYONE, Principal
from wiremeter.server.access.rates import Rates
from wiremeter.server.fleet.registry import Agent, Registry
from wiremeter.server.http.readiness import Readiness
from wiremeter.server.ingest.body import BODY_BYTES_MAX, Room, read_body
from wiremeter.server.ingest.intake import Intake
from wiremeter.server.ingest.quarantine import Quarantine, Refused
from wiremeter.server.ingest.refusal import Refusal
from wiremeter.server.store import Refused as StoreRefused
from wiremeter.server.store import SqlRefused, Store, TooMuch, Unavailable
from wiremeter.settings.words import TokenRight
from wiremeter.shipment.heartbeat import BYTES_MAX as HEARTBEAT_BYTES_MAX
from wiremeter.shipment.heartbeat import Heartbeat
from wiremeter.shipment.schema import MEDIA_TYPE

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What requests are answered from. rates: bytes a second, of each who sends. is_local: it listens on loopback."""

    store: Store
    gate: Gate
    registry: Registry
    intake: Intake
    quarantine: Quarantine
    metrics: CollectorRegistry
    rates: Rates
    room: Room
    readiness: Readiness
    is_local: bool = False


class StoredAnswer(msgspec.Struct):
    """stored: true if it is new, false if it was stored before."""

    stored: bool


class Problem(msgspec.Struct):
    """What went wrong, for people; and a word for programs."""

    error: str
    kind: str


class AgentState(msgspec.Struct, kw_only=True):
    """One agent. Times are Unix time in nanoseconds, by the server's clock; null where nothing is known."""

    agent: str
    state: str
    heard_ns: int
    stored_until_ns: int | None
    version: str
    clock_skew_seconds: float | None
    missing_batches: int
    duplicates: int
    dropped: dict[str, int]
    heartbeat: Heartbeat | None


def build_app(parts: Parts, more: Sequence[ControllerRouterHandler] = ()) -> Litestar:
    """The application. more: route handlers besides those for agents."""
    return Litestar(
        route_handlers=[
            take_batch,
            take_heartbeat,
            agents,
            agent,
            refused,
            refused_body,
            healthz,
            readyz,
            metrics,
            *more,
        ],
        state=State({"parts": parts}),
        dependencies={"principal": Provide(principal_of), "parts": Provide(parts_of, sync_to_thread=False)},
        exception_handlers={WiremeterError: _problem, HTTPException: _http_problem, Exception: _fault},
        openapi_config=OpenAPIConfig(
            title="wiremeter",
            version=__version__,
            description="Batches of agents in, answers about their traffic out.",
            path="/openapi.json",
            render_plugins=[JsonRenderPlugin(path="/")],  # pages would load their scripts from elsewhere
            components=Components(
                security_schemes={
                    "token": SecurityScheme(type="http", scheme="bearer", description="wiremeter token create")
                }
            ),
            security=[{"token": []}],
        ),
        request_max_body_size=1 << 20,
        logging_config=None,
        debug=False,
    )


def parts_of(state: State) -> Parts:
    """For handlers."""
    found: Parts = state["parts"]
    return found


async def principal_of(request: Request[Any, Any, State], state: State) -> Principal:
    """Who asks. Raises NotKnown."""
    extensions: dict[str, Any] = request.scope.get("extensions") or {}
    uris = extensions.get("wiremeter.certificate", {}).get("uris", ())
    try:
        found = await asyncio.to_thread(parts_of(state).gate.principal, request.headers.get("authorization"), uris)
    except InputError as error:
        # No 400: agents would give up their batches for what is the server's trouble.
        log.error("the tokens cannot be read, so nobody is let in", extra={"reason": str(error)})
        text = "the server cannot read its tokens; its log says why"
        raise Refusal(503, "tokens", text, is_final=False, retry_after=5) from error
    if found is ANYONE and parts_of(state).is_local:
        _check_host(request)
    return found


def _check_host(request: Request[Any, Any, State]) -> None:
    """Raises Refusal where a page of another site asks: its name may lead to this host, by DNS rebinding or a link."""
    host, origin = request.headers.get("host"), request.headers.get("origin")
    urls = ([f"//{host}"] if host else []) + ([] if origin is None else [origin])
    if not all(map(_is_local, urls)):
        text = "without authentication only localhost is answered; make a token to be asked by another name"
        raise Refusal(403, "host", text, is_final=False)


def _is_local(url: str) -> bool:
    """Whether a URL leads to this host's loopback. One without a host does not, such as the "null" of a sandbox."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def need(principal: Principal, right: TokenRight) -> None:
    """Raises Refusal for one who lacks a right."""
    if not principal.may(right):
        raise Refusal(403, "right", f"{principal.name} has not the right to {right}", is_final=False)


# Bodies of agents are bounded by read_body, as they come and as they decompress; Litestar's own limit is of others'.
@post(
    "/v1/batches",
    status_code=200,
    request_max_body_size=None,
    summary="Store a batch",
    description=f"The body is {MEDIA_TYPE}, perhaps with Content-Encoding: zstd. Sending it again does no harm.",
)
async def take_batch(request: Request[Any, Any, State], parts: Parts, principal: Principal) -> StoredAnswer:
    """Stores a batch."""
    content, sha256 = await _body(request, parts, principal)
    is_new = await parts.intake.batch(principal, _peer(request), content, sha256)
    return StoredAnswer(is_new)


@post("/v1/heartbeats", status_code=200, request_max_body_size=None, summary="Say how the agent is")
async def take_heartbeat(request: Request[Any, Any, State], parts: Parts, principal: Principal) -> StoredAnswer:
    """Takes a heartbeat."""
    content, _ = await _body(request, parts, principal, most=HEARTBEAT_BYTES_MAX)
    await parts.intake.heartbeat(principal, content)
    return StoredAnswer(True)


@get("/v1/agents", summary="All agents and their state")
async def agents(parts: Parts, principal: Principal) -> list[AgentState]:
    """By name."""
    need(principal, "read")
    now_ns = parts.intake.now_ns()
    return [_state(agent, now_ns) for agent in parts.registry.all()]


@get("/v1/agents/{name:str}", summary="One agent and its state")
async def agent(name: str, parts: Parts, principal: Principal) -> AgentState:
    """One."""
    need(principal, "read")
    found = parts.registry.get(name)
    if found is None:
        raise Refusal(404, "agent", "no agent of that name was heard of")
    return _state(found, parts.intake.now_ns())


@get("/v1/refused", summary="What was refused for good, the newest first")
async def refused(
    parts: Parts, principal: Principal, limit: Annotated[int, Parameter(ge=1, le=10_000)] = 100
) -> list[Refused]:
    """Without the bytes."""
    need(principal, "admin")
    found = await asyncio.to_thread(parts.quarantine.all)
    return found[:limit]


@get("/v1/refused/{content:str}", summary="The bytes of one that was refused", media_type="application/octet-stream")
async def refused_body(content: str, parts: Parts, principal: Principal) -> Response[bytes]:
    """By its SHA-256."""
    need(principal, "admin")
    found = await asyncio.to_thread(parts.quarantine.content, content)
    if found is None:
        raise Refusal(404, "content", "nothing of that SHA-256 is kept")
    return Response(found, media_type="application/octet-stream", headers={"Content-Disposition": "attachment"})


@get("/healthz", media_type=MediaType.TEXT, include_in_schema=False)
async def healthz() -> str:
    """Whether requests are answered at all."""
    return "ok\n"


@get("/readyz", media_type=MediaType.TEXT, include_in_schema=False)
async def readyz(parts: Parts) -> Response[str]:
    """Whether the store answers."""
    if why := await parts.readiness.why_not():  # of which whoever asks here is told no more
        log.warning("the store does not answer", extra={"reason": why})
        return Response("the store does not answer; the log says why\n", status_code=503, media_type=MediaType.TEXT)
    return Response("ok\n", media_type=MediaType.TEXT)


@get("/metrics", include_in_schema=False)
async def metrics(request: Request[Any, Any, State], parts: Parts, principal: Principal) -> Response[bytes]:
    """For Prometheus."""
    need(principal, "read")
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    body = await asyncio.to_thread(encode, parts.metrics)
    return Response(body, headers={"Content-Type": kind}, media_type=kind)


async def _body(
    request: Request[Any, Any, State], parts: Parts, principal: Principal, **more: int
) -> tuple[bytes, bytes]:
    """The body, and its SHA-256; within what may be sent. What is not taken is counted."""
    try:
        need(principal, "write")
        length = _length(request.headers.get("content-length"))
        # Who does not say how much it is has the most there may be charged.
        wait = parts.rates.take(principal.name, max(more.get("most", BODY_BYTES_MAX) if length is None else length, 1))
        if wait:
            raise Refusal(429, "rate", "too much at once; send it again later", is_final=False, retry_after=wait)
        return await read_body(
            request.stream(),
            length=length,
            encoding=request.headers.get("content-encoding", "").strip().lower(),
            digest=request.headers.get("content-digest"),
            room=parts.room,
            **more,
        )
    except Refusal as refusal:
        parts.intake.refused(refusal)
        raise


def _length(header: str | None) -> int | None:
    return int(header) if header is not None and header.isascii() and header.isdigit() and len(header) < 16 else None


def _peer(request: Request[Any, Any, State]) -> str:
    return f"{request.client.host}:{request.client.port}" if request.client else "unknown"


def _state(agent: Agent, now_ns: int) -> AgentState:
    return AgentState(
        agent=agent.agent,
        state=agent.state(now_ns),
        heard_ns=agent.heard_ns,
        stored_until_ns=agent.batch_end_ns or None,
        version=agent.version,
        clock_skew_seconds=None if agent.skew_ns is None else agent.skew_ns / 1e9,
        missing_batches=agent.missing,
        duplicates=agent.duplicates,
        dropped=dict(agent.dropped),
        heartbeat=agent.heartbeat,
    )


def status_of(error: WiremeterError) -> tuple[int, str]:
    """The HTTP status of an error, by whose move it is, and its kind, a word for programs."""
    match error:
        case Refusal():
            return error.status, error.reason
        case NotKnown():
            return 401, "unknown"
        case Unavailable():
            return 503, "unavailable"
        case TooMuch():
            return 422, "too_much"
        case SqlRefused() | StoreRefused():
            return 422, "sql"
        case InputError():
            return 400, "input"
        case _:
            return 500, "fault"


def _problem(request: Request[Any, Any, State], error: WiremeterError) -> Response[Problem]:
    status, kind = status_of(error)
    if status == 500:
        return _fault(request, error)
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, NotKnown) else {}
    if isinstance(error, Refusal | Unavailable) and error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return Response(Problem(str(error), kind), status_code=status, headers=headers, media_type=MediaType.JSON)


def _http_problem(_: Request[Any, Any, State], error: HTTPException) -> Response[Problem]:
    """What Litestar finds: no such path, a parameter that cannot be read."""
    details = [f"{one.get('key', '')}: {one.get('message', '')}" for one in error.extra or () if isinstance(one, dict)]
    text = "; ".join([error.detail, *details])
    return Response(
        Problem(text, "http"), status_code=error.status_code, headers=error.headers, media_type=MediaType.JSON
    )


def _fault(request: Request[Any, Any, State], error: Exception) -> Response[Problem]:
    log.error("a request failed", exc_info=error, extra={"path": request.url.path})
    text = "a fault of the server's; its log says which"
    return Response(Problem(text, "fault"), status_code=500, media_type=MediaType.JSON)
