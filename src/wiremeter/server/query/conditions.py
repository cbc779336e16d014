"""Filter expressions as SQL over the store's tables: the same rows that the live view's filter takes."""

from __future__ import annotations

import fnmatch
import ipaddress
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wiremeter.errors import InputError
from wiremeter.flows.expression import (
    WITH_PORTS,
    Addresses,
    Chain,
    Condition,
    Direction,
    Domain,
    Family,
    Fits,
    Network,
    Not,
    Ports,
    Protocol,
    Side,
    Vlan,
    parse,
)

#: Most terms of an expression, and how deep they may be nested: the engine's own parser has a limit of depth.
TERMS_MAX, DEPTH_MAX = 500, 60

#: What the filter's words mean in a table, as SQL; a word that is not there cannot be asked of it.
FLOW_WORDS: Mapping[str, str] = {
    "device": "device",
    "agent": "agent",
    "direction": "direction",
    "vlan": "ifNull(vlan, 65535)",  # a comparison with null would be null, and so would its contrary
    "application": "if(application = '', 'unknown', application)",  # names were off
    "domain": "domain",
}


@dataclass(frozen=True, slots=True)
class Where:
    """A condition. sql: for WHERE. parameters: those it names. columns: those of the table that it reads."""

    sql: str = "1"
    parameters: Mapping[str, str] = field(default_factory=dict)
    columns: frozenset[str] = frozenset()


def where(text: str, words: Mapping[str, str] = FLOW_WORDS) -> Where:
    """A filter expression as a condition over a table with the columns of a flow.

    words: what it can be asked beside addresses, ports, protocol and family. Raises FilterError, and InputError for
    an expression that is too long, or about what the table does not tell.

    >>> where("tcp and agent web-1").sql
    '(protocol = 6 AND agent = {filter_0:String})'
    """
    condition = parse(text, has_agents=True)
    if condition is None:
        return Where()
    compiler = _Compiler(words)
    sql = compiler.sql(condition)
    return Where(sql, compiler.parameters, frozenset(compiler.columns))


class _Compiler:
    """Collects what an expression needs while it is written."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = words
        self.parameters: dict[str, str] = {}
        self.columns: set[str] = set()
        self._terms = 0

    def sql(self, condition: Condition, depth: int = 0) -> str:
        """depth: in how many parentheses it will stand."""
        self._terms += 1
        if self._terms > TERMS_MAX:
            raise InputError(f"the filter has more than {TERMS_MAX} terms; write networks instead of many addresses")
        if depth > DEPTH_MAX:
            raise InputError(f"the filter is nested more than {DEPTH_MAX} deep, and `and` behind `or` counts, too")
        match condition:
            case Family(version):
                return f"{self._column('family')} = {version}"
            case Protocol(number):
                return f"{self._column('protocol')} = {number}"
            case Vlan(None):
                return f"{self._word('vlan')} != 65535"
            case Vlan(tag):
                return f"{self._word('vlan')} = {tag}"
            case Direction(direction):
                return f"{self._word('direction')} = '{direction}'"
            case Fits(of, pattern):
                return self._fits(self._word(of), pattern)
            case Domain(pattern, is_glob):
                domain = self._word("domain")
                if is_glob:
                    return f"({domain} != '' AND {self._fits(domain, pattern)})"
                return f"({domain} = {self._text(pattern)} OR endsWith({domain}, {self._text(f'.{pattern}')}))"
            case Ports(low, high, side):
                return self._ports(low, high, side)
            case Addresses(network, side):
                return self._addresses(network, side)
            case Not(term):
                return f"NOT ({self.sql(term, depth + 1)})"
            case Chain(first, rest):
                return self._chain(first, rest, depth + 1)

    def _chain(self, first: Condition, rest: tuple[tuple[bool, Condition], ...], depth: int) -> str:
        """From left to right. Terms that one word joins stand side by side, since depth is what has a limit."""
        words = [" AND " if is_and else " OR " for is_and, _ in rest]
        changes = sum(left != right for left, right in itertools.pairwise(words))
        joined, depth = [self.sql(first, depth + changes)], depth + changes
        for at, (word, (_, term)) in enumerate(zip(words, rest, strict=True)):
            if at and word != words[at - 1]:
                joined, depth = [f"({words[at - 1].join(joined)})"], depth - 1
            joined.append(self.sql(term, depth))
        return f"({words[-1].join(joined)})"

    def _column(self, name: str) -> str:
        self.columns.add(name)
        return name

    def _word(self, name: str) -> str:
        if name not in self.words:
            raise InputError(f"the filter asks for {name}, which this table does not tell")
        sql = self.words[name]
        if name in sql:
            self.columns.add(name)
        return sql

    def _text(self, text: str) -> str:
        name = f"filter_{len(self.parameters)}"
        self.parameters[name] = text
        return f"{{{name}:String}}"

    def _fits(self, sql: str, pattern: str) -> str:
        if any(character in pattern for character in "*?["):
            return f"match({sql}, {self._text(regex(pattern))})"
        return f"{sql} = {self._text(pattern)}"

    def _ports(self, low: int, high: int, side: Side) -> str:
        def one(name: str) -> str:
            column = self._column(name)
            return f"{column} = {low}" if low == high else f"{column} BETWEEN {low} AND {high}"

        protocols = ", ".join(map(str, WITH_PORTS))
        ports = _by_side(lambda side: one(f"{side}_port"), side)
        return f"({ports} AND {self._column('protocol')} IN ({protocols}))"

    def _addresses(self, network: Network, side: Side) -> str:
        first, last = _mapped(network.network_address), _mapped(network.broadcast_address)

        def one(name: str) -> str:
            column = self._column(name)
            if first == last:
                return f"{column} = toIPv6('{first}')"
            return f"{column} BETWEEN toIPv6('{first}') AND toIPv6('{last}')"

        addresses = _by_side(lambda side: one(f"{side}_addr"), side)
        return f"({addresses} AND {self._column('family')} = {network.version})"


def _by_side(one: Callable[[str], str], side: Side) -> str:
    if side in ("src", "dst"):
        return one(side)
    return f"({one('src')} {'AND' if side == 'both' else 'OR'} {one('dst')})"


def _mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return f"::ffff:{address}" if address.version == 4 else str(address)


def regex(pattern: str) -> str:
    r"""A glob, as fnmatch.fnmatchcase has it, in the syntax of RE2.

    Python's own translation is not: it has atomic groups. Of classes it is, but for an empty one, and for [: in it.

    >>> print(regex("a*b?[!x-z]"))
    ^(?s:a.*b.[^x-z])$
    """
    return f"^(?s:{''.join(map(_piece, _PIECES.findall(pattern)))})$"


# Possessive: a ] that stands first in a class is one of its characters, whatever follows.
_PIECES = re.compile(r"\*+|\?|\[!?+\]?+[^\]]*\]|.", re.DOTALL)


def _piece(piece: str) -> str:
    if piece[0] == "*":
        return ".*"
    if piece == "?":
        return "."
    if len(piece) == 1:
        return re.escape(piece)
    found = fnmatch.translate(piece)[len("(?s:") : -len(r")\Z")]
    return r"[^\s\S]" if found == "(?!)" else found[0] + found[1:].replace("[", r"\[")
