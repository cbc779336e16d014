"""The file that totals are kept in over restarts, and with them how far pinned tables were told: both or neither."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wiremeter.errors import InputError
from wiremeter.flows.batch import Mark

log = logging.getLogger(__name__)

_VERSION = 1
#: Most of a CPU's time that goes into it. A few devices take a tenth of that at one batch a second, a thousand all.
WORK_SHARE = 0.02


class KeptTotals:
    """One file, written whole each time, and moved to its place when it is on the disk."""

    def __init__(self, path: Path) -> None:
        """Reads what is there. A damaged file is set aside, and said; then totals begin at 0."""
        self._path = path
        self._trouble = ""
        self._not_before = 0.0
        #: What was kept before this process; None where nothing was.
        self.found: Mapping[str, Any] | None = None
        #: How far the tables were told when the file was written last.
        self.mark: Mark | None = None
        try:
            read = json.loads(path.read_bytes())
            if read["version"] != _VERSION:
                raise ValueError(f"version {read['version']!r}")
            self.mark = Mark(*read["mark"]) if read["mark"] else None
            self.found = dict(read["totals"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.set_aside(str(error))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """For this process alone while the block runs. Raises InputError where another has it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise InputError(
                f"cannot keep totals in {self._path.parent}: {error.strerror}; change --state-dir, or `none`"
            ) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"another agent keeps its state in {self._path.parent}: give each a --state-dir of its own"
                ) from error
            yield
        finally:
            os.close(lock)

    def set_aside(self, why: str) -> None:
        """It cannot be used."""
        self.found = self.mark = None
        aside = self._path.with_suffix(".damaged")
        log.error(
            "the file that keeps totals is damaged and set aside: counters begin at 0",
            extra={"path": str(aside), "why": why},
        )
        try:
            self._path.rename(aside)
        except OSError as error:
            log.error("it cannot be set aside", extra={"path": str(self._path), "why": error.strerror})

    def keep(self, totals: Callable[[], Mapping[str, Any]], mark: Mark | None, *, last: bool = False) -> None:
        """Writes all of it, unless that would take more than WORK_SHARE of the time; `last` does in any case.

        What fails is logged; the file of before stays.
        """
        if not last and time.monotonic() < self._not_before:
            return
        began = time.thread_time()
        self._write(totals(), mark)
        self._not_before = time.monotonic() + (time.thread_time() - began) / WORK_SHARE

    def _write(self, totals: Mapping[str, Any], mark: Mark | None) -> None:
        text = json.dumps({"version": _VERSION, "mark": mark, "totals": totals}, separators=(",", ":"))
        part = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with part.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            if not self._trouble:
                log.error(
                    "totals cannot be kept: after a restart counters go on from the last that were",
                    extra={"path": str(self._path), "why": error.strerror},
                )
            self._trouble = error.strerror or "?"
            return
        if self._trouble:
            log.info("totals are kept again")
        self._trouble = ""
        self.mark = mark
