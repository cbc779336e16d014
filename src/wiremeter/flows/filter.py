"""Filter expressions over flows, compiled to NumPy masks. `wiremeter.flows.expression` is the language's manual."""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.columns import FLOW, VLAN_NONE
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
from wiremeter.names.records import FlowName

if TYPE_CHECKING:
    from wiremeter.flows.batch import FlowBatch

Mask = NDArray[np.bool_]
_Test = Callable[["FlowBatch"], Mask]

# The addresses of FLOW as halves, so that one comparison does eight bytes; byte order cancels out in == and &.
_HALVES = np.dtype(
    {
        "names": ["src_high", "src_low", "dst_high", "dst_low"],
        "formats": ["u8"] * 4,
        "offsets": [0, 8, 16, 24],
        "itemsize": FLOW.itemsize,
    }
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter expression; the empty one takes every flow."""

    text: str
    test: _Test

    def mask(self, batch: FlowBatch) -> Mask:
        """Which flows of `batch` it takes: shape (len(batch.flows),), bool."""
        return self.test(batch)


def compile_filter(text: str, *, agent: str | None = None) -> Filter:
    """Compile a filter expression (the docstring of wiremeter.flows.expression is its manual).

    agent: that metered the batches, where agents can be asked for. Raises FilterError, an InputError, which points at
    the word that is wrong.

    >>> from wiremeter.flows.batch import Attachment, FlowBatch
    >>> from wiremeter.flows.columns import COUNTER, ETHERTYPE_COUNTER, empty_rows
    >>> flows = np.zeros(2, FLOW)
    >>> flows["protocol"] = 6, 17
    >>> device = Attachment(0, "eth0", 2, "rx", "tcx")
    >>> batch = FlowBatch(0, 10**9, (device,), flows, empty_rows(COUNTER), empty_rows(ETHERTYPE_COUNTER), ())
    >>> compile_filter("rx and not udp").mask(batch)
    array([ True, False])
    """
    condition = parse(text, has_agents=agent is not None)
    if condition is None:
        return Filter("", lambda batch: np.ones(len(batch.flows), np.bool_))
    return Filter(text, _test(condition, agent or ""))


def _test(condition: Condition, agent: str) -> _Test:
    """The function from a batch to a mask."""
    match condition:
        case Family(version):
            return lambda batch: batch.flows["family"] == version
        case Protocol(number):
            return lambda batch: batch.flows["protocol"] == number
        case Vlan(None):
            return lambda batch: batch.flows["vlan"] != VLAN_NONE
        case Vlan(tag):
            return lambda batch: batch.flows["vlan"] == tag
        case Direction(direction):
            return _attachment_test(direction=direction)
        case Fits("application", pattern):
            return _name_test(lambda name: fnmatch.fnmatchcase(name.application, pattern))
        case Fits("device", pattern):
            return _attachment_test(device=pattern)
        case Fits("agent", pattern):
            is_it = fnmatch.fnmatchcase(agent, pattern)
            return lambda batch: np.full(len(batch.flows), is_it, np.bool_)
        case Fits():
            raise AssertionError(condition)
        case Domain():
            return _name_test(_in_domain(condition))
        case Ports(low, high, side):
            return _port_test(low, high, side)
        case Addresses(network, side):
            return _net_test(network, side)
        case Not(term):
            inner = _test(term, agent)
            return lambda batch: ~inner(batch)
        case Chain(first, rest):
            return _chain(_test(first, agent), [(is_and, _test(term, agent)) for is_and, term in rest])


def _chain(first: _Test, rest: list[tuple[bool, _Test]]) -> _Test:
    def test(batch: FlowBatch) -> Mask:
        mask = first(batch)
        for is_and, right in rest:
            mask = mask & right(batch) if is_and else mask | right(batch)
        return mask

    return test


def _by_side(src: _Test, dst: _Test, side: Side) -> _Test:
    match side:
        case "src":
            return src
        case "dst":
            return dst
        case _:
            return _chain(src, [(side == "both", dst)])


def _in_domain(domain: Domain) -> Callable[[FlowName], bool]:
    pattern = domain.pattern
    if domain.is_glob:
        return lambda name: name.domain is not None and fnmatch.fnmatchcase(name.domain, pattern)
    return lambda name: name.domain is not None and (name.domain == pattern or name.domain.endswith(f".{pattern}"))


def _attachment_test(device: str | None = None, direction: Literal["rx", "tx"] | None = None) -> _Test:
    def test(batch: FlowBatch) -> Mask:
        wanted = [
            (device is None or fnmatch.fnmatchcase(a.device, device))
            and (direction is None or a.direction == direction)
            for a in batch.attachments
        ]
        return np.array(wanted, np.bool_)[batch.flows["attachment"]] if wanted else np.zeros(len(batch.flows), np.bool_)

    return test


def _name_test(fits: Callable[[FlowName], bool]) -> _Test:
    """Asks once a name, not once a flow."""
    return lambda batch: np.array([fits(name) for name in batch.names], np.bool_)[batch.name_indexes]


def _port_test(low: int, high: int, side: Side) -> _Test:
    def one(column: str) -> _Test:
        def test(batch: FlowBatch) -> Mask:
            ports = batch.flows[column]
            return ports == low if low == high else (ports >= low) & (ports <= high)

        return test

    ports = _by_side(one("src_port"), one("dst_port"), side)
    return lambda batch: ports(batch) & np.isin(batch.flows["protocol"], WITH_PORTS)


def _net_test(network: Network, side: Side) -> _Test:
    bits, address = _mapped(network.netmask), _mapped(network.network_address)

    def one(name: str) -> _Test:
        def test(batch: FlowBatch) -> Mask:
            halves = batch.flows.view(_HALVES)
            found: Mask = batch.flows["family"] == network.version
            for half, column in enumerate((f"{name}_high", f"{name}_low")):
                if bits[half]:
                    found &= (halves[column] & bits[half]) == address[half]
            return found

        return test

    return _by_side(one("src"), one("dst"), side)


def _mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> NDArray[np.uint64]:
    """The halves of an address, IPv4 as v4-mapped. What stands before an IPv4 address is equal in all flows of its
    family, so a netmask mapped the same way compares it in vain but rightly."""
    packed = address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
    return np.frombuffer(packed, "u8")
