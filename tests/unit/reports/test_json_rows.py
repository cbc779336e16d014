"""Rows written by columns are what their objects are as JSON, whatever they hold."""

from __future__ import annotations

import json
import random
import socket

import msgspec
import numpy as np
import pytest
from msgspec import UNSET, Struct, UnsetType

from wiremeter.flows.columns import packet_address_text
from wiremeter.reports import json_rows
from wiremeter.reports.json_rows import (
    Columns,
    Rows,
    Words,
    addresses,
    chosen,
    lists,
    numbers,
    optional,
    to_json,
    words,
)

TEXTS = ("", "plain", 'a"b\\c', "tab\there", "\x7f", "\x9b", "straße", "\u202e", "\U0001f600", "\U000e0001", "x" * 3000)


class Inner(Struct, frozen=True):
    source: str
    port: int


class Row(Struct, frozen=True):
    text: str
    inner: Inner
    items: tuple[str, ...]
    amount: int
    latency: int | None
    vlan: int | None
    left_out: str | UnsetType = UNSET
    word: bool | None = None


def rows_of(count: int, seed: int) -> tuple[list[Row], Rows[Row]]:
    """The same rows as objects, and by columns."""
    chance = random.Random(seed)
    families = np.array([chance.choice((4, 6)) for _ in range(count)], np.uint8)
    packed = np.array([[0] * 10 + [255, 255, *chance.randbytes(4)] if f == 4 else list(chance.randbytes(16))
                       for f in families.tolist()], np.uint8).reshape(-1, 16)  # fmt: skip
    objects = [
        Row(
            chance.choice(TEXTS),
            Inner(packet_address_text(packed[at].tobytes(), int(families[at])), chance.randrange(1 << 16)),
            tuple(chance.choice(TEXTS) for _ in range(chance.randrange(4))),
            chance.choice((0, 9, 10, (1 << 63) + 1, (1 << 64) - 1)),
            chance.choice((None, 0, (1 << 63) - 1)),
            chance.choice((None, 0, 4094)),
            word=chance.choice((True, False, None)),
        )
        for at in range(count)
    ]
    vlans = np.array([0xFFFF if row.vlan is None else row.vlan for row in objects], np.uint16)
    columns: Columns = {
        "word": words([row.word for row in objects]),
        "text": chosen(Words.of(TEXTS), np.array([TEXTS.index(row.text) for row in objects], np.uint8)),
        "inner": {
            "source": addresses(packed, families),
            "port": numbers(np.array([row.inner.port for row in objects], np.uint16)),
        },
        "items": lists(
            Words.of([item for row in objects for item in row.items]),
            np.array([len(row.items) for row in objects], np.uint16),
        ),
        "amount": numbers(np.array([row.amount for row in objects], np.uint64)),
        "latency": optional([row.latency for row in objects]),
        "vlan": numbers(vlans, 0xFFFF),
    }
    return objects, Rows(Row, columns, count)


@pytest.mark.parametrize("count", [0, 1, 2, 700])
def test_rows_are_written_as_their_objects_are(count: int) -> None:
    objects, rows = rows_of(count, seed=count)
    assert "".join(rows.written(",\n  ")) == ",\n  ".join(map(to_json, objects))
    assert list(rows.objects()) == objects


def test_row_that_finds_no_room_gets_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_ROOM_BYTES", 64)
    objects, rows = rows_of(50, seed=3)
    assert "".join(rows.written(",\n  ")) == ",\n  ".join(map(to_json, objects))
    assert list(rows.objects()) == objects


def test_rows_stand_in_lists_of_others() -> None:
    objects, rows = rows_of(20, seed=5)
    found = rows.words()
    parts = zip(found.starts[:-1].tolist(), found.starts[1:].tolist(), strict=True)
    assert [json.loads(found.text[a:b]) for a, b in parts] == json.loads(msgspec.json.encode(objects))


@pytest.mark.parametrize("text", ["::", "::1", "1::", "::ffff:192.0.2.1", "2001:db8::1", "1:0:2:0:0:3:0:0", "fe80::a"])
def test_addresses_are_written_as_packets_have_them(text: str) -> None:
    packed = socket.inet_pton(socket.AF_INET6, text)
    column = addresses(np.frombuffer(packed, np.uint8).reshape(1, 16), np.array([6], np.uint8))
    rows = Rows(Inner, {"source": column}, 1)
    assert json.loads("".join(rows.written())) == {"source": packet_address_text(packed, 6)}
