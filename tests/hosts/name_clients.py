"""Real clients, dig, curl and openssl, and what they say they asked for and got."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import dns.rdata
import dns.rdataclass
import dns.rdatatype

from .name_servers import tool
from .netns import Host

RCODES = {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}


class Record(NamedTuple):
    """One resource record; `data` in one form, whoever wrote it."""

    name: str
    type: str
    ttl: int
    data: str


class Answer(NamedTuple):
    """What dig printed of one response."""

    query: str
    qtype: str
    rcode: int
    answers: tuple[Record, ...]
    took_ns: int
    over_tcp: bool
    truncated: bool


def record(name: str, type: str, ttl: int, data: str) -> Record:
    """A record whose data is in dnspython's form, names in it without the last dot."""
    parsed = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(type), data, dns.name.root, False)
    return Record(name.rstrip("."), type, ttl, re.sub(r"\.(?= |$)", "", parsed.to_text()))


def dig(host: Host, server: str, *words: str) -> list[Answer]:
    """Ask `server`; one answer for each question in `words`, as dig prints them."""
    return list(_parse(host.command(tool("dig"), "-u", f"@{server}", *words)))


def _parse(text: str) -> Iterator[Answer]:
    for part in text.split(";; Got answer:")[1:]:
        status = re.search(r"status: (\w+)", part)
        question = re.search(r"^;(\S+?)\.?\s+IN\s+(\S+)$", part, re.M)
        section = re.search(r"^;; ANSWER SECTION:\n(.*?)\n\n", part, re.M | re.S)
        took = re.search(r"Query time: (\d+) usec", part)
        assert status, part
        assert question, part
        assert took, part
        answers = []
        for line in section[1].splitlines() if section else ():
            name, ttl, _, type, data = line.split(maxsplit=4)
            answers.append(record(name, type, int(ttl), data))
        yield Answer(
            question[1],
            question[2],
            RCODES[status[1]],
            tuple(answers),
            int(took[1]) * 1000,
            bool(re.search(r"^;; SERVER: .*\(TCP\)$", part, re.M)),
            bool(re.search(r"^;; flags:[^;]* tc", part, re.M)),
        )


def curl(host: Host, *words: str, stdin: str | None = None) -> list[int]:
    """Run curl, which takes any certificate; returns the port it came from for each transfer."""
    out = host.command(
        tool("curl"), "--silent", "--show-error", "--insecure", "--max-time", "10", "--noproxy", "*",
        "--write-out", "%{local_port}\n", *words, stdin=stdin,
    )  # fmt: skip
    return [int(line) for line in out.splitlines() if line.isdigit()]


class Session(NamedTuple):
    """What openssl s_client said it got: version as "1.3", IANA's name of the cipher, the protocol that was chosen."""

    version: str
    cipher: str
    alpn: str | None


def s_client(host: Host, address: str, port: int, *words: str) -> Session:
    """A handshake, and no more."""
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    out = host.command(tool("openssl"), "s_client", "-connect", where, *words, stdin="")
    got = re.search(r"^New, .*, Cipher is (\S+)$|^Reused, .*, Cipher is (\S+)$", out, re.M)
    version = re.search(r"^(?:New|Reused), TLSv([\d.]+), ", out, re.M)
    negotiated = re.search(r"^\s*Protocol\s*: TLSv([\d.]+)$", out, re.M) or version
    alpn = re.search(r"^ALPN protocol: (\S+)$", out, re.M)
    assert got, out
    assert negotiated, out
    return Session(negotiated[1], iana_cipher(host, got[1] or got[2]), alpn[1] if alpn else None)


def iana_cipher(host: Host, openssl_name: str) -> str:
    """The registered name of a cipher suite, by openssl's own table."""
    for line in host.command(tool("openssl"), "ciphers", "-stdname", "ALL:COMPLEMENTOFALL").splitlines():
        standard, _, name, *_ = line.split()
        if name == openssl_name:
            return standard
    raise AssertionError(f"openssl has no cipher {openssl_name}")
