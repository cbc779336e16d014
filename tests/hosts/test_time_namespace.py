"""A process in a time namespace: its monotonic clock is not the kernel's, and all times are right all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import netns

pytestmark = pytest.mark.kernel

#: Run inside: asks itself for a name over loopback and prints what the meter tells of that.
PROBE = """
import json, socket, time
import dns.message, dns.rrset
from wiremeter import Monitor

with Monitor("lo", interval=0.5) as monitor:
    began = time.time_ns()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 53))
        query = dns.message.make_query("named.example.com", "A")
        client.sendto(query.to_wire(), ("127.0.0.1", 53))
        asker = server.recvfrom(999)[1]
        answer = dns.message.make_response(query)
        answer.answer.append(dns.rrset.from_text("named.example.com.", 300, "IN", "A", "127.0.0.9"))
        server.sendto(answer.to_wire(), asker)
        client.recv(999)
        client.sendto(b"x" * 40, ("127.0.0.9", 999))
    ended = time.time_ns()
    batch = next(iter(monitor))
to = {int(row["dst_port"]): number for number, row in enumerate(batch.flows)}
(asked,) = batch.transactions.dns
print(json.dumps({
    "clock": [began, ended],
    "batch": [batch.start_ns, batch.end_ns],
    "flows": [[int(row["first_ns"]), int(row["last_ns"])] for row in batch.flows],
    "asked": asked.time_ns,
    "latency": asked.latency_ns,
    "domain": batch.names[batch.flow_names[to[999]]].domain,
}))
"""


def told(solo: netns.Host, *offsets: str) -> dict[str, Any]:
    """What the probe prints in a time namespace with these offsets; in the host's own without any."""
    inside = ("unshare", "-T", *offsets) if offsets else ()
    with solo.entered():
        done = subprocess.run([*inside, sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("offsets", [(), ("--monotonic", "1000000", "--boottime", "1000000"), ("--monotonic", "-7")])
def test_times_are_right_and_names_kept(offsets: tuple[str, ...]) -> None:
    if offsets and not Path("/proc/self/ns/time").exists():
        pytest.skip("this kernel has no time namespaces (CONFIG_TIME_NS)")
    with netns.hosts("solo") as (solo,):
        said = told(solo, *offsets)
    began, ended = said["clock"]
    tick = 20_000_000  # flows are timed by the kernel's tick, which a busy machine may be late with
    assert said["batch"][0] - 10**7 <= began <= ended <= said["batch"][1] + 10**9
    for first, last in said["flows"]:
        assert began - tick <= first <= last <= ended + tick
    assert began - 10**7 <= said["asked"] <= ended
    assert 0 < said["latency"] < ended - began
    assert said["domain"] == "named.example.com"
