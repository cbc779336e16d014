"""A real Alertmanager, on a port that was free, which tells one webhook."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import urllib3

PATIENCE_SECONDS = 60.0
_CONFIGURATION = """\
route: {{receiver: hook, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 24h}}
receivers:
  - name: hook
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


class Alertmanager:
    """A context manager."""

    def __init__(self, directory: Path, webhook: str) -> None:
        directory.mkdir()
        self._directory = directory
        (directory / "alertmanager.yml").write_text(_CONFIGURATION.format(url=webhook))
        self.url = ""

    def __enter__(self) -> Self:
        log = self._directory / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [
                    "prometheus-alertmanager",
                    *(f"--config.file={self._directory / 'alertmanager.yml'}", "--cluster.listen-address="),
                    *(f"--storage.path={self._directory / 'data'}", "--web.listen-address=127.0.0.1:0"),
                ],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := re.search(r'msg="Listening on" address=(\S+)', log.read_text())):
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        self.url = f"http://{found[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def alerts(self) -> list[dict[str, Any]]:
        """Those that it holds for active."""
        found: list[dict[str, Any]] = json.loads(urllib3.request("GET", f"{self.url}/api/v2/alerts").data)
        return found
