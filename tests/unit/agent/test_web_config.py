"""Who may read what the agent serves."""

from __future__ import annotations

import base64
import http.client
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest
from prometheus_client import CollectorRegistry

from wiremeter.agent import http_server
from wiremeter.agent.basic_auth import guarded
from wiremeter.agent.http import make_app
from wiremeter.agent.http_server import serve
from wiremeter.agent.logs import TextFormatter
from wiremeter.agent.loop import served
from wiremeter.agent.vitals import Vitals
from wiremeter.agent.web_config import WebConfigFile
from wiremeter.errors import InputError
from wiremeter.settings import Listen
from wiremeter.sinks.prometheus import PrometheusSink

from ..certificates import Authority

ANY_PORT = Listen("127.0.0.1", 0)
HASH = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
Write = Callable[[str], WebConfigFile]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_config(text: str) -> WebConfigFile:
        (tmp_path / "web.yml").write_text(text)
        return WebConfigFile(str(tmp_path / "web.yml"))

    return write_config


@contextmanager
def running(web: WebConfigFile) -> Iterator[Listen]:
    app = guarded(make_app(CollectorRegistry(), Vitals(1.0), "1"), web.current)
    with serve(ANY_PORT, app, lambda: web.current().tls) as taken:
        yield taken


def get(
    address: Listen, path: str = "/healthz", password: str = "", tls: ssl.SSLContext | None = None
) -> http.client.HTTPResponse:
    connection = (
        http.client.HTTPSConnection(address.host, address.port, timeout=30, context=tls)
        if tls
        else http.client.HTTPConnection(address.host, address.port, timeout=30)
    )
    headers = {"Authorization": "Basic " + base64.b64encode(password.encode()).decode()} if password else {}
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.path))


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/", "/nowhere"])
def test_nothing_is_told_without_the_password(path: str, write: Write) -> None:
    with running(write(f"basic_auth_users:\n  prometheus: {HASH}\n")) as address:
        for password in ("", "prometheus:wrong", "nobody:right", "prometheus", ":right", "prometheus:right\0"):
            answer = get(address, path, password)
            assert answer.status == 401
            assert "Basic" in (answer.headers["WWW-Authenticate"] or "")
            assert b"spam" not in answer.read()
        assert get(address, "/healthz", "prometheus:right").status == 200


def test_a_long_password_counts_as_bcrypt_counts_it(write: Write) -> None:
    long = b"x" * 72
    hashed = bcrypt.hashpw(long, bcrypt.gensalt(4)).decode()
    with running(write(f"basic_auth_users:\n  a: {hashed}\n")) as address:
        assert get(address, password="a:" + "x" * 80).status == 200
        assert get(address, password="a:" + "x" * 71).status == 401


def test_a_password_that_was_right_is_not_compared_again(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = bcrypt.checkpw

    def compare(password: bytes, hashed: bytes) -> bool:
        compared.append(password)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", compare)
    with running(write(f"basic_auth_users:\n  a: {HASH}\n")) as address:
        assert [get(address, password="a:right").status for _ in range(5)] == [200] * 5
    assert len(compared) == 1


def test_a_removed_user_has_no_access_any_more(write: Write) -> None:
    with running(write(f"basic_auth_users:\n  a: {HASH}\n  b: {HASH}\n")) as address:
        assert get(address, password="a:right").status == 200
        write(f"basic_auth_users:\n  b: {HASH}\n")
        assert get(address, password="a:right").status == 401
        assert get(address, password="b:right").status == 200


def test_a_file_that_becomes_wrong_changes_nothing_and_is_told(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with running(write(f"basic_auth_users:\n  a: {HASH}\n")) as address:
        with pytest.raises(InputError):
            write("basic_auth_users:\n  a: plain\n")
        assert get(address).status == 401
        assert get(address, password="a:right").status == 200
    assert len([record for record in caplog.records if "wrong" in record.message]) == 1


def test_tls_with_a_certificate_that_is_renewed(authority: Authority, write: Write, tmp_path: Path) -> None:
    authority.issue("agent")
    with running(
        write("tls_server_config: {cert_file: agent.pem, key_file: agent.key, min_version: TLS13}")
    ) as address:
        assert get(address, tls=trusting(authority)).status == 200
        other = Authority(tmp_path, "other")
        with pytest.raises(ssl.SSLError):
            get(address, tls=trusting(other))
        other.issue("agent")
        assert get(address, tls=trusting(other)).status == 200
        with pytest.raises((http.client.HTTPException, OSError)):
            get(address)
        old = trusting(other)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            get(address, tls=old)


def test_client_certificates_are_asked_for(authority: Authority, write: Write) -> None:
    authority.issue("agent")
    text = (
        "tls_server_config: {cert_file: agent.pem, key_file: agent.key, client_ca_file: ca.pem, client_auth_type: %s}"
    )
    mine = trusting(authority)
    mine.load_cert_chain(*authority.issue("prometheus"))
    with running(write(text % "RequireAndVerifyClientCert")) as address:
        with pytest.raises((ssl.SSLError, OSError)):
            get(address, tls=trusting(authority)).read()
        assert get(address, tls=mine).status == 200
    with running(write(text % "VerifyClientCertIfGiven")) as address:
        assert get(address, tls=trusting(authority)).status == 200


def test_headers_are_on_every_answer(write: Write) -> None:
    text = f"http_server_config: {{headers: {{X-Frame-Options: deny}}}}\nbasic_auth_users: {{a: {HASH}}}\n"
    with running(write(text)) as address:
        assert get(address).headers["X-Frame-Options"] == "deny"
        assert get(address, password="a:right").headers["X-Frame-Options"] == "deny"


def test_clients_that_never_end_a_handshake_do_not_keep_others_out(
    authority: Authority, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 20)
    authority.issue("agent")
    with running(write("tls_server_config: {cert_file: agent.pem, key_file: agent.key}")) as address:
        held = [socket.create_connection(address) for _ in range(60)]
        for client in held[::2]:
            client.sendall(b"\x16\x03\x01")
        assert get(address, tls=trusting(authority)).status == 200
        for client in held:
            client.close()
        assert get(address, tls=trusting(authority)).status == 200


def test_a_handshake_has_an_end(authority: Authority, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CLIENT_SECONDS", 0.2)
    authority.issue("agent")
    with (
        running(write("tls_server_config: {cert_file: agent.pem, key_file: agent.key}")) as address,
        socket.create_connection(address) as client,
    ):
        client.settimeout(5)
        began = time.monotonic()
        with pytest.raises(OSError, match="reset"):
            client.recv(1)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("basic_auth_users: {a: secret}", "htpasswd"),
        ("basic_auth_users: [a]", "basic_auth_users"),
        ("basic_auth_users: {a: [b]}", "bcrypt"),
        ("tls_server_config: {cert_file: a.pem}", "key_file"),
        ("tls_server_config: {cert_file: a.pem, key_file: a.key}", "cannot use"),
        ("tls_server_config: {cert_file: a, key_file: b, cipher_suites: []}", "cipher_suites is not taken"),
        ("tls_server_config: []", "tls_server_config lacks|expected keys"),
        ("tls_server_config: text", "expected keys"),
        ("tls_server_confg: {}", "not known"),
        ("rate_limit: {}", "not taken"),
        ("http_server_config: {headers: {X-Other: a}}", "not known"),
        ("- a", "expected keys"),
        ("a: b: c", "YAML"),
        ("\0", "YAML"),
        ("[" * 10_000, "YAML"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str, write: Write) -> None:
    with pytest.raises(InputError, match=said):
        write(text)


def test_a_secret_is_not_told(write: Write) -> None:
    with pytest.raises(InputError) as error:
        write("basic_auth_users: {a: secret-in-clear}")
    assert "secret-in-clear" not in str(error.value)


@pytest.mark.parametrize(("auth", "has_ca"), [("RequireAndVerifyClientCert", False), ("RequireAnyClientCert", True)])
def test_client_certificates_that_cannot_be_checked_are_refused(
    auth: str, has_ca: bool, authority: Authority, write: Write
) -> None:
    authority.issue("agent")
    more = ", client_ca_file: ca.pem" if has_ca else ""
    with pytest.raises(InputError, match="client_"):
        write(f"tls_server_config: {{cert_file: agent.pem, key_file: agent.key, client_auth_type: {auth}{more}}}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        WebConfigFile(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("host", "config", "warns"),
    [
        ("127.0.0.1", "", ""),
        ("0.0.0.0", "", "TLS,passwords"),
        ("0.0.0.0", f"basic_auth_users: {{a: {HASH}}}", "TLS"),
        ("0.0.0.0", "tls_server_config: {cert_file: agent.pem, key_file: agent.key}", "passwords"),
        (
            "0.0.0.0",
            "tls_server_config: {cert_file: agent.pem, key_file: agent.key, client_ca_file: ca.pem, "
            "client_auth_type: RequireAndVerifyClientCert}",
            "",
        ),
    ],
    ids=["loopback", "bare", "passwords", "certificate", "certificates on both sides"],  # the hash is salted
)
def test_an_open_port_is_warned_of(
    host: str, config: str, warns: str, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wiremeter")
    authority.issue("agent")
    path = tmp_path / "web.yml"
    path.write_text(config)
    file = str(path) if config else None
    with served(Listen(host, 0), PrometheusSink(), Vitals(1.0), web_config_file=file):
        pass
    said = [TextFormatter().format(record) for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == bool(warns)
    assert all(f"without={warns}" in each for each in said)
    assert any(
        f"metrics={'https' if 'tls' in config else 'http'}://" in r for r in map(TextFormatter().format, caplog.records)
    )
