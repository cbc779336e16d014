"""What has to be done every few seconds, in a thread: a task that fails is told of, and tried again the next time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from wiremeter.errors import WiremeterError

_log = logging.getLogger(__name__)

#: Seconds between two rounds.
EVERY_SECONDS = 5.0


class Upkeep:
    """The thread. tasks: by what they do, for the log."""

    def __init__(self, tasks: Mapping[str, Callable[[], None]]) -> None:
        self._tasks = tasks
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-upkeep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it, after the task that runs."""
        self._is_ended.set()
        self._thread.join()

    def _run(self) -> None:
        failing: set[str] = set()
        while not self._is_ended.wait(EVERY_SECONDS):
            for what, task in self._tasks.items():
                try:
                    task()
                except WiremeterError as error:
                    if what not in failing:  # once, until it works again
                        _log.warning("%s failed, and is tried again: %s", what, error)
                    failing.add(what)
                except Exception:
                    _log.exception("%s failed, and is tried again", what)
                else:
                    if what in failing:
                        _log.warning("%s works again", what)
                    failing.discard(what)
