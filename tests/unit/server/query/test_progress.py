"""Long answers tell how far they are, and end when nobody waits for them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

from wiremeter.server.query import asking
from wiremeter.server.query.answer import Answer
from wiremeter.server.query.reading import Abandoned, Reads
from wiremeter.server.store import Store


def slow(size: int) -> Callable[[Reads], Answer]:
    sql = f"SELECT max(sipHash64(number)) > 0 AS there FROM numbers({size})"
    return lambda reads: Answer.of(reads.query(sql).table(), {"size": size})


async def lines_of(store: Store, ask: Callable[[Reads], Answer]) -> list[dict[str, Any]]:
    return [json.loads(line) async for line in asking.told(store, ask, {"from": "then"})]


def test_what_is_read_is_told_before_the_answer(opened: Store) -> None:
    size = 100_000_000
    while True:  # until it takes the engine long enough to tell of it, on any machine
        lines = asyncio.run(lines_of(opened, slow(size)))
        *progress, facts, row, end = lines
        assert (facts, row, end) == ({"facts": {"from": "then", "size": size}}, {"row": {"there": 1}}, {"next": None})
        if progress:
            break
        size *= 4
    read = [line["progress"]["rows"] for line in progress]
    assert read == sorted(read)
    assert all(0 < line["progress"]["rows"] <= line["progress"]["total"] == size for line in progress)


def test_whoever_goes_away_frees_the_place(opened: Store) -> None:
    ended = threading.Event()

    def ask(reads: Reads) -> Answer:
        try:
            while True:
                slow(100_000_000)(reads)
        except Abandoned:
            ended.set()
            raise

    async def go() -> None:
        lines = asking.told(opened, ask, {})
        await anext(lines)
        await lines.aclose()

    asyncio.run(go())
    assert ended.wait(60)
    assert opened.query("SELECT 1 AS one").records() == [{"one": 1}]


def test_an_error_is_the_last_line(opened: Store) -> None:
    (line,) = asyncio.run(lines_of(opened, lambda reads: Answer.of(reads.query("SELECT nothing").table(), {})))
    assert (line["error"]["kind"], line["error"]["status"]) == ("sql", 422)
    assert "nothing" in line["error"]["error"]
