"""Under a memory limit the agent meters, or says why not: it is never killed without a word."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import netns
from .netns import Host

pytestmark = pytest.mark.kernel

WIREMETER = str(Path(sys.executable).with_name("wiremeter"))
MIB = 1 << 20


@contextlib.contextmanager
def limited(mebibytes: int) -> Iterator[Path]:
    """A memory cgroup below that of this process, in another one besides, which has the limit."""
    outer = _own_cgroup() / f"wiremeter-test-{os.getpid()}"
    inner = outer / "inner"
    try:
        outer.mkdir()
        inner.mkdir()
        (outer / "memory.limit_in_bytes").write_text(str(mebibytes * MIB))
    except OSError as error:
        pytest.skip(f"no memory cgroup of version 1 to write to: {error}")
    try:
        yield inner
    finally:
        inner.rmdir()
        outer.rmdir()


def _own_cgroup() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
    pytest.skip("no memory cgroup of version 1")


def run(solo: Host, cgroup: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """wiremeter with these words, from its first page on in the cgroup."""
    entering = f'echo $$ > "{cgroup}/cgroup.procs"; exec "$@"'
    with solo.entered():
        argv = ["sh", "-c", entering, "sh", WIREMETER, *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)


@pytest.fixture
def solo() -> Iterator[Host]:
    with netns.hosts("solo") as (host,):
        yield host


@pytest.mark.parametrize("words", [("agent", "--listen", "off"), ("live", "--once")])
@pytest.mark.parametrize("mebibytes", [40, 60, 100])
def test_too_small_a_limit_is_an_error(solo: Host, words: tuple[str, ...], mebibytes: int) -> None:
    with limited(mebibytes) as cgroup:
        done = run(solo, cgroup, *words, "--interface", "lo")
    assert done.returncode == 2, done.stderr
    assert f"may use {mebibytes} MiB" in done.stderr
    assert "needs 112 MiB at least" in done.stderr


def test_doctor_says_so_too(solo: Host) -> None:
    with limited(60) as cgroup:
        done = run(solo, cgroup, "doctor", "--interface", "lo", "--format", "json")
    assert done.returncode == 1
    assert "may use 60 MiB" in done.stdout


@pytest.mark.parametrize(("mebibytes", "names"), [(80, "none"), (112, "dns,tls,http,quic")])
def test_the_stated_least_is_enough(solo: Host, mebibytes: int, names: str) -> None:
    words = ("live", "--count", "3", "--interval", "300ms", "--format", "json", "--interface", "lo", "--names", names)
    with limited(mebibytes) as cgroup:
        done = run(solo, cgroup, *words)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


#: Sends DNS queries, each from a flow of its own and for another name, as fast as it can but for pauses.
_FLOOD = """
import itertools, socket, struct, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in itertools.count():
    name = b"".join(bytes([len(label)]) + label for label in (b"host-%010d" % number, b"example", b""))
    query = struct.pack(">HHHHHH", number & 0xFFFF, 0x100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1)
    sender.sendto(query, (f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255 | 1}", 53))
    if number % 150 == 0:
        time.sleep(0.005)
"""


def test_a_flood_of_look_ups_fits_in_the_stated_least(solo: Host) -> None:
    """Tens of thousands of questions a second, none answered: with the bounds of a large host it was killed."""
    words = ("live", "--count", "5", "--interval", "4s", "--format", "json", "--interface", "lo")
    with solo.entered():
        flood = subprocess.Popen([sys.executable, "-c", _FLOOD])
    try:
        with limited(112) as cgroup:
            done = run(solo, cgroup, *words)
    finally:
        flood.kill()
        flood.wait()
    assert done.returncode == 0, done.stderr
    *_, last = map(json.loads, done.stdout.splitlines())
    assert last["balanced"]
    assert last["health"]["payloads"]["dns"] > 0
