"""Batches on disk: in order, complete, bounded, found again; and what is lost is counted."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wiremeter.errors import InputError
from wiremeter.sinks.shipping import spool as spool_module
from wiremeter.sinks.shipping.backlog import Backlog, MemoryBacklog
from wiremeter.sinks.shipping.spool import Spool

Opener = Callable[..., Spool]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Opens the spool as a process would that is started anew."""
    spools: list[Spool] = []

    def open_spool(agent: str = "web-1", max_bytes: int = 1000) -> Spool:
        while spools:
            spools.pop().__exit__()
        spools.append(Spool(tmp_path / "spool", agent, max_bytes))
        return spools[0]

    yield open_spool
    while spools:
        spools.pop().__exit__()


def drain(backlog: Backlog) -> list[bytes]:
    found = []
    while taken := backlog.take():
        (entry,) = taken
        content = backlog.content(entry)
        if content is not None:
            found.append(content)
            backlog.delivered(entry)
    return found


@pytest.fixture(params=["spool", "memory"])
def backlog(request: pytest.FixtureRequest, opened: Opener) -> Backlog:
    return opened() if request.param == "spool" else MemoryBacklog("web-1", 1000)


def test_batches_come_out_in_order(backlog: Backlog) -> None:
    for number in range(5):
        assert backlog.next_identity().sequence == number
        backlog.put(b"batch %d" % number)
    assert backlog.waiting[:2] == (5, 35)
    assert drain(backlog) == [b"batch %d" % number for number in range(5)]
    assert backlog.waiting == (0, 0, None)
    assert not backlog.dropped


def test_what_is_kept_is_sent_again(backlog: Backlog) -> None:
    backlog.put(b"one")
    (entry,) = backlog.take()
    backlog.keep(entry)
    assert backlog.take() == [entry]


def test_the_oldest_makes_room_and_is_counted(backlog: Backlog) -> None:
    for number in range(7):
        backlog.put(bytes([number]) * 300)
    assert [content[0] for content in drain(backlog)] == [4, 5, 6]
    assert sum(backlog.dropped.values()) == 4


def test_what_is_on_its_way_makes_no_room(backlog: Backlog) -> None:
    backlog.put(b"a" * 400)
    (on_its_way,) = backlog.take()
    for letter in b"bcd":
        backlog.put(bytes([letter]) * 400)
    assert backlog.content(on_its_way) == b"a" * 400
    backlog.delivered(on_its_way)
    assert [content[:1] for content in drain(backlog)] == [b"d"]
    assert sum(backlog.dropped.values()) == 2


def test_of_several_on_their_way_none_makes_room_until_it_is_given_back(backlog: Backlog) -> None:
    for letter in b"ab":
        backlog.put(bytes([letter]) * 400)
    first, second = backlog.take(16, 1000)
    backlog.put(b"c" * 400)
    backlog.put(b"d" * 400)
    assert [backlog.content(entry) for entry in (first, second)] == [b"a" * 400, b"b" * 400]
    backlog.delivered(second)
    backlog.keep(first)
    assert [content[:1] for content in drain(backlog)] == [b"a", b"d"]
    assert sum(backlog.dropped.values()) == 1


def test_as_many_are_taken_as_are_asked_for_and_as_their_bytes_allow(backlog: Backlog) -> None:
    for size in (300, 300, 100, 100):
        backlog.put(bytes(size))
    assert [entry.size for entry in backlog.take(3, 10_000)] == [300, 300, 100]
    assert [entry.size for entry in backlog.take(16, 650)] == [300, 300]
    assert [entry.size for entry in backlog.take(16, 1)] == [300]


def test_what_is_refused_is_counted_and_the_next_comes(backlog: Backlog) -> None:
    backlog.put(b"bad")
    backlog.put(b"good")
    (entry,) = backlog.take()
    backlog.refused(entry)
    assert drain(backlog) == [b"good"]
    assert backlog.dropped == {"refused": 1}


def test_a_skipped_batch_leaves_a_gap(backlog: Backlog) -> None:
    backlog.skip("behind")
    assert backlog.next_identity().sequence == 1
    assert backlog.dropped == {"behind": 1}


def test_a_file_is_the_batch_and_its_name_the_checksum(opened: Opener, tmp_path: Path) -> None:
    opened().put(b"content")
    (path,) = (tmp_path / "spool").glob("*.arrows")
    assert path.read_bytes() == b"content"
    assert path.name.split(".")[1] == hashlib.sha256(b"content").hexdigest()
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_restart_goes_on_where_it_stood(opened: Opener) -> None:
    spool = opened()
    boot = spool.next_identity().boot
    for content in (b"0", b"1", b"2"):
        spool.put(content)
    (first,) = spool.take()
    spool.delivered(first)
    spool = opened()
    assert spool.next_identity() == ("web-1", boot, 3)
    assert drain(spool) == [b"1", b"2"]
    assert opened().next_identity() == ("web-1", boot, 3)


def test_no_sequence_is_given_twice_whatever_was_sent(opened: Opener) -> None:
    seen = set()
    dice = random.Random(1)
    for _ in range(60):
        spool = opened()
        for _ in range(dice.randrange(4)):
            seen.add(spool.next_identity())
            spool.put(bytes(100))
        for _ in range(dice.randrange(4)):
            for entry in spool.take(dice.randrange(1, 4), 1000):
                dice.choice([spool.delivered, spool.refused, spool.keep])(entry)
        assert spool.next_identity() not in seen


def test_another_agent_begins_another_sequence(opened: Opener) -> None:
    before = opened()
    before.put(b"of web-1")
    identity = before.next_identity()
    spool = opened(agent="web-2")
    assert spool.next_identity()[0::2] == ("web-2", 0)
    assert spool.next_identity().boot != identity.boot
    spool.put(b"of web-2")
    assert drain(spool) == [b"of web-1", b"of web-2"]


def test_a_spool_that_was_emptied_begins_another_sequence(opened: Opener, tmp_path: Path) -> None:
    spool = opened()
    spool.put(b"x")
    boot = spool.next_identity().boot
    for path in (tmp_path / "spool").glob("0*"):
        path.unlink()
    assert opened().next_identity().boot != boot


def test_counts_of_what_was_dropped_outlive_the_process(opened: Opener) -> None:
    spool = opened()
    for _ in range(5):
        spool.put(bytes(300))
    assert opened().dropped == {"spool_full": 2}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"agent": 1}', b"\xff"])
def test_a_damaged_state_is_set_aside_and_told(
    content: bytes, opened: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = opened()
    spool.put(b"x")
    boot = spool.next_identity().boot
    (tmp_path / "spool/state.json").write_bytes(content)
    spool = opened()
    assert spool.next_identity().boot != boot
    assert "damaged" in caplog.text
    assert (tmp_path / "spool/state.damaged").read_bytes() == content
    assert drain(spool) == [b"x"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer"])
def test_a_damaged_batch_is_set_aside_counted_and_told(
    damage: str, opened: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = opened()
    spool.put(b"first batch")
    spool.put(b"second batch")
    path = min((tmp_path / "spool").glob("*.arrows"))
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[5] ^= 1
    path.write_bytes(
        {"cut": bytes(content[:-1]), "empty": b"", "longer": bytes(content) + b"."}.get(damage, bytes(content))
    )
    spool = opened()
    assert drain(spool) == [b"second batch"]
    assert spool.dropped == {"damaged": 1}
    assert "damaged" in caplog.text
    assert (tmp_path / "spool/damaged" / path.name).exists()


def test_the_last_batch_damaged_still_ends_its_sequence(opened: Opener, tmp_path: Path) -> None:
    spool = opened()
    spool.put(b"only")
    (path,) = (tmp_path / "spool").glob("*.arrows")
    path.write_bytes(b"onlY")
    assert drain(spool) == []
    assert opened().next_identity().sequence == 1


def test_a_missing_file_is_counted(opened: Opener, tmp_path: Path) -> None:
    spool = opened()
    spool.put(b"a")
    spool.put(b"b")
    min((tmp_path / "spool").glob("*.arrows")).unlink()
    assert drain(spool) == [b"b"]
    assert spool.dropped == {"missing": 1}


def test_what_is_set_aside_is_bounded(opened: Opener, tmp_path: Path) -> None:
    spool = opened(max_bytes=16_000)
    for number in range(10):
        spool.put(bytes([number]) * 400)
        (entry,) = spool.take()
        spool.refused(entry)
    assert len(list((tmp_path / "spool/refused").iterdir())) == 2


def test_a_batch_larger_than_the_spool_is_counted_and_drops_no_other(opened: Opener) -> None:
    spool = opened()
    spool.put(b"small")
    spool.put(bytes(1001))
    assert drain(spool) == [b"small"]
    assert spool.dropped == {"spool_full": 1}


def test_the_number_of_files_is_bounded(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MAX_BATCHES", 3)
    spool = opened()
    for number in range(5):
        spool.put(b"%d" % number)
    assert drain(spool) == [b"2", b"3", b"4"]


def test_putting_and_taking_at_the_same_time_loses_no_count(backlog: Backlog) -> None:
    rounds, arrived = 400, []
    ended = threading.Event()

    def take() -> None:
        dice = random.Random(3)
        while not (ended.is_set() and backlog.waiting.batches == 0):
            for entry in backlog.take(dice.randrange(1, 4), 1000):
                content = backlog.content(entry)
                assert content is not None
                what = dice.choice([backlog.delivered, backlog.delivered, backlog.keep])
                if what == backlog.delivered:
                    arrived.append(int(content.split()[0]))
                what(entry)

    with ThreadPoolExecutor() as pool:
        taking = pool.submit(take)
        for number in range(rounds):
            backlog.put(b"%d " % number + bytes(300))
        ended.set()
        taking.result()
    assert sorted(arrived) == sorted(set(arrived))
    assert len(arrived) + sum(backlog.dropped.values()) == rounds


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--spool-dir"):
        Spool(tmp_path / "file" / "spool", "web-1", 1000)


def test_a_directory_of_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "spool/next.tmp").mkdir(parents=True)
    with pytest.raises(InputError, match="is it a spool"):
        Spool(tmp_path / "spool", "web-1", 1000)


def test_one_agent_at_a_time(opened: Opener, tmp_path: Path) -> None:
    opened()
    with pytest.raises(InputError, match="another agent"):
        Spool(tmp_path / "spool", "web-1", 1000)


def test_a_full_disk_costs_the_oldest(opened: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spool = opened()
    for number in range(4):
        spool.put(bytes([number]) * 200)
    real = os.fsync

    def full(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and len(list((tmp_path / "spool").glob("*.arrows"))) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    spool.put(b"\4" * 200)
    assert [content[0] for content in drain(spool)] == [2, 3, 4]
    assert spool.dropped == {"disk_full": 2}


def test_a_batch_that_could_not_be_synced_is_not_there(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spool = opened()

    def broken(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        spool.put(b"x")
    monkeypatch.undo()
    spool.put(b"y")
    assert drain(opened()) == [b"y"]


def test_a_disk_that_others_fill_does_not_cost_all(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened()
    for number in range(5):
        spool.put(bytes([number]) * 100)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    identity = spool.next_identity()
    with pytest.raises(OSError, match="No space"):
        spool.put(bytes(100))
    assert spool.next_identity() == identity
    assert spool.waiting.batches == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False).returncode:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_is_too_small_is_survived(small_disk: Path) -> None:
    with Spool(small_disk / "spool", "web-1", 1 << 30) as spool:
        for number in range(30):
            spool.put(bytes([number]) * 100_000)
        kept = [content[0] for content in drain(spool)]
        assert kept == list(range(30 - len(kept), 30))
        assert len(kept) >= 8
        assert spool.dropped == {"disk_full": 30 - len(kept)}
    with Spool(small_disk / "spool", "web-1", 1 << 30) as spool:
        assert spool.next_identity().sequence == 30


_WRITER = """
import sys
from pathlib import Path
from wiremeter.sinks.shipping.spool import Spool
with Spool(Path(sys.argv[1]), "web-1", 1 << 30) as spool:
    while True:
        for _ in range(3):
            name = "%s/%d" % spool.next_identity()[1:]
            spool.put(name.encode())
            print("put", name, flush=True)
        (entry,) = spool.take()
        print("sent", spool.content(entry).decode(), flush=True)
        spool.delivered(entry)
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_and_repeats_no_sequence(tmp_path: Path) -> None:
    told, dice = [], random.Random(2)
    for _ in range(25):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path / "spool")], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout
            told.append(writer.stdout.readline())
            time.sleep(dice.random() / 10)
            writer.send_signal(signal.SIGKILL)
            told += writer.stdout.read().splitlines()
    lines = [line.split() for line in told]
    put = [name for what, name in (line for line in lines if len(line) == 2) if what == "put"]
    sent = {name for what, name in (line for line in lines if len(line) == 2) if what == "sent"}
    assert len(put) == len(set(put)) > 100
    with Spool(tmp_path / "spool", "web-1", 1 << 30) as spool:
        left = [content.decode() for content in drain(spool)]
        assert not spool.dropped
    assert len(left) == len(set(left))
    assert set(put) - sent <= set(left)
