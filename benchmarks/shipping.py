"""What shipping costs an agent: CPU time and memory for 100,000 flows each 5 s, over HTTPS and from a spool on disk.

A process of its own has loaded what an agent has, and ships the same batch again and again. What it takes more than
before is what shipping takes; who receives is another process.
"""

from __future__ import annotations

import json
import os
import resource
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import Figure, Progress, figure_of

if TYPE_CHECKING:
    from wiremeter.flows.batch import FlowBatch

GROUP = "shipping 100,000 flows, interval 5 s"
FLOWS, NAMES = 100_000, 2_000
INTERVAL = 5.0
BATCHES = 12
#: Between two batches here: long enough for one to be sent, so that none waits for another.
_PAUSE_SECONDS = 0.5
CPU_TARGET, MEMORY_TARGET = 3.0, 20.0


def measure(say: Progress) -> Iterator[Figure]:
    """CPU of one core, memory at its most beyond what the process had, and bytes a flow as sent."""
    say("shipping: a process that ships")
    with tempfile.TemporaryDirectory(prefix="wiremeter-bench-") as directory:
        certificate = _certificate(Path(directory))
        with _Receiver(certificate) as receiver:
            told = subprocess.run(
                [sys.executable, "-m", "benchmarks.shipping", receiver.url, str(certificate), directory],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
    found = json.loads(told)
    yield figure_of(GROUP, "CPU of one core", "%", [100 * each / INTERVAL for each in found["cpu_seconds"]], CPU_TARGET)
    yield figure_of(GROUP, "more resident memory, at its most", "MB", [found["more_mb"]], MEMORY_TARGET)
    yield figure_of(GROUP, "a flow as it is sent", "bytes", [found["bytes_per_flow"]])


def _ship(url: str, certificate: str, directory: str) -> None:
    """What the process does; tells its figures as JSON."""
    _load_agent()
    batch = _batch()
    before = _resident_mb()
    from wiremeter.agent.heartbeat import Heartbeats
    from wiremeter.agent.shipping import shipping_options
    from wiremeter.settings import Settings, load_settings
    from wiremeter.sinks.shipping.shipper import Shipper

    settings: Settings = load_settings({"server": url, "server_ca": certificate, "spool_dir": f"{directory}/spool"})
    most, cpu = 0.0, []
    with Shipper(shipping_options(settings, "bench"), Heartbeats(lambda: settings)) as shipper:
        for number in range(BATCHES):
            began = _cpu_seconds()
            shipper.write(batch)
            while shipper.state.progress.sent["stored"] <= number:
                time.sleep(0.01)
                most = max(most, _resident_mb())
            time.sleep(_PAUSE_SECONDS)
            cpu.append(_cpu_seconds() - began)
        sent_bytes = shipper.state.progress.sent_bytes
    # The first has the imports in it; what looking at memory takes is told as if it were shipping's.
    found = {"cpu_seconds": cpu[1:], "more_mb": most - before, "bytes_per_flow": sent_bytes / BATCHES / FLOWS}
    print(json.dumps(found))


def _load_agent() -> None:
    """What an agent without a server has in memory already."""
    import prometheus_client  # noqa: F401

    import wiremeter.agent.http_server
    import wiremeter.agent.loop
    import wiremeter.flows.filter
    import wiremeter.metering.monitor
    import wiremeter.names.namer  # noqa: F401


def _batch() -> FlowBatch:
    """Clients of a network of theirs and servers of which few have most flows, both directions, with names."""
    import numpy as np

    from wiremeter.flows.batch import Attachment, FlowBatch
    from wiremeter.flows.columns import COUNTER, ETHERTYPE_COUNTER, FLOW, VLAN_NONE
    from wiremeter.names.records import FlowName

    dice = np.random.default_rng(7)
    half, start_ns = FLOWS // 2, time.time_ns()
    client, server = dice.integers(0, 4096, half), np.minimum(dice.zipf(1.3, half), 20_000)
    ports = {"client": dice.integers(32_768, 61_000, half), "server": np.where(dice.random(half) < 0.8, 443, 53)}
    flows = np.zeros(FLOWS, FLOW)
    for part, source, target in ((flows[:half], "src", "dst"), (flows[half:], "dst", "src")):
        for side, number, net in ((source, client, 10), (target, (server * 2_654_435_761) & 0xFFFFFF, 198)):
            address = part[f"{side}_addr"]
            address[:, 10:12] = 0xFF
            address[:, 12] = net
            for at in range(3):
                address[:, 13 + at] = number >> (16 - 8 * at) & 0xFF
        part[f"{source}_port"], part[f"{target}_port"] = ports["client"], ports["server"]
    flows["attachment"][half:] = 1
    flows["vlan"], flows["family"] = VLAN_NONE, 4
    flows["protocol"] = np.tile(np.where(ports["server"] == 443, 6, 17), 2)
    flows["packets"] = dice.geometric(0.1, FLOWS)
    flows["bytes"] = flows["packets"] * dice.integers(60, 1500, FLOWS)
    flows["skbs"] = np.maximum(1, flows["packets"] // 3)
    flows["tcp_flags"] = np.where(flows["protocol"] == 6, dice.choice([24, 27, 18, 2], FLOWS), 0)
    flows["first_ns"] = start_ns + dice.integers(0, 5_000_000_000, FLOWS)
    flows["last_ns"] = flows["first_ns"] + dice.integers(0, 500_000_000, FLOWS).astype("u8")
    names = (
        FlowName(),
        *(
            FlowName(
                "tls", f"host{n}.example{n % 50}.com", "sni", "1.3", "TLS_AES_128_GCM_SHA256", "h2", f"t13d15{n % 40}h2"
            )
            for n in range(NAMES)
        ),
    )
    order = dice.permutation(FLOWS)  # as the flow table's hash leaves them
    return FlowBatch(
        start_ns,
        start_ns + 5_000_000_000,
        (Attachment(0, "eth0", 2, "rx", "tcx"), Attachment(1, "eth0", 2, "tx", "tcx")),
        flows[order],
        np.zeros(0, COUNTER),
        np.zeros(0, ETHERTYPE_COUNTER),
        (),
        names=names,
        flow_names=np.tile(server % len(names), 2).astype("u4")[order],
    )


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _certificate(directory: Path) -> Path:
    """For 127.0.0.1, with its key in the same file."""
    path = directory / "server.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", directory / "key.pem", "-out", path),
        ],
        check=True,
        capture_output=True,
    )
    with path.open("ab") as file:
        file.write((directory / "key.pem").read_bytes())
    return path


class _Receiver:
    """Takes everything, over TLS."""

    def __init__(self, certificate: Path) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                said = b'{"stored": true}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> _Receiver:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()


if __name__ == "__main__":
    _ship(*sys.argv[1:])
