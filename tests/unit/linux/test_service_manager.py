"""What systemd would be told."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wiremeter.linux.service_manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """A socket of systemd's, and what it would put into the environment."""
    path = str(tmp_path / "notify")
    name = path if request.param == "path" else f"@wiremeter-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.settimeout(30)
        yield listening, {"NOTIFY_SOCKET": name}


def test_it_is_told_what_happens(listening: tuple[socket.socket, dict[str, str]]) -> None:
    manager_socket, environment = listening
    manager = ServiceManager(environment)
    manager.ready("serving")
    manager.stopping()
    assert manager_socket.recv(4096) == b"READY=1\nSTATUS=serving"
    assert manager_socket.recv(4096) == b"STOPPING=1"


async def test_the_watchdog_is_told_of_life_as_long_as_there_is_any(
    listening: tuple[socket.socket, dict[str, str]],
) -> None:
    manager_socket, environment = listening
    watched = {**environment, "WATCHDOG_USEC": "30000", "WATCHDOG_PID": str(os.getpid())}
    is_alive = True
    async with ServiceManager(watched).watched(lambda: is_alive):
        for _ in range(3):
            assert await asyncio.to_thread(manager_socket.recv, 4096) == b"WATCHDOG=1"
        is_alive = False
        await asyncio.sleep(0)
        manager_socket.setblocking(False)
        while True:  # what was said before
            try:
                manager_socket.recv(4096)
            except BlockingIOError:
                break
        await asyncio.sleep(0.1)
        with pytest.raises(BlockingIOError):
            manager_socket.recv(4096)


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}])
async def test_without_one_nobody_is_told(environment: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager(environment)
    assert manager.watchdog_seconds == 0
    manager.ready("serving")
    async with manager.watched(lambda: True):
        manager.stopping()
    assert not caplog.records


def test_one_that_is_gone_is_no_reason_to_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready("serving")
    assert "cannot be told" in caplog.text
