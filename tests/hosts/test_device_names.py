"""Device names may hold any bytes but '/', ':' and white space: all are metered, and shown in one form everywhere."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from wiremeter import Monitor
from wiremeter.agent.logs import JsonFormatter, TextFormatter
from wiremeter.linux.devices import read_devices, select_devices

from . import netns, senders
from .devices import Port
from .netns import Host

pytestmark = pytest.mark.kernel

WIREMETER = str(Path(sys.executable).with_name("wiremeter"))
#: Names as the kernel has them, and as they are shown.
NAMES = {
    b"b\xff": "b\\xff",
    b"b\xfe": "b\\xfe",
    b"\x80\xc3\xa9": "\\x80é",
    b"\xed\xa1\x81": "\\xed\\xa1\\x81",  # a surrogate, which UTF-8 may not hold
    b'we"ird': 'we"ird',
    b"back\\slash": "back\\slash",
    "💩0".encode(): "💩0",
    b"{le=a}": "{le=a}",
    b"v[1]": "v[1]",
}


@pytest.fixture
def solo() -> Iterator[Host]:
    """A host with a device of each name, up; i packets of UDP go out of the i-th, counted from 1."""
    with netns.hosts("solo") as (host,):
        for number, name in enumerate(NAMES, 1):
            with host.entered():
                made = [b"ip", b"link", b"add", b"name", name, b"type", b"veth", b"peer", b"name", b"p%d" % number]
                subprocess.run(made, check=True)
                near = [b"ip", b"addr", b"add", b"10.77.%d.1/24" % number, b"dev", name]
                far = [b"ip", b"neigh", b"add", b"10.77.%d.2" % number, b"lladdr", b"02:00:00:00:00:09", b"dev", name]
                for command in ([b"ip", b"link", b"set", name, b"up"], near, far):
                    subprocess.run(command, check=True)
            host.ip(f"link set p{number} up")
        yield host


def send(host: Host) -> None:
    for number in range(1, len(NAMES) + 1):
        port = Port(host, "", "02:00:00:00:00:01", f"10.77.{number}.1")
        senders.udp_packets(port, f"10.77.{number}.2", number)


EXPECTED = {shown: number for number, shown in enumerate(NAMES.values(), 1)}


@pytest.mark.parametrize("attach", ["tcx", "capture"])
def test_devices_of_all_names_are_metered(solo: Host, attach: str) -> None:
    devices = map(os.fsdecode, NAMES)
    with solo.entered():
        monitor = Monitor(*devices, attach=attach, interval=0.5, flow_table=256)  # type: ignore[arg-type]
        with monitor:
            send(solo)
            batch = next(iter(monitor))
    found = {audit.device: audit.seen.packets for audit in batch.audit if audit.direction == "tx"}
    assert found == EXPECTED


def test_a_device_is_chosen_by_its_bytes_and_by_what_is_shown(solo: Host) -> None:
    with solo.entered():
        devices = read_devices()
    for raw, shown in NAMES.items():
        for pattern in (os.fsdecode(raw), shown):
            assert [device.name for device in select_devices([pattern], devices, ())] == [shown]


def test_live_prints_them(solo: Host) -> None:
    for how in ("text", "json"):
        argv = [WIREMETER, "live", "--once", "--interval", "500ms", "--format", how]
        argv += ["--interface", os.fsdecode(b"b\xff")]
        with solo.entered():
            done = subprocess.run(argv, capture_output=True, timeout=30)
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode()
        if how == "json":
            assert {device["device"] for device in json.loads(text)["devices"]} == {"b\\xff"}
        else:
            assert "b\\xff" in text


def test_the_agent_exports_and_logs_them(solo: Host, tmp_path: Path) -> None:
    argv = [WIREMETER, "agent", "--interface", "*", "--interval", "500ms"]
    argv += ["--listen", "127.0.0.1:10464", "--log-format", "json"]
    with solo.entered(), (tmp_path / "log").open("wb") as log:
        agent = subprocess.Popen(argv, stderr=log)
    try:
        with solo.entered():
            netns.wait_until(lambda: is_ready(agent), "the agent is ready")
            send(solo)
            netns.wait_until(lambda: tx_packets() == EXPECTED, "all is exported")
            assert set(tx_packets("application/openmetrics-text; version=1.0.0")) == set(EXPECTED)
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(10)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {line["device"] for line in lines if line["message"] == "attached"} >= set(EXPECTED)
    assert agent.returncode == 0


def is_ready(agent: subprocess.Popen[bytes]) -> bool:
    assert agent.poll() is None, "the agent has ended"
    try:
        return bool(urllib.request.urlopen("http://127.0.0.1:10464/readyz", timeout=1).status == 200)
    except OSError:
        return False


def tx_packets(accept: str = "text/plain") -> dict[str, int]:
    """What is exported of the devices under test."""
    request = urllib.request.Request("http://127.0.0.1:10464/metrics", headers={"Accept": accept})
    text = urllib.request.urlopen(request, timeout=5).read().decode()
    families = (parse_openmetrics if "openmetrics" in accept else parse_text)(text)
    return {
        sample.labels["device"]: int(sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "network_seen_packets_total" and sample.labels["direction"] == "tx"
        if sample.labels["device"] in EXPECTED
    }


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_log_line_with_such_a_name_is_utf_8(formatter: logging.Formatter) -> None:
    record = logging.makeLogRecord({"msg": "attached", "device": "b\\xff"})
    assert "b\\" in formatter.format(record).encode().decode()
