"""The server's own directory."""

from __future__ import annotations

import os
from pathlib import Path

TOKENS_FILE = "tokens.json"


def data_directory(given: str | None) -> Path:
    """The server's own directory: what was given, what systemd gives, or the usual place."""
    if given:
        return Path(given)
    if systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/wiremeter-server")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "wiremeter"
