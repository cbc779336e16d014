"""What an agent says of itself is what a server reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wiremeter.agent.heartbeat import Heartbeats, settings_hash
from wiremeter.agent.shipping import shipped
from wiremeter.errors import InputError
from wiremeter.flows.batch import Attachment
from wiremeter.settings import Settings, load_settings
from wiremeter.shipment.heartbeat import BYTES_MAX, from_json

from ..fabricated import fabricate_batch
from ..receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def test_a_heartbeat_says_who_where_and_how(receiver: Receiver, tmp_path: Path) -> None:
    settings: Settings = load_settings(
        {"server": receiver.url, "agent_id": "web-1", "state_dir": str(tmp_path), "heartbeat": "1s", "interval": "5s"},
        environment={},
    )
    attachments = (Attachment(0, "lo", 1, "rx", "tcx"), Attachment(1, "lo", 1, "tx", "clsact"))
    before = time.time_ns()
    with shipped(lambda: settings) as shipper:
        assert shipper
        shipper.write(fabricate_batch(attachments=attachments))
        end = time.monotonic() + 60
        while not (receiver.heartbeats and receiver.heartbeats[-1]["devices"]):
            assert time.monotonic() < end
            time.sleep(0.01)
        beat = from_json(Heartbeats(lambda: settings)(shipper.state))
    assert (beat.agent, beat.interval_seconds) == ("web-1", 5.0)
    assert beat.boot == receiver.order[0].boot
    assert before <= beat.started_ns <= beat.clock_ns <= time.time_ns()
    assert beat.settings_hash == settings_hash(settings)
    assert beat.host.kernel
    (device,) = beat.devices
    assert (device.name, device.attach, device.ifindex) == ("lo", {"rx": "tcx", "tx": "clsact"}, 1)
    assert device.mtu
    assert receiver.heartbeats[-1]["devices"][0]["name"] == "lo"
    assert {"batches", "bytes", "dropped"} <= set(receiver.heartbeats[-1]["spool"])


def test_the_hash_follows_the_settings() -> None:
    first: Settings = load_settings({}, environment={})
    assert settings_hash(first) == settings_hash(load_settings({}, environment={}))
    assert settings_hash(first) != settings_hash(load_settings({"interval": "2s"}, environment={}))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"agent": 1}', b"[" * 100_000, b" " * (BYTES_MAX + 1)])
def test_what_is_no_heartbeat_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="heartbeat"):
        from_json(body)
