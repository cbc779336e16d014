"""What flows can be told apart by in a question, and what is counted of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wiremeter.errors import InputError
from wiremeter.server.store.schema import ROLLUP_AMOUNTS

_NONE = -1


@dataclass(frozen=True, slots=True)
class Dimension:
    """One of them. sql: over the columns of flows, never null. columns: those. is_address: IPv6, which is shown as
    text. is_optional: _NONE stands for null, since null is like nothing, itself included."""

    sql: str
    columns: tuple[str, ...]
    is_address: bool = False
    is_optional: bool = False

    def shown(self, value: str) -> str:
        """The SQL that shows `value`, which has this dimension's type."""
        if self.is_address:
            return address_text(value)
        return f"nullIf({value}, {_NONE})" if self.is_optional else value


def address_text(sql: str) -> str:
    """An IPv6 column as people write addresses: v4-mapped ones as IPv4."""
    mapped = f"{sql} BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255')"
    return f"if({mapped}, substring(toString({sql}), 8), toString({sql}))"


def plain_dimensions(*names: str) -> dict[str, Dimension]:
    """Such as are columns."""
    return {name: Dimension(name, (name,)) for name in names}


def _optional(*names: str) -> dict[str, Dimension]:
    return {name: Dimension(f"ifNull(toInt32({name}), {_NONE})", (name,), is_optional=True) for name in names}


_ENDS = ("src_addr", "src_port", "dst_addr", "dst_port")
#: Whether a flow goes to the server: the side with the lower port, and of equal ports that with the lower address.
TO_SERVER = "(dst_port, dst_addr) <= (src_port, src_addr)"


def _end(to: str, back: str, *, is_address: bool = False) -> Dimension:
    return Dimension(f"if({TO_SERVER}, {to}, {back})", _ENDS, is_address=is_address)


#: All of them by name. The server's side is TO_SERVER's.
DIMENSIONS: dict[str, Dimension] = {
    **plain_dimensions("agent", "device", "direction", "family", "protocol"),
    "src_addr": Dimension("src_addr", ("src_addr",), is_address=True),
    "dst_addr": Dimension("dst_addr", ("dst_addr",), is_address=True),
    **plain_dimensions("src_port", "dst_port", "service_port", "application", "domain", "domain_source"),
    **plain_dimensions("tls_version", "tls_cipher", "alpn", "ja4", "ja4s", "http_method", "dns_query"),
    **_optional("vlan", "http_status", "dns_rcode"),
    "mode": Dimension("batch_mode", ("batch_mode",)),
    "client_addr": _end("src_addr", "dst_addr", is_address=True),
    "client_port": _end("src_port", "dst_port"),
    "server_addr": _end("dst_addr", "src_addr", is_address=True),
    "server_port": _end("dst_port", "src_port"),
}

#: What is counted: packets and bytes on the wire, kernel buffers, and flows: one for each interval that a flow was in.
AMOUNTS = ("packets", "bytes", "skbs", "flows")
#: As the store calls them.
AMOUNT_COLUMNS = dict(zip(AMOUNTS, ROLLUP_AMOUNTS, strict=True))


def read_dimensions(words: Iterable[str]) -> tuple[str, ...]:
    """Names of dimensions, several in a word with commas between them. Raises InputError for one that is none.

    >>> read_dimensions(["agent,device", "domain"])
    ('agent', 'device', 'domain')
    """
    return read_names(words, DIMENSIONS, "dimension")


def read_names(words: Iterable[str], known: Iterable[str], what: str) -> tuple[str, ...]:
    """The same of any names."""
    names = tuple(dict.fromkeys(name.strip() for word in words for name in word.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise InputError(f"{name!r} is no {what}; those are {', '.join(known)}")
    return names


def columns_of(names: Sequence[str]) -> set[str]:
    """The columns that dimensions are made of."""
    return {column for name in names for column in DIMENSIONS[name].columns}
