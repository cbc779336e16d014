"""What was refused for good, kept for a look at it: the bytes, and beside them who sent them and why not."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """One refused body. time: Unix seconds. content: SHA-256 in hexadecimal, its file's name."""

    time: float
    content: str
    size: int
    status: int
    reason: str
    text: str
    principal: str
    peer: str


class Quarantine:
    """A directory of bounded size; the oldest go first."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        #: Bodies that could not be kept, since the start.
        self.lost = 0

    def keep(self, content: bytes, about: Refused) -> None:
        """Writes one down. A failure is logged and counted: refusing goes on."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if len(content) <= self._bytes_max:
                self._make_room(len(content))
                self._file(about.content, ".bin").write_bytes(content)
                self._file(about.content, ".json").write_bytes(msgspec.json.encode(about))
            else:
                self.lost += 1
        except OSError as error:
            self.lost += 1
            log.warning("a refused body is not kept", extra={"reason": str(error), "content": about.content})

    def all(self) -> list[Refused]:
        """What is kept, the newest first."""
        found = []
        for path in self._directory.glob("*.json"):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                found.append(msgspec.json.decode(path.read_bytes(), type=Refused))
        return sorted(found, key=lambda refused: -refused.time)

    def content(self, name: str) -> bytes | None:
        """The bytes of one, by its SHA-256 in hexadecimal."""
        if len(name) != 64 or set(name) - set("0123456789abcdef"):
            return None
        try:
            return self._file(name, ".bin").read_bytes()
        except OSError:
            return None

    def _make_room(self, size: int) -> None:
        files = []
        for entry in os.scandir(self._directory):
            with contextlib.suppress(OSError):
                files.append((entry.stat().st_mtime, entry.stat().st_size, Path(entry.path)))
        used = sum(taken for _, taken, _ in files)
        for _, taken, path in sorted(files):
            if used + size <= self._bytes_max:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                used -= taken

    def _file(self, name: str, suffix: str) -> Path:
        return self._directory / f"{name}{suffix}"
