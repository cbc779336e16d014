"""Names read from others' captures against what another dissector read in them, on both engines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .names_expectation import missing_dns, missing_hellos, missing_http, wrong_latencies
from .test_expected import COUNTED, expectation, needs_captures, replay

KINDS = ("dns", "http_requests", "tls_client_hello", "quic_client_hello")
#: Damaged on purpose: what can be read of a damaged message is a matter of taste, see docs/names.md.
FUZZED = "fuzz-bigendian.pcap"
TOLD = [name for name in COUNTED if any(expectation(name)[kind] for kind in KINDS) and name != FUZZED]


def names_of(name: str, *options: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(replay(name, "--no-redact-paths", *options))
    return loaded


@pytest.mark.parametrize("name", TOLD)
def test_every_dns_message_is_told(name: str) -> None:
    assert missing_dns(expectation(name), names_of(name)["dns"]) == []


@pytest.mark.parametrize("name", TOLD)
def test_every_hello_is_told(name: str) -> None:
    ours = names_of(name)
    assert missing_hellos(expectation(name), "tls_client_hello", ours["tls"]) == []
    assert missing_hellos(expectation(name), "quic_client_hello", ours["quic"]) == []


@pytest.mark.parametrize("name", TOLD)
def test_every_http_request_is_told(name: str) -> None:
    ours = names_of(name)["http"]
    assert missing_http(expectation(name), ours) == []
    assert wrong_latencies(expectation(name), ours) == []


@needs_captures
def test_of_damaged_dns_messages_nearly_all_are_told() -> None:
    """Of 304 messages those are left out whose first question cannot be read, and a few whose answers cannot."""
    assert len(missing_dns(expectation(FUZZED), names_of(FUZZED)["dns"])) <= 22


@pytest.mark.kernel
@pytest.mark.parametrize("name", [*TOLD, FUZZED] if TOLD else [])
def test_the_kernel_engine_tells_the_same(name: str) -> None:
    kernel, host = names_of(name, "--engine", "kernel"), names_of(name)
    for kind in ("dns", "tls", "quic", "http"):
        assert kernel[kind] == host[kind]


@pytest.mark.parametrize("name", TOLD)
def test_paths_are_told_only_where_that_is_asked_for(name: str) -> None:
    assert all(request["path"] is None for request in json.loads(replay(name))["http"])
