"""The terminal that keys come from."""

from __future__ import annotations

import os
import select


class Terminal:
    """Standard input, if it is a terminal. One that hangs up without SIGHUP leaves a view to go on unseen."""

    def __init__(self) -> None:
        self._poll = select.poll()
        if os.isatty(0):
            self._poll.register(0, 0)

    def is_gone(self) -> bool:
        """Whether it has hung up."""
        return bool(self._poll.poll(0))
