"""Filters in SQL take the flows that the live view's filter takes, and no others."""

from __future__ import annotations

import fnmatch
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.expression import FilterError
from wiremeter.flows.filter import compile_filter
from wiremeter.names.records import FlowName
from wiremeter.server.query.conditions import regex, where
from wiremeter.server.store import Store

from ...live_batches import flow, make_batch
from .stored import store_batch

NAMES = (
    FlowName("tls", "www.example.com", "sni"),
    FlowName("http", "notexample.com", "http_host"),
    FlowName("dns"),
    FlowName("my-app", "it's-[odd].example", "sni"),
    None,
)
ADDRESSES = (
    ("192.0.2.1", "10.0.0.5"),
    ("10.0.0.5", "192.0.2.1"),
    ("10.1.0.1", "10.1.255.255"),
    ("255.255.255.255", "0.0.0.0"),
    ("2001:db8::1", "2001:db8:1::5"),
    ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("::1.2.3.4", "fe80::1"),
)
DEVICES = ("eth0", "wg0", "veth12", "any")


def make_flows(seed: int, count: int = 300) -> FlowBatch:
    """Flows of all kinds; bytes tell them apart."""
    rng = np.random.default_rng(seed)

    def one(number: int) -> dict[str, object]:
        src, dst = ADDRESSES[rng.integers(len(ADDRESSES))]
        return flow(
            src,
            dst,
            int(rng.choice([0, 53, 443, 8080, 50000, 65535])),
            int(rng.choice([0, 53, 80, 443, 9000])),
            protocol=int(rng.choice([1, 6, 17, 47, 58, 132])),
            device=DEVICES[rng.integers(len(DEVICES))],
            direction=("rx", "tx")[rng.integers(2)],
            vlan=int(rng.choice([0xFFFF, 0xFFFF, 0, 5, 77, 4095])),
            size=number + 1,
            name=NAMES[rng.integers(len(NAMES))],
        )

    return make_batch([one(number) for number in range(count)], devices=DEVICES)


@pytest.fixture(scope="module")
def batch() -> FlowBatch:
    return make_flows(1)


@pytest.fixture(scope="module")
def store(opened: Store, batch: FlowBatch) -> Store:
    store_batch(opened, batch, "web-1")
    return opened


def taken(store: Store, expression: str) -> list[int]:
    condition = where(expression)
    agents = "agent IN ('web-1', 'db-1')" if "agent" in condition.columns else "agent = 'web-1'"
    sql = f"SELECT bytes FROM wiremeter.flows WHERE {agents} AND {condition.sql} ORDER BY bytes"
    return [row["bytes"] for row in store.query(sql, condition.parameters).records()]


VALUES = {
    "host": ("10.0.0.5", "192.0.2.1", "2001:db8::1", "::1.2.3.4", "255.255.255.255", "::"),
    "net": ("10.0.0.0/8", "10.1", "0.0.0.0/0", "::/0", "2001:db8::/32", "128.0.0.0/1", "fe80::/10", "::ffff:0:0/96"),
    "port": ("0", "53", "https", "65535"),
    "portrange": ("53-443", "0-65535", "9000-9000"),
    "proto": ("6", "gre", "132"),
}
PRIMITIVES = st.one_of(
    st.sampled_from(("tcp", "udp", "icmp", "ip", "ip6", "rx", "tx", "vlan", "vlan 77", "vlan 0", "vlan 4095")),
    st.sampled_from(("dev eth0", "dev 'v*'", "dev '[ew]*0'", "dev any", "app tls", "app unknown", "app '*p*'")),
    st.sampled_from(
        ("domain example.com", "domain com", "domain *", "domain '*it?s*'", 'domain "it\'s-[odd].example"')
    ),
    st.sampled_from(("host", "net", "port", "portrange")).flatmap(
        lambda kind: st.tuples(
            st.sampled_from(("", "src ", "dst ", "src and dst ", "src or dst ")), st.sampled_from(VALUES[kind])
        ).map(lambda drawn: f"{drawn[0]}{kind} {drawn[1]}")
    ),
    st.sampled_from(VALUES["proto"]).map("proto {}".format),
    st.sampled_from(VALUES["port"]).map("tcp dst port {}".format),
)
EXPRESSIONS = st.recursive(
    PRIMITIVES,
    lambda inner: st.one_of(
        inner.map("not {}".format),
        inner.map("({})".format),
        st.lists(st.tuples(st.sampled_from((" and ", " or ")), inner), min_size=1, max_size=4).map(
            lambda parts: "".join(f"{word if number else ''}{term}" for number, (word, term) in enumerate(parts))
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expression=EXPRESSIONS)
def test_sql_takes_the_flows_that_the_live_views_filter_takes(store: Store, batch: FlowBatch, expression: str) -> None:
    expected = sorted(batch.flows["bytes"][compile_filter(expression).mask(batch)].tolist())
    assert taken(store, expression) == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(pattern="[]", texts=["", "[]"])
@given(pattern=st.text("ab-]![*?\\.&~| (:>", max_size=8), texts=st.lists(st.text("ab-]![.\\:(>& é\n", max_size=5)))
def test_globs_fit_in_the_engine_what_they_fit_in_python(store: Store, pattern: str, texts: list[str]) -> None:
    rows = store.query(
        "SELECT arrayMap(text -> match(text, {pattern:String}), {texts:Array(String)}) AS fits",
        {"pattern": regex(pattern), "texts": texts},
    ).records()
    assert [bool(fits) for fits in next(iter(rows))["fits"]] == [fnmatch.fnmatchcase(text, pattern) for text in texts]


def test_agents_are_told_apart(store: Store, batch: FlowBatch) -> None:
    store_batch(store, make_flows(2, 10), "db-1", 1)
    everything = batch.flows["bytes"].tolist()
    assert taken(store, "agent web-1") == everything
    assert taken(store, "agent 'd*'") == list(range(1, 11))
    assert taken(store, "not agent db-1") == everything
    assert taken(store, "agent nobody") == []


def test_the_empty_filter_takes_all_and_reads_no_column() -> None:
    assert (where("").sql, where(" ").columns) == ("1", frozenset())


def test_a_condition_tells_what_it_reads() -> None:
    assert where("src net 10.0.0.0/8 and app tls").columns == {"src_addr", "family", "application"}
    assert where("port 53 or vlan").columns == {"src_port", "dst_port", "protocol", "vlan"}


def test_hundreds_of_terms_are_answered_and_thousands_are_refused(store: Store) -> None:
    assert taken(store, " or ".join(["host 192.0.2.77"] * 400)) == []
    with pytest.raises(InputError, match="more than 500 terms"):
        where(" or ".join(["host 192.0.2.77"] * 3000))


@pytest.mark.parametrize(
    ("allowed", "too_deep"),
    [
        ("tcp" + " and rx or tx" * 30, "tcp" + " and rx or tx" * 40),
        ("not " * 60 + "host 10.0.0.5", "not " * 61 + "tcp"),
        ("not (tcp and src and dst net 10.0.0.0/8 or " * 20 + "rx" + ")" * 20, "not (tcp and " * 40 + "rx" + ")" * 40),
    ],
)
def test_what_the_engine_could_not_read_is_refused_before(
    store: Store, batch: FlowBatch, allowed: str, too_deep: str
) -> None:
    assert taken(store, allowed) == sorted(batch.flows["bytes"][compile_filter(allowed).mask(batch)].tolist())
    with pytest.raises(InputError, match="nested more than 60 deep"):
        where(too_deep)


def test_what_a_table_does_not_tell_is_refused() -> None:
    with pytest.raises(InputError, match="asks for vlan"):
        where("vlan 5", {"device": "device"})


@pytest.mark.parametrize("text", ["agent", "port 80 or agent", "agent or tcp", "nonsense"])
def test_mistakes_are_pointed_at(text: str) -> None:
    with pytest.raises(FilterError):
        where(text)


def test_text_of_users_is_never_part_of_the_sql(store: Store) -> None:
    nasty = "') OR 1=1 --"
    condition = where(f'dev "{nasty}" and domain "{nasty}" and app "{nasty}" and agent "*{nasty}"')
    assert not re.search("OR 1=1", condition.sql)
    assert taken(store, f'dev "{nasty}"') == []
