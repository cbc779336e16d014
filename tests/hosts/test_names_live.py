"""Names out of real peers' traffic: what the tools asked for and got is what the meter tells, live, on every hook."""

from __future__ import annotations

import contextlib
import ftplib
import re
import smtplib
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.message
import pytest

from wiremeter.names.records import DnsTransaction

from . import devices, name_clients, name_peers, netns, senders
from .capture import PayloadCapture
from .devices import Port
from .measure import Attach
from .name_clients import Answer, curl, dig, record, s_client
from .name_servers import (
    HTTP,
    HTTP2,
    HTTPS,
    REDIS,
    access_log,
    dns_server,
    listening_sockets,
    redis_server,
    self_signed,
    silent_server,
    tool,
    web_server,
)
from .netns import Host, wait_until
from .told import ONE_INTERVAL, Told, flow_of_key, listening
from .wire import TCP, UDP, Count, Flow

pytestmark = pytest.mark.kernel

#: The server's own addresses, which both clients reach; and those of a name server that never answers.
V4, V6, DEAD4, DEAD6 = "10.99.0.1", "fd99::1", "10.99.0.9", "fd99::9"
SITES = ("shop.wire.test", "news.wire.test", "mail.wire.test")
both_hooks = pytest.mark.parametrize("attach", ["tcx", "xdp"])


@dataclass(frozen=True)
class Town:
    """Two clients, each joined to the server by a veth of its own: `left` and `right` are the server's ends."""

    alice: Port
    bob: Port
    left: Port
    right: Port

    @property
    def server(self) -> Host:
        """Where the servers are, and the meter."""
        return self.left.host

    def port_of(self, client: Port) -> Port:
        """The server's end of a client's veth."""
        return self.left if client is self.alice else self.right


@pytest.fixture
def town() -> Iterator[Town]:
    with netns.hosts("alice", "bob", "server") as (alice, bob, server):
        with server.entered():
            netns.sysctl("ipv6/conf/lo/disable_ipv6", 0)
        server.ip(*(f"addr add {address}/32 dev lo" for address in (V4, DEAD4)))
        server.ip(*(f"addr add {address}/128 dev lo nodad" for address in (V6, DEAD6)))
        near = [devices.veth(host, server, ("eth0", name), v6=True) for host, name in ((alice, "left"), (bob, "right"))]
        for client, end in near:
            client.host.ip(
                *(f"route add {address} via {end.ipv4}" for address in (V4, DEAD4)),
                *(f"route add {address}/128 via {end.ipv6}" for address in (V6, DEAD6)),
            )
        devices.settle(*(end for pair in near for end in pair))
        yield Town(near[0][0], near[1][0], near[0][1], near[1][1])


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Do all at the same time, and what each returned."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]


# --- DNS

ZONE = """
$ORIGIN wire.test.
$TTL 300
@      SOA   ns admin 1 3600 600 86400 60
@      NS    ns
@      MX    10 mail
@      MX    20 backup.mail
@      TXT   "v=spf1 -all" "two; strings"
@      CAA   0 issue "ca.wire.test"
@      HTTPS 1 . alpn="h3,h2" ipv4hint=10.99.0.1 ipv6hint=fd99::1
ns     A     10.99.0.1
www    60 A  10.99.0.1
www    60 AAAA fd99::1
shop   A     10.99.0.1
news   A     10.99.0.1
mail   A     10.99.0.1
mail   AAAA  fd99::1
alias  CNAME second
second 30 CNAME www
old    CNAME missing
_sip._tcp SRV 10 60 5060 www
_dns   SVCB  1 ns alpn="dot"
*.wild A     10.99.0.1
""" + "\n".join(f'big 5 TXT "{number:0200}"' for number in range(5))

ZONES = {
    "wire.test": ZONE,
    "0.99.10.in-addr.arpa": "@ 300 SOA ns.wire.test. admin.wire.test. 1 3600 600 86400 60\n"
    "@ 300 NS ns.wire.test.\n1 300 PTR www.wire.test.\n",
    "0.0.0.0.0.0.0.0.0.0.0.0.9.9.d.f.ip6.arpa": "@ 300 SOA ns.wire.test. admin.wire.test. 1 3600 600 86400 60\n"
    "@ 300 NS ns.wire.test.\n1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 300 PTR www.wire.test.\n",
}

QUESTIONS: list[tuple[str, ...]] = [
    ("www.wire.test", "A"),
    ("www.wire.test", "AAAA"),
    ("WwW.wIrE.tEsT", "A"),
    ("alias.wire.test", "A"),
    ("alias.wire.test", "AAAA"),
    ("alias.wire.test", "CNAME"),
    ("old.wire.test", "A"),
    ("-x", V4),
    ("-x", V6),
    ("wire.test", "TXT"),
    ("wire.test", "MX"),
    ("wire.test", "NS"),
    ("wire.test", "SOA"),
    ("wire.test", "CAA"),
    ("wire.test", "HTTPS"),
    ("_dns.wire.test", "SVCB"),
    ("_sip._tcp.wire.test", "SRV"),
    ("any.wild.wire.test", "A"),
    ("missing.wire.test", "A"),
    ("www.wire.test", "MX"),
    ("elsewhere.example", "A"),
    ("wire.test", "TYPE65280"),
    ("big.wire.test", "TXT"),
]


DIG_WAITS_NS = 5 * 10**9


def ask_all(client: Port) -> list[Answer]:
    """Every question over UDP and IPv4, and some of them every other way; in the order they were asked."""
    asked = [answer for words in QUESTIONS for answer in dig(client.host, V4, *words)]
    for server, *words in (
        (V6, "www.wire.test", "AAAA"),
        (V6, "+noedns", "alias.wire.test", "A"),
        (V6, "+tcp", "wire.test", "MX"),
        (V4, "+tcp", "missing.wire.test", "A"),
        (V4, "+noedns", "wire.test", "TXT"),
        (V4, "+dnssec", "+nsid", "+subnet=10.0.0.0/8", "wire.test", "HTTPS"),
        (V4, "+bufsize=512", "+ignore", "big.wire.test", "TXT"),
        (V4, "+tcp", "+keepopen", "www.wire.test", "A", "wire.test", "SOA", "missing.wire.test", "AAAA"),
    ):
        asked += dig(client.host, server, *words)
    # Too long for UDP, so dig asks again over TCP, and prints that answer only.
    again = dig(client.host, V4, "+bufsize=512", "big.wire.test", "TXT")
    first = [answer._replace(answers=(), over_tcp=False, truncated=True, took_ns=DIG_WAITS_NS) for answer in again]
    return [*asked, *first, *again]


@both_hooks
def test_what_dig_asked_for_and_got_is_told(town: Town, tmp_path: Path, attach: Attach) -> None:
    tool("dig")
    dns_server(town.server, tmp_path, (V4, V6), ZONES)
    with listening(town.left, town.right, attach=attach) as listener:
        asked = dict(
            zip(
                (town.alice, town.bob),
                at_once(lambda: ask_all(town.alice), lambda: ask_all(town.bob)),
                strict=True,
            )
        )
    told = listener.told
    assert set(told.lost.values()) == {0}
    for client, answers in asked.items():
        ours = [one for one in told.all("dns") if flow_of_key(one.flow).src in (client.ipv4, client.ipv6)]
        ours.sort(key=lambda one: one.time_ns)
        assert [as_told(one) for one in ours] == [as_dug(answer) for answer in answers]
        for one, answer in zip(ours, answers, strict=True):
            assert one.latency_ns
            assert 0 < one.latency_ns <= answer.took_ns + 1000  # dig counts whole microseconds
            assert one.has_query
            assert not one.retry
            assert not one.cut
        if client is town.alice:
            assert {one.rcode for one in ours} == {0, 3, 5}
            assert {flow_of_key(one.flow)[:2] for one in ours} == {(4, UDP), (4, TCP), (6, UDP), (6, TCP)}
    every = [answer for answers in asked.values() for answer in answers]
    assert told.metric("network_dns_queries") == Counter(
        (answer.qtype if answer.qtype != "TYPE65280" else "other",) for answer in every
    )
    by_rcode = Counter(answer.rcode for answer in every)
    assert told.metric("network_dns_responses") == {
        (name,): by_rcode[number] for name, number in {"NOERROR": 0, "NXDOMAIN": 3, "REFUSED": 5}.items()
    }
    assert {each.name.application for each in told.flows if each.flow.protocol == UDP} == {"dns"}


def as_told(one: DnsTransaction) -> tuple[Any, ...]:
    """A transaction's question and answer."""
    answers = tuple(record(answer.name, answer.type, answer.ttl, answer.data) for answer in one.answers)
    return one.query, one.qtype, one.rcode, answers, one.flow.protocol == TCP


def as_dug(answer: Answer) -> tuple[Any, ...]:
    """The same of what dig printed."""
    return answer.query, answer.qtype, answer.rcode, answer.answers, answer.over_tcp


def test_questions_that_nobody_answers_are_told_with_their_retries(town: Town) -> None:
    """dig asks twice, from a port of its own each time unless it is told one."""
    tool("dig")
    with silent_server(town.server, DEAD4), silent_server(town.server, DEAD6):

        def ask(client: Port, server: str, *words: str) -> None:
            with contextlib.suppress(netns.CommandFailed):  # dig's status when no server could be reached
                client.host.command(tool("dig"), f"@{server}", "+timeout=1", "+tries=2", *words)

        with listening(town.left, town.right) as listener:
            at_once(
                lambda: ask(town.alice, DEAD4, "www.wire.test", "A"),
                lambda: ask(town.alice, DEAD6, "www.wire.test", "AAAA"),
                lambda: ask(town.bob, DEAD4, "-b", f"{town.bob.ipv4}#5300", "www.wire.test", "TXT"),
            )
    told = listener.told
    asked = told.all("dns")
    assert Counter((one.query, one.qtype) for one in asked) == {
        ("www.wire.test", kind): 2 for kind in ("A", "AAAA", "TXT")
    }
    assert {(one.rcode, one.latency_ns, one.answers) for one in asked} == {(None, None, ())}
    assert [one.retry for one in asked if one.flow.src_port == 5300] == [False, True]
    assert told.metric("network_dns_queries") == {("A",): 2, ("AAAA",): 2, ("TXT",): 2}
    assert told.metric("network_dns_responses") == {}
    assert told.metric("network_dns_timeouts", "server") == {(DEAD4,): 4, (DEAD6,): 2}
    assert told.metric("network_dns_timeouts", "device") == {("left",): 4, ("right",): 2}


# --- TLS


@both_hooks
def test_handshakes_are_told_by_site_and_version(town: Town, tmp_path: Path, attach: Attach) -> None:
    """What curl and openssl say they negotiated, and what nginx logged of it."""
    log = web_server(town.server, tmp_path, SITES)
    offers = {"--http1.1": ("http/1.1",), "--http2": ("h2", "http/1.1")}

    def fetch(client: Port, site: str, *words: str) -> tuple[str, int]:
        address = V6 if "-6" in words else V4
        where = f"{site}:{HTTPS}:{address}"
        return client.address(6 if "-6" in words else 4), curl(
            client.host, "--resolve", where, "--output", "/dev/null", *words, f"https://{site}/"
        )[0]

    def fetch_all(client: Port) -> list[tuple[str, int, tuple[str, ...]]]:
        return [
            (*fetch(client, site, http, "--tls-max", version, family), offers[http])
            for site, http, version, family in (
                (SITES[0], "--http1.1", "1.2", "-4"),
                (SITES[0], "--http2", "1.3", "-4"),
                (SITES[1], "--http2", "1.2", "-6"),
                (SITES[2], "--http1.1", "1.3", "-6"),
                (SITES[2], "--http2", "1.3", "-4"),
            )
        ]

    with listening(town.left, town.right, attach=attach, ja4s=True) as listener:
        fetched = [one for some in at_once(lambda: fetch_all(town.alice), lambda: fetch_all(town.bob)) for one in some]
    told = listener.told
    ours = {(flow_of_key(one.flow).src, one.flow.src_port): one for one in told.all("tls")}
    logged = {(line["client"], line["port"]): line for line in access_log(log, lines=len(fetched))}
    assert set(ours) == set(logged) == {(address, port) for address, port, _ in fetched}
    for address, port, offered in fetched:
        one, line = ours[address, port], logged[address, port]
        assert (one.sni, f"TLSv{one.version}") == (line["sni"], line["tls"])
        assert one.cipher == name_clients.iana_cipher(town.server, line["cipher"])
        assert one.alpn == offered
        # From 1.3 on the server's choice is encrypted (RFC 8446, section 4.3.1).
        assert one.alpn_chosen == (offered[0] if one.version == "1.2" else None)
        last = "h2" if offered[0] == "h2" else "h1"
        assert re.fullmatch(rf"t{one.version.replace('.', '')}d\d{{4}}{last}_[0-9a-f]{{12}}_[0-9a-f]{{12}}", one.ja4)
        assert re.fullmatch(rf"t{one.version.replace('.', '')}\d\d\S\S_[0-9a-f]{{4}}_[0-9a-f]{{12}}", one.ja4s)
        name = told.name(flow_of_key(one.flow))
        assert (name.application, name.domain, name.domain_source) == ("tls", line["sni"], "sni")
        assert (name.tls_version, name.tls_cipher, name.ja4) == (one.version, one.cipher, one.ja4)
    assert told.all("http") == []
    assert told.metric("network_tls_handshakes") == {("1.2",): 4, ("1.3",): 6}
    assert sum(told.connections.values()) == len(fetched)


@pytest.mark.parametrize(
    ("attach", "segmentation"), [("tcx", "super-packets"), ("tcx", "segments"), ("xdp", "segments")]
)
def test_hellos_of_openssl_are_told_however_long(town: Town, tmp_path: Path, attach: Attach, segmentation: str) -> None:
    """With protocols enough to fill several segments, without a server's name, and with a session to take up."""
    web_server(town.server, tmp_path, SITES)
    if segmentation == "segments":
        town.alice.no_segmentation()
    many = ",".join(f"protocol-number-{number:010}" for number in range(150)) + ",http/1.1"
    ticket = str(tmp_path / "session")
    with listening(town.left, attach=attach) as listener:
        sessions = [
            (sni, alpn, s_client(town.alice.host, V4, HTTPS, *words))
            for sni, alpn, words in (
                ("shop.wire.test", "h2", ("-servername", "shop.wire.test", "-alpn", "h2", "-tls1_3")),
                ("news.wire.test", "h2", ("-servername", "news.wire.test", "-alpn", "h2", "-tls1_2")),
                ("mail.wire.test", many, ("-servername", "mail.wire.test", "-alpn", many, "-tls1_3")),
                ("mail.wire.test", many, ("-servername", "mail.wire.test", "-alpn", many, "-tls1_2")),
                (None, "", ("-noservername", "-tls1_2")),
                ("shop.wire.test", "", ("-servername", "shop.wire.test", "-tls1_2", "-sess_out", ticket)),
                ("shop.wire.test", "", ("-servername", "shop.wire.test", "-tls1_2", "-sess_in", ticket)),
            )
        ]
    ours = listener.told.all("tls")
    assert [one.sni for one in ours] == [sni for sni, _, _ in sessions]
    for one, (_, alpn, session) in zip(ours, sessions, strict=True):
        # Of a super-packet only the beginning is looked at, so that the end of a hello may be missing.
        is_whole = len(alpn) < 1000 or segmentation == "segments"
        assert (one.version, one.cipher) == (session.version, session.cipher)
        assert one.alpn == (tuple(alpn.split(",")) if alpn and is_whole else ())
        assert (one.ja4 is not None) == is_whole
        assert one.alpn_chosen == (session.alpn if session.version == "1.2" else None)
    assert {name.domain for name in listener.told.names_on_port(HTTPS)} >= set(SITES)


# --- HTTP


def requests_of(told: Told) -> dict[tuple[str, int], list[Any]]:
    """Transactions of HTTP by the client's address and port, in order."""
    found: dict[tuple[str, int], list[Any]] = {}
    for one in sorted(told.all("http"), key=lambda one: one.time_ns):
        found.setdefault((flow_of_key(one.flow).src, one.flow.src_port), []).append(one)
    return found


def requests_logged(lines: list[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The same of nginx's log."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault((line["client"], line["port"]), []).append(line)
    return found


def pipelined(client: Port, address: str, requests: bytes, responses: int) -> None:
    """Send requests without waiting, and read until so many responses have begun and the server closes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with senders.new_socket(client, family, socket.SOCK_STREAM) as near:
        near.settimeout(5)
        near.connect((address, HTTP))
        near.sendall(requests)
        got = b""
        while data := near.recv(65536):
            got += data
    assert got.count(b"HTTP/1.1 ") == responses


def use_http(client: Port, folder: Path) -> int:
    """Requests of every kind; returns how many."""
    big = folder / "big"
    if not big.exists():
        big.write_bytes(b"wire" * 800_000)
    at = {family: f"http://{address}" for family, address in ((4, V4), (6, f"[{V6}]"))}
    host, null = ("-H", "Host: shop.wire.test"), ("-o", "/dev/null")

    def get(*words: str) -> None:
        curl(client.host, *words)

    get(*null, *host, f"{at[4]}/?q=secret&page=1")
    get(*null, f"{at[4]}/by-address")
    get(*null, "-H", "Host: News.Wire.Test:80", f"{at[6]}/upper")
    get("--head", *host, f"{at[4]}/head")
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"):
        get(*null, *host, "-X", method, f"{at[4]}/{method.lower()}")
    for path in ("missing", "new", "gone"):
        get(*null, *host, f"{at[6]}/{path}")
    get(*null, *host, *(word for n in range(5) for word in (f"{at[4]}/keep-alive-{n}", *null)))  # one connection
    get(*null, "--http1.0", *host, f"{at[4]}/old")
    get(*null, "--compressed", *host, f"{at[4]}/file", *null, f"{at[4]}/after-chunks")
    for words in ((), ("-H", "Expect:"), ("-H", "Transfer-Encoding: chunked")):
        get(*null, *host, *words, "--data-binary", f"@{big}", f"{at[4]}/upload", *null, f"{at[4]}/upload")
    simple = [b"GET /pipe-%d HTTP/1.1\r\nHost: mail.wire.test\r\n\r\n" % number for number in range(5)]
    posted = b"POST /upload HTTP/1.1\r\nHost: mail.wire.test\r\nContent-Length: 10\r\n\r\n0123456789"
    last = b"GET /pipe-last HTTP/1.1\r\nHost: mail.wire.test\r\nConnection: close\r\n\r\n"
    pipelined(client, V4, b"".join([*simple[:3], posted, *simple[3:], last]), 7)
    return 1 + 1 + 1 + 1 + 6 + 3 + 5 + 1 + 2 + 6 + 7


@pytest.mark.parametrize(("attach", "redact"), [("tcx", True), ("tcx", False), ("xdp", True)])
def test_requests_are_those_of_the_access_log(town: Town, tmp_path: Path, attach: Attach, redact: bool) -> None:
    """Line by line, on each connection: methods, hosts, paths if they are wanted, status, in order."""
    log = web_server(town.server, tmp_path, SITES)
    with listening(town.left, town.right, attach=attach, redact_paths=redact) as listener:
        made = at_once(lambda: use_http(town.alice, tmp_path), lambda: use_http(town.bob, tmp_path))
    told = listener.told
    lines = access_log(log, lines=sum(made))
    ours, logged = requests_of(told), requests_logged(lines)
    assert set(ours) == set(logged)
    for client, requests in ours.items():
        assert [
            (one.method, one.host, one.path, one.status, f"HTTP/{one.version}") for one in requests
        ] == [
            (
                line["method"],
                host_of(line["host"]),
                None if redact else line["path"],
                line["status"],
                line["protocol"],
            )
            for line in logged[client]
        ]  # fmt: skip
        assert all(one.latency_ns and one.latency_ns < 2 * 10**9 for one in requests)
    assert len(lines) == sum(made)
    assert told.metric("network_http_requests") == Counter(
        (line["method"] if line["method"] != "PROPFIND" else "other", f"{line['status'] // 100}xx") for line in lines
    )
    assert set(told.lost.values()) == {0}


def host_of(header: str) -> str:
    """As it is told: lower case, without the port."""
    return header.lower().removesuffix(":80")


def test_cleartext_http2_is_told_by_authority_and_status(town: Town, tmp_path: Path) -> None:
    log = web_server(town.server, tmp_path, SITES)

    paths = ["/", "/missing", "/new", "/file"]

    def fetch(client: Port) -> None:
        for site, address in zip(SITES, (V4, V6, V4), strict=True):
            for path in (*paths, "/upload"):
                words = ("-d", "a=b") if path == "/upload" else ()
                where = ("--resolve", f"{site}:{HTTP2}:{address}", f"http://{site}:{HTTP2}{path}")
                curl(client.host, "--http2-prior-knowledge", "-o", "/dev/null", *words, *where)
            # Curl 7.88 cannot use such a connection twice.
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with senders.new_socket(client, family, socket.SOCK_STREAM) as near:
                near.settimeout(5)
                near.connect((address, HTTP2))
                assert name_peers.ask_http2(near, site, paths) == len(paths)

    with listening(town.left, town.right, redact_paths=False) as listener:
        at_once(lambda: fetch(town.alice), lambda: fetch(town.bob))
    lines = access_log(log, lines=2 * 9 * len(SITES))
    ours, logged = requests_of(listener.told), requests_logged(lines)
    assert set(ours) == set(logged)
    for client, requests in ours.items():
        assert [(one.method, one.host, one.path, one.status, one.version) for one in requests] == [
            (line["method"], line["host"].removesuffix(f":{HTTP2}"), line["path"], line["status"], "2")
            for line in logged[client]
        ]
        assert all(one.latency_ns for one in requests)
    assert {name.domain for name in listener.told.names_on_port(HTTP2)} == set(SITES)


# --- bytes by domain


@both_hooks
def test_bytes_by_domain_are_the_logs_and_the_headers_share(town: Town, tmp_path: Path, attach: Attach) -> None:
    """A capture says which packets each connection had, and how much of them is headers; nginx says the rest."""
    log = web_server(town.server, tmp_path, SITES)
    for port in (town.alice, town.bob, town.left, town.right):
        port.no_segmentation()
    big = tmp_path / "big"
    big.write_bytes(b"wire" * 300_000)

    def fetch(client: Port) -> None:
        for site, address in zip(SITES, (V4, V6, V4), strict=True):
            where = ("--resolve", f"{site}:{HTTP}:{address}", "--resolve", f"{site}:{HTTPS}:{address}")
            plain, null = f"http://{site}", ("-o", "/dev/null")
            curl(client.host, *where, *null, f"{plain}/file", *null, f"{plain}/missing", *null, f"{plain}/")
            curl(client.host, *where, *null, "-H", "Expect:", "--data-binary", f"@{big}", f"{plain}/upload")
            inside = ("--connect-to", f"::[{address}]:{HTTPS}" if ":" in address else f"::{address}:{HTTPS}")
            curl(client.host, *inside, *null, f"https://secure.{site}/file")

    with (
        PayloadCapture(town.server, "left", "in") as left_in,
        PayloadCapture(town.server, "left", "out") as left_out,
        PayloadCapture(town.server, "right", "in") as right_in,
        PayloadCapture(town.server, "right", "out") as right_out,
        listening(town.left, town.right, attach=attach, interval=ONE_INTERVAL) as listener,
    ):
        at_once(lambda: fetch(town.alice), lambda: fetch(town.bob))
    lines = access_log(log, lines=2 * 5 * len(SITES))
    domain_of = {(line["client"], line["port"]): line["sni"] or line["host"] for line in lines}
    came = Captured.of(domain_of, left_in, right_in)
    went = Captured.of(domain_of, left_out, right_out, reverse=True)
    told = listener.told
    assert told.batches == 1
    assert told.by_domain() == {
        domain: came.counts[domain].plus(went.counts[domain]) for domain in set(domain_of.values())
    }
    assert told.metric("network_domain_bytes", "domain", "direction") == {
        (domain, direction): count.bytes
        for direction, captured in (("rx", came), ("tx", went))
        for domain, count in captured.counts.items()
    }
    assert told.metric("network_domain_connections") == {
        (domain, "said", "rx"): number for domain, number in Counter(domain_of.values()).items()
    }
    for domain in set(domain_of.values()):
        ours = [line for line in lines if domain == (line["sni"] or line["host"])]
        received, sent = (sum(line[way] for line in ours) for way in ("received", "sent"))
        if domain in SITES:
            assert (came.payload[domain], went.payload[domain]) == (received, sent)
        else:  # the rest is TLS's own
            assert 0 < came.payload[domain] - received < 2000 * len(ours)
            assert 0 < went.payload[domain] - sent < 6000 * len(ours)


@dataclass(frozen=True)
class Captured:
    """What captures of one direction say of each domain."""

    counts: dict[str, Count]
    payload: Counter[str]

    @classmethod
    def of(cls, domain_of: dict[tuple[str, int], str], *captures: PayloadCapture, reverse: bool = False) -> Captured:
        """domain_of: by the client's address and port. reverse: the client is the destination."""
        counts: dict[str, Count] = {}
        payload: Counter[str] = Counter()
        for capture in captures:
            for flow, count in capture.traffic().flows.items():
                domain = domain_of[(flow.dst, flow.dport) if reverse else (flow.src, flow.sport)]
                counts[domain] = counts.get(domain, Count()).plus(count)
                payload[domain] += capture.payload_bytes[flow]
        return cls(counts, payload)


# --- domains by what DNS answered


def talk(client: Port, address: str, port: int) -> Flow:
    """Say something that no protocol begins with, and hear the answer; the flow it went by."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with senders.new_socket(client, family, socket.SOCK_STREAM) as near:
        near.settimeout(5)
        near.connect((address, port))
        here = near.getsockname()
        near.sendall(b"\xfb\x07 nobody's protocol")
        assert near.recv(4096)
    return Flow(6 if ":" in address else 4, TCP, here[0], here[1], address, port)


def test_connections_have_the_name_that_their_own_client_asked_for(town: Town, tmp_path: Path) -> None:
    """Two clients know one address by different names, and a third name leads there through CNAMEs."""
    tool("dig")
    dns_server(town.server, tmp_path, (V4, V6), ZONES)
    serve(town.server, V4, 7000, name_peers.binary_chatter)
    serve(town.server, V6, 7000, name_peers.binary_chatter)
    state = tmp_path / "state"
    with listening(town.left, town.right, state=state) as first:
        before = talk(town.alice, V4, 7000)
        dig(town.alice.host, V4, "shop.wire.test", "A")
        dig(town.bob.host, V4, "news.wire.test", "A")
        dig(town.bob.host, V6, "alias.wire.test", "AAAA")
        first.wait_counted()
        named = {
            talk(town.alice, V4, 7000): "shop.wire.test",
            talk(town.bob, V4, 7000): "news.wire.test",
            talk(town.bob, V6, 7000): "alias.wire.test",
            talk(town.alice, V6, 7000): None,
        }
    with listening(town.left, town.right, state=state) as second:
        after = {talk(town.alice, V4, 7000): "shop.wire.test", talk(town.bob, V4, 7000): "news.wire.test"}
    with listening(town.left, town.right) as forgetful:
        unknown = talk(town.alice, V4, 7000)
    assert before not in named
    for told, flows in ((first.told, named), (second.told, after), (forgetful.told, {unknown: None})):
        for flow, domain in flows.items():
            name = told.name(flow)
            assert (name.application, name.domain) == ("unknown", domain)
            assert name.domain_source == ("dns_answer" if domain else None)


def serve(host: Host, address: str, port: int, speak: name_peers.Speaker) -> None:
    """Start a server of name_peers, which ends with its host."""
    host.start(name_peers.serve_tcp, address, port, speak)
    wait_until(lambda: f"tcp{'6' if ':' in address else ''} {port}" in listening_sockets(host), "it listens")


# --- QUIC

QUIC_VERSIONS = {"1": 0x00000001, "2": 0x6B3343CF}  # RFC 9000, RFC 9369


@both_hooks
def test_quic_handshakes_are_told(town: Town, tmp_path: Path, attach: Attach) -> None:
    """Of both versions; and one ClientHello that fills several Initial packets."""
    port = 4433
    certificate, key = self_signed(tmp_path, "shop.wire.test")
    for address in (V4, V6):
        versions = list(QUIC_VERSIONS.values())
        town.server.start(name_peers.serve_quic, address, port, certificate, key, ["h3", "hq-interop"], versions)
    wait_until(lambda: {f"udp {port}", f"udp6 {port}"} <= listening_sockets(town.server), "it listens")
    many = [*(f"protocol-number-{number:010}" for number in range(90)), "h3"]
    asked = [
        (town.alice, V4, 20001, "shop.wire.test", ["h3"], "1"),
        (town.bob, V4, 20002, "news.wire.test", ["hq-interop", "h3"], "2"),
        (town.bob, V6, 20003, "mail.wire.test", ["h3"], "1"),
        (town.alice, V6, 20004, "shop.wire.test", many, "2"),
        (town.alice, V4, 20005, "news.wire.test", many, "1"),
    ]
    with listening(town.left, town.right, attach=attach) as listener:
        jobs = [
            client.host.start(name_peers.ask_quic, address, port, sport, name, alpn, QUIC_VERSIONS[version], 100_000)
            for client, address, sport, name, alpn, version in asked
        ]
        assert [job.result() for job in jobs] == [100_000] * len(asked)
    told = listener.told
    ours = {one.flow.src_port: one for one in told.all("quic")}
    assert len(told.all("quic")) == len(ours) == len(asked)
    for client, address, sport, name, alpn, version in asked:
        one = ours[sport]
        flow = Flow(6 if address == V6 else 4, UDP, client.address(6 if address == V6 else 4), sport, address, port)
        assert flow_of_key(one.flow) == flow
        assert (one.sni, one.alpn, one.version) == (name, tuple(alpn), version)
        assert re.fullmatch(r"q13d\d{4}\S\S_[0-9a-f]{12}_[0-9a-f]{12}", one.ja4)
        about = told.name(flow)
        assert (about.application, about.domain, about.domain_source) == ("quic", name, "quic_sni")
    assert told.metric("network_quic_handshakes") == {("1",): 3, ("2",): 2}
    assert sum(told.connections.values()) == len(asked)


# --- applications


def test_applications_are_told_by_what_they_say(town: Town, tmp_path: Path) -> None:
    """On ports that tell nothing; and what says nothing of itself stays unknown."""
    for name in ("ssh", "redis-cli"):
        tool(name)
    redis_server(town.server, tmp_path, V4)
    speakers = {
        2222: name_peers.ssh_banner,
        2525: name_peers.smtp(*self_signed(tmp_path, "mail.wire.test")),
        2121: name_peers.ftp,
        7000: name_peers.binary_chatter,
    }
    for port, speak in speakers.items():
        serve(town.server, V4, port, speak)
    with silent_server(town.server, V4, 5001), listening(town.left, town.right) as listener:
        with contextlib.suppress(netns.CommandFailed):  # there is nobody behind the banner
            options = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=3", "-F", "none")
            town.alice.host.command(tool("ssh"), *options, "-p", "2222", f"nobody@{V4}")
        assert town.bob.host.command(tool("redis-cli"), "-h", V4, "SET", "wire", "meter") == "OK\n"
        send_mail(town.alice, 2525)
        send_mail(town.bob, 2525, secure_as="mail.wire.test")
        with town.alice.host.entered(), ftplib.FTP() as files:
            files.connect(V4, 2121, timeout=5)
            files.login()
            assert files.pwd() == "/"
        talk(town.bob, V4, 7000)
        senders.udp_packets(town.alice, V4, 20, 100)
    told = listener.told
    expected = {2222: "ssh", REDIS: "redis", 2121: "ftp", 2525: "smtp", 7000: "unknown", 5001: "unknown"}
    for port, application in expected.items():
        assert {name.application for name in told.names_on_port(port)} == {application}, port
    assert [(one.flow.dst_port, one.sni) for one in told.all("tls")] == [(2525, "mail.wire.test")]
    assert {name.domain for name in told.names_on_port(2525)} == {None, "mail.wire.test"}


def send_mail(client: Port, port: int, *, secure_as: str | None = None) -> None:
    """A short mail. secure_as: after STARTTLS to a server of that name."""
    with client.host.entered(), smtplib.SMTP(local_hostname="client.wire.test", timeout=5) as session:
        session.connect(V4, port)
        if secure_as:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            session._host = secure_as  # type: ignore[attr-defined]  # what smtplib sends as the server's name
            session.starttls(context=context)
        session.sendmail("alice@wire.test", "bob@wire.test", "Subject: wires\r\n\r\nare metered\r\n")


# --- what is not read, and what is lost


@pytest.mark.parametrize(
    "kinds", [(), ("dns",), ("tls",), ("http",), ("quic",)], ids=lambda kinds: "-".join(kinds) or "none"
)
def test_what_is_not_asked_for_is_not_told(town: Town, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    tool("dig")
    dns_server(town.server, tmp_path, (V4,), {"wire.test": ZONE})
    web_server(town.server, tmp_path, SITES)
    with listening(town.left, kinds=kinds) as listener:
        dig(town.alice.host, V4, "shop.wire.test", "A")
        curl(town.alice.host, "-o", "/dev/null", "-H", "Host: news.wire.test", f"http://{V4}/secret")
        where = f"mail.wire.test:{HTTPS}:{V4}"
        curl(town.alice.host, "-o", "/dev/null", "--resolve", where, "https://mail.wire.test/secret")
    told = listener.told
    assert told.by_domain()
    for kind in ("dns", "tls", "http", "quic"):
        assert bool(told.all(kind)) == (kind in kinds and kind != "quic"), kind
    evidence = {name.domain_source for name in told.names_on_port(HTTP) | told.names_on_port(HTTPS)} - {None}
    assert evidence == {"dns": {"dns_answer"}, "tls": {"sni"}, "http": {"http_host"}}.get("".join(kinds), set())
    assert told.has_names == bool(kinds)
    read = {source for source, number in told.payloads.items() if number}
    if not kinds:
        assert (told.payloads, told.lost, told.metrics) == ({}, {}, {})
    elif kinds == ("dns",):
        assert read == {"dns"}
        assert {each.name.application for each in told.flows} == {"dns", "unknown"}
    else:
        assert read <= {"first", *kinds}


def test_what_a_sleeping_reader_loses_is_counted(town: Town) -> None:
    """Each question is picked, so what was sent to the reader and what was lost are all of them, exactly."""
    times = 60_000
    question = dns.message.make_query("www.wire.test", "A", id=77).to_wire()
    with silent_server(town.server, DEAD4), listening(town.left) as listener:  # noqa: SIM117
        with listener.paused():
            senders.udp_sendmmsg(town.alice, DEAD4, times, dport=53, payload=question, numbered=True)
    told = listener.told
    assert sum(each.counted.packets for each in told.flows) == times
    assert told.lost["dns"]
    assert told.payloads["dns"] + told.lost["dns"] == times
    assert len(told.all("dns")) == told.payloads["dns"]
    assert {source: n for source, n in told.lost.items() if n and source != "dns"} == {}


def test_a_flood_of_new_flows_is_looked_at_in_part_and_the_rest_is_counted(town: Town) -> None:
    """Each flow has one packet, its first, which is picked; beyond so many a tick they are lost."""
    flows = 1000
    with listening(town.left, interval=ONE_INTERVAL) as listener:
        senders.udp_sendmmsg(town.alice, V4, flows, dport=6000, flows=flows)
    told = listener.told
    assert len({each.flow for each in told.flows if each.flow.protocol == UDP}) == flows
    assert told.lost["first"]
    assert told.payloads["first"] + told.lost["first"] == flows
