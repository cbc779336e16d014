"""`/v1/live`: server-sent events (HTML standard, 9.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from litestar import Request, Router, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter
from litestar.response import ServerSentEvent, ServerSentEventMessage
from litestar.types import ControllerRouterHandler

from wiremeter.flows.filter import compile_filter
from wiremeter.server.access.principal import Principal
from wiremeter.server.http.app import Problem, need
from wiremeter.server.http.parameters import check_parameters
from wiremeter.server.live.hub import Live
from wiremeter.server.live.interval import IntervalEvent, View

_SPECS = {
    200: ResponseSpec(
        IntervalEvent,
        generate_examples=False,
        media_type="text/event-stream",
        description="Events `interval`, of which each has this as its data; comments between them",
    ),
    400: ResponseSpec(Problem, generate_examples=False, description="The question is wrong"),
    401: ResponseSpec(Problem, generate_examples=False, description="Who asks is not known"),
    403: ResponseSpec(Problem, generate_examples=False, description="Who asks has not the right to read"),
    503: ResponseSpec(Problem, generate_examples=False, description="Too many watch already"),
}


@get(
    "/v1/live",
    summary="What agents send, as it is stored: server-sent events",
    description="One event for each interval of an agent: all traffic by device, the largest conversations of the "
    "flows that fit, and the rest of them. Who does not read as fast as events come is cut off.",
    responses=_SPECS,
)
async def get_live(
    request: Request[Any, Any, State],
    live: Live,
    principal: Principal,
    filter: Annotated[str, Parameter(max_length=20_000, description="Of flows, as in the live view")] = "",
    agent: Annotated[str, Parameter(max_length=255, description="Only of this agent")] = "",
    sort: Annotated[Literal["bytes", "packets"], Parameter(description="The amount that is largest")] = "bytes",
    limit: Annotated[int, Parameter(ge=1, le=500, description="Conversations of an event")] = 50,
) -> ServerSentEvent:
    """Until who asks, or the server, has enough."""
    need(principal, "read")
    compile_filter(filter, agent=agent)  # what is wrong with it is said now
    extensions: dict[str, Any] = request.scope.get("extensions") or {}
    abort = extensions.get("wiremeter.connection", {}).get("abort", lambda: None)
    events = live.watch(View(filter=filter, agent=agent, sort=sort, limit=limit), abort)
    return ServerSentEvent(_messages(events), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


async def _messages(events: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEventMessage]:
    async for event in events:
        if event:
            yield ServerSentEventMessage(data=event, event="interval")
        else:
            yield ServerSentEventMessage(data=None, comment="wiremeter")


def live_routes(live: Live) -> list[ControllerRouterHandler]:
    """Of that."""
    dependencies = {"live": Provide(lambda: live, sync_to_thread=False)}
    return [Router("/", route_handlers=[get_live], dependencies=dependencies, before_request=check_parameters)]
