"""Whether the store answers, for those who probe it: one that hangs costs them some time, and nobody else anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from wiremeter.errors import WiremeterError

#: Longest that a probe waits. Kubernetes gives its probes one second unless told otherwise.
ANSWER_SECONDS = 2.0


class Readiness:
    """For one event loop. One thread of its own asks, once for all who want to know meanwhile: probes come without
    authentication, and would take the threads that batches need."""

    def __init__(self, ask: Callable[[], object]) -> None:
        """ask: asks the store, and raises WiremeterError if it does not answer."""
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, "store-probe")
        self._asked: Future[str] | None = None

    async def why_not(self) -> str:
        """Why it is not ready, "" if it is."""
        if self._asked is None or self._asked.done():
            self._asked = self._thread.submit(self._why_not)
        done, _ = await asyncio.wait({asyncio.wrap_future(self._asked)}, timeout=ANSWER_SECONDS)
        return done.pop().result() if done else f"no answer within {ANSWER_SECONDS:g} s"

    def _why_not(self) -> str:
        try:
            self._ask()
        except WiremeterError as error:
            return str(error)
        return ""
