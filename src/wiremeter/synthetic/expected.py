"""What a meter must find in packets that are known beforehand: plain sums, which share nothing with the datapath."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wiremeter.flows.batch import FlowBatch
from wiremeter.synthetic.frames import ICMP, NOT_IP, TCP, UDP, Packets

_ETHERNET_BYTES, _TAG_BYTES, _ARP_BYTES = 14, 4, 28
_IP_BYTES = {4: 20, 6: 40}
_L4_BYTES = {ICMP: 8, TCP: 20, UDP: 8}
_NUMBER_IN_IPV6 = {ICMP: 58}
_ETHERTYPE_ARP = 0x0806
#: Flow numbers are gathered up to so many before those that are there twice are dropped.
_MANY = 1 << 20


class Expected:
    """Totals of packets: their number, bytes, flows, and both by family and protocol number (ARP by ethertype)."""

    def __init__(self, *, is_tagged: bool) -> None:
        """is_tagged: all frames have a VLAN tag."""
        self._link_bytes = _ETHERNET_BYTES + (_TAG_BYTES if is_tagged else 0)
        self._amounts: Counter[tuple[str, int, str]] = Counter()
        self._flows: list[NDArray[np.int64]] = []
        self._gathered = 0

    def add(self, packets: Packets) -> None:
        """Counts packets."""
        for protocol in (NOT_IP, *_L4_BYTES):
            for family in (4, 6):
                mine = (packets.protocol == protocol) & (packets.is_ipv6 == (family == 6))
                count = int(np.count_nonzero(mine))
                if not count:
                    continue
                if protocol == NOT_IP:
                    key, headers = ("ethertype", _ETHERTYPE_ARP), _ARP_BYTES
                else:
                    number = _NUMBER_IN_IPV6.get(protocol, protocol) if family == 6 else protocol
                    key, headers = (f"ipv{family}", number), _IP_BYTES[family] + _L4_BYTES[protocol]
                self._amounts[*key, "packets"] += count
                self._amounts[*key, "bytes"] += count * (self._link_bytes + headers) + int(packets.payload[mine].sum())
        self._flows.append(np.unique(packets.flow[packets.flow >= 0]))
        self._gathered += len(self._flows[-1])
        if self._gathered > _MANY:
            self._compact()
            self._gathered = 0

    def _compact(self) -> None:
        self._flows = [np.unique(np.concatenate(self._flows))] if self._flows else []

    @property
    def packets(self) -> int:
        """All of them."""
        return sum(amount for (*_, unit), amount in self._amounts.items() if unit == "packets")

    @property
    def bytes(self) -> int:
        """On the wire."""
        return sum(amount for (*_, unit), amount in self._amounts.items() if unit == "bytes")

    @property
    def flows(self) -> int:
        """Different ones."""
        self._compact()
        return sum(map(len, self._flows))

    def differences(self, batch: FlowBatch, max_flows: int) -> Iterator[str]:
        """What is not in `batch` as it should be, each with both numbers; nothing if all is.

        max_flows: the most flows that a batch may have.
        """
        found: Counter[tuple[str, int, str]] = Counter()
        for row in batch.counters[batch.counters["family"] != 0]:
            for unit in ("packets", "bytes"):
                found[f"ipv{row['family']}", int(row["protocol"]), unit] += int(row[unit])
        for row in batch.ethertypes:
            for unit in ("packets", "bytes"):
                found["ethertype", int(row["ethertype"]), unit] += int(row[unit])
        for key in sorted(self._amounts.keys() | found.keys()):
            kind, number, unit = key
            name = f"0x{number:04x}" if kind == "ethertype" else f"protocol {number}"
            yield from _compare(f"{unit} of {kind} {name}", self._amounts[key], found[key])
        seen, lost = [audit.seen for audit in batch.audit], [sum(a.missing) for a in batch.audit if not a.balanced]
        yield from _compare("packets seen", self.packets, sum(tally.packets for tally in seen))
        yield from _compare("bytes seen", self.bytes, sum(tally.bytes for tally in seen))
        yield from _compare("flows", min(self.flows, max_flows), len(batch.flows))
        yield from _compare("audits that do not balance", 0, len(lost))
        unattributed = sum(t.packets for audit in batch.audit for t in audit.unattributed.values())
        if self.flows <= max_flows:
            yield from _compare("unattributed packets", 0, unattributed)


def _compare(what: str, expected: int, metered: int) -> Iterator[str]:
    if expected != metered:
        yield f"{what}: {expected} made, {metered} metered"
