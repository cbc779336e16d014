"""Filter expressions: what they take, and how they say what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.errors import InputError
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.expression import FilterError
from wiremeter.flows.filter import compile_filter
from wiremeter.names.records import FlowName

from ..live_batches import flow, make_batch

SITE = FlowName("tls", "www.example.com", "sni")
WEB = flow("192.0.2.1", "10.0.0.5", 443, 50000, name=SITE)
WEB_REPLY = flow("10.0.0.5", "192.0.2.1", 50000, 443, direction="tx", name=SITE)
DNS = flow("10.0.0.5", "198.51.100.7", 40000, 53, protocol=17, direction="tx", name=FlowName("dns"))
PING = flow("10.0.0.9", "10.0.0.5", protocol=1)
WEB6 = flow(
    "2001:db8::1", "2001:db8:1::5", 80, 50001, device="wg0", name=FlowName("http", "notexample.com", "http_host")
)
TAGGED = flow("10.1.0.1", "10.1.0.2", 8080, 9000, vlan=77, device="wg0", direction="tx")
GRE = flow("203.0.113.1", "10.0.0.5", protocol=47, device="veth12")
ALL = {"web": WEB, "reply": WEB_REPLY, "dns": DNS, "ping": PING, "web6": WEB6, "tagged": TAGGED, "gre": GRE}


@pytest.fixture(scope="module")
def batch() -> FlowBatch:
    return make_batch(list(ALL.values()), devices=("eth0", "wg0", "veth12"))


def taken(expression: str, batch: FlowBatch) -> str:
    """The names of the flows that pass."""
    mask = compile_filter(expression).mask(batch)
    assert mask.shape == (len(batch.flows),)
    assert mask.dtype == np.bool_
    return " ".join(name for name, passes in zip(ALL, mask, strict=True) if passes)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", "web reply dns ping web6 tagged gre"),
        ("host 192.0.2.1", "web reply"),
        ("src host 192.0.2.1", "web"),
        ("dst 192.0.2.1", "reply"),
        ("src or dst host 192.0.2.1", "web reply"),
        ("src and dst net 10.0.0.0/8", "ping tagged"),
        ("192.0.2.1", "web reply"),
        ("host 2001:db8::1", "web6"),
        ("net 10.0.0.0/24", "web reply dns ping gre"),
        ("src net 10.0.0.0/24", "reply dns ping"),
        ("net 10.1", "tagged"),
        ("net 10.1.0.0 mask 255.255.0.0", "tagged"),
        ("net 2001:db8::/32", "web6"),
        ("dst net 2001:db8::/48", ""),
        ("dst net 2001:db8:1::/48", "web6"),
        ("net ::/0", "web6"),
        ("net 0.0.0.0/0", "web reply dns ping tagged gre"),
        ("10.1.0.0/16", "tagged"),
        ("port 443", "web reply"),
        ("port https", "web reply"),
        ("src port 443", "web"),
        ("tcp dst port 443", "reply"),
        ("udp port 443", ""),
        ("port 0", ""),
        ("portrange 8000-9000", "tagged"),
        ("port 443 or 53", "web reply dns"),
        ("udp port 443 or 53", "dns"),
        ("port 443 and not 50000", ""),
        ("host 192.0.2.1 or 10.0.0.9", "web reply ping"),
        ("src 10.0.0.9 or 10.0.0.5", "reply dns ping"),
        ("tcp", "web reply web6 tagged"),
        ("TCP", "web reply web6 tagged"),
        ("icmp", "ping"),
        ("proto 47", "gre"),
        ("proto gre", "gre"),
        ("proto \\tcp", "web reply web6 tagged"),
        ("ip proto 6", "web reply tagged"),
        ("ip6 proto 6", "web6"),
        ("gre", "gre"),
        ("ip", "web reply dns ping tagged gre"),
        ("ip6", "web6"),
        ("ip host 10.0.0.9", "ping"),
        ("vlan", "tagged"),
        ("vlan 77", "tagged"),
        ("vlan 5 or 77", "tagged"),
        ("vlan and tcp", "tagged"),
        ("dev eth0", "web reply dns ping"),
        ("dev eth0 or wg0", "web reply dns ping web6 tagged"),
        ("dev 'veth*'", "gre"),
        ("ifname wg0", "web6 tagged"),
        ("dev nothere", ""),
        ("rx", "web ping web6 gre"),
        ("outbound", "reply dns tagged"),
        ("not tcp", "dns ping gre"),
        ("! tcp", "dns ping gre"),
        ("not not tcp", "web reply web6 tagged"),
        ("tcp && rx || udp", "web dns web6"),
        ("udp or tcp and rx", "web web6"),  # from left to right, as in pcap-filter(7)
        ("udp or (tcp and rx)", "web dns web6"),
        ("not (tcp or udp)", "ping gre"),
        ("not tcp or udp", "dns ping gre"),
        ("domain www.example.com", "web reply"),
        ("domain example.com", "web reply"),
        ("domain Example.COM.", "web reply"),
        ("domain com", "web reply web6"),
        ("domain ample.com", ""),
        ("domain '*example.com'", "web reply web6"),
        ("domain *.example.com", "web reply"),
        ("domain '*'", "web reply web6"),
        ("not domain *", "dns ping tagged gre"),
        ("domain example.com or notexample.com", "web reply web6"),
        ("domain example.com and rx", "web"),
        ("tcp port 443 and domain example.com", "web reply"),
        ("app tls", "web reply"),
        ("application TLS or http", "web reply web6"),
        ("app dns or domain notexample.com", "dns web6"),
        ("app 'h*'", "web6"),
        ("app unknown", "ping tagged gre"),
        ("port domain", "dns"),
        ("port 443 or domain", "web reply dns"),
        ("(port 443 or domain) and udp", "dns"),
        ("port domain or domain example.com", "web reply dns"),
    ],
)
def test_expression_takes_the_flows_it_names(expression: str, expected: str, batch: FlowBatch) -> None:
    assert taken(expression, batch) == expected


@pytest.mark.parametrize(
    ("expression", "word", "reason"),
    [
        ("tcp and prot 443", "prot", 'did you mean "proto" or "port"'),
        ("hots 10.0.0.1", "hots", 'did you mean "host"'),
        ("443", "443", "Write port 443"),
        ("port 70000", "70000", "0 to 65535"),
        ("port nonsense", "nonsense", "not a port number"),
        ("portrange 80", "80", "not a range"),
        ("portrange 90-80", "90-80", "did you mean 80-90"),
        ("host www.example.org", "www.example.org", "not an address"),
        ("host 10.0.0.256", "10.0.0.256", "not an address"),
        ("net 10.0.0.1/8", "10.0.0.1/8", "did you mean 10.0.0.0/8"),
        ("net 10.0.0.0/33", "10.0.0.0/33", "not a network"),
        ("net 10.0.0.0 mask 255.0.0.300", "255.0.0.300", "not a network"),
        ("proto 300", "300", "0 to 255"),
        ("proto nosuch", "nosuch", "not a protocol"),
        ("vlan 5000", "5000", "0 to 4095"),
        ("src proto 6", "proto", "no source or destination"),
        ("host and tcp", "and", "expected an address"),
        ("tcp or or udp", "or", "cannot stand here"),
        ("tcp udp", "udp", "expected and, or"),
        ("tcp )", ")", "expected and, or"),
        ("(tcp or udp", "(", "not closed"),
        ("port 80 or 10.0.0.1", "10.0.0.1", "not a port number"),
        ("arp", "arp", "not IP"),
        ("greater 1000", "greater", "no one packet length"),
        ("ether host 00:11:22:33:44:55", "ether", "no Ethernet addresses"),
        ("host 'x", "'", "not an address"),
        ("host www.example.org", "www.example.org", "see domain"),
        ("domain .", ".", "not a domain"),
        ("domain and tcp", "and", "expected a domain"),
        ("app or tls", "or", "expected an application"),
        ("domain example.com or prot", "prot", "unknown word"),
        ("tcp and agent web-1", "agent", "at a server"),
    ],
)
def test_mistake_is_pointed_at(expression: str, word: str, reason: str) -> None:
    with pytest.raises(FilterError, match=reason) as caught:
        compile_filter(expression)
    error = caught.value
    assert expression[error.position : error.position + error.length] == word
    lines = str(error).splitlines()
    assert lines[1] == f"  {expression}"
    assert lines[2].index("^") == 2 + error.position
    assert isinstance(error, InputError)


@pytest.mark.parametrize(
    "expression", ["tcp and", "not", "port", "src", "(", "dev", "domain", "app", "tcp or (", "net 10.0.0.0 mask"]
)
def test_missing_end_is_pointed_at(expression: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(expression)
    assert caught.value.position >= len(expression) - 1


def test_hundreds_of_terms_are_read_and_too_deep_nesting_is_refused(batch: FlowBatch) -> None:
    many = " or ".join(["host 10.0.0.9"] * 3000)
    assert taken(many, batch) == "ping"
    assert taken("(" * 90 + "icmp" + ")" * 90, batch) == "ping"
    with pytest.raises(FilterError, match="deep"):
        compile_filter("(" * 5000 + "icmp" + ")" * 5000)
    with pytest.raises(FilterError, match="deep"):
        compile_filter("not " * 5000 + "icmp")


def test_where_names_are_off_no_flow_has_a_domain_and_every_application_is_unknown() -> None:
    batch = make_batch([flow("10.0.0.1", "10.0.0.2")])
    assert batch.flow_names is None
    assert compile_filter("domain *").mask(batch).tolist() == [False]
    assert compile_filter("app unknown").mask(batch).tolist() == [True]


def test_name_is_asked_once_however_many_flows_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def matches(name: str, pattern: str) -> bool:
        asked.append(name)
        return True

    monkeypatch.setattr("fnmatch.fnmatchcase", matches)
    batch = make_batch([flow("10.0.0.1", "10.0.0.2", port, name=SITE) for port in range(50)])
    assert compile_filter("domain *").mask(batch).all()
    assert asked == ["www.example.com"]


def test_device_and_direction_hold_on_a_batch_without_attachments() -> None:
    nothing = make_batch([], devices=())
    assert compile_filter("dev eth0 or rx").mask(nothing).shape == (0,)


WORDS = st.sampled_from(
    (
        *("host", "net", "port", "portrange", "proto", "src", "dst", "and", "or", "not", "(", ")", "mask", "'", "!"),
        *("tcp", "udp", "ip", "ip6", "vlan", "dev", "rx", "tx", "&&", "||", "\\tcp", "https", "nonsense", "eth0"),
        *("domain", "app", "agent", "application", "example.com", "*", "tls"),
        *("80", "77", "10.0.0.1", "10.0.0.0/8", "2001:db8::1", "8000-8099", "255.0.0.0"),
    )
)


def compiles(text: str) -> FilterError | None:
    """The error if it does not."""
    try:
        mask = compile_filter(text).mask(make_batch([WEB, DNS], devices=("eth0",)))
    except FilterError as error:
        return error
    assert mask.shape == (2,)
    return None


@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=30))
def test_any_text_compiles_or_is_refused_at_a_place_inside_it(text: str) -> None:
    if error := compiles(text):
        assert 0 <= error.position <= len(text)
        assert error.length >= 1


TERMS = st.sampled_from(
    ["tcp", "port 443", "host 10.0.0.5", "rx", "net 10.0.0.0/8", "vlan 77", "dev wg0", "ip6", "app tls"]
)


@given(TERMS, TERMS)
def test_not_and_or_are_those_of_sets(left: str, right: str) -> None:
    batch = make_batch(list(ALL.values()), devices=("eth0", "wg0", "veth12"))

    def mask(text: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return compile_filter(text).mask(batch)

    np.testing.assert_array_equal(mask(f"not ({left} and {right})"), mask(f"not {left} or (not {right})"))
    np.testing.assert_array_equal(mask(f"{left} or {right}"), mask(left) | mask(right))
