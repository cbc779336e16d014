"""Under a memory limit the agent meters, or says why not: it is never killed without a word."""

from __future__ import annotations

import contextlib
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
