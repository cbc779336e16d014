"""What Accept headers ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.agent.negotiation import prefers_protobuf, takes_gzip

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        (PROTOBUF, True),
        (
            PROTOBUF.replace(";", " ; ").replace("application", "Application").replace("=delimited", '="delimited"'),
            True,
        ),
        # Prometheus 2.42 with native histograms, and without; 3.x with and without.
        (f"{PROTOBUF},application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        (f"{PROTOBUF};q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2", True),
        (f"application/openmetrics-text;version=1.0.0;q=0.6,{PROTOBUF};q=0.5", False),
        (f"text/plain, {PROTOBUF}", False),
        (PROTOBUF.replace("delimited", "text"), False),
        (PROTOBUF.replace("io.prometheus.client.MetricFamily", "other"), False),
        ("application/vnd.google.protobuf", False),
        (f"{PROTOBUF};q=0", False),
        (f"{PROTOBUF};q=much", False),
        ("*/*", False),
        (",;=,", False),
        ("", False),
    ],
)
def test_protobuf_is_served_to_those_who_like_it_best(accept: str, preferred: bool) -> None:
    assert prefers_protobuf(accept) == preferred


@given(st.text(st.characters(codec="latin-1")))
def test_any_accept_header_has_an_answer(accept: str) -> None:
    assert prefers_protobuf(accept) in (True, False)
    assert takes_gzip(accept) in (True, False)
