"""DNS questions and what became of them: each question of each query, joined with its response by flow, id and name."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from wiremeter.names.decoders.dns import DnsMessage
from wiremeter.names.records import DnsTransaction, FlowKey

#: A question that waited so long ends unanswered. Stub resolvers ask again or give up after 5 s.
TIMEOUT_NS = 10_000_000_000
MDNS_PORT = 5353

_V4_MAPPED = bytes(10) + b"\xff\xff"
_ANYONE = bytes(16)

_Asked = tuple[FlowKey, int]
_Question = tuple[str, str]


class _Waiting(NamedTuple):
    """A question without its response so far; the fields are those of DnsTransaction, which takes longer to make."""

    time_ns: int
    flow: FlowKey
    query: str
    qtype: str
    retry: bool
    cut: bool

    def unanswered(self) -> DnsTransaction:
        return DnsTransaction(self.time_ns, self.flow, self.query, self.qtype, retry=self.retry, cut=self.cut)


def is_multicast(address: bytes) -> bool:
    """Whether 16 bytes, IPv4 as v4-mapped, are a multicast address (RFC 5771; RFC 4291, section 2.7).

    >>> is_multicast(bytes(10) + bytes([255, 255, 224, 0, 0, 251])), is_multicast(bytes(16))
    (True, False)
    """
    return address[0] == 0xFF or (address[12] >> 4 == 0xE and address.startswith(_V4_MAPPED))


class DnsTransactions:
    """Messages in, in the order they were seen; transactions out, when they end.

    A question ends by its response; by being asked again, since a response is taken to answer the latest; by
    TIMEOUT_NS; or early, as the oldest, when over `capacity` wait. Names match whatever their case. A response without
    a question, from a server that could not read the query, ends all questions with its id on its flow. A response
    that no question waits for makes records of its own.

    Queries to a multicast address other than mDNS, as in LLMNR, wait for a response from anyone. mDNS has no ids and
    many answer to all, so its queries wait for nothing and its responses stand alone (RFC 6762, section 6).
    """

    def __init__(self, capacity: int = 65_536) -> None:
        """capacity: how many questions may wait at once, in under 1 KiB each but for the length of their names."""
        self._capacity = capacity
        #: Ordered by the latest question of each.
        self._waiting: OrderedDict[_Asked, dict[_Question, _Waiting]] = OrderedDict()
        self._count = 0
        #: Questions that ended unanswered before their time, for want of space.
        self.ended_early = 0

    def __len__(self) -> int:
        """How many questions wait."""
        return self._count

    def message(self, time_ns: int, flow: FlowKey, message: DnsMessage) -> list[DnsTransaction]:
        """Take one message as `flow` carried it at `time_ns`; returns the transactions that it ended.

        A response that seems to come before its query has a latency of 0.
        """
        if not message.is_response:
            return self._ask(time_ns, flow, message)
        if is_multicast(flow.dst_addr):
            return _alone(time_ns, flow, message)
        return self._answer(time_ns, flow.reversed(), message)

    def expire(self, now_ns: int) -> list[DnsTransaction]:
        """End what was asked TIMEOUT_NS before `now_ns` or earlier."""
        ended: list[DnsTransaction] = []
        while self._waiting:
            oldest = next(iter(self._waiting.values()))
            if next(reversed(oldest.values())).time_ns > now_ns - TIMEOUT_NS:
                break
            ended += self._end_oldest()
        return ended

    def flush(self) -> list[DnsTransaction]:
        """End all that wait, as when a capture is over."""
        ended: list[DnsTransaction] = []
        while self._waiting:
            ended += self._end_oldest()
        return ended

    def _ask(self, time_ns: int, flow: FlowKey, message: DnsMessage) -> list[DnsTransaction]:
        to_all = is_multicast(flow.dst_addr)
        if to_all and flow.dst_port == MDNS_PORT:
            questions = dict.fromkeys(message.questions)
            return [DnsTransaction(time_ns, flow, name, qtype, cut=message.cut) for name, qtype in questions]
        if not message.questions:
            return []
        asked = (_to_anyone(flow) if to_all else flow, message.id)
        waiting = self._waiting.get(asked)
        if waiting is None:
            waiting = self._waiting[asked] = {}
        else:
            self._waiting.move_to_end(asked)
        ended = []
        for name, qtype in dict.fromkeys(message.questions):
            question = (name.lower(), qtype)
            former = waiting.pop(question, None)
            if former is not None:
                ended.append(former.unanswered())
                self._count -= 1
            waiting[question] = _Waiting(time_ns, flow, name, qtype, former is not None, message.cut)
            self._count += 1
        while self._count > self._capacity:
            early = self._end_oldest()
            self.ended_early += len(early)
            ended += early
        return ended

    def _answer(self, time_ns: int, flow: FlowKey, message: DnsMessage) -> list[DnsTransaction]:
        asked = (flow, message.id)
        waiting = self._waiting.get(asked)
        if waiting is None:
            asked = (_to_anyone(flow), message.id)
            waiting = self._waiting.get(asked)
        if waiting is None:
            return _alone(time_ns, flow, message)
        ended = []
        for name, qtype in dict.fromkeys(message.questions) or tuple(waiting):
            query = waiting.pop((name.lower(), qtype), None)
            if query is None:
                ended.append(_alone_for(name, qtype, time_ns, flow, message))
                continue
            self._count -= 1
            ended.append(
                DnsTransaction(
                    query.time_ns,
                    query.flow,
                    query.query,
                    query.qtype,
                    message.rcode,
                    max(time_ns - query.time_ns, 0),
                    message.answers,
                    query.retry,
                    cut=message.cut,
                )
            )
        if not waiting:
            del self._waiting[asked]
        return ended

    def _end_oldest(self) -> list[DnsTransaction]:
        _, questions = self._waiting.popitem(last=False)
        self._count -= len(questions)
        return [question.unanswered() for question in questions.values()]


def _to_anyone(flow: FlowKey) -> FlowKey:
    return FlowKey(flow.src_addr, flow.src_port, _ANYONE, flow.dst_port, flow.protocol, flow.family)


def _alone(time_ns: int, flow: FlowKey, message: DnsMessage) -> list[DnsTransaction]:
    """The records of a response whose query was not seen. A response that names nothing at all has an empty query."""
    questions = message.questions or tuple((answer.name, answer.type) for answer in message.answers[:1]) or (("", ""),)
    return [_alone_for(name, qtype, time_ns, flow, message) for name, qtype in dict.fromkeys(questions)]


def _alone_for(name: str, qtype: str, time_ns: int, flow: FlowKey, message: DnsMessage) -> DnsTransaction:
    return DnsTransaction(
        time_ns, flow, name, qtype, message.rcode, None, message.answers, has_query=False, cut=message.cut
    )
