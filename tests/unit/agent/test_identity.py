"""What an agent is called over restarts, reinstallation, and copies of its disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from wiremeter.agent.identity import agent_id
from wiremeter.linux.identity import MachineId

HERE, ELSEWHERE = MachineId("aaaa", "machine-id"), MachineId("bbbb", "machine-id")


def test_a_setting_comes_first(tmp_path: Path) -> None:
    assert agent_id("web-1", tmp_path, HERE) == ("web-1", "setting")


def test_what_is_kept_comes_before_what_the_machine_says(tmp_path: Path) -> None:
    assert agent_id(None, tmp_path, HERE) == ("aaaa", "machine-id")
    assert agent_id(None, tmp_path, HERE) == ("aaaa", "state")
    assert agent_id(None, tmp_path, MachineId("renamed", "hostname")) == ("aaaa", "state")


def test_a_copied_disk_gets_another_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    agent_id(None, tmp_path, HERE)
    assert agent_id(None, tmp_path, ELSEWHERE) == ("bbbb", "machine-id")
    assert "another machine" in caplog.text
    assert agent_id(None, tmp_path, ELSEWHERE) == ("bbbb", "state")


def test_without_a_directory_it_is_the_machines_each_time() -> None:
    assert agent_id(None, None, HERE) == agent_id(None, None, HERE) == ("aaaa", "machine-id")


def test_a_hosts_name_alone_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    agent_id(None, None, MachineId("web", "hostname"))
    assert "--agent-id" in caplog.text


@pytest.mark.parametrize("content", [b"", b"[]", b'{"id": "a/b", "basis": ""}', b'{"id": "a"}', b"\xff"])
def test_a_damaged_file_is_set_aside(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "agent.json").write_bytes(content)
    assert agent_id(None, tmp_path, HERE).id == "aaaa"
    assert "damaged" in caplog.text
    assert agent_id(None, tmp_path, HERE).source == "state"


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert agent_id(None, tmp_path / "file", HERE).id == "aaaa"
    assert "cannot keep" in caplog.text or "damaged" in caplog.text
