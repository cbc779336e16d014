"""Filter expressions over flows: a subset of pcap-filter(7), read into conditions.

filter.py makes NumPy masks of them, server/query/conditions.py SQL.

What tcpdump understands and a flow can answer means the same here:

    host 10.0.0.1            either address        src host, dst host; IPv6 alike
    net 10.0.0.0/8           either address        src net, dst net; net 10.1 is 10.1.0.0/16
    port 443, port https     either port           src port, dst port, tcp port, udp dst port
    portrange 8000-8099      either port
    tcp udp icmp icmp6 sctp gre esp …              proto 47, ip proto ospf
    ip ip6                   the family
    vlan, vlan 77            tagged; with this outermost tag
    dev eth0, dev 'veth*'    the device            (pcap-filter: ifname)
    rx tx                    the direction         (pcap-filter: inbound, outbound)
    domain example.com       this domain and all beneath it; domain '*cdn*' any that fits, domain '*' any at all
    app tls, app 'my*'       the application
    agent web-1, agent 'w*'  the agent; only where there are several, at a server
    and or not ( )           also && || !

As there, `not` binds tightest, `and` and `or` have equal rank and group from left to right, an address alone is a
host or a net, and a value alone takes the words before it: `port 80 or 443`. Names are not looked up in the DNS:
`domain` is what the flow itself told, or a DNS answer that was seen. Alone after a port it is the service at port 53.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wiremeter.errors import InputError
from wiremeter.flows.protocols import protocol_number

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Side = Literal["either", "both", "src", "dst"]

_MAX_DEPTH = 100
#: Protocols that have ports.
WITH_PORTS = tuple(n for name in ("tcp", "udp", "dccp", "sctp", "udplite") if (n := protocol_number(name)))
_PROTOCOL_WORDS = (
    "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6", "igmp", "ipip", "gre", "esp", "ah",
    "eigrp", "ospf", "pim", "vrrp", "l2tp", "ipcomp",
)  # fmt: skip
_FAMILY_WORDS = {"ip": 4, "ip6": 6, "ipv4": 4, "ipv6": 6}
_DIRECTION_WORDS: dict[str, Literal["rx", "tx"]] = {"rx": "rx", "tx": "tx", "inbound": "rx", "outbound": "tx"}
_TYPE_WORDS = ("host", "net", "port", "portrange", "proto")
_DEVICE_WORDS = ("dev", "ifname")
_AGENT_WORDS = ("agent",)
_NAME_WORDS = {"domain": "domain", "app": "app", "application": "app"}
_AND, _OR, _NOT = ("and", "&&"), ("or", "||"), ("not", "!")
_KEYWORDS = (
    *_PROTOCOL_WORDS, *_FAMILY_WORDS, *_DIRECTION_WORDS, *_TYPE_WORDS, *_DEVICE_WORDS,
    *_NAME_WORDS, *_AGENT_WORDS, *_AND, *_OR, *_NOT, "src", "dst", "vlan", "(", ")",
)  # fmt: skip
# Words tcpdump knows and flows cannot answer: say why instead of "unknown word".
_NO_ANSWER = {
    "less": "a flow has no one packet length",
    "greater": "a flow has no one packet length",
    "len": "a flow has no one packet length",
    "arp": "flows are IP traffic; frames that are not IP are counted by ethertype",
    "rarp": "flows are IP traffic; frames that are not IP are counted by ethertype",
    "stp": "flows are IP traffic; frames that are not IP are counted by ethertype",
    "ether": "flows keep no Ethernet addresses",
    "broadcast": "flows keep no Ethernet addresses; give the address: dst host 255.255.255.255",
    "multicast": "write dst net 224.0.0.0/4 or dst net ff00::/8",
    "mpls": "flows are keyed by the outermost IP header",
    "gateway": "flows keep no Ethernet addresses",
}
_TOKEN = re.compile(r"""\(|\)|&&|\|\||!|'[^']*'|"[^"]*"|[^\s()!&|'"]+|\S""")


class FilterError(InputError):
    """A filter expression that cannot be read.

    reason: what is wrong, one line.  position, length: the word it is about, in characters of the expression.
    """

    def __init__(self, expression: str, reason: str, position: int, length: int) -> None:
        marker = " " * position + "^" + "~" * (length - 1)
        super().__init__(f"filter: {reason}\n  {expression}\n  {marker}")
        self.reason = reason
        self.position = position
        self.length = length


# --- what an expression says


@dataclass(frozen=True, slots=True)
class Family:
    """4 or 6."""

    version: int


@dataclass(frozen=True, slots=True)
class Protocol:
    """An IP protocol's number."""

    number: int


@dataclass(frozen=True, slots=True)
class Vlan:
    """The outermost tag; None: any tag."""

    tag: int | None


@dataclass(frozen=True, slots=True)
class Direction:
    """As seen from the device."""

    direction: Literal["rx", "tx"]


@dataclass(frozen=True, slots=True)
class Fits:
    """A text is like `pattern`, a glob as fnmatch.fnmatchcase has it."""

    of: Literal["device", "agent", "application"]
    pattern: str


@dataclass(frozen=True, slots=True)
class Domain:
    """In lower case. is_glob: it looks like `pattern`; else it is `pattern` or beneath it. Never true of no domain."""

    pattern: str
    is_glob: bool


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports from low to high, of a protocol of WITH_PORTS."""

    low: int
    high: int
    side: Side


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses within a network, of its family."""

    network: Network
    side: Side


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary."""

    term: Condition


@dataclass(frozen=True, slots=True)
class Chain:
    """`first`, then each of `rest` joined to what stands left of it: by `and` if its flag is set, else by `or`."""

    first: Condition
    rest: tuple[tuple[bool, Condition], ...]


Condition = Family | Protocol | Vlan | Direction | Fits | Domain | Ports | Addresses | Not | Chain


def parse(text: str, *, has_agents: bool = False) -> Condition | None:
    """What a filter expression says (the module's docstring is its manual); None for the empty one, which takes all.

    has_agents: whether there are agents to tell apart. Raises FilterError, an InputError, which points at the word that
    is wrong.

    >>> parse("rx and port 443")
    Chain(first=Direction(direction='rx'), rest=((True, Ports(low=443, high=443, side='either')),))
    """
    parser = _Parser(text, has_agents=has_agents)
    if not parser.tokens:
        return None
    condition = parser.expression()
    if parser.peek() is not None:
        raise parser.error("expected and, or, or the end")
    return condition


# --- how it is read


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    position: int
    length: int
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class _Qualifiers:
    """The words before a value; a later value alone takes them again."""

    kind: str = ""
    side: Side = "either"
    head: str = ""  # tcp, ip6, … or nothing


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, *, has_agents: bool) -> None:
        self.text = text
        self.has_agents = has_agents
        self.tokens = [_token(match) for match in _TOKEN.finditer(text)]
        self.next = 0
        self.depth = 0
        self.last = _Qualifiers()

    # --- tokens

    def peek(self, ahead: int = 0) -> str | None:
        """The word `ahead` tokens on, in lower case if it is a keyword; None past the end."""
        at = self.next + ahead
        if at >= len(self.tokens):
            return None
        token = self.tokens[at]
        return token.text if token.quoted or token.text.lower() not in _KEYWORDS else token.text.lower()

    def take(self) -> str:
        word = self.peek()
        if word is None:
            raise self.error("something is missing at the end")
        self.next += 1
        return word

    def error(self, reason: str, back: int = 0) -> FilterError:
        """An error at the next word, or `back` words before it."""
        at = self.next - back
        if at >= len(self.tokens):
            return FilterError(self.text, reason, len(self.text.rstrip()), 1)
        return FilterError(self.text, reason, self.tokens[at].position, self.tokens[at].length)

    # --- grammar

    def expression(self) -> Condition:
        """term { (and | or) term }, from left to right."""
        first = self.term()
        rest = []
        while (word := self.peek()) in (*_AND, *_OR):
            self.next += 1
            rest.append((word in _AND, self.term()))
        return Chain(first, tuple(rest)) if rest else first

    def term(self) -> Condition:
        word = self.peek()
        if word in _NOT:
            self.next += 1
            return Not(self.nested(self.term))
        if word == "(":
            opened = self.next
            self.next += 1
            test = self.nested(self.expression)
            if self.peek() != ")":
                raise self.error("this parenthesis is not closed", back=self.next - opened)
            self.next += 1
            return test
        return self.primitive()

    def nested(self, rule: Callable[[], Condition]) -> Condition:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.error(f"nested more than {_MAX_DEPTH} deep", back=1)
        test = rule()
        self.depth -= 1
        return test

    def primitive(self) -> Condition:
        word = self.take()
        if word in _DIRECTION_WORDS:
            return Direction(_DIRECTION_WORDS[word])
        if word == "vlan":
            return self.vlan()
        if word in _DEVICE_WORDS:
            self.last = _Qualifiers("dev")
            return self.value(self.last)
        if word in _AGENT_WORDS:
            if not self.has_agents:
                raise self.error("agents are told apart at a server; here there is one", back=1)
            self.last = _Qualifiers("agent")
            return self.value(self.last)
        if word in _NAME_WORDS and not self.is_service(word):
            self.last = _Qualifiers(_NAME_WORDS[word])
            return self.value(self.last)
        if word in _FAMILY_WORDS or word in _PROTOCOL_WORDS:
            if self.peek() in ("src", "dst", *_TYPE_WORDS):
                return _both(_head(word), self.qualified(word))
            return _head(word)
        self.next -= 1
        if word in ("src", "dst", *_TYPE_WORDS):
            return self.qualified("")
        return self.bare()

    def qualified(self, head: str) -> Condition:
        """[src | dst | src or dst | src and dst] [host | net | port | portrange | proto] value."""
        side = self.side()
        kind = self.peek() or ""
        if kind in _TYPE_WORDS:
            self.next += 1
        else:
            kind = ""
        if kind == "proto" and side != "either":
            raise self.error("a protocol has no source or destination", back=1)
        self.last = _Qualifiers(kind, side, head)
        return self.value(self.last)

    def side(self) -> Side:
        word = self.peek()
        if word not in ("src", "dst"):
            return "either"
        self.next += 1
        joint, other = self.peek(), self.peek(1)
        if joint in (*_AND, *_OR) and other in ("src", "dst") and other != word:
            self.next += 2
            return "both" if joint in _AND else "either"
        return "src" if word == "src" else "dst"

    def vlan(self) -> Condition:
        self.last = _Qualifiers("vlan")
        if (self.peek() or "").isdigit():
            return self.value(self.last)
        return Vlan(None)

    def is_service(self, taken: str) -> bool:
        """Whether the word just taken is no qualifier but the service at port 53: it stands where a port may, and
        nothing follows that it could qualify."""
        return taken == "domain" and self.last.kind == "port" and self.peek() in (None, ")", *_AND, *_OR)

    def bare(self) -> Condition:
        """A value without words of its own."""
        word = self.peek() or ""
        if word.lower() in _NO_ANSWER:
            raise self.error(f'"{word}" does not apply: {_NO_ANSWER[word.lower()]}')
        if word in _KEYWORDS and word != "domain":
            raise self.error(f'"{word}" cannot stand here')
        if _is_address(word) if not self.last.kind else _is_value(self.last.kind, word):
            test = self.value(self.last)
            return _both(_head(self.last.head), test) if self.last.head else test
        if word.isdigit():
            raise self.error(f"what is {word}? Write port {word}, proto {word} or vlan {word}")
        near = difflib.get_close_matches(word.lower(), [w for w in _KEYWORDS if w.isalpha()], n=2, cutoff=0.6)
        hint = ", did you mean " + " or ".join(f'"{w}"' for w in near) + "?" if near else ""
        raise self.error(f'unknown word "{word}"{hint}')

    def value(self, qualifiers: _Qualifiers) -> Condition:
        """The test for one value under its qualifiers."""
        ahead = self.peek()
        if ahead is None or (ahead in _KEYWORDS and ahead not in _ALSO_VALUES.get(qualifiers.kind, ())):
            raise self.error(f"expected {_EXPECTED[qualifiers.kind]}")
        word = self.take()
        try:
            match qualifiers.kind:
                case "dev":
                    return Fits("device", word)
                case "agent":
                    return Fits("agent", word)
                case "domain":
                    return _domain(word)
                case "app":
                    return Fits("application", word.lower())
                case "vlan":
                    return _vlan(word)
                case "proto":
                    return Protocol(_protocol(word.removeprefix("\\")))
                case "port":
                    port = _port(word)
                    return Ports(port, port, qualifiers.side)
                case "portrange":
                    return Ports(*_port_range(word), qualifiers.side)
                case "host":
                    return Addresses(_host(word), qualifiers.side)
                case "net":
                    return Addresses(self.net(word), qualifiers.side)
                case _:
                    return Addresses(self.net(word) if "/" in word else _host(word), qualifiers.side)
        except ValueError as error:
            raise self.error(str(error), back=1) from None

    def net(self, word: str) -> Network:
        """A network in one word, or with `mask` and another."""
        if self.peek() == "mask" and "/" not in word:
            self.next += 1
            if self.peek() is None:
                raise self.error("expected a mask such as 255.0.0.0")
            word = f"{word}/{self.take()}"
        return _net(word)


_EXPECTED = {
    "": "an address",
    "host": "an address",
    "net": "a network such as 10.0.0.0/8",
    "port": "a port number",
    "portrange": "ports such as 8000-8099",
    "proto": "a protocol's name or number",
    "vlan": "a VLAN number",
    "dev": "a device name",
    "agent": "an agent's name",
    "domain": "a domain such as example.com or '*cdn*'",
    "app": "an application such as tls",
}
# Keywords that are values after these: names of protocols, of any device, and of the service at port 53.
_ALSO_VALUES = {"proto": _KEYWORDS, "dev": _KEYWORDS, "agent": _KEYWORDS, "port": ("domain",)}


def _token(match: re.Match[str]) -> _Token:
    text = match.group()
    quoted = len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]
    return _Token(text[1:-1] if quoted else text, match.start(), len(text), quoted)


# --- values; each raises ValueError with the reason


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word.partition("/")[0])
    except ValueError:
        return False
    return True


def _is_value(kind: str, word: str) -> bool:
    """Whether `word` may be meant as a value of `kind`, so that the error is about the value, not about the word."""
    if kind in ("dev", "app", "agent"):
        return True
    if kind == "domain":
        return "." in word or "*" in word
    return word[:1].isdigit() or ":" in word or (kind == "port" and _service(word) is not None)


def _host(word: str) -> Network:
    try:
        return ipaddress.ip_network(ipaddress.ip_address(word))
    except ValueError:
        raise ValueError(f'"{word}" is not an address, and names are not looked up; see domain') from None


def _net(word: str) -> Network:
    address, slash, length = word.partition("/")
    octets = address.split(".")
    if ":" not in address and len(octets) < 4:  # net 10.1 is 10.1.0.0/16, as in pcap-filter(7)
        address = ".".join(octets + ["0"] * (4 - len(octets)))
        length = length or str(8 * len(octets))
    elif not slash:
        length = "128" if ":" in address else "32"
    try:
        network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    except ValueError:
        raise ValueError(f'"{word}" is not a network; expected one such as 10.0.0.0/8') from None
    if network.network_address != ipaddress.ip_address(address):
        raise ValueError(f'"{word}" has bits outside its mask; did you mean {network}?')
    return network


def _port(word: str) -> int:
    if word.isascii() and word.isdigit() and int(word) <= 0xFFFF:
        return int(word)
    if word.isdigit():
        raise ValueError(f"{word} is not a port; expected 0 to 65535")
    port = _service(word)
    if port is None:
        raise ValueError(f'"{word}" is not a port number, nor a service in /etc/services')
    return port


def _service(name: str) -> int | None:
    for protocol in ("tcp", "udp"):
        try:
            return socket.getservbyname(name, protocol)
        except (OSError, UnicodeError):
            continue
    return None


def _port_range(word: str) -> tuple[int, int]:
    first, dash, last = word.partition("-")
    if not dash:
        raise ValueError(f'"{word}" is not a range; expected ports such as 8000-8099')
    low, high = _port(first), _port(last)
    if low > high:
        raise ValueError(f"{word} is empty; did you mean {high}-{low}?")
    return low, high


def _protocol(word: str) -> int:
    number = protocol_number(word)
    if number is None:
        raise ValueError(f'"{word}" is not a protocol; give its number, 0 to 255')
    return number


def _domain(word: str) -> Domain:
    pattern = word.lower().strip(".")
    if not pattern:
        raise ValueError(f'"{word}" is not a domain')
    return Domain(pattern, is_glob="*" in pattern or "?" in pattern)


def _vlan(word: str) -> Vlan:
    if not word.isdigit() or int(word) > 4095:
        raise ValueError(f"{word} is not a VLAN; expected 0 to 4095")
    return Vlan(int(word))


# --- conditions


def _both(left: Condition, right: Condition) -> Condition:
    return Chain(left, ((True, right),))


def _head(word: str) -> Condition:
    return Family(_FAMILY_WORDS[word]) if word in _FAMILY_WORDS else Protocol(_protocol(word))
