"""The conversations whose payloads are being read, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from wiremeter.names.records import FlowKey, FlowName, Transaction


class Conversation(Protocol):
    """What decodes one conversation."""

    @property
    def name(self) -> FlowName: ...

    def advance(self, now_ns: int) -> list[Transaction]: ...

    def flush(self) -> list[Transaction]: ...


def canonical(flow: FlowKey) -> FlowKey:
    """One key for both flows of a conversation."""
    if (flow.src_addr, flow.src_port) <= (flow.dst_addr, flow.dst_port):
        return flow
    return flow.reversed()


class Listening:
    """Conversations that are being decoded, the least recently heard first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heard: OrderedDict[tuple[int, FlowKey], tuple[Conversation, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._heard)

    def get(self, key: tuple[int, FlowKey]) -> Conversation | None:
        """The conversation of a device and canonical key."""
        found = self._heard.get(key)
        return found[0] if found else None

    def __iter__(self) -> Iterator[tuple[tuple[int, FlowKey], Conversation]]:
        return ((key, conversation) for key, (conversation, _) in self._heard.items())

    def heard(self, key: tuple[int, FlowKey], conversation: Conversation, time_ns: int) -> None:
        """A packet of it has come."""
        self._heard[key] = (conversation, time_ns)
        self._heard.move_to_end(key)

    def let_go(self, silent_since_ns: int) -> Iterator[tuple[tuple[int, FlowKey], Conversation]]:
        """Takes out those not heard since, and as many more as there are too many."""
        while self._heard:
            key, (conversation, heard_ns) = next(iter(self._heard.items()))
            if heard_ns >= silent_since_ns and len(self._heard) <= self._most:
                return
            del self._heard[key]
            yield key, conversation

    def let_all_go(self) -> Iterator[tuple[tuple[int, FlowKey], Conversation]]:
        """Takes out all."""
        while self._heard:
            key, (conversation, _) = self._heard.popitem(last=False)
            yield key, conversation
