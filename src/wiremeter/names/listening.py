"""Conversations over UDP that are being read, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from wiremeter.names.datagrams import UdpConversation
from wiremeter.names.records import FlowKey


def canonical(flow: FlowKey) -> FlowKey:
    """One key for both flows of a conversation."""
    if (flow.src_addr, flow.src_port) <= (flow.dst_addr, flow.dst_port):
        return flow
    return flow.reversed()


class Listening:
    """Conversations that are being decoded, the least recently heard first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heard: OrderedDict[tuple[int, FlowKey], tuple[UdpConversation, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._heard)

    def get(self, key: tuple[int, FlowKey]) -> UdpConversation | None:
        """The conversation of a device and canonical key."""
        found = self._heard.get(key)
        return found[0] if found else None

    def heard(self, key: tuple[int, FlowKey], conversation: UdpConversation, time_ns: int) -> None:
        """A packet of it has come."""
        self._heard[key] = (conversation, time_ns)
        self._heard.move_to_end(key)

    def let_go(self, silent_since_ns: int) -> Iterator[tuple[tuple[int, FlowKey], UdpConversation]]:
        """Takes out those not heard since, and as many more as there are too many."""
        while self._heard:
            key, (conversation, heard_ns) = next(iter(self._heard.items()))
            if heard_ns >= silent_since_ns and len(self._heard) <= self._most:
                return
            del self._heard[key]
            yield key, conversation

    def let_all_go(self) -> Iterator[tuple[tuple[int, FlowKey], UdpConversation]]:
        """Takes out all."""
        while self._heard:
            key, (conversation, _) = self._heard.popitem(last=False)
            yield key, conversation
