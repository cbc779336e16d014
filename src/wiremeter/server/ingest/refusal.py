"""Why a batch or a heartbeat is not taken."""

from __future__ import annotations

from wiremeter.errors import WiremeterError


class Refusal(WiremeterError):
    """status: of the HTTP answer. reason: one of a few words, for metrics. is_final: it will never be taken.

    retry_after: seconds after which trying again makes sense.
    """

    def __init__(
        self, status: int, reason: str, text: str, *, is_final: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.is_final = is_final
        self.retry_after = retry_after
