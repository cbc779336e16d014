"""`/v1/whoami`: whether a token is needed here, and what the one that was shown permits."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ControllerRouterHandler

from wiremeter import __version__
from wiremeter.server.access.gate import NotKnown
from wiremeter.server.access.principal import Principal
from wiremeter.server.http.app import Parts, Problem, principal_of
from wiremeter.settings.words import TOKEN_RIGHTS, TokenRight


class WhoAmI(msgspec.Struct, kw_only=True):
    """Who asks. authentication: whether it is on, so that nobody may do anything without a token or a certificate.

    name: of the token, null for one who showed nothing where that is needed. rights: those it has. agent: the only one
    that it may write for, null for any. version: the server's, for who may read.
    """

    authentication: bool
    name: str | None
    rights: list[TokenRight]
    agent: str | None
    version: str | None


@get(
    "/v1/whoami",
    summary="Whether authentication is on, and what who asks may do",
    description="Needs no right. Without a token the answer is what nobody in particular may do, and no error.",
    security=[{}, {"token": []}],
    responses={401: ResponseSpec(Problem, generate_examples=False, description="The token is not known, or revoked")},
)
async def whoami(request: Request[Any, Any, State], state: State, parts: Parts) -> WhoAmI:
    """For logging in: a token that is not known is an error."""
    principal: Principal | None
    try:
        principal = await principal_of(request, state)
    except NotKnown:
        if "authorization" in request.headers:
            raise
        principal = None
    return WhoAmI(
        authentication=not parts.gate.is_open,
        name=principal.name if principal else None,
        rights=[right for right in TOKEN_RIGHTS if principal and principal.may(right)],
        agent=principal.agent if principal else None,
        version=__version__ if principal and principal.may("read") else None,
    )


def whoami_routes() -> list[ControllerRouterHandler]:
    """It."""
    return [whoami]
