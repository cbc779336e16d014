"""The page's files are served with a policy that lets nothing else in; without them, it is said how to get them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from wiremeter.errors import WiremeterError
from wiremeter.server.http.app import _problem
from wiremeter.server.web.page import VIEWS, read_files, routes

INDEX, SCRIPT = b"<!doctype html>", b"let a = 1;" * 100


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_bytes(INDEX)
    (tmp_path / "assets" / "index-1a2b.js").write_bytes(SCRIPT)
    (tmp_path.parent / "secret").write_text("not of the page")
    return tmp_path


def client(directory: Path) -> TestClient[Litestar]:
    return TestClient(Litestar(routes(directory), exception_handlers={WiremeterError: _problem}))


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_is_the_page_and_asked_for_again(built: Path, view: str) -> None:
    reply = client(built).get(f"/{view}?filter=tcp")
    assert (reply.status_code, reply.content) == (200, INDEX)
    assert reply.headers["content-type"].startswith("text/html")
    assert reply.headers["cache-control"] == "no-cache"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["referrer-policy"] == "no-referrer"


def test_files_are_kept_for_ever_and_packed_for_who_takes_that(built: Path) -> None:
    for accepted, is_packed in {"gzip, br": True, "identity": False}.items():
        with client(built).stream("GET", "/assets/index-1a2b.js", headers={"Accept-Encoding": accepted}) as reply:
            raw = b"".join(reply.iter_raw())
        assert (gzip.decompress(raw) if is_packed else raw) == SCRIPT
        assert reply.headers["content-type"].startswith("text/javascript")
        assert "immutable" in reply.headers["cache-control"]


@pytest.mark.parametrize("name", ["none.js", "..%2Fsecret", "%2e%2e%2f%2e%2e%2fsecret", "index.html"])
def test_nothing_but_its_files_is_served(built: Path, name: str) -> None:
    assert client(built).get(f"/assets/{name}").status_code == 404


def test_a_page_that_was_not_built_says_what_builds_it(tmp_path: Path) -> None:
    assert read_files(tmp_path) == {}
    reply = client(tmp_path).get("/")
    assert reply.status_code == 404
    assert "make web" in reply.text
