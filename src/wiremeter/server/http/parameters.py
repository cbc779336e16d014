"""Words in the query string that nobody reads, and choices that there are not: told, and not passed over in silence."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.openapi.spec import Reference, Schema

from wiremeter.server.ingest.refusal import Refusal


def check_parameters(request: Request[Any, Any, State]) -> None:
    """Before a request is answered. Raises Refusal for a parameter that is not described, or not one of its choices."""
    known = _known(request)
    for name, value in request.query_params.multi_items():
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise Refusal(
                400, "input", f"there is no parameter {name!r} here; {hint}those are {', '.join(known)}", is_final=False
            )
        if known[name] and value not in known[name]:
            raise Refusal(
                400, "input", f"{name}: {value!r} is none of {', '.join(map(str, known[name]))}", is_final=False
            )


def _known(request: Request[Any, Any, State]) -> Mapping[str, tuple[str, ...]]:
    """The parameters of the request's path, by the description, each with its choices, none where it is free."""
    path = (request.app.openapi_schema.paths or {}).get(request.scope["path_template"])
    operation = getattr(path, request.method.lower(), None)
    found: dict[str, tuple[str, ...]] = {}
    for parameter in operation.parameters or () if operation else ():
        if not isinstance(parameter, Reference) and parameter.param_in == "query":
            found[parameter.name] = _choices(parameter.schema)
    return found


def _choices(schema: Schema | Reference | None) -> tuple[str, ...]:
    if not isinstance(schema, Schema):
        return ()
    one_of = [choice for each in schema.one_of or () for choice in _choices(each)]
    return tuple(str(choice) for choice in schema.enum or one_of if choice is not None)
