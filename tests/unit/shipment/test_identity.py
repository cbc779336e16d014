"""Identity and metadata of a batch, as agents write them and servers believe them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.errors import InputError
from wiremeter.shipment.identity import AGENT_ID, About, Identity, content_digest, new_boot, read_content_digest

ABOUT = About(
    identity=Identity("web-1.example", new_boot(), 7),
    mode="live",
    start_ns=1_763_821_860_000_000_000,
    end_ns=1_763_821_865_000_000_000,
    version="0.4.0",
    dropped={"spool_full": 3},
)


def test_metadata_is_read_back_as_it_was() -> None:
    assert About.from_metadata(ABOUT.to_metadata() | {"other": "key"}) == ABOUT


def test_a_boot_is_never_the_same() -> None:
    assert new_boot() != new_boot()


@pytest.mark.parametrize("key", [key for key in ABOUT.to_metadata() if key != "wiremeter.dropped"])
def test_what_is_missing_is_named(key: str) -> None:
    metadata = {name: value for name, value in ABOUT.to_metadata().items() if name != key}
    with pytest.raises(InputError, match=key):
        About.from_metadata(metadata)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "2"),
        ("agent", "../../etc"),
        ("agent", ""),
        ("agent", "a" * 129),
        ("agent", "web\n1"),
        ("boot", "1"),
        ("sequence", "-1"),
        ("sequence", "٣"),
        ("sequence", "9" * 19),
        ("mode", "guessed"),
        ("start_ns", "1.5"),
        ("end_ns", "999"),
        ("version", "1\n2"),
        ("dropped", "3"),
        ("dropped", '{"spool full": 1}'),
        ("dropped", '{"spool_full": -1}'),
        ("dropped", '{"spool_full": true}'),
        ("dropped", "[" * 100_000),
    ],
)
def test_what_cannot_be_is_refused(key: str, value: str) -> None:
    with pytest.raises(InputError, match=r"wiremeter|format|ends"):
        About.from_metadata(ABOUT.to_metadata() | {f"wiremeter.{key}": value})


@given(st.dictionaries(st.sampled_from(list(ABOUT.to_metadata())), st.text()))
def test_any_text_is_read_or_refused(changes: dict[str, str]) -> None:
    try:
        about = About.from_metadata(ABOUT.to_metadata() | changes)
    except InputError:
        return
    assert AGENT_ID.fullmatch(about.identity.agent)


@given(st.binary())
def test_a_digest_is_read_back(content: bytes) -> None:
    assert read_content_digest(content_digest(content)) == hashlib.sha256(content).digest()
    assert read_content_digest(f"md5=:AAAA:, {content_digest(content)}") == hashlib.sha256(content).digest()


@pytest.mark.parametrize("header", ["", "sha-256=AAAA", "sha-256=:AAAA:", "sha-512=:AAAA:", "sha-256=::"])
def test_a_digest_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(InputError, match="sha-256"):
        read_content_digest(header)
