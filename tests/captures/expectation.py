"""What a capture holds, in one form for both sides: a reference's expected.json and our own document.

Counts are (packets, bytes) by key. Keys of `places` are where a frame can be counted: ("total",), ("family", name),
("protocol", family, number), ("ethertype", name). A conversation has counts in both directions and its times.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Key = tuple[Any, ...]


class Endpoint(NamedTuple):
    address: str
    port: int


@dataclass
class Conversation:
    """Packets and bytes by sender, and the times of the first and the last frame in nanoseconds."""

    packets: Counter[Endpoint] = field(default_factory=Counter)
    bytes: Counter[Endpoint] = field(default_factory=Counter)
    first_ns: int = 1 << 64
    last_ns: int = -1

    def add(self, sender: Endpoint, packets: int, amount: int, first_ns: int, last_ns: int) -> None:
        if packets:
            self.packets[sender] += packets
            self.bytes[sender] += amount
            self.first_ns, self.last_ns = min(self.first_ns, first_ns), max(self.last_ns, last_ns)


@dataclass
class Holdings:
    """All that is compared."""

    packets: Counter[Key] = field(default_factory=Counter)
    bytes: Counter[Key] = field(default_factory=Counter)
    conversations: dict[Key, Conversation] = field(default_factory=dict)

    def add(self, key: Key, tally: dict[str, int]) -> None:
        if tally["packets"]:
            self.packets[key] += tally["packets"]
            self.bytes[key] += tally["bytes"]

    def conversation(self, family: str, protocol: int, a: Endpoint, b: Endpoint) -> Conversation:
        return self.conversations.setdefault((family, protocol, *sorted((a, b))), Conversation())


def expected_holdings(expected: dict[str, Any]) -> Holdings:
    """From an expected.json; families that it calls undecodable are the family itself."""
    found = Holdings()
    found.add(("total",), expected["total"])
    for family, tally in expected["by_family"].items():
        found.add(("family", family.removesuffix("-undecodable")), tally)
    for family, by_protocol in expected["by_ip_proto"].items():
        for protocol, tally in by_protocol.items():
            found.add(("protocol", family, protocol), tally)
    for name, tally in expected["non_ip_by_ethertype"].items():
        found.add(("ethertype", name), tally)
    for row in expected["conversations"]:
        a, b = (Endpoint(_address(row[side]), row[f"{side}_port"]) for side in ("a", "b"))
        conversation = found.conversation(f"ipv{row['ip']}", row["proto"], a, b)
        first_ns, last_ns = int(row["first"]), int(row["last"])
        conversation.add(a, row["packets_ab"], row["bytes_ab"], first_ns, last_ns)
        conversation.add(b, row["packets_ba"], row["bytes_ba"], first_ns, last_ns)
    return found


def our_holdings(documents: Iterable[dict[str, Any]]) -> Holdings:
    """From documents of `wiremeter replay --format json`, added up."""
    found = Holdings()
    for document in documents:
        found.add(("total",), document["seen"])
        for family, tally in document["families"].items():
            found.add(("family", family), tally)
        for family, by_protocol in document["protocols"].items():
            for protocol, tally in by_protocol.items():
                found.add(("protocol", family, protocol), tally)
        for name, tally in document["ethertypes"].items():
            found.add(("ethertype", name), tally)
        for flow in document["flows"]:
            sender, receiver = (
                Endpoint(_address(flow[f"{side}_addr"]), flow[f"{side}_port"]) for side in ("src", "dst")
            )
            conversation = found.conversation(flow["family"], flow["protocol"], sender, receiver)
            conversation.add(sender, flow["packets"], flow["bytes"], flow["first_ns"], flow["last_ns"])
    return found


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text))


def differences(expected: Holdings, ours: Holdings) -> list[str]:
    """Every key and conversation in which they differ."""
    return [
        *_differing("packets", expected.packets, ours.packets),
        *_differing("bytes", expected.bytes, ours.bytes),
        *_differing("conversation", expected.conversations, ours.conversations),
    ]


def _differing(what: str, expected: Any, ours: Any) -> list[str]:
    return [
        f"{what} {key}: expected {expected.get(key)}, ours {ours.get(key)}"
        for key in sorted(expected.keys() | ours.keys(), key=str)
        if expected.get(key) != ours.get(key)
    ]


def remainder(expected: Holdings, ours: Holdings, frames: dict[str, int], times_ns: set[int]) -> list[str]:
    """What is wrong if `expected` is `ours` and, besides, some frames wherever they may be counted.

    frames: packets and bytes of those frames; times_ns: when they were. Each may be in at most one conversation, and
    must be in the total and in one family.
    """
    wrong: list[str] = []
    for what, more, less in (("packets", expected.packets, ours.packets), ("bytes", expected.bytes, ours.bytes)):
        rest = Counter(more)
        rest.subtract(less)
        wrong += [f"{what} {key}: {-count} more than expected" for key, count in rest.items() if count < 0]
        for kind in ("total", "family"):
            found = sum(count for key, count in rest.items() if key[0] == kind)
            if found != frames[what]:
                wrong.append(f"{what} by {kind}: {found} are not ours, expected {frames[what]}")
        for kind in ("protocol", "ethertype"):
            found = sum(count for key, count in rest.items() if key[0] == kind)
            if found > frames[what]:
                wrong.append(f"{what} by {kind}: {found} are not ours, expected at most {frames[what]}")
    spare = frames["packets"]
    for key in sorted(expected.conversations.keys() | ours.conversations.keys(), key=str):
        theirs, mine = expected.conversations.get(key, Conversation()), ours.conversations.get(key, Conversation())
        if theirs == mine:
            continue
        missing = Counter(theirs.packets)
        missing.subtract(mine.packets)
        spare -= missing.total()
        if min(missing.values(), default=0) < 0 or not missing.total():
            wrong.append(f"conversation {key}: expected {theirs}, ours {mine}")
        elif theirs.first_ns not in {mine.first_ns, *times_ns} or theirs.last_ns not in {mine.last_ns, *times_ns}:
            wrong.append(f"conversation {key}: times, expected {theirs}, ours {mine}")
    if spare < 0:
        wrong.append(f"conversations: {-spare} packets more than those frames are not ours")
    return wrong
