"""The agent is told to end while it starts: it does at once, and leaves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from . import leaks, netns

pytestmark = pytest.mark.kernel

WIREMETER = str(Path(sys.executable).with_name("wiremeter"))
DEVICES = 60
NAMED = [word for number in range(DEVICES) for word in ("--interface", f"ours{number}")]


@pytest.mark.parametrize("interfaces", [["--interface", "ours*"], NAMED], ids=["glob", "named"])
@pytest.mark.parametrize("after", [0.0, 0.1, 0.2, 0.4, 0.8])
def test_while_many_devices_are_attached(interfaces: list[str], after: float) -> None:
    """Signals waited until all were attached once, for as long as 26 s."""
    with leaks.nothing_left(), netns.hosts("host") as (host,), host.entered():
        host.ip(*(f"link add ours{number} type veth peer name theirs{number}" for number in range(DEVICES)))
        argv = [WIREMETER, "agent", "--listen", "off", "--max-devices", str(DEVICES), *interfaces]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as agent:
            assert agent.stderr
            assert "starting" in agent.stderr.readline()
            time.sleep(after)
            agent.send_signal(signal.SIGTERM)
            began = time.monotonic()
            said = agent.stderr.read()
            status = agent.wait(20)
            assert time.monotonic() - began < 10 * netns.PATIENCE
            if not after and status == -signal.SIGTERM:  # it did not listen for signals yet
                return
            assert status == 0, said
            assert "stopped" in said
