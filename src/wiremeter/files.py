"""Files that are replaced whole: after a crash or a power cut at any time the old one is there, or the new one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes, *, keep_owner: bool = False) -> None:
    """Replaces or makes a file with mode 0600; it lasts once this returns. Its directory must be there.

    keep_owner: a file that is replaced keeps its user and group, if this process may give them.
    Raises OSError; then the old file is there, or the new one if it was the directory that could not be synced. A
    process that is killed amid this leaves a file `.NAME.*.tmp`.

    >>> write_whole(Path(getfixture("tmp_path"), "state.json"), b"{}")
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if keep_owner:
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    before = path.stat()
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Names that were made, changed or removed in a directory outlast a power cut. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
