"""DNS queries joined with their responses."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from addresses import address
from wiremeter.names.block_reader import TIMEOUT_NS
from wiremeter.names.records import DnsAnswer, DnsTransaction, FlowKey

from .dns_messages import Reader, wire_message

MS = 1_000_000
ANSWERS = (DnsAnswer("www.example.com", "A", 300, "192.0.2.1"),)
WWW = ("www.example.com", "A")


def flow(src: str = "10.0.0.1", port: int = 40000, dst: str = "10.0.0.53", to: int = 53, protocol: int = 17) -> FlowKey:
    return FlowKey(address(src), port, address(dst), to, protocol, 6 if ":" in src else 4)


class Message(NamedTuple):
    """What is sent, and whether its end is known to be missing."""

    data: bytes
    cut: bool
    is_response: bool
    questions: tuple[tuple[str, str], ...]


def query(*questions: tuple[str, str], number: int = 7, cut: bool = False) -> Message:
    questions = questions or (WWW,)
    return Message(wire_message(questions, number=number), cut, False, questions)


def response(
    *questions: tuple[str, str],
    number: int = 7,
    rcode: int = 0,
    answers: tuple[DnsAnswer, ...] = ANSWERS,
    cut: bool = False,
) -> Message:
    data = wire_message(questions, answers, number=number, is_response=True, rcode=rcode)
    return Message(data, cut, True, questions)


class DnsTransactions:
    """Messages in, transactions out, each as it ends."""

    def __init__(self, capacity: int = 1000) -> None:
        self._reader = Reader(capacity)

    def __len__(self) -> int:
        return len(self._reader.dns)

    @property
    def ended_early(self) -> int:
        return self._reader.dns.ended_early

    @property
    def copies(self) -> int:
        return self._reader.dns.copies

    def message(self, time_ns: int, on: FlowKey, message: Message, device: int = 0) -> list[DnsTransaction]:
        self._reader.dns.message(device, time_ns, on, message.data, cut=message.cut)
        return self._reader.take()

    def expire(self, now_ns: int) -> list[DnsTransaction]:
        self._reader.dns.advance(now_ns, 0)
        return self._reader.take()

    def flush(self) -> list[DnsTransaction]:
        self._reader.dns.flush(0)
        return self._reader.take()


CLIENT = flow()
SERVER = CLIENT.reversed()


def test_response_ends_its_query_with_answers_and_latency() -> None:
    transactions = DnsTransactions()
    assert transactions.message(5 * MS, CLIENT, query()) == []
    assert len(transactions) == 1
    (ended,) = transactions.message(8 * MS, SERVER, response(WWW))
    assert ended == DnsTransaction(5 * MS, CLIENT, "www.example.com", "A", 0, 3 * MS, ANSWERS)
    assert len(transactions) == 0
    assert transactions.flush() == []


def test_names_match_whatever_their_case_and_are_told_as_they_were_asked() -> None:
    transactions = DnsTransactions()
    transactions.message(0, CLIENT, query(("wWw.ExAmPlE.com", "A")))
    (ended,) = transactions.message(1, SERVER, response(WWW))
    assert (ended.query, ended.rcode) == ("wWw.ExAmPlE.com", 0)


def test_response_before_its_query_in_time_has_no_negative_latency() -> None:
    transactions = DnsTransactions()
    transactions.message(1000, CLIENT, query())
    (ended,) = transactions.message(990, SERVER, response(WWW))
    assert (ended.time_ns, ended.latency_ns) == (1000, 0)


def test_error_without_answers_is_a_response() -> None:
    transactions = DnsTransactions()
    transactions.message(0, CLIENT, query())
    (ended,) = transactions.message(MS, SERVER, response(WWW, rcode=3, answers=()))
    assert (ended.rcode, ended.latency_ns, ended.answers) == (3, MS, ())


def test_same_id_on_another_flow_or_another_id_or_question_does_not_match() -> None:
    transactions = DnsTransactions()
    transactions.message(0, CLIENT, query())
    strays = [
        *transactions.message(1, flow(port=40001).reversed(), response(WWW)),
        *transactions.message(1, flow(protocol=6).reversed(), response(WWW)),
        *transactions.message(1, SERVER, response(WWW, number=8)),
        *transactions.message(1, SERVER, response(("www.example.com", "AAAA"))),
    ]
    assert [stray.has_query for stray in strays] == [False] * 4
    assert len(transactions) == 1


def test_two_questions_with_one_id_are_answered_each_by_its_own_response() -> None:
    transactions = DnsTransactions()
    transactions.message(0, CLIENT, query(("a.example", "A")))
    transactions.message(1, CLIENT, query(("a.example", "AAAA")))
    (first,) = transactions.message(10, SERVER, response(("a.example", "A")))
    (second,) = transactions.message(11, SERVER, response(("a.example", "AAAA")))
    assert [(t.qtype, t.latency_ns, t.retry) for t in (first, second)] == [("A", 10, False), ("AAAA", 10, False)]


def test_each_question_of_one_query_makes_a_record() -> None:
    transactions = DnsTransactions()
    questions = (("a.example", "A"), ("b.example", "A"))
    transactions.message(0, CLIENT, query(*questions))
    ended = transactions.message(1, SERVER, response(*questions))
    assert [(t.query, t.rcode) for t in ended] == [("a.example", 0), ("b.example", 0)]


def test_retry_makes_a_record_of_its_own_and_takes_the_response() -> None:
    transactions = DnsTransactions()
    transactions.message(0, CLIENT, query())
    (first,) = transactions.message(5000 * MS, CLIENT, query())
    (second,) = transactions.message(5001 * MS, SERVER, response(WWW))
    assert (first.rcode, first.latency_ns, first.retry) == (None, None, False)
    assert (second.rcode, second.latency_ns, second.retry) == (0, MS, True)
    (late,) = transactions.message(5010 * MS, SERVER, response(WWW))
    assert (late.has_query, late.latency_ns) == (False, None)


def test_response_without_a_question_ends_all_that_has_its_id() -> None:
    transactions = DnsTransactions()
    transactions.message(0, CLIENT, query(("a.example", "A"), ("b.example", "A")))
    ended = transactions.message(9, SERVER, response(rcode=1, answers=()))
    assert [(t.query, t.rcode, t.latency_ns) for t in ended] == [("a.example", 1, 9), ("b.example", 1, 9)]


def test_response_without_its_query_points_from_client_to_server() -> None:
    (ended,) = DnsTransactions().message(4, SERVER, response(WWW))
    assert ended == DnsTransaction(4, CLIENT, "www.example.com", "A", 0, None, ANSWERS, has_query=False)


def test_response_without_question_and_query_is_named_by_its_first_answer() -> None:
    (ended,) = DnsTransactions().message(4, SERVER, response())
    assert (ended.query, ended.qtype, ended.has_query) == ("www.example.com", "A", False)


def test_response_that_names_nothing_is_told_nevertheless() -> None:
    (ended,) = DnsTransactions().message(4, SERVER, response(rcode=5, answers=()))
    assert (ended.query, ended.qtype, ended.rcode) == ("", "", 5)


def test_cut_is_told_of_what_is_there() -> None:
    transactions = DnsTransactions()
    transactions.message(0, CLIENT, query(cut=True))
    (answered,) = transactions.message(1, SERVER, response(WWW))
    transactions.message(10 * MS, CLIENT, query())
    (damaged,) = transactions.message(11 * MS, SERVER, response(WWW, cut=True))
    transactions.message(20 * MS, CLIENT, query(cut=True))
    (unanswered,) = transactions.flush()
    assert [t.cut for t in (answered, damaged, unanswered)] == [False, True, True]


# --- copies


def test_a_copy_of_a_packet_tells_nothing() -> None:
    """As of a mirror port, or a capture on all devices of a bridge, where each packet comes past twice or thrice."""
    transactions = DnsTransactions()
    assert [transactions.message(at, CLIENT, query()) for at in (0, 2000, MS)] == [[], [], []]
    (ended,) = transactions.message(9 * MS, SERVER, response(WWW))
    assert (ended.latency_ns, ended.retry) == (9 * MS, False)
    assert transactions.message(10 * MS, SERVER, response(WWW)) == []
    mdns = [transactions.message(at, MDNS, response(number=0)) for at in (0, 40_000)]
    assert [len(told) for told in mdns] == [1, 0]
    assert (transactions.copies, transactions.flush()) == (4, [])


def test_what_comes_later_elsewhere_or_says_something_else_is_no_copy() -> None:
    transactions = DnsTransactions()
    transactions.message(0, CLIENT, query())
    transactions.message(1, CLIENT, query(), device=1)
    (asked_again,) = transactions.message(2 * MS, CLIENT, query())
    assert asked_again.rcode is None
    (answered,) = transactions.message(3 * MS, SERVER, response(WWW))
    assert answered.retry
    (other,) = transactions.message(3 * MS + 1, SERVER, response(WWW, rcode=3))
    assert (other.rcode, other.has_query, transactions.copies) == (3, False, 0)


# --- what is not answered


def test_question_ends_unanswered_after_the_timeout_and_not_before() -> None:
    transactions = DnsTransactions()
    transactions.message(0, CLIENT, query())
    transactions.message(MS, CLIENT, query(number=8))
    assert transactions.expire(TIMEOUT_NS - 1) == []
    (ended,) = transactions.expire(TIMEOUT_NS)
    assert (ended.time_ns, ended.rcode, ended.latency_ns, ended.has_query) == (0, None, None, True)
    assert len(transactions) == 1
    (stray,) = transactions.message(TIMEOUT_NS + 1, SERVER, response(WWW))
    assert not stray.has_query


def test_flush_ends_all_in_order() -> None:
    transactions = DnsTransactions()
    for number in range(5):
        transactions.message(number, CLIENT, query(number=number))
    assert [t.time_ns for t in transactions.flush()] == [0, 1, 2, 3, 4]
    assert len(transactions) == 0


def test_oldest_end_early_when_too_many_wait_and_are_counted() -> None:
    transactions = DnsTransactions(capacity=3)
    early = [t for number in range(10) for t in transactions.message(number, CLIENT, query(number=number))]
    assert [t.time_ns for t in early] == [0, 1, 2, 3, 4, 5, 6]
    assert (len(transactions), transactions.ended_early) == (3, 7)


def test_many_questions_with_one_id_are_bounded_too() -> None:
    transactions = DnsTransactions(capacity=100)
    early = [t for n in range(1000) for t in transactions.message(n, CLIENT, query((f"n{n}.example", "A")))]
    assert len(transactions) == 8  # each that comes is compared with all of them
    assert len(early) == transactions.ended_early
    assert len(early) + len(transactions.flush()) == 1000


# --- multicast


MDNS = flow("10.0.0.7", 5353, "224.0.0.251", 5353)


def test_each_question_of_mdns_ends_at_once() -> None:
    ended = DnsTransactions().message(3, MDNS, query(("_ipp._tcp.local", "PTR"), ("a.local", "A"), number=0))
    assert [(t.query, t.rcode, t.latency_ns, t.flow) for t in ended] == [
        ("_ipp._tcp.local", None, None, MDNS),
        ("a.local", None, None, MDNS),
    ]


def test_mdns_responses_stand_alone_and_keep_their_flow() -> None:
    transactions = DnsTransactions()
    transactions.message(0, MDNS, query(WWW, number=0))
    (ended,) = transactions.message(5, MDNS, response(number=0))
    assert (ended.flow, ended.query, ended.has_query, ended.latency_ns) == (MDNS, "www.example.com", False, None)


def test_llmnr_query_to_all_is_answered_by_one_of_them() -> None:
    transactions = DnsTransactions()
    to_all = flow("fe80::1", 50000, "ff02::1:3", 5355)
    transactions.message(0, to_all, query(("printer", "A")))
    first = transactions.message(2, flow("fe80::2", 5355, "fe80::1", 50000), response(("printer", "A")))
    second = transactions.message(3, flow("fe80::3", 5355, "fe80::1", 50000), response(("printer", "A")))
    assert [(t.flow, t.latency_ns, t.has_query) for t in first] == [(to_all, 2, True)]
    assert [(t.flow.dst_addr, t.has_query) for t in second] == [(address("fe80::3"), False)]


# --- in general


@st.composite
def exchanges(draw: st.DrawFn) -> list[tuple[int, FlowKey, Message]]:
    names = st.lists(st.sampled_from([("a", "A"), ("A", "A"), ("b", "AAAA")]), max_size=2)
    flows = [CLIENT, flow(port=40001), MDNS, flow("fe80::1", 50000, "ff02::1:3", 5355)]
    sent = []
    for time_ns in range(draw(st.integers(0, 30))):
        on, number, questions = draw(st.sampled_from(flows)), draw(st.integers(0, 1)), draw(names)
        if draw(st.booleans()):
            message = (
                query(*questions, number=number)
                if questions
                else Message(wire_message((), number=number), False, False, ())
            )
        else:
            on, message = on.reversed(), response(*questions, number=number)
        # Of two at one moment the latter goes back a little: so none is a copy of another.
        moment = 10 + time_ns + draw(st.integers(-3, 3))
        sent.append(((100 * moment - 3 * time_ns) * MS, on, message))
    return sent


@given(exchanges(), st.integers(1, 5))
def test_every_question_ends_exactly_once(sent: list[tuple[int, FlowKey, Message]], capacity: int) -> None:
    transactions = DnsTransactions(capacity)
    ended = []
    for time_ns, on, message in sent:
        ended += transactions.message(time_ns, on, message)
        assert len(transactions) <= capacity
    ended += transactions.flush()
    asked = sum(len(set(message.questions)) for _, _, message in sent if not message.is_response)
    assert sum(t.has_query for t in ended) == asked
    assert all(t.latency_ns is None or t.latency_ns >= 0 for t in ended)
    assert all((t.latency_ns is None) == (t.rcode is None) for t in ended if t.has_query)
    assert len(transactions) == 0
