"""What systemd is told of a service that it started: ready, alive, reloading, stopping (sd_notify(3))."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping

log = logging.getLogger(__name__)


class ServiceManager:
    """The service manager that started this process; where none did, nobody is told.

    The protocol is one datagram of `NAME=VALUE` lines for each message, to the socket that $NOTIFY_SOCKET names.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte that begins an abstract name.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self.watchdog_seconds = _watchdog_seconds(environment)

    def ready(self, status: str) -> None:
        """It does what it is for. status: one line for `systemctl status`."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """It was asked to end, and does."""
        self._tell("STOPPING=1")

    @contextlib.asynccontextmanager
    async def watched(self, is_alive: Callable[[], bool]) -> AsyncIterator[None]:
        """Tells that the process is alive, as often as the watchdog wants it and as long as `is_alive` says so."""
        if not self.watchdog_seconds:
            yield
            return
        telling = asyncio.create_task(self._tell_of_life(is_alive, self.watchdog_seconds / 3))
        try:
            yield
        finally:
            telling.cancel()

    async def _tell_of_life(self, is_alive: Callable[[], bool], seconds: float) -> None:
        while True:
            if is_alive():
                self._tell("WATCHDOG=1")
            await asyncio.sleep(seconds)

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("the service manager cannot be told", extra={"said": message, "why": str(error)})


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """How long systemd waits for a sign of life from this process; 0 for ever (sd_watchdog_enabled(3))."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(environment.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return 0.0
