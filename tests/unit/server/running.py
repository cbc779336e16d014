"""A `wiremeter server` of the tests' own, in a process, on a port that was free."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import urllib3

PATIENCE_SECONDS = 60.0


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class RunningServer:
    """A context manager. `url` is there once it has begun; `kill` and `start` again leave its directory as it is."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self._arguments = arguments
        self._log = directory.parent / f"{directory.name}.log"
        self._pool = urllib3.PoolManager(cert_reqs=ssl.CERT_NONE, assert_hostname=False)
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()
        self._process.terminate()
        try:
            status = self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        assert status == 0, self.log

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def start(self) -> None:
        """Begins, and waits until it is ready."""
        before = len(self.log) if self._log.exists() else 0
        listen = () if "--listen" in self._arguments else ("--listen", "127.0.0.1:0")
        command = [sys.executable, "-m", "wiremeter", "server", "--data-dir", str(self.directory), *listen]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments], stderr=log, stdout=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        ready = "wiremeter: the server is at "
        while ready not in (said := self.log[before:]):
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        self.url = said.split(ready)[1].split()[0]

    def kill(self) -> None:
        """As a crash."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> Reply:
        """GET, or POST of a body."""
        pool = self._pool
        if certificate:
            pool = urllib3.PoolManager(
                cert_reqs=ssl.CERT_NONE,
                assert_hostname=False,
                cert_file=str(certificate[0]),
                key_file=str(certificate[1]),
            )
        found = pool.request(
            "GET" if body is None else "POST",
            self.url + path,
            body=body,
            headers={**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})},
            retries=False,
        )
        return Reply(found.status, {name.lower(): value for name, value in found.headers.items()}, found.data)
