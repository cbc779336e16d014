"""Requests to a server: what its answers mean, and who may see and be what."""

from __future__ import annotations

import base64
import email.utils
import os
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.errors import InputError
from wiremeter.shipment.identity import AGENT_URN, About, Identity, new_boot
from wiremeter.sinks.shipping.delivery import Connection, Server, Verdict, judge
from wiremeter.sinks.shipping.encode import encode

from ...certificates import Authority
from ...live_batches import make_batch
from ...receiver import Answer, Receiver

SECRET = "s3cret-token-of-web-1"
_ABOUT = About(identity=Identity("web-1", new_boot(), 0), mode="live", start_ns=0, end_ns=1, version="1")
CONTENT = encode(make_batch([]), _ABOUT)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def token(tmp_path: Path) -> str:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    return str(tmp_path / "token")


@pytest.mark.parametrize(
    ("status", "said", "verdict"),
    [
        (200, b'{"stored": true}', "stored"),
        (200, b'{"stored": false}', "known"),
        (200, b'{"stored": 1}', "later"),
        (200, b"[]", "later"),
        (200, b"", "later"),
        (204, b"", "later"),
        (301, b"", "later"),
        (400, b"", "refused"),
        (409, b'{"error": "other content"}', "refused"),
        (401, b"", "unauthorized"),
        (403, b"", "unauthorized"),
        (404, b"", "later"),
        (407, b"", "later"),
        (408, b"", "later"),
        (429, b"", "later"),
        (500, b"", "later"),
        (503, b"", "later"),
        (599, b"", "later"),
    ],
)
def test_an_answer_means_what_the_contract_says(status: int, said: bytes, verdict: Verdict) -> None:
    assert judge(status, said, None).verdict == verdict


@given(st.integers(100, 999), st.binary(), st.none() | st.text())
def test_any_answer_means_something(status: int, said: bytes, retry_after: str | None) -> None:
    outcome = judge(status, said, retry_after)
    assert outcome.why.isprintable()
    assert outcome.retry_seconds is None or 0 <= outcome.retry_seconds <= 3600


@pytest.mark.parametrize(("header", "expected"), [("7", 7.0), ("999999", 3600.0), ("-3", None), ("soon", None)])
def test_retry_after_in_seconds(header: str, expected: float | None) -> None:
    assert judge(503, b"", header).retry_seconds == expected


def test_retry_after_as_a_date() -> None:
    header = email.utils.formatdate(time.time() + 100, usegmt=True)
    retry = judge(503, b"", header).retry_seconds
    assert retry is not None
    assert 90 < retry <= 100
    assert judge(503, b"", email.utils.formatdate(0)).retry_seconds == 0


def test_a_batch_with_its_token_over_tls(authority: Authority, token: str) -> None:
    with Receiver(tls=authority.server_context()) as receiver:
        connection = Connection(Server(receiver.url, token, str(authority.path)))
        assert connection.batch(CONTENT).verdict == "stored"
        assert connection.batch(CONTENT).verdict == "known"
    headers = receiver.requests[0][1]
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert headers["user-agent"].startswith("wiremeter/")


def test_a_certificate_of_somebody_else_is_not_believed(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    with Receiver(tls=authority.server_context()) as receiver:
        for ca in (None, str(other.path)):
            outcome = Connection(Server(receiver.url, ca=ca)).batch(CONTENT)
            assert (outcome.verdict, outcome.cause) == ("later", "tls")
            assert "certificate" in outcome.why
        assert not receiver.requests


@pytest.mark.parametrize("wrong", ["expired", "of another host"])
def test_a_certificate_that_is_not_good_is_not_believed(wrong: str, authority: Authority) -> None:
    context = authority.server_context(hours=-1 if wrong == "expired" else 1)
    with Receiver(host="127.0.0.1" if wrong == "expired" else "127.0.0.2", tls=context) as receiver:
        outcome = Connection(Server(receiver.url, ca=str(authority.path))).batch(CONTENT)
    assert (outcome.verdict, outcome.cause) == ("later", "tls")
    assert {"expired": "expired", "of another host": "127.0.0.2"}[wrong] in outcome.why


def test_an_agent_shows_its_certificate(authority: Authority) -> None:
    cert, key = map(str, authority.issue("web-1", uri=f"{AGENT_URN}web-1"))
    with Receiver(tls=authority.server_context(asks_for_client=True)) as receiver:
        outcome = Connection(Server(receiver.url, None, str(authority.path), cert, key)).batch(CONTENT)
        assert outcome.verdict == "stored", outcome
        outcome = Connection(Server(receiver.url, None, str(authority.path))).batch(CONTENT)
        assert outcome.verdict == "later"
        assert outcome.cause in ("tls", "connection")


def test_new_certificates_and_tokens_need_no_restart(authority: Authority, tmp_path: Path, token: str) -> None:
    other = Authority(tmp_path, "other")
    ca = tmp_path / "trusted.pem"
    ca.write_bytes(other.path.read_bytes())
    with Receiver(tls=authority.server_context()) as receiver:
        connection = Connection(Server(receiver.url, token, str(ca)))
        assert connection.batch(CONTENT).cause == "tls"
        ca.write_bytes(authority.path.read_bytes() + b"\n")
        Path(token).write_text("another-token")
        assert connection.batch(CONTENT).verdict == "stored"
        Path(token).unlink()
        outcome = connection.batch(CONTENT)
        assert (outcome.verdict, outcome.cause) == ("unauthorized", "unauthorized")
        assert token in outcome.why
    assert receiver.requests[0][1]["authorization"] == "Bearer another-token"


def test_a_token_does_not_go_in_clear_to_another_host(token: str) -> None:
    with pytest.raises(InputError, match="https"):
        Connection(Server("http://meter.example:8080", token))
    Connection(Server("http://localhost:8080", token))


@pytest.mark.parametrize("content", ["", "two words", "x" * 5000, "a\nb", "ü"])
def test_a_token_that_is_none_is_refused_and_not_shown(content: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(InputError, match="token") as error:
        Connection(Server("https://meter.example", str(tmp_path / "token")))
    assert not content or content not in str(error.value)


@pytest.mark.parametrize("name", ["ca", "cert"])
def test_files_that_are_no_certificates_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.pem").write_text("nothing")
    with pytest.raises(InputError, match=r"file\.pem"):
        Connection(Server("https://meter.example", **{name: str(tmp_path / "file.pem")}))


def test_what_hangs_up_or_is_no_http_is_a_failure() -> None:
    class Rude(socketserver.BaseRequestHandler):
        said = b""

        def handle(self) -> None:
            self.request.recv(100_000)
            self.request.sendall(self.said)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Rude) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = Connection(Server(f"http://127.0.0.1:{server.server_address[1]}"))
        for Rude.said in (
            b"",
            b"\0" * 100,
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
            b"HTTP/1.1 9 x\r\n\r\n",
        ):
            outcome = connection.batch(CONTENT)
            assert outcome.verdict == "later", Rude.said
            assert outcome.why
        server.shutdown()


def test_a_connection_that_the_server_closed_meanwhile_is_no_failure() -> None:
    with Receiver() as receiver:
        connection = Connection(Server(receiver.url))
        assert connection.batch(CONTENT).verdict == "stored"
        answers: list[Answer | None] = [(0, {}, b"")]
        receiver.before = lambda path, headers: answers.pop() if answers else None
        assert connection.batch(CONTENT).verdict == "known"
        assert not answers


def test_a_host_without_a_name_is_a_failure_with_its_reason() -> None:
    outcome = Connection(Server("http://nowhere.invalid")).batch(CONTENT)
    assert (outcome.verdict, outcome.cause) == ("later", "connection")
    assert "ame" in outcome.why


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """Answers 502 to whoever asks it, and keeps what they said."""
    heard: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(100_000))
            self.request.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", heard
        server.shutdown()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxies_count_and_their_passwords_are_not_told(
    scheme: str, proxy: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, heard = proxy
    monkeypatch.setenv(f"{scheme}_proxy", f"http://user:pa%3Ass@{address}")
    outcome = Connection(Server(f"{scheme}://meter.example")).batch(CONTENT)
    assert outcome.verdict == "later"
    assert "pa:ss" not in outcome.why
    assert "pa%3Ass" not in outcome.why
    first = heard[0].split(b"\r\n")[0]
    assert first.startswith(
        b"CONNECT meter.example:443" if scheme == "https" else b"POST http://meter.example/v1/batches"
    )
    assert base64.b64encode(b"user:pa:ss") in heard[0]


def test_a_proxy_is_passed_by_where_it_should_be(
    proxy: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{proxy[0]}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Receiver() as receiver:
        assert Connection(Server(receiver.url)).batch(CONTENT).verdict == "stored"
    assert not proxy[1]


def test_a_long_answer_is_not_read_to_its_end() -> None:
    with Receiver() as receiver:
        receiver.before = lambda path, headers: (500, {}, b"x" * (8 << 20))
        outcome = Connection(Server(receiver.url)).batch(CONTENT)
    assert outcome.verdict == "later"
    assert len(outcome.why) < 300
