"""Ids of machines from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from wiremeter.linux.identity import cloud_instance, machine_id
from wiremeter.shipment.identity import AGENT_ID

UUID = "4b2a0c3d-0000-4000-8000-00155d000001"
MACHINE = "0123456789abcdef0123456789abcdef"


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


def test_a_machine_id_does_not_leave_the_machine_and_stays(tmp_path: Path) -> None:
    put(tmp_path, "etc/machine-id", MACHINE)
    found = machine_id(tmp_path)
    assert found.source == "machine-id"
    assert MACHINE not in found.id.replace("-", "")
    assert found == machine_id(tmp_path)
    put(tmp_path, "etc/machine-id", MACHINE[::-1])
    assert machine_id(tmp_path) != found


def test_it_is_what_systemd_makes_of_a_machine_id(tmp_path: Path) -> None:
    """Of `systemd-id128 machine-id --app-specific=5b1c7a522f0e4a3b9c1d7c0f3a9d8e64` with this machine id."""
    put(tmp_path, "etc/machine-id", MACHINE)
    assert machine_id(tmp_path).id == "972fc842-7ad6-4b69-a4c6-748b6ab4a192"


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("sys/class/dmi/id/board_asset_tag", "i-0123456789abcdef0", "i-0123456789abcdef0"),
        ("sys/class/dmi/id/board_asset_tag", "Default string", ""),
        ("var/lib/cloud/data/instance-id", "i-0123456789abcdef0", "i-0123456789abcdef0"),
        ("var/lib/cloud/data/instance-id", UUID.upper(), UUID),
        ("var/lib/cloud/data/instance-id", "8145243560210234567", "8145243560210234567"),
        ("var/lib/cloud/data/instance-id", "nocloud", ""),
        ("var/lib/cloud/data/instance-id", "iid-datasource-none", ""),
    ],
)
def test_the_clouds_id_comes_first_where_it_is_one(path: str, text: str, expected: str, tmp_path: Path) -> None:
    put(tmp_path, "etc/machine-id", MACHINE)
    put(tmp_path, path, text)
    assert cloud_instance(tmp_path) == expected
    assert machine_id(tmp_path).source == ("cloud" if expected else "machine-id")


@pytest.mark.parametrize("content", ["", "uninitialized", "0" * 32, MACHINE.upper()])
def test_without_a_machine_id_there_is_the_hosts_name(content: str, tmp_path: Path) -> None:
    put(tmp_path, "etc/machine-id", content)
    assert machine_id(tmp_path, "web-1.example") == ("web-1.example", "hostname")


@pytest.mark.parametrize("name", ["web 1", "-", "", "ü" * 300, "a/b"])
def test_any_hosts_name_makes_an_id(name: str, tmp_path: Path) -> None:
    assert AGENT_ID.fullmatch(machine_id(tmp_path, name).id)
