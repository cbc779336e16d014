"""Tokens: shown once, kept as hashes, revoked within a second, and written whole or not at all."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wiremeter.errors import InputError
from wiremeter.server.access.gate import Gate, NotKnown
from wiremeter.server.access.principal import Principal
from wiremeter.server.access.tokens import LOOK_SECONDS, TokenFile


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tokens.json"


def test_a_token_is_found_by_its_text_and_the_file_holds_none(path: Path) -> None:
    tokens = TokenFile(path)
    token, text = tokens.create("alice", ["read"])
    assert tokens.find(text) == Principal(f"token {token.id} (alice)", frozenset({"read"}))
    secret = text.split("_", 2)[2]
    assert secret not in path.read_text()
    assert len(secret) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.glob("*.tmp")) == []


@pytest.mark.parametrize("wrong", ["", "wm_", "x", "wm_00000000_" + "A" * 43, "wm_\u00e9", "a" * 10_000])
def test_what_is_no_token_is_nobody(path: Path, wrong: str) -> None:
    tokens = TokenFile(path)
    assert tokens.find(wrong) is None
    tokens.create("a", ["read"])
    assert tokens.find(wrong) is None


def test_another_secret_behind_a_known_id_is_nobody(path: Path) -> None:
    tokens = TokenFile(path)
    (_, one), (_, other) = tokens.create("a", ["read"]), tokens.create("b", ["write"])
    assert TokenFile(path).find(one[:12] + other[12:]) is None


def test_what_another_process_makes_and_revokes_counts_within_a_second(path: Path) -> None:
    clock = Clock()
    server, admin = TokenFile(path, clock), TokenFile(path)
    token, text = admin.create("a", ["write"], "web-1")
    assert server.find(text)
    admin.revoke(token.id)
    clock.now += LOOK_SECONDS
    assert server.find(text) is None
    assert [each.revoked is not None for each in server.all()] == [True]
    assert admin.revoke(token.id) == admin.all()[0], "a second time changes nothing"


def test_many_at_once_lose_none(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: TokenFile(path).create(f"t{number}", ["read"]), range(24)))
    tokens = TokenFile(path)
    assert {token.id for token in tokens.all()} == {token.id for token, _ in made}
    assert all(tokens.find(text) for _, text in made)


@pytest.mark.parametrize(
    ("name", "rights", "agent", "why"),
    [
        ("", ["read"], None, "name"),
        ("a\nb", ["read"], None, "name"),
        ("a", [], None, "rights"),
        ("a", ["fly"], None, "rights"),
        ("a", ["write"], "../x", "agent"),
        ("a", ["read"], "web-1", "right to write"),
    ],
)
def test_what_cannot_be_is_refused(path: Path, name: str, rights: list[str], agent: str | None, why: str) -> None:
    with pytest.raises(InputError, match=why):
        TokenFile(path).create(name, rights, agent)  # type: ignore[arg-type]
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":"x","version":1}', b"\xff"])
def test_a_damaged_file_is_an_error_and_stays(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InputError, match="tokens"):
        TokenFile(path).create("a", ["read"])
    with pytest.raises(InputError, match="tokens"):
        TokenFile(path).find("wm_00000000_" + "A" * 43)
    assert path.read_bytes() == content


def test_nobody_reads_secrets_out_of_a_listing(path: Path) -> None:
    tokens = TokenFile(path)
    _, text = tokens.create("a", ["admin"])
    assert text.split("_", 2)[2] not in json.dumps([str(token) for token in tokens.all()])


# --- who is it


def test_a_token_counts_before_the_certificate_and_a_wrong_one_is_no_certificates_business(path: Path) -> None:
    tokens = TokenFile(path)
    _, text = tokens.create("alice", ["read"])
    gate = Gate(tokens, is_open=True)
    uris = ("urn:other:thing", "urn:wiremeter:agent:web-1")
    assert gate.principal(f"Bearer {text}", uris).rights == {"read"}
    found = gate.principal(None, uris)
    assert (found.rights, found.agent) == (frozenset({"write"}), "web-1")
    assert (found.may_write_for("web-1"), found.may_write_for("web-2")) == (True, False)
    for header in ("Bearer wrong", "Basic abc", ""):
        with pytest.raises(NotKnown):
            gate.principal(header, uris)
    assert gate.principal(None).may("admin"), "who shows nothing, where that is open"


@pytest.mark.parametrize("uri", ["urn:wiremeter:agent:", "urn:wiremeter:agent:a/b", "urn:wiremeter:agent:" + "a" * 200])
def test_a_certificate_of_no_agent_is_nobody(path: Path, uri: str) -> None:
    with pytest.raises(NotKnown, match="token"):
        Gate(TokenFile(path), is_open=False).principal(None, [uri])
