"""Requests made from the OpenAPI description, as it permits and as it does not: none makes the server fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wiremeter.cli.main import main

from .batches import encoded, simulated
from .running import RunningServer

pytestmark = pytest.mark.slow


def test_no_request_makes_the_server_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert main(["token", "create", "tester", "--rights", "read,write,admin", "--data-dir", str(data)]) == 0
    token = capsys.readouterr().out.strip()
    with RunningServer(data) as server:
        assert server.ask("/v1/batches", encoded(simulated(), "web-1"), token=token).status == 200
        made = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json"),
                *("--header", f"Authorization: Bearer {token}", "--checks", "not_a_server_error"),
                *("--exclude-path", "/v1/live"),  # whose answers have no end: live/test_live.py
                *("--phases", "coverage,fuzzing", "--max-examples", "20", "--seed", "1", "--no-color"),
                *("--suppress-health-check", "all", "--generation-database", "none"),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert made.returncode == 0, made.stdout[-6000:] + made.stderr[-2000:]
        assert "a request failed" not in server.log
        assert server.ask("/v1/top", token=token).status == 200
