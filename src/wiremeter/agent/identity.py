"""What an agent is called: the same over restarts, upgrades and reinstallation, and never two the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from pathlib import Path
from typing import NamedTuple

from wiremeter.files import write_whole
from wiremeter.linux.identity import MachineId, machine_id
from wiremeter.shipment.identity import AGENT_ID

log = logging.getLogger(__name__)

_FILE = "agent.json"


class AgentId(NamedTuple):
    """source: "setting", "state", or of a machine's id as MachineId says."""

    id: str
    source: str


def agent_id(setting: str | None, state_dir: Path | None, machine: MachineId | None = None) -> AgentId:
    """The setting, else what the state directory has kept, else the machine's id, which it then keeps.

    machine: by default this one's. What is kept is not taken on another machine: a disk or an image was copied, and two
    agents would be called the same.
    """
    if setting:
        return AgentId(setting, "setting")
    machine = machine or machine_id()
    if state_dir is None:
        if machine.source == "hostname":
            log.warning("the agent is known by the host's name: set --agent-id, or give it a --state-dir")
        return AgentId(*machine)
    path = state_dir / _FILE
    basis = hashlib.sha256(":".join(machine).encode()).hexdigest()
    kept = _kept(path)
    if kept and (kept["basis"] == basis or machine.source == "hostname"):
        return AgentId(kept["id"], "state")
    if kept:
        log.warning("the state directory was copied from another machine: a new agent id", extra={"was": kept["id"]})
    try:
        _keep(path, {"id": machine.id, "basis": basis})
    except OSError as error:
        log.warning("cannot keep the agent's id", extra={"path": str(path), "why": error.strerror})
    return AgentId(*machine)


def _kept(path: Path) -> dict[str, str] | None:
    try:
        found = json.loads(path.read_bytes())
        if AGENT_ID.fullmatch(found["id"]) and isinstance(found["basis"], str):
            return dict(found)
        why = "it holds no id"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = str(error)
    log.error("the file that keeps the agent's id is damaged and set aside", extra={"path": str(path), "why": why})
    with contextlib.suppress(OSError):
        path.rename(path.with_suffix(".damaged"))
    return None


def _keep(path: Path, values: dict[str, str]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, json.dumps(values).encode())
