"""Serves the page's files, read once, with headers that let it load and reach nothing but this server.

The page itself tells nothing, so it needs no token; what it asks the API does. Its paths are all one level deep and its
links relative, so it also works below a prefix of a reverse proxy.
"""

from __future__ import annotations

import gzip
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar import MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.types import ControllerRouterHandler

from wiremeter.server.ingest.refusal import Refusal

BUILT = Path(__file__).with_name("built")
#: The paths at which the page can be opened: what stands behind the slash is the view.
VIEWS = ("", "overview", "explore", "flows", "flow", "map", "live", "agents", "names")
#: Names are what others chose, so no script and no style may come from text: only from files of this server.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the URL has what is looked at
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NOT_BUILT = """\
This wiremeter was installed without its web page. In a checkout, `make web` builds it; the released packages have it.
The API is here all the same: /openapi.json describes it.
"""


@dataclass(frozen=True, slots=True)
class File:
    """One of the page's files; packed: gzip."""

    content: bytes
    packed: bytes
    kind: str


def read_files(directory: Path = BUILT) -> dict[str, File]:
    """By path below the directory; none where the page was not built."""
    found = {}
    for path in sorted(each for each in directory.rglob("*") if each.is_file()):
        content = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        found[path.relative_to(directory).as_posix()] = File(content, gzip.compress(content, 9, mtime=0), kind)
    return found


def routes(directory: Path = BUILT) -> list[ControllerRouterHandler]:
    """The handlers."""
    files = read_files(directory)

    @get([f"/{view}" for view in VIEWS], include_in_schema=False)
    async def view(request: Request[Any, Any, State]) -> Response[bytes]:
        if "index.html" not in files:
            return Response(NOT_BUILT.encode(), status_code=404, media_type=MediaType.TEXT)
        return _answer(files["index.html"], request, "no-cache")

    @get("/assets/{name:str}", include_in_schema=False)
    async def asset(request: Request[Any, Any, State], name: str) -> Response[bytes]:
        found = files.get(f"assets/{name}")
        if found is None:
            raise Refusal(404, "asset", "the page has no file of that name; load it again")
        return _answer(found, request, "public, max-age=31536000, immutable")  # names change with content

    return [view, asset]


def _answer(file: File, request: Request[Any, Any, State], caching: str) -> Response[bytes]:
    headers = {**HEADERS, "Cache-Control": caching, "Vary": "Accept-Encoding"}
    accepted = {each.partition(";")[0].strip() for each in request.headers.get("accept-encoding", "").split(",")}
    if "gzip" in accepted:
        return Response(file.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=file.kind)
    return Response(file.content, headers=headers, media_type=file.kind)
