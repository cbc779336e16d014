"""What this machine is called by, from local files: the same after every restart, and another on every machine."""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import uuid
from pathlib import Path
from typing import NamedTuple

#: Of wiremeter, for machine ids (sd_id128_get_machine_app_specific(3)): the id itself is not to leave the machine.
_APPLICATION = uuid.UUID("5b1c7a52-2f0e-4a3b-9c1d-7c0f3a9d8e64")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
#: What clouds call instances: AWS i-0abc…, Azure and others a UUID, Google and others a number.
_INSTANCE = re.compile(
    r"i-[0-9a-f]{8,17}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]{6,24}|ocid1\.[\w.-]{8,100}"
)


class MachineId(NamedTuple):
    """source: "cloud", "machine-id" or "hostname"; the last is as lasting and as unique as that is."""

    id: str
    source: str


def machine_id(root: Path = Path("/"), hostname: str = "") -> MachineId:
    """The best there is: the cloud's id of the instance, else a hash of /etc/machine-id, else the host's name.

    Of /etc/machine-id an application's own hash is taken, as sd_id128_get_machine_app_specific(3) makes it.
    """
    if instance := cloud_instance(root):
        return MachineId(instance, "cloud")
    for path in ("etc/machine-id", "var/lib/dbus/machine-id"):
        if _MACHINE_ID.fullmatch(found := _read(root / path)) and found != "0" * 32:
            return MachineId(application_id(uuid.UUID(found)), "machine-id")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", hostname or socket.gethostname())[:128].lstrip("._-")
    return MachineId(name or "localhost", "hostname")


def application_id(machine: uuid.UUID) -> str:
    """HMAC-SHA256 of the application's id, keyed by the machine's, made a UUID of version 4.

    >>> application_id(uuid.UUID(int=1))
    '8c328b43-e941-4c29-b54a-540c98be8cc8'
    """
    digest = hmac.new(machine.bytes, _APPLICATION.bytes, hashlib.sha256).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def cloud_instance(root: Path = Path("/")) -> str:
    """The cloud's id of this instance, where local files tell; "" elsewhere.

    cloud-init leaves it in /var/lib/cloud, which an image may have kept: so what the firmware says comes first. On AWS
    that is the asset tag of the board.
    """
    tag = _read(root / "sys/class/dmi/id/board_asset_tag")
    if re.fullmatch(r"i-[0-9a-f]{8,17}", tag):
        return tag
    instance = _read(root / "var/lib/cloud/data/instance-id")
    return instance.lower() if _INSTANCE.fullmatch(instance) else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
