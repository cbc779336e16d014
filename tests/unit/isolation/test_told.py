"""What a reader tells is looked at before it is believed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import MsgspecError

from wiremeter.datapath.rows import conversation_hashes
from wiremeter.flows.columns import FLOW
from wiremeter.isolation.messages import FRAME_BYTES_MAX, LENGTH, Told, answers, framed
from wiremeter.isolation.told import NotCredibleError, pass_on
from wiremeter.names.block_reader import BlockReader
from wiremeter.names.columns import DTYPES
from wiremeter.names.namer import Namer
from wiremeter.names.payloads import packed
from wiremeter.names.records import DnsAnswer

from ..names.dns_messages import wire_message
from ..names.payload_records import DNS, HTTP, MS, SECOND_NS, START_NS, TLS, UDP, key, payload
from ..names.tls_hellos import client_hello, records, server_name


def test_no_frame_is_half_as_long_as_one_that_is_refused() -> None:
    reader = BlockReader(lambda raw: None)
    columns = {name: bytes(column) for name, column in reader._columns.items() if name != "pieces"}
    assert 4 << 20 < len(framed(Told(columns))) <= FRAME_BYTES_MAX // 2


def dns_told() -> dict[str, bytes]:
    """Of a question and its answer by CNAME, address and text; of a request; of a hello."""
    asked = key(server_port=53, protocol=UDP)
    answers = (
        DnsAnswer("site.example", "CNAME", 60, "cdn.example"),
        DnsAnswer("cdn.example", "A", 60, "192.0.2.1"),
        DnsAnswer("cdn.example", "TXT", 60, '"text"'),
    )
    said: list[dict[str, bytes]] = []
    reader = BlockReader(lambda raw: said.append(dict(raw)))
    query = wire_message((("site.example", "A"),))
    answer = wire_message((("site.example", "A"),), answers, is_response=True)
    block = packed(
        [
            payload(asked, query, source=DNS),
            payload(asked.reversed(), answer, source=DNS, at_ns=START_NS + MS),
            payload(key(port=1), b"GET /path HTTP/1.1\r\nHost: site.example\r\n\r\n", source=HTTP),
            payload(key(port=2), records(client_hello(((0, server_name(b"site.example")),))), source=TLS),
        ]
    )
    assert not list(reader.read(block))
    reader.flush(START_NS + SECOND_NS)
    (one,) = said
    return one


def changed(column: str, field: str, value: int) -> dict[str, bytes]:
    raw = dns_told()
    rows = np.frombuffer(raw[column], DTYPES[column]).copy()
    assert len(rows)
    rows[field][-1] = value
    for size in (f"{field.removesuffix('_at')}_bytes", field.removesuffix("_at")):
        if field.endswith("_at") and size in (rows.dtype.names or ()):
            rows[size][-1] = max(rows[size][-1], 1)  # what has no size is nowhere
    return {**raw, column: rows.tobytes()}


def told(raw: Mapping[str, bytes]) -> Told:
    """As it comes in."""
    message = answers.decode(framed(Told(dict(raw)))[LENGTH.size :])
    assert isinstance(message, Told)
    return message


def test_what_a_reader_tells_is_passed_on() -> None:
    namer = Namer(conversation_hashes)
    pass_on(told(dns_told()), namer)
    named = namer.close_interval(np.zeros(0, FLOW), np.zeros(0, np.int64), START_NS + SECOND_NS)
    (transaction,) = named.transactions.dns
    assert [answer.data for answer in transaction.answers] == ["cdn.example", "192.0.2.1", '"text"']


PLACES = [(column, field) for column, dtype in DTYPES.items() for field in dtype.names or () if field.endswith("_at")]


@pytest.mark.parametrize(("column", "field"), PLACES)
def test_a_place_outside_of_its_column_is_refused(column: str, field: str) -> None:
    with pytest.raises(NotCredibleError, match="outside"):
        pass_on(told(changed(column, field, 0xFFFF_FFF0)), Namer(conversation_hashes))


@pytest.mark.parametrize("column", [name for name, dtype in DTYPES.items() if "time_ns" in (dtype.names or ())])
def test_a_time_that_none_is_is_refused(column: str) -> None:
    with pytest.raises(NotCredibleError, match="of no time"):
        pass_on(told(changed(column, "time_ns", 1 << 63)), Namer(conversation_hashes))


@pytest.mark.parametrize(
    "raw",
    [
        {"text": b""},
        {**dns_told(), "more": b""},
        {**dns_told(), "heard": dns_told()["heard"][:-1]},
        {**dns_told(), "text": b""},
    ],
    ids=["columns that lack", "more columns", "half a row", "no text"],
)
def test_other_columns_are_refused(raw: dict[str, bytes]) -> None:
    with pytest.raises(NotCredibleError):
        pass_on(told(raw), Namer(conversation_hashes))


def test_a_name_that_would_keep_all_text_is_refused() -> None:
    """65,536 of them would keep as much for hours."""
    raw = {**dns_told(), "text": dns_told()["text"] + bytes(1000)}
    names = np.frombuffer(raw["names"], DTYPES["names"]).copy()
    pass_on(told(raw), Namer(conversation_hashes))
    names["domain_at"], names["query_at"], names["query_bytes"] = 0, len(raw["text"]) - 1, 1
    with pytest.raises(NotCredibleError, match="longer than any"):
        pass_on(told({**raw, "names": names.tobytes()}), Namer(conversation_hashes))


def test_other_types_are_refused() -> None:
    for columns in ({"text": 7}, {"x" * 65: b""}, [b""]):
        with pytest.raises(MsgspecError):
            answers.decode(framed(Told(columns))[LENGTH.size :])  # type: ignore[arg-type]


@given(st.data())
def test_whatever_columns_hold_nothing_but_a_refusal_is_raised(data: st.DataObject) -> None:
    raw = dns_told()
    for column in raw:
        part = bytearray(raw[column])
        for at in data.draw(st.lists(st.integers(0, len(part) - 1), max_size=4)) if part else ():
            part[at] = data.draw(st.integers(0, 255))
        raw[column] = bytes(part)
    namer = Namer(conversation_hashes)
    try:
        pass_on(told(raw), namer)
    except NotCredibleError:
        return
    flows = np.zeros(1, FLOW)
    named = namer.close_last(flows, np.zeros(1, np.int64), START_NS + SECOND_NS)
    for kind in ("dns", "tls", "quic", "http"):
        list(getattr(named.transactions, kind))
    for transaction in named.transactions.dns:
        assert isinstance(transaction.query, str)
