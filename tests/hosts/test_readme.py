"""The README's Python, run as it stands there on a veth."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from . import devices

pytestmark = pytest.mark.kernel

README = Path(__file__).parents[2] / "README.md"


def connect(address: str) -> None:
    """A refused connection: two packets of TCP."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection((address, 9), timeout=5).close()


def listen_to_interrupts() -> None:
    """What a shell starts in the background is deaf to them, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_python_example_runs() -> None:
    pytest.importorskip("pyarrow")
    example = README.read_text("utf-8").split("```python\n")[1].split("```")[0]
    with devices.pair() as (client, server):
        with client.host.entered():  # a child starts in the namespace of the thread that makes it
            running = subprocess.Popen(
                [sys.executable, "-u", "-c", example], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        try:
            assert running.stdout
            first = running.stdout.readline()
            client.host.run(connect, server.ipv4)
            printed = [running.stdout.readline() for _ in range(5)]
        finally:
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=60)
    assert "Audit(device='eth0', direction='rx'" in first, errors
    assert any(not line.startswith("0") and "Audit(" in line for line in printed)
    assert all(line.strip().isdigit() for line in printed[::2]), printed
