"""The conversations whose payloads are being read, and what is known of those that were: both within bounds."""

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


class KnownNames:
    """Names by conversation, the least recently told go first. Iterates over keys and entries, oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: OrderedDict[FlowKey, tuple[FlowName, int]] = OrderedDict()
        #: Changes with every change.
        self.version = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[tuple[FlowKey, tuple[FlowName, int]]]:
        return iter(self._names.items())

    def tell(self, conversation: FlowKey, name: FlowName, time_ns: int) -> None:
        """Remembers what is known of a conversation by its canonical key, since `time_ns`."""
        self.version += 1
        self._names[conversation] = (name, time_ns)
        self._names.move_to_end(conversation)
        if len(self._names) > self._most:
            self._names.popitem(last=False)
            self.evicted += 1

    def forget_before(self, time_ns: int) -> None:
        """Forgets what was told before."""
        left = OrderedDict((key, entry) for key, entry in self._names.items() if entry[1] >= time_ns)
        if len(left) < len(self._names):
            self.version += 1
            self._names = left


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

    def let_go(self, silent_since_ns: int) -> Iterator[tuple[FlowKey, Conversation]]:
        """Takes out those not heard since, and as many more as there are too many."""
        while self._heard:
            key, (conversation, heard_ns) = next(iter(self._heard.items()))
            if heard_ns >= silent_since_ns and len(self._heard) <= self._most:
                return
            del self._heard[key]
            yield key[1], conversation

    def let_all_go(self) -> Iterator[tuple[FlowKey, Conversation]]:
        """Takes out all."""
        while self._heard:
            key, (conversation, _) = self._heard.popitem(last=False)
            yield key[1], conversation
