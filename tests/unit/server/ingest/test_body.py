"""Bodies: bounded in size, in time, and in what they decompress to."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Iterable

import pytest

from wiremeter.server.ingest import body
from wiremeter.server.ingest.body import Room, read_body
from wiremeter.server.ingest.refusal import Refusal
from wiremeter.shipment.identity import content_digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MOST = 1 << 20


async def chunks(parts: Iterable[bytes], pause: float = 0.0) -> AsyncIterator[bytes]:
    for part in parts:
        if pause:
            await asyncio.sleep(pause)
        yield part


def cut(content: bytes, size: int = 1000) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


async def read(
    parts: Iterable[bytes],
    *,
    encoding: str = "",
    digest: str | None = None,
    length: int | None = None,
    room: Room | None = None,
    pause: float = 0.0,
) -> tuple[bytes, bytes]:
    return await read_body(
        chunks(parts, pause), length=length, encoding=encoding, digest=digest, room=room or Room(), most=MOST
    )


async def test_a_body_is_what_was_sent_and_its_hash_is_that_of_the_file() -> None:
    content = bytes(range(256)) * 100
    sha256 = hashlib.sha256(content).digest()
    assert await read(cut(content), digest=content_digest(content)) == (content, sha256)
    packed = zstd.compress(content)
    assert await read(cut(packed, 7), encoding="zstd", digest=content_digest(packed)) == (content, sha256)


@pytest.mark.parametrize(
    ("parts", "more", "status", "reason", "is_final"),
    [
        ([bytes(MOST + 1)], {}, 413, "too_large", True),
        ([b"a"], {"length": MOST + 1}, 413, "too_large", True),
        ([bytes(1000)] * 2000, {}, 413, "too_large", True),
        ([zstd.compress(bytes(1 << 30))], {"encoding": "zstd"}, 413, "too_large", True),
        ([zstd.compress(b"abc")[:-1]], {"encoding": "zstd"}, 400, "damaged", True),
        ([zstd.compress(b"abc") + b"x"], {"encoding": "zstd"}, 400, "damaged", True),
        ([zstd.compress(b"abc"), b"x"], {"encoding": "zstd"}, 400, "damaged", True),
        ([b"no zstd at all"], {"encoding": "zstd"}, 400, "damaged", True),
        ([b"abc"], {"encoding": "gzip"}, 415, "encoding", True),
        ([b"abc"], {"digest": content_digest(b"abd")}, 503, "digest", False),
        ([b"abc"], {"digest": "sha-256=x"}, 400, "digest", True),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_what_is_wrong_is_refused_with_its_reason(
    parts: list[bytes], more: dict[str, object], status: int, reason: str, is_final: bool
) -> None:
    room = Room(MOST + 1)
    with pytest.raises(Refusal) as refused:
        await read(parts, room=room, **more)  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.reason, refused.value.is_final) == (status, reason, is_final)
    room.take(MOST + 1)  # all was given back


async def test_a_bomb_is_never_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kilobyte of nested zeros says that it is four gigabytes; what is taken of it stays below the bound."""
    bomb = zstd.compress(bytes(1 << 26)) * 1
    taken: list[int] = []
    room = Room()
    monkeypatch.setattr(room, "take", taken.append)
    with pytest.raises(Refusal, match="MiB"):
        await read(cut(bomb), encoding="zstd", room=room)
    assert sum(taken) <= MOST + 1


async def test_bodies_together_have_a_bound() -> None:
    room = Room(1500)
    room.take(1000)
    with pytest.raises(Refusal) as refused:
        await read([bytes(400), bytes(400)], room=room)
    assert (refused.value.status, refused.value.is_final) == (503, False)
    room.give(1000)
    assert await read([bytes(800)], room=room)


async def test_a_client_that_sends_too_slowly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "STALL_SECONDS", 0.05)
    with pytest.raises(Refusal) as stalled:
        await read([b"a", b"b"], pause=1.0)
    assert stalled.value.status == 408
    with pytest.raises(Refusal) as trickling:
        await read([b"a"] * 100, pause=0.02)
    assert (trickling.value.status, trickling.value.is_final) == (408, False)
